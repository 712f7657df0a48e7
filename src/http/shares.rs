//! Limits on what one caller, and all callers together, hold at the same time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use super::auth::CallerKey;

/// Counts how much of something each caller holds, such as bytes of answers.
#[derive(Clone, Debug)]
pub(super) struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    per_caller: usize,
    in_all: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: usize,
    by_caller: HashMap<CallerKey, usize>,
}

/// What a caller holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    caller: CallerKey,
    amount: usize,
}

impl Shares {
    pub(super) fn new(per_caller: usize, in_all: usize) -> Self {
        Self(Arc::new(Inner {
            per_caller,
            in_all,
            held: Mutex::default(),
        }))
    }

    /// `None` when the caller, or all of them, would hold too much. One share alone is never too
    /// much, however large it is.
    pub(super) fn try_take(&self, caller: &CallerKey, amount: usize) -> Option<Share> {
        let exceeds = |held: usize, limit: usize| held > 0 && held.saturating_add(amount) > limit;
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let by_caller = held.by_caller.get(caller).copied().unwrap_or_default();
        if exceeds(by_caller, self.0.per_caller) || exceeds(held.in_all, self.0.in_all) {
            return None;
        }
        held.by_caller.insert(caller.clone(), by_caller + amount);
        held.in_all += amount;
        Some(Share {
            shares: self.clone(),
            caller: caller.clone(),
            amount,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = &self.shares.0.held;
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.in_all -= self.amount;
        if let Entry::Occupied(mut entry) = held.by_caller.entry(self.caller.clone()) {
            *entry.get_mut() -= self.amount;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CallerKey {
        CallerKey::Name(name.into())
    }

    #[test]
    fn a_caller_gets_its_share_and_takes_nothing_from_others() {
        let shares = Shares::new(10, 15);
        let first = shares.try_take(&named("a"), 8).unwrap();
        assert!(shares.try_take(&named("a"), 3).is_none());
        let second = shares.try_take(&named("b"), 7).unwrap();
        assert!(shares.try_take(&named("c"), 1).is_none());
        drop(first);
        assert!(shares.try_take(&named("a"), 8).is_some());
        drop(second);
        assert!(shares.0.held.lock().unwrap().by_caller.is_empty());
        assert_eq!(shares.0.held.lock().unwrap().in_all, 0);
    }

    #[test]
    fn one_share_alone_may_be_large() {
        let shares = Shares::new(10, 15);
        let _large = shares.try_take(&named("a"), 100).unwrap();
        assert!(shares.try_take(&named("a"), 1).is_none());
    }
}
