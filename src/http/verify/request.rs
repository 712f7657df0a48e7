//! What verifying and committing have in common: the request, its limits, and the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::Result;

use super::{AnswerDto, ResultDto, VerifiedListDto, outcome};
use crate::http::auth::Authenticated;
use crate::http::keys::KEYS_PER_REQUEST;
use crate::http::problem::Problem;
use crate::upload::{Expected, UploadService};

/// What a request asks for.
pub(in crate::http) struct Request {
    pub(super) expected: Vec<Expected>,
    pub(super) is_list: bool,
    pub(super) policy: Option<String>,
    pub(super) wait: Duration,
}

impl Request {
    /// Verifies the uploads, and commits them if `commits` says so.
    pub(in crate::http) async fn answer(
        self,
        uploads: &Arc<UploadService>,
        caller: &Authenticated,
        commits: bool,
    ) -> Result<Json<AnswerDto>> {
        let Self {
            expected,
            is_list,
            policy,
            wait,
        } = self;
        // Each key is a call to the store.
        caller.count_more((expected.len() - 1) / KEYS_PER_REQUEST)?;
        let _waiting = match wait {
            Duration::ZERO => None,
            _ => Some(caller.wait()?),
        };
        let policy = policy.as_deref();
        let found = if commits {
            uploads.commit(caller, policy, &expected, wait).await?
        } else {
            uploads.verify(caller, policy, &expected, wait).await?
        };
        let mut results = expected.into_iter().zip(found);
        if is_list {
            let results = results.map(|(expected, found)| ResultDto::new(expected.key, found));
            let results = results.collect();
            return Ok(Json(AnswerDto::Many(VerifiedListDto { results })));
        }
        let (_, found) = results.next().ok_or_else(Problem::internal)?;
        Ok(Json(AnswerDto::One(outcome(found)?)))
    }
}
