//! Limits on what callers share, such as memory: one for each caller, and one for all of them
//! together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A caller for the purpose of limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallerKey {
    Name(Arc<str>),
    /// All callers without a name in a network.
    Network(IpAddr),
    /// A user whom the holder of an API key calls for.
    User {
        api_key: Arc<str>,
        name: Arc<str>,
    },
}

impl CallerKey {
    /// The API key whose holder calls for this user.
    pub(crate) fn api_key(&self) -> Option<&str> {
        match self {
            Self::User { api_key, .. } => Some(api_key),
            Self::Name(_) | Self::Network(_) => None,
        }
    }
}

/// The amounts that may be in use at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    pub(crate) caller: u32,
    /// For all users of one API key together. Each of them is a caller, too.
    pub(crate) users: u32,
    pub(crate) all: u32,
}

/// Limits of the callers that use something at the moment. Other callers take no memory.
#[derive(Debug)]
pub(crate) struct Turns {
    amounts: Amounts,
    in_use: Mutex<HashMap<Sharer, Weak<Limit>>>,
    all: Arc<Limit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sharer {
    Caller(CallerKey),
    UsersOf(Arc<str>),
}

/// The limit that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Caller,
    /// All users whom the holder of one API key calls for.
    Users,
    All,
}

/// An amount in use, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held until it is dropped")] Permits);

/// An amount of one limit, which returns there when it is dropped. The limit exists until then.
type Permit = (OwnedSemaphorePermit, Arc<Limit>);
/// Permits of the caller's limit, of the limit of its API key's users, and of the limit of all.
type Permits = [Option<Permit>; 3];
/// The limits, and how much to take from each.
type Levels = [Option<(Arc<Limit>, u32)>; 3];

#[derive(Debug)]
struct Limit {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts as one that waits, until it is dropped.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl Turns {
    pub(crate) fn new(amounts: Amounts) -> Self {
        Self {
            amounts,
            in_use: Mutex::default(),
            all: Limit::new(amounts.all),
        }
    }

    /// Waits until the caller may use this amount. Requests are served in order. An amount beyond
    /// the caller's limit is reduced to it. An unknown caller has only the limit of all.
    pub(crate) async fn acquire(&self, caller: Option<&CallerKey>, amount: u32) -> Turn {
        let mut permits = Permits::default();
        // Always in this order, so that no two requests wait for each other. A request joins the
        // queue of all only once its caller's own limit has room.
        for (permit, level) in permits.iter_mut().zip(self.levels(caller, amount)) {
            if let Some((limit, amount)) = level {
                *permit = limit.acquire(amount).await;
            }
        }
        Turn(permits)
    }

    /// # Errors
    ///
    /// The limit that is used up.
    pub(crate) fn try_acquire(
        &self,
        caller: Option<&CallerKey>,
        amount: u32,
    ) -> Result<Turn, Full> {
        let mut permits = Permits::default();
        let levels = self.levels(caller, amount).into_iter();
        let levels = levels.zip([Full::Caller, Full::Users, Full::All]);
        for (permit, (level, full)) in permits.iter_mut().zip(levels) {
            if let Some((limit, amount)) = level {
                *permit = Some(limit.try_acquire(amount).ok_or(full)?);
            }
        }
        Ok(Turn(permits))
    }

    /// Whether a request waits for a limit that this caller shares.
    pub(crate) fn is_wanted(&self, caller: Option<&CallerKey>) -> bool {
        let levels = self.levels(caller, 0);
        let mut limits = levels.iter().flatten();
        limits.any(|(limit, _)| limit.waiting.load(Ordering::Relaxed) > 0)
    }

    fn levels(&self, caller: Option<&CallerKey>, amount: u32) -> Levels {
        let amounts = self.amounts;
        // No caller takes more of what all share than its own limit allows.
        let amount = match caller {
            Some(CallerKey::User { .. }) => amount.min(amounts.caller).min(amounts.users),
            Some(_) => amount.min(amounts.caller),
            None => amount,
        };
        let amount = amount.min(amounts.all);
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let mut level = |sharer, part| (limit_of(&mut in_use, sharer, part), amount);
        let of_users = match caller {
            Some(CallerKey::User { api_key, .. }) => {
                Some(level(Sharer::UsersOf(Arc::clone(api_key)), amounts.users))
            }
            _ => None,
        };
        let of_caller = caller.map(|caller| level(Sharer::Caller(caller.clone()), amounts.caller));
        [of_caller, of_users, Some((Arc::clone(&self.all), amount))]
    }
}

fn limit_of(in_use: &mut HashMap<Sharer, Weak<Limit>>, sharer: Sharer, part: u32) -> Arc<Limit> {
    if let Some(limit) = in_use.get(&sharer).and_then(Weak::upgrade) {
        return limit;
    }
    if in_use.len() == in_use.capacity() {
        // Unused entries are removed only when the map is full. Its capacity then doubles, so this
        // is rare.
        in_use.retain(|_, limit| limit.strong_count() > 0);
        in_use.reserve(in_use.len() + 1);
    }
    let limit = Limit::new(part);
    in_use.insert(sharer, Arc::downgrade(&limit));
    limit
}

impl Limit {
    fn new(permits: u32) -> Arc<Self> {
        let permits = usize::try_from(permits).unwrap_or(usize::MAX);
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
        })
    }

    /// `None` only if the semaphore is closed, and nothing closes it.
    async fn acquire(self: Arc<Self>, amount: u32) -> Option<Permit> {
        if let Some(permit) = self.try_acquire(amount) {
            return Some(permit);
        }
        let waiting = Waiting::new(&self.waiting);
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_many_owned(amount).await.ok()?;
        drop(waiting);
        Some((permit, self))
    }

    fn try_acquire(self: &Arc<Self>, amount: u32) -> Option<Permit> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.try_acquire_many_owned(amount).ok()?;
        Some((permit, Arc::clone(self)))
    }
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures_util::FutureExt;

    use super::*;

    pub(crate) fn named(name: &str) -> CallerKey {
        CallerKey::Name(name.into())
    }

    pub(crate) fn user(name: &str) -> CallerKey {
        CallerKey::User {
            api_key: "backend".into(),
            name: name.into(),
        }
    }

    fn turns(caller: u32, users: u32, all: u32) -> Turns {
        Turns::new(Amounts { caller, users, all })
    }

    #[test]
    fn a_caller_gets_its_part_and_takes_nothing_from_others() {
        let turns = turns(10, 12, 15);
        let take = |name, amount| turns.try_acquire(Some(&named(name)), amount);
        let first = take("a", 8).unwrap();
        assert_eq!(take("a", 3).unwrap_err(), Full::Caller);
        let _second = take("b", 7).unwrap();
        assert_eq!(take("c", 1).unwrap_err(), Full::All);
        assert!(turns.try_acquire(None, 1).is_err());
        drop(first);
        assert!(take("c", 8).is_ok());
    }

    #[test]
    fn an_amount_beyond_the_callers_limit_is_reduced_to_it() {
        let turns = turns(10, 12, 15);
        let _large = turns.try_acquire(Some(&named("a")), 100).unwrap();
        assert!(turns.try_acquire(Some(&named("a")), 1).is_err());
        assert!(turns.try_acquire(Some(&named("b")), 5).is_ok());
    }

    #[test]
    fn each_user_of_an_api_key_has_a_part_and_all_of_them_have_less_than_there_is() {
        let turns = turns(4, 8, 16);
        let _first = turns.try_acquire(Some(&user("a")), 4).unwrap();
        let more = |name| turns.try_acquire(Some(&user(name)), 1).unwrap_err();
        assert_eq!(more("a"), Full::Caller);
        let _second = turns.try_acquire(Some(&user("b")), 4).unwrap();
        assert_eq!(more("c"), Full::Users);
        // The holder of the key itself, and everyone else, are not affected.
        assert!(turns.try_acquire(Some(&named("backend")), 4).is_ok());
        assert!(turns.try_acquire(Some(&named("a")), 4).is_ok());
    }

    #[test]
    fn a_caller_that_waits_for_its_own_limit_blocks_no_others() {
        let turns = turns(10, 12, 15);
        let (a, b) = (named("a"), named("b"));
        let _held = turns.try_acquire(Some(&a), 10).unwrap();
        let waiting = turns.acquire(Some(&a), 1);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(turns.acquire(Some(&b), 5).now_or_never().is_some());
    }

    #[test]
    fn callers_that_use_nothing_take_no_memory() {
        let turns = turns(1, 1, 1);
        for n in 0..10_000 {
            turns.try_acquire(Some(&named(&n.to_string())), 1).unwrap();
        }
        assert!(turns.in_use.lock().unwrap().len() < 100);
    }
}
