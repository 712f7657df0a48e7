//! The memory that long requests may use: each caller has a limit, and all of them together use
//! little enough for a small container.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use memmap2::MmapMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::catalogue::{self, Kind};
use super::problem::retry_later;
use super::unread::Unread;
use crate::turns::{Amounts, CallerKey, Turn, Turns, Waiting};

const MIB: u32 = 1024 * 1024;
/// How long a request waits for earlier ones.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of all callers' long bodies that may have arrived but are not parsed yet.
const ARRIVED: usize = 32 * 1024 * 1024;
/// How many bodies may be received to their end when there is no room left.
const OVERDRAFTS: usize = 4;

/// A long body's share of the room of all callers.
#[derive(Debug)]
pub(super) enum Room {
    Part(OwnedSemaphorePermit),
    AllOfIt(OwnedSemaphorePermit),
}

/// The memory that a request needs while it is processed, in bytes. Short work needs no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Short,
    /// Takes some milliseconds of processor time.
    Sign(usize),
    /// Takes as long as the store does, so it must not keep others from signing.
    AskStore(usize),
}

/// The memory in use, by kind.
#[derive(Debug)]
pub(super) struct Memory {
    /// Held from the time when a body is known to be long. Its whole length counts at once: if it
    /// counted as it arrives, the bodies of one caller could wait for each other forever.
    bodies: Turns,
    /// The bytes that have arrived, of all callers. Announced bytes do not count, so announcing
    /// bodies takes nothing from others.
    arrived: Arc<Semaphore>,
    /// A body with one of these permits needs no more room. Without them, bodies that have arrived
    /// in part could wait for each other forever.
    overdrafts: Arc<Semaphore>,
    /// How many bodies wait for the room of all callers.
    waiting: AtomicUsize,
    sign: Turns,
    ask_store: Turns,
    pub(super) unread: Unread,
}

impl Memory {
    pub(super) fn new() -> Self {
        let turns = |caller, users, all| Turns::new(Amounts { caller, users, all });
        Self {
            bodies: turns(4 * MIB, 16 * MIB, u32::MAX),
            arrived: Arc::new(Semaphore::new(ARRIVED)),
            overdrafts: Arc::new(Semaphore::new(OVERDRAFTS)),
            waiting: AtomicUsize::new(0),
            sign: turns(16 * MIB, 32 * MIB, 48 * MIB),
            ask_store: turns(6 * MIB, 16 * MIB, 32 * MIB),
            unread: Unread::new(turns(6 * MIB, 16 * MIB, 32 * MIB)),
        }
    }

    /// Waits until the caller's own limit has room for a long body.
    ///
    /// # Errors
    ///
    /// The answer when earlier bodies keep the room for too long.
    pub(super) async fn body(
        &self,
        caller: Option<&CallerKey>,
        bytes: usize,
    ) -> Result<Turn, Response> {
        let kind = &catalogue::TOO_MANY_LONG_BODIES;
        wait(&self.bodies, caller, bytes, kind).await
    }

    /// Whether another body waits for room that a long one of this caller has.
    pub(super) fn is_wanted(&self, caller: Option<&CallerKey>) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.bodies.is_wanted(caller)
    }

    /// Waits until the limit of all callers has room for a part of a long body that has arrived, or
    /// for all of it. `None` if the body has to wait too long; it has already `waited` for this
    /// time.
    pub(super) async fn arrived(&self, bytes: usize, waited: Duration) -> Option<Room> {
        if let Ok(part) = Arc::clone(&self.arrived).try_acquire_many_owned(count(bytes)) {
            return Some(Room::Part(part));
        }
        if let Ok(all) = Arc::clone(&self.overdrafts).try_acquire_owned() {
            return Some(Room::AllOfIt(all));
        }
        let _waiting = Waiting::new(&self.waiting);
        let part = Arc::clone(&self.arrived).acquire_many_owned(count(bytes));
        let overdraft = Arc::clone(&self.overdrafts).acquire_owned();
        let room = async {
            tokio::select! {
                biased;
                part = part => part.ok().map(Room::Part),
                all = overdraft => all.ok().map(Room::AllOfIt),
            }
        };
        timeout(TURN_TIMEOUT.saturating_sub(waited), room)
            .await
            .ok()?
    }

    /// Waits for the memory that the work on a request needs.
    ///
    /// # Errors
    ///
    /// The answer when earlier requests keep it for too long.
    pub(super) async fn work(
        &self,
        caller: Option<&CallerKey>,
        work: Work,
    ) -> Result<Option<Turn>, Response> {
        let (turns, bytes) = match work {
            Work::Short => return Ok(None),
            Work::Sign(bytes) => (&self.sign, bytes),
            Work::AskStore(bytes) => (&self.ask_store, bytes),
        };
        wait(turns, caller, bytes, &catalogue::TOO_MUCH_AT_ONCE)
            .await
            .map(Some)
    }
}

/// Bytes whose memory returns to the system as soon as they are dropped. The allocator would keep
/// most of the memory of many clients' bodies, in pieces too small to reuse.
pub(super) struct Mapped {
    map: MmapMut,
    length: usize,
}

impl Mapped {
    /// Reserves this many bytes. Only those that are written take memory.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(capacity)?;
        Ok(Self { map, length: 0 })
    }

    /// Appends bytes, which must fit into the capacity.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.map[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map[..self.length]
    }
}

async fn wait(
    turns: &Turns,
    caller: Option<&CallerKey>,
    bytes: usize,
    kind: &Kind,
) -> Result<Turn, Response> {
    let turn = timeout(TURN_TIMEOUT, turns.acquire(caller, count(bytes)));
    turn.await
        .map_err(|_elapsed| retry_later(kind, Duration::from_secs(1)))
}

pub(super) fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::turns::tests::{named, user};

    #[tokio::test]
    async fn whoever_waits_for_its_own_room_wants_none_of_others() {
        let memory = Memory::new();
        let (alice, bob) = (named("alice"), named("bob"));
        let users = ["a", "b", "c", "d", "e"].map(user);
        let body = |caller| memory.body(Some(caller), 4 * 1024 * 1024);
        let _first = body(&alice).await.unwrap();
        assert!(!memory.is_wanted(Some(&alice)));
        let second = body(&alice);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        assert!(memory.is_wanted(Some(&alice)));
        assert!(!memory.is_wanted(Some(&bob)));
        // The users of one API key wait for each other's room once they have all of theirs.
        let mut held = Vec::new();
        for user in &users[..4] {
            held.push(body(user).await.unwrap());
        }
        let fifth = body(&users[4]);
        tokio::pin!(fifth);
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(memory.is_wanted(Some(&users[0])));
        assert!(!memory.is_wanted(Some(&bob)));
    }

    #[tokio::test]
    async fn whoever_waits_for_the_room_of_all_wants_that_of_anyone() {
        let memory = Memory::new();
        let arrived = |bytes| memory.arrived(bytes, Duration::ZERO);
        let mut held = vec![arrived(ARRIVED).await];
        assert!(!memory.is_wanted(Some(&named("alice"))));
        for _ in 0..OVERDRAFTS {
            held.push(arrived(1).await);
        }
        let next = arrived(1);
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none());
        assert!(memory.is_wanted(Some(&named("alice"))));
        drop(held);
        assert!(next.await.is_some());
        assert!(!memory.is_wanted(None));
    }

    #[test]
    fn unread_answers_have_a_limit_for_each_caller_and_for_all() {
        let memory = Memory::new();
        let admitted = |n: u32| {
            let caller = CallerKey::Name(n.to_string().into());
            let admit = || memory.unread.admit(&caller, 1024 * 1024);
            std::iter::from_fn(admit).collect::<Vec<_>>()
        };
        let mut answers = admitted(0);
        assert_eq!(answers.len(), 6);
        answers.extend((1..100).flat_map(admitted));
        assert_eq!(answers.len(), 32);
    }
}
