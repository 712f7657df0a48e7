//! What verifying and committing have in common: the request, its limits, and the answer.

use std::time::Duration;

use super::{AnswerDto, ResultDto, VerifiedListDto, outcome};
use crate::http::auth::Authenticated;
use crate::http::keys::KEYS_PER_REQUEST;
use crate::http::problem::Problem;
use crate::turns::Turn;
use crate::upload::{Expected, Verification};

/// What a request asks for.
pub(in crate::http) struct Request {
    pub(in crate::http) expected: Vec<Expected>,
    pub(super) is_list: bool,
    pub(in crate::http) policy: Option<String>,
    pub(in crate::http) wait: Duration,
}

impl Request {
    /// Counts the request by its keys. If it waits for uploads, it holds a permit of the caller
    /// until it is answered.
    pub(in crate::http) fn admit(
        &self,
        caller: &Authenticated,
    ) -> axum::response::Result<Option<Turn>> {
        // Each key is a call to the store.
        caller.count_more((self.expected.len() - 1) / KEYS_PER_REQUEST)?;
        match self.wait {
            Duration::ZERO => Ok(None),
            _ => Ok(Some(caller.wait()?)),
        }
    }

    pub(in crate::http) fn answer(self, found: Vec<Verification>) -> Result<AnswerDto, Problem> {
        let mut results = self.expected.into_iter().zip(found);
        if self.is_list {
            let results = results.map(|(expected, found)| ResultDto::new(expected.key, found));
            let results = results.collect();
            return Ok(AnswerDto::Many(VerifiedListDto { results }));
        }
        let (_, found) = results.next().ok_or_else(Problem::internal)?;
        Ok(AnswerDto::One(outcome(found)?))
    }
}
