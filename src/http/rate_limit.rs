//! How often each caller may call.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::turns::CallerKey;

/// How often each caller may call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per second, on average.
    pub per_second: f64,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
}

/// Counts the requests of each caller, and of each network of callers without a name.
///
/// - A hash with a secret of the process assigns a caller to a slot. There are 131,072 slots for
///   names and as many for networks, of 8 bytes each, so no flood takes more memory than those, and
///   no flood of addresses costs a caller with a name anything.
/// - Callers in the same slot share its rate; nobody can choose a slot.
pub(super) struct RateLimit {
    limiter: RateLimiter<Slot, Slots, MonotonicClock, NoOpMiddleware<Instant>>,
    hasher: RandomState,
    burst: NonZeroU32,
}

/// The first half is for networks, the second for names.
struct Slots(Box<[InMemoryState]>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Slot {
    index: usize,
    /// Whether to decide without counting.
    is_dry_run: bool,
}

impl StateStore for Slots {
    type Key = Slot;

    fn measure_and_replace<T, F, E>(&self, slot: &Slot, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let state = &self.0[slot.index];
        if !slot.is_dry_run {
            return state.measure_and_replace(&NotKeyed::NonKey, decide);
        }
        // An error keeps the state as it is.
        let decided = state.measure_and_replace(&NotKeyed::NonKey, |count| {
            Err::<((), Nanos), _>(decide(count).map(|(value, _)| value))
        });
        match decided {
            Err(decision) => decision,
            Ok(()) => unreachable!("the closure only has errors"),
        }
    }
}

impl RateLimit {
    const SLOTS: usize = 1 << 17;

    pub(super) fn new(rate: Rate) -> Self {
        let period = Duration::from_secs_f64(1.0 / rate.per_second);
        let quota = Quota::with_period(period)
            // A period below one nanosecond is no limit.
            .unwrap_or(Quota::per_second(NonZeroU32::MAX))
            .allow_burst(rate.burst);
        let slots = (0..2 * Self::SLOTS).map(|_| InMemoryState::default());
        Self {
            limiter: RateLimiter::new(quota, Slots(slots.collect()), MonotonicClock),
            hasher: RandomState::new(),
            burst: rate.burst,
        }
    }

    /// Adds `more` to a request that already counts as `counted` requests, up to a burst, so that a
    /// caller that has waited is let through. Returns the new total.
    ///
    /// # Errors
    ///
    /// How long the caller has to wait before it sends the request again, if there were too many.
    pub(super) fn count(
        &self,
        caller: &CallerKey,
        counted: u32,
        more: NonZeroU32,
    ) -> Result<u32, Duration> {
        let all = more.saturating_add(counted).min(self.burst);
        if let Some(more) = NonZeroU32::new(all.get() - counted) {
            self.check(caller, more, false)
                // The next attempt is counted from the beginning.
                .map_err(|wait| self.check(caller, all, true).err().unwrap_or(wait))?;
        }
        Ok(all.get())
    }

    /// Whether a request would be counted, without counting it.
    ///
    /// # Errors
    ///
    /// The same as those of [`count`](Self::count).
    pub(super) fn would_count(&self, caller: &CallerKey) -> Result<(), Duration> {
        self.check(caller, NonZeroU32::MIN, true)
    }

    fn check(
        &self,
        caller: &CallerKey,
        requests: NonZeroU32,
        is_dry_run: bool,
    ) -> Result<(), Duration> {
        let slot = Slot {
            index: self.slot(caller),
            is_dry_run,
        };
        match self.limiter.check_key_n(&slot, requests) {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(refused)) => Err(refused.wait_time_from(self.limiter.clock().now())),
        }
    }

    fn slot(&self, caller: &CallerKey) -> usize {
        let (half, hash) = match caller {
            CallerKey::Network(network) => (0, self.hasher.hash_one(network)),
            CallerKey::Name(name) | CallerKey::User { name, .. } => {
                (Self::SLOTS, self.hasher.hash_one(name))
            }
        };
        // The lower bits of a hash are as random as any.
        half + usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default() % Self::SLOTS
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    fn limit(per_second: f64, burst: u32) -> RateLimit {
        let burst = NonZeroU32::new(burst).unwrap();
        RateLimit::new(Rate { per_second, burst })
    }

    fn named(name: &str) -> CallerKey {
        CallerKey::Name(name.into())
    }

    #[test]
    fn a_request_that_counts_as_several_is_let_through_after_the_time_that_its_refusal_names() {
        for burst in [1, 2, 10] {
            let limit = limit(100.0, burst);
            let alice = named("alice");
            // As a route counts a list whose files are asked about, and then signed.
            let send = || {
                let counted = limit.count(&alice, 0, ONE)?;
                let many = NonZeroU32::new(100).unwrap();
                let counted = limit.count(&alice, counted, many)?;
                limit.count(&alice, counted, many)
            };
            while send().is_ok() {}
            // The first refusal cannot know yet what the request counts as, but the second one does.
            let mut refusals = 0;
            while let Err(wait) = send() {
                refusals += 1;
                assert!(refusals <= 2, "a burst of {burst}");
                std::thread::sleep(wait);
            }
        }
    }

    #[test]
    fn a_flood_of_addresses_costs_no_caller_anything() {
        let limit = limit(0.001, 1);
        let mut refused = 0;
        for n in 0..300_000_u128 {
            let network = CallerKey::Network(Ipv6Addr::from_bits(n << 64).into());
            refused += u32::from(limit.count(&network, 0, ONE).is_err());
        }
        // All slots were used up, and no others were added.
        assert!(refused > 150_000, "{refused}");
        assert_eq!(limit.count(&named("alice"), 0, ONE), Ok(1));
    }
}
