//! How many calls to the store callers may have in progress.

use std::time::Duration;

use tokio::time::timeout;

use super::{Caller, Error, Result};
use crate::s3;
use crate::turns::{Amounts, Turn, Turns};

/// How long a call may wait for its turn. It is longer than a call, so that a store that
/// does not answer is reported as the cause, and not other requests.
pub(super) const QUEUE_TIMEOUT: Duration = s3::CALL_TIMEOUT.saturating_add(Duration::from_secs(5));
/// How long a list may wait for its turn.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// A list of more keys waits for its turn among other lists.
const SHORT_LIST: usize = 16;

/// Limits the concurrent calls to the store for objects and for uploads that begin or are aborted: each
/// holds a connection to the store.
#[derive(Debug)]
pub(super) struct StoreCalls {
    calls: Turns,
    /// The keys of the lists in progress: slightly more than keep all calls busy. If all
    /// lists ran at the same time, too many of them would make all of them time out.
    listed: Turns,
}

impl Default for StoreCalls {
    fn default() -> Self {
        let turns = |caller, users, all| Turns::new(Amounts { caller, users, all });
        Self {
            calls: turns(16, 32, 64),
            listed: turns(200, 300, 600),
        }
    }
}

impl StoreCalls {
    /// Waits for the turn of a list of this many keys. A short one need not wait.
    ///
    /// # Errors
    ///
    /// [`Error::TooMuchAtOnce`] if that takes too long.
    pub(super) async fn list(&self, caller: &Caller, keys: usize) -> Result<Option<Turn>> {
        if keys <= SHORT_LIST {
            return Ok(None);
        }
        let (caller, keys) = (caller.key(), u32::try_from(keys).unwrap_or(u32::MAX));
        let turn = timeout(LIST_TIMEOUT, self.listed.acquire(caller.as_ref(), keys)).await;
        turn.map(Some).map_err(|_elapsed| Error::TooMuchAtOnce)
    }

    /// Waits until there may be one more call.
    ///
    /// # Errors
    ///
    /// [`Error::TooMuchAtOnce`] if that takes too long.
    pub(super) async fn turn(&self, caller: &Caller) -> Result<Turn> {
        let caller = caller.key();
        let turn = self.calls.acquire(caller.as_ref(), 1);
        let turn = timeout(QUEUE_TIMEOUT, turn).await;
        turn.map_err(|_elapsed| Error::TooMuchAtOnce)
    }
}
