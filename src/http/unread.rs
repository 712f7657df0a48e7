//! Long answers that their clients have not read yet. The slowest readers are disconnected when
//! others need the memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Duration, Instant};

use super::memory::{Mapped, count};
use super::problem::{Problem, catalogue, retry_later};
use super::server::Closer;
use crate::turns::{CallerKey, Full, Turn, Turns};

/// How long each client may read an answer even if others need its room.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer answers count against the budget of bytes that wait to be read.
const SHORT_ANSWER_BYTES: usize = 64 * 1024;
/// The size of the pieces in which a connection gets an answer.
const PART_BYTES: usize = 64 * 1024;

/// The long answers that are being sent.
#[derive(Debug)]
pub(super) struct Unread {
    turns: Turns,
    answers: Mutex<Vec<Weak<Answer>>>,
}

impl Unread {
    pub(super) fn new(turns: Turns) -> Self {
        Self {
            turns,
            answers: Mutex::default(),
        }
    }

    /// The same answer, or a refusal. A long one stays in memory until the client has read it, so
    /// each caller, and all of them together, may only have a number of bytes waiting.
    pub(super) async fn within_budget(&self, response: Response, caller: &CallerKey) -> Response {
        let length = response.body().size_hint().lower();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length <= SHORT_ANSWER_BYTES {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let Some(answer) = self.admit(caller, length) else {
            let refusal = retry_later(&catalogue::ANSWERS_UNREAD, Duration::from_secs(1));
            return with_headers_of(parts, refusal);
        };
        let copy = match copied(body).await {
            Ok(copy) => copy,
            Err(problem) => return with_headers_of(parts, problem.into_response()),
        };
        parts.extensions.insert(Arc::clone(&answer)); // for the connection
        Response::from_parts(parts, Body::new(answer.body(copy)))
    }

    /// Reserves room for an answer. If there is none, closes the slowest connections, which makes
    /// room for later answers.
    pub(super) fn admit(&self, caller: &CallerKey, bytes: usize) -> Option<Arc<Answer>> {
        let turn = match self.turns.try_acquire(Some(caller), count(bytes)) {
            Ok(turn) => turn,
            Err(full) => {
                for answer in self.slowest(full, caller, count(bytes)) {
                    answer.close_for_others();
                }
                return None;
            }
        };
        let answer = Arc::new(Answer {
            caller: caller.clone(),
            bytes: count(bytes),
            begin: Instant::now(),
            sent: AtomicU32::new(0),
            connection: OnceLock::new(),
            _turn: turn,
        });
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&answer));
        Some(answer)
    }

    /// The slowest answers that can make room for `bytes` of the caller, and no more of them than
    /// necessary.
    fn slowest(&self, full: Full, caller: &CallerKey, bytes: u32) -> Vec<Arc<Answer>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = answers.iter().filter_map(Weak::upgrade);
        let mut slow: Vec<_> = answers
            .filter(|answer| answer.begin.elapsed() >= PATIENCE)
            // A caller that has used up its own limit takes nothing from others.
            .filter(|answer| match full {
                Full::Caller => answer.caller == *caller,
                Full::Users => answer.caller.api_key() == caller.api_key(),
                Full::All => true,
            })
            .collect();
        slow.sort_by_cached_key(|answer| answer.bytes_per_second());
        let mut room = 0;
        let enough = slow.iter().position(|answer| {
            room += answer.bytes;
            room >= bytes
        });
        slow.truncate(enough.map_or(slow.len(), |last| last + 1));
        slow
    }
}

/// The bytes of an answer, in memory of their own.
async fn copied(body: Body) -> Result<Mapped, Problem> {
    let bytes = body.collect().await.map_err(Problem::internal)?.to_bytes();
    let mut copy = Mapped::new(bytes.len()).map_err(Problem::internal)?;
    copy.extend(&bytes);
    Ok(copy)
}

/// An answer in place of another one, whose headers let pages of other origins read it.
fn with_headers_of(replaced: Parts, mut response: Response) -> Response {
    let own = std::mem::replace(response.headers_mut(), replaced.headers);
    response.headers_mut().extend(own);
    response
}

/// An answer and its room, until all of it has been sent.
#[derive(Debug)]
pub(super) struct Answer {
    caller: CallerKey,
    bytes: u32,
    begin: Instant,
    sent: AtomicU32,
    connection: OnceLock<Closer>,
    _turn: Turn,
}

impl Answer {
    /// Sets the connection that sends the answer, so that it can be closed.
    pub(super) fn set_connection(&self, connection: Closer) {
        self.connection.set(connection).ok(); // an answer has one connection
    }

    fn close_for_others(&self) {
        // In AWS Lambda, presignd has no connection that it could close.
        if let Some(connection) = self.connection.get() {
            connection.close_for_others();
        }
    }

    fn bytes_per_second(&self) -> u128 {
        let sent = u128::from(self.sent.load(Ordering::Relaxed));
        sent * 1000 / self.begin.elapsed().as_millis().max(1)
    }

    pub(super) fn body(self: Arc<Self>, bytes: Mapped) -> AnswerBody {
        // The room lasts as long as the bytes, which hyper keeps until they are sent.
        let rest = Bytes::from_owner(Kept(bytes, Arc::clone(&self)));
        AnswerBody { rest, answer: self }
    }
}

struct Kept(
    Mapped,
    #[expect(dead_code, reason = "held until it is dropped")] Arc<Answer>,
);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// The answer in pieces. When hyper asks for the next one, it has sent most of the earlier ones.
pub(super) struct AnswerBody {
    rest: Bytes,
    answer: Arc<Answer>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let sent = self.answer.bytes.saturating_sub(count(self.rest.len()));
        self.answer.sent.store(sent, Ordering::Relaxed);
        let length = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(count(self.rest.len()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Amounts;
    use crate::turns::tests::{named, user};

    fn unread() -> Unread {
        Unread::new(Turns::new(Amounts {
            caller: 1000,
            users: 1500,
            all: 2000,
        }))
    }

    /// An answer of which this much has been sent.
    fn answer(unread: &Unread, caller: &CallerKey, bytes: usize, sent: u32) -> Arc<Answer> {
        let answer = unread.admit(caller, bytes).unwrap();
        answer.sent.store(sent, Ordering::Relaxed);
        answer
    }

    fn is(found: &[Arc<Answer>], expected: &[&Arc<Answer>]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_make_room_and_no_more_of_them_than_have_to() {
        let unread = unread();
        let fast = answer(&unread, &named("a"), 500, 400);
        let slow = answer(&unread, &named("b"), 500, 100);
        let slowest = answer(&unread, &named("c"), 500, 0);
        let new = |bytes| unread.slowest(Full::All, &named("d"), bytes);
        assert!(new(500).is_empty(), "all of them have time");
        tokio::time::advance(PATIENCE).await;
        let newest = answer(&unread, &named("b"), 500, 0);
        assert!(is(&new(500), &[&slowest]));
        assert!(is(&new(501), &[&slowest, &slow]));
        assert!(is(&new(2000), &[&slowest, &slow, &fast]));
        drop((slowest, newest));
        assert!(is(&new(500), &[&slow]));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_used_up_its_part_takes_nothing_from_others() {
        let unread = unread();
        let of_other = answer(&unread, &named("a"), 500, 0);
        let of_user = answer(&unread, &user("a"), 500, 100);
        let own = answer(&unread, &user("b"), 1000, 900);
        tokio::time::advance(PATIENCE).await;
        let slowest = |full| unread.slowest(full, &user("b"), 1);
        assert!(is(&slowest(Full::Caller), &[&own]));
        assert!(is(&slowest(Full::Users), &[&of_user]));
        assert!(is(&slowest(Full::All), &[&of_other]));
    }
}
