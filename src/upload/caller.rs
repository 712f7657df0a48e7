//! Who asks for an upload. A caller is authenticated elsewhere; this module decides what it may do,
//! and which part of the bucket is its own. Pure.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use base16ct::HexDisplay;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::policy::DEFAULT_POLICY;
use super::ticket::Ticket;
use crate::turns::CallerKey;

/// The segment of callers without a name. No name has it: in the segment of a name, `=` is followed by
/// two hexadecimal digits or `sha256-`.
static ANONYMOUS: LazyLock<Arc<str>> = LazyLock::new(|| "=anonymous".into());

/// Who asks for a grant, and which policies they may ask for.
///
/// - Two callers of different names never have the same [`segment`](Self::segment).
/// - A segment is a safe part of a key whatever the name: not empty, not `.` or `..`, at most 128
///   bytes of ASCII without `/`, and nothing that has to be escaped in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    segment: Arc<str>,
    /// `None` allows all.
    policies: Option<Arc<BTreeSet<String>>>,
    ticket: Option<Arc<Ticket>>,
    /// The only policy that this request may use, also if it names none.
    policy: Option<Arc<str>>,
    origin: Origin,
}

/// Where the requests of a caller come from.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Itself,
    /// It has no name.
    Network(IpAddr),
    /// The holder of this API key calls for it.
    Key(Arc<str>),
}

impl Caller {
    /// The longest segment.
    pub(super) const MAX_SEGMENT_BYTES: usize = 128;

    /// The caller where nobody has to authenticate.
    pub fn anonymous() -> Self {
        Self::of(Arc::clone(&ANONYMOUS))
    }

    fn of(segment: Arc<str>) -> Self {
        Self {
            segment,
            policies: None,
            ticket: None,
            policy: None,
            origin: Origin::Itself,
        }
    }

    /// The same caller in a network, whose callers without names share their limits.
    pub(crate) fn in_network(self, network: IpAddr) -> Self {
        let origin = Origin::Network(network);
        Self { origin, ..self }
    }

    /// The caller of this name, which may be any text but an empty one.
    pub fn named(name: &str, policies: Option<Arc<BTreeSet<String>>>) -> Self {
        debug_assert!(!name.is_empty(), "nobody");
        Self {
            policies,
            ..Self::of(segment(name).into())
        }
    }

    /// The caller with the segment `name`, or an anonymous one, and with these variables. `None` if
    /// one of them is nothing that [`segment`] can make.
    pub(super) fn from_segments(name: Option<&str>, vars: &[(&str, &str)]) -> Option<Self> {
        let is_known =
            name.is_none_or(is_segment) && vars.iter().all(|(_, value)| is_segment(value));
        is_known.then(|| {
            let segment = name.map_or_else(|| Arc::clone(&ANONYMOUS), Into::into);
            Self::of(segment).with_ticket(Ticket::from_segments(vars))
        })
    }

    /// A caller of this segment, which was sealed, for whom the holder of the API key called, if any.
    pub(super) fn sealed(segment: &str, api_key: Option<&str>, ticket: Option<Ticket>) -> Self {
        Self {
            ticket: ticket.map(Arc::new),
            origin: api_key.map_or(Origin::Itself, |key| Origin::Key(key.into())),
            ..Self::of(segment.into())
        }
    }

    /// The segment of the API key whose holder calls for this caller.
    pub(crate) fn api_key(&self) -> Option<&Arc<str>> {
        match &self.origin {
            Origin::Key(key) => Some(key),
            Origin::Itself | Origin::Network(_) => None,
        }
    }

    /// The same caller, whose uploads the ticket narrows.
    #[must_use]
    pub fn with_ticket(self, ticket: Ticket) -> Self {
        let ticket = Some(Arc::new(ticket));
        Self { ticket, ..self }
    }

    /// The same caller, who uses this policy and no other.
    #[must_use]
    pub fn with_policy(self, policy: &str) -> Self {
        let policy = Some(policy.into());
        Self { policy, ..self }
    }

    pub(super) fn ticket(&self) -> Option<&Arc<Ticket>> {
        self.ticket.as_ref()
    }

    /// What stands for `{vars.NAME}` in this caller's keys.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.ticket()?.var(name)
    }

    /// The policy of a request: the one that it `asked` for, else the fixed one, else the default
    /// one.
    pub(super) fn policy_name<'a>(&'a self, asked: Option<&'a str>) -> &'a str {
        let fixed = || self.fixed_policies().next();
        asked.or_else(fixed).unwrap_or(DEFAULT_POLICY)
    }

    /// The policy of the request and that of the ticket.
    fn fixed_policies(&self) -> impl Iterator<Item = &str> {
        let of_ticket = self.ticket.iter().filter_map(|it| it.policy.as_deref());
        self.policy.as_deref().into_iter().chain(of_ticket)
    }

    /// What stands for the caller in a key: the name, with all but ASCII letters, digits and
    /// `-_@.+` as `=` and two hexadecimal digits for each byte, likewise a dot at the beginning;
    /// `=sha256-` and the name's SHA-256 if that is too long.
    pub fn segment(&self) -> &str {
        &self.segment
    }

    /// Identifies the caller for limits. `None` if anonymous callers cannot be told apart.
    pub(crate) fn key(&self) -> Option<CallerKey> {
        let name = || Arc::clone(&self.segment);
        match &self.origin {
            Origin::Itself if self.is_anonymous() => None,
            Origin::Itself => Some(CallerKey::Name(name())),
            Origin::Network(network) => Some(CallerKey::Network(*network)),
            Origin::Key(key) => Some(CallerKey::User {
                api_key: Arc::clone(key),
                name: name(),
            }),
        }
    }

    /// Identifies the owner of the credentials for limits: the API key whose holder calls, or the
    /// caller itself.
    pub(crate) fn sender_key(&self) -> Option<CallerKey> {
        match &self.origin {
            Origin::Key(key) => Some(CallerKey::Name(Arc::clone(key))),
            Origin::Itself | Origin::Network(_) => self.key(),
        }
    }

    /// The user of this name whom the caller calls for, and who may use the same policies.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self {
            origin: Origin::Key(Arc::clone(&self.segment)),
            ..Self::named(name, self.policies.clone())
        }
    }

    /// Roughly what its names and its ticket take in memory, in bytes.
    pub fn weight(&self) -> usize {
        let policies = self.policies.iter().flat_map(|policies| policies.iter());
        let policies: usize = policies.map(|name| 48 + name.len()).sum();
        let ticket = self.ticket.as_ref().map_or(0, |ticket| ticket.weight());
        self.segment.len() + policies + ticket
    }

    pub fn is_anonymous(&self) -> bool {
        self.segment == *ANONYMOUS
    }

    pub(super) fn may_use(&self, policy: &str) -> bool {
        let mut lists = self.policies.iter();
        let mut fixed = self.fixed_policies();
        lists.all(|policies| policies.contains(policy)) && fixed.all(|fixed| fixed == policy)
    }
}

/// Policies are left out: they may be many.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.segment).finish()
    }
}

/// A value as a segment of a key: see [`Caller::segment`].
pub(super) fn segment(name: &str) -> String {
    let mut segment = String::new();
    for (at, byte) in name.bytes().enumerate() {
        if segment.len() > Caller::MAX_SEGMENT_BYTES {
            break;
        }
        let is_plain =
            byte.is_ascii_alphanumeric() || b"-_@+".contains(&byte) || (byte == b'.' && at > 0);
        if is_plain {
            segment.push(byte.into());
        } else {
            let _infallible = write!(segment, "={byte:02X}");
        }
    }
    if segment.len() <= Caller::MAX_SEGMENT_BYTES {
        return segment;
    }
    format!("=sha256-{:x}", HexDisplay(&Sha256::digest(name)))
}

/// Whether [`segment`] makes this of some value.
pub(super) fn is_segment(text: &str) -> bool {
    if let Some(hash) = text.strip_prefix("=sha256-") {
        return hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    }
    let percent_encoded = text.replace('%', "%25").replace('=', "%");
    let value = percent_decode_str(&percent_encoded).decode_utf8();
    value.is_ok_and(|value| !value.is_empty() && segment(&value) == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_readable() {
        for name in ["alice", "alice@example.com", "7", "A-b_c.d+e"] {
            assert_eq!(segment(name), name);
        }
        assert_eq!(segment("auth0|5f7c"), "auth0=7C5f7c");
        assert_eq!(segment("홍"), "=ED=99=8D");
    }

    #[test]
    fn hostile_names_stay_in_one_segment() {
        for (name, expected) in [
            ("../bob", "=2E.=2Fbob"),
            (".", "=2E"),
            ("..", "=2E."),
            ("/", "=2F"),
            ("a/b", "a=2Fb"),
            ("a\0b\n", "a=00b=0A"),
            ("%2e%2e%2f", "=252e=252e=252f"),
            ("\u{202e}x", "=E2=80=AEx"),
            ("=anonymous", "=3Danonymous"),
            (" ", "=20"),
        ] {
            assert_eq!(segment(name), expected);
        }
        let long = segment(&"x".repeat(2000));
        assert!(long.starts_with("=sha256-") && long.len() == 72, "{long}");
        assert_ne!(long, segment(&"x".repeat(2001)));
        assert_eq!(segment(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(segment(&"x".repeat(129)).len(), 72);
        assert_eq!(segment(&"/".repeat(43)).len(), 72);
    }

    /// The name that a plain segment was made from.
    fn name_of(segment: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = segment.as_bytes();
        while let [first, after @ ..] = rest {
            if *first == b'=' {
                let digits = std::str::from_utf8(&after[..2]).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*first);
                rest = after;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn a_segment_tells_its_caller_from_all_others(name in "\\PC{1,60}|[./=%~a]{1,8}|.{1,300}") {
            let segment = segment(&name);
            prop_assert!(segment.len() <= Caller::MAX_SEGMENT_BYTES);
            prop_assert!(segment.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
            prop_assert!(!segment.starts_with('.'));
            prop_assert_ne!(&*segment, &**ANONYMOUS);
            if !segment.starts_with("=sha256-") {
                prop_assert_eq!(name_of(&segment), name);
            }
        }
    }
}
