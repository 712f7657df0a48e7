//! Why a request was refused, where its client must not learn that; for the log alone. Each reason is one
//! of a few texts, and none contains what a client sent.

use axum::response::Response;
use jsonwebtoken::errors::{Error, ErrorKind};

use super::Denied;

/// Why a request was refused, as an extension of its answer. Clients do not see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(pub(in crate::http) &'static str);

impl Refused {
    pub(in crate::http) const NOT_THE_STORE: Self = Self("the token is not EVENTS_TOKEN");

    /// The reason, if `response` refuses its request.
    pub(crate) fn reason(response: &Response) -> Option<&'static str> {
        response.extensions().get().map(|Self(why)| *why)
    }
}

impl From<&Denied> for Refused {
    fn from(denied: &Denied) -> Self {
        Self(match denied {
            Denied::Unauthorized(why) => why,
            Denied::InvalidTicket(_) => "the ticket is invalid, and the answer says why",
            Denied::TooManyFailures(_) => "too many invalid tokens came from this address",
            Denied::IssuerUnavailable => "the keys of JWT_JWKS_URL could not be fetched",
        })
    }
}

/// The key has not made the signature of the token. Another one may have.
pub(super) const NOT_SIGNED: Denied = Denied::Unauthorized("no key has made this signature");
const NO_SUB: &str = "`sub` is missing or not text";

/// Why a token was not accepted under a key.
pub(super) fn of_token(error: &Error) -> Denied {
    let claim = |name: &str| match name {
        "exp" => "`exp` is missing or not a number",
        "iss" => "`iss` is missing or not text",
        "aud" => "`aud` is missing or not text",
        "nbf" => "`nbf` is not a number",
        _ => NO_SUB,
    };
    let why = match error.kind() {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "`iss` is not JWT_ISSUER",
        ErrorKind::InvalidAudience => "`aud` is not JWT_AUDIENCE",
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => claim(name),
        // The claims are read after the signature has been checked.
        ErrorKind::Json(_) => NO_SUB,
        _ => return NOT_SIGNED,
    };
    Denied::Unauthorized(why)
}
