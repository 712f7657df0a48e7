//! Which faults are tried at which routes, and what clients may get then. docs/operations.md has it in
//! words.

use std::time::Duration;

use super::proxy::{Fault, Operation};

const ERROR: &str = "<Error><Code>InternalError</Code><Message>secret cause</Message></Error>";
const BUSY: &str = "<Error><Code>SlowDown</Code><Message>secret cause</Message></Error>";
const HTML: &str = "<!doctype html><title>secret cause</title>";

pub(super) const FAULTS: [Fault; 12] = [
    Fault::Closed,
    Fault::Unreachable,
    Fault::Silent,
    Fault::Late,
    Fault::SilentWithin,
    Fault::Reset,
    Fault::AnswerLost,
    Fault::CutShort,
    Fault::Answers(500, ERROR),
    Fault::Answers(503, BUSY),
    Fault::Answers(200, ERROR),
    Fault::Answers(200, HTML),
];

/// The routes that call the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Verify,
    /// Verifying under a policy with `sniff`.
    Sniff,
    Create,
    List,
    Complete,
    Abort,
    Readyz,
}

pub(super) const ROUTES: [Route; 7] = [
    Route::Verify,
    Route::Sniff,
    Route::Create,
    Route::List,
    Route::Complete,
    Route::Abort,
    Route::Readyz,
];

impl Route {
    /// The operation of the store that the fault concerns.
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Verify => Operation::HeadObject,
            Self::Sniff => Operation::GetObject,
            Self::Create => Operation::CreateMultipartUpload,
            Self::List => Operation::ListParts,
            Self::Complete => Operation::CompleteMultipartUpload,
            Self::Abort => Operation::AbortMultipartUpload,
            Self::Readyz => Operation::HeadBucket,
        }
    }

    /// The longest that the answer may take.
    pub(super) fn limit(self) -> Duration {
        let seconds = match self {
            Self::Verify | Self::Sniff | Self::List | Self::Abort => 20,
            Self::Create => 10,
            Self::Complete => 120,
            Self::Readyz => 3,
        };
        Duration::from_secs(seconds)
    }

    /// The statuses that a client may get.
    pub(super) fn expected(self, fault: Fault) -> &'static [u16] {
        match (self, fault) {
            // Any answer of 200 counts: stores differ in what they say.
            (Self::Readyz, Fault::Answers(200, _)) | (Self::Abort, Fault::Answers(200, HTML)) => {
                &[200]
            }
            (Self::Readyz, _) => &[503],
            // The store did it, and presignd finds out.
            (Self::Complete, fault) if fault.reaches_the_store() => &[200],
            (_, Fault::Unreachable | Fault::Silent | Fault::Late) => &[504],
            // Whether this counts as a timeout depends on how far the answer came.
            (_, Fault::SilentWithin) => &[503, 504],
            (_, Fault::Answers(status, _)) if status != 503 => &[502],
            _ => &[503],
        }
    }
}
