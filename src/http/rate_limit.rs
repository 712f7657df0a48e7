//! How often one may call, and who is calling when they have not said so: the address of the client,
//! also behind proxies.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;

use crate::upload::Caller;

/// How often each caller may call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// On average.
    pub per_second: f64,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

/// Counts what each caller does, and each address that names no caller.
///
/// - Who calls is counted by a slot that is drawn from a hash with a secret of the process. There are
///   131,072 slots for callers and as many for addresses, 8 bytes each, so that no flood takes more
///   memory than those, and no flood of addresses costs a caller anything.
/// - Two who share a slot share its rate; nobody can choose whose slot they get.
pub(super) struct RateLimit {
    limiter: RateLimiter<usize, Slots, MonotonicClock, NoOpMiddleware<Instant>>,
    hasher: RandomState,
    trusted_proxies: Vec<IpNet>,
}

/// Half of them are for callers, half for addresses.
struct Slots(Box<[InMemoryState]>);

impl StateStore for Slots {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, &slot: &usize, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0[slot].measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl RateLimit {
    const SLOTS: usize = 1 << 17;

    pub(super) fn new(rate: Rate, trusted_proxies: Vec<IpNet>) -> Self {
        let period = Duration::from_secs_f64(1.0 / rate.per_second);
        let quota = Quota::with_period(period)
            // Faster than one in a nanosecond is no limit.
            .unwrap_or(Quota::per_second(NonZeroU32::MAX))
            .allow_burst(rate.burst);
        let slots = (0..2 * Self::SLOTS).map(|_| InMemoryState::default());
        Self {
            limiter: RateLimiter::new(quota, Slots(slots.collect()), MonotonicClock),
            hasher: RandomState::new(),
            trusted_proxies,
        }
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    ///
    /// How long to wait, when there were too many.
    pub(super) fn count_caller(&self, caller: &Caller) -> Result<(), Duration> {
        self.count(Self::SLOTS + self.slot(caller.segment()))
    }

    /// Counts a request that came from `peer`, from nobody that is known.
    pub(super) fn count_client(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<(), Duration> {
        let client = client(peer.ip(), headers, &self.trusted_proxies);
        self.count(self.slot(network(client)))
    }

    fn slot(&self, who: impl Hash) -> usize {
        // Of 64 bits or of 32, the lower ones are as good as any.
        usize::try_from(self.hasher.hash_one(who) & u64::from(u32::MAX)).unwrap_or_default()
            % Self::SLOTS
    }

    fn count(&self, slot: usize) -> Result<(), Duration> {
        self.limiter
            .check_key(&slot)
            .map_err(|refused| refused.wait_time_from(self.limiter.clock().now()))
    }
}

/// What counts as one: an IPv4 address, or the 64 bits of an IPv6 one that a household gets.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
    }
}

/// The address of the client: of the last one in `X-Forwarded-For` that a trusted proxy vouches for.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_trusted(client) {
            break;
        }
        // What a trusted proxy wrote that is no address: it is the last one that is known.
        let hop = std::str::from_utf8(hop).unwrap_or_default();
        let Some(address) = address(hop.trim()) else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

/// Some proxies write the port, too.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn limit(per_second: f64, burst: u32) -> RateLimit {
        let burst = NonZeroU32::new(burst).unwrap();
        RateLimit::new(Rate { per_second, burst }, Vec::new())
    }

    fn client_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let headers = forwarded
            .iter()
            .map(|line| {
                (
                    "x-forwarded-for".parse().unwrap(),
                    HeaderValue::from_bytes(line.as_bytes()).unwrap(),
                )
            })
            .collect();
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"];
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // What the client made up is to the left of what the proxy saw.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["10.9.9.9,10.0.0.2"], "10.9.9.9"),
            ("10.0.0.1", &["198.51.100.7, x"], "10.0.0.1"),
            ("10.0.0.1", &["é, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("2001:db8::1", &["[2a00::1]:4711"], "2a00::1"),
            ("2001:db8::1", &["[2a00::1]"], "2a00::1"),
        ] {
            assert_eq!(
                client_of(peer, forwarded, &proxies),
                expected,
                "{forwarded:?}"
            );
        }
    }

    #[test]
    fn a_household_counts_as_one_and_its_neighbour_as_another() {
        let network = |address: &str| network(address.parse().unwrap());
        assert_eq!(network("2a00:1:2:3::1"), network("2a00:1:2:3:ffff::9"));
        assert_ne!(network("2a00:1:2:3::1"), network("2a00:1:2:4::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn each_caller_has_a_burst_and_is_told_how_long_to_wait() {
        let limit = limit(0.1, 2);
        let [alice, bob] = ["alice", "bob"].map(|name| Caller::named(name, None));
        assert_eq!(limit.count_caller(&alice), Ok(()));
        assert_eq!(limit.count_caller(&alice), Ok(()));
        let wait = limit.count_caller(&alice).unwrap_err();
        assert!(
            wait > Duration::from_secs(9) && wait <= Duration::from_secs(10),
            "{wait:?}"
        );
        assert_eq!(limit.count_caller(&bob), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_costs_no_caller_anything() {
        let limit = limit(0.001, 1);
        let mut refused = 0;
        for n in 0..2_000_000_u128 {
            let address = Ipv6Addr::from_bits(n << 64);
            let counted = limit.count_client((address, 1).into(), &HeaderMap::new());
            refused += u32::from(counted.is_err());
        }
        // The slots that there are were used up, and no others were made.
        assert!(refused > 1_800_000, "{refused}");
        assert_eq!(limit.count_caller(&Caller::named("alice", None)), Ok(()));
    }
}
