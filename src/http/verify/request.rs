//! What verifying and committing have in common: the request, its limits, and the answer.

use std::time::Duration;

use super::{AnswerDto, ResultDto, VerifiedListDto, outcome};
use crate::http::auth::Authenticated;
use crate::http::context::Turn;
use crate::http::keys::KEYS_PER_REQUEST;
use crate::http::problem::Problem;
use crate::http::shares::Share;
use crate::upload::{Expected, MAX_WAIT_KEYS, Verification};

/// What a request asks for.
pub(in crate::http) struct Request {
    pub(in crate::http) expected: Vec<Expected>,
    pub(super) is_list: bool,
    pub(in crate::http) policy: Option<String>,
    pub(in crate::http) wait: Duration,
}

/// What a request has until it is answered, so that one caller cannot have too much at once.
pub(in crate::http) struct Admitted {
    _waiting: Option<Share>,
    _turn: Turn,
}

impl Request {
    /// Counts the request by its keys, and waits until the caller may have one more such request.
    pub(in crate::http) async fn admit(
        &self,
        caller: &Authenticated,
    ) -> axum::response::Result<Admitted> {
        // Each key is a call to the store.
        caller.count_more((self.expected.len() - 1) / KEYS_PER_REQUEST)?;
        let waiting = match self.wait {
            Duration::ZERO => None,
            _ => caller.wait()?,
        };
        let turn = match self.expected.len() {
            ..=MAX_WAIT_KEYS => None,
            _ => caller.turn(1).await?,
        };
        Ok(Admitted {
            _waiting: waiting,
            _turn: turn,
        })
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
