//! Finds the one credential of a request.

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use super::{API_KEY, Auth, Denied};
use crate::http::head::only;
use crate::http::path_parameter;

/// Longer tokens are refused unread: no caller has one.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What a request authenticates with.
#[derive(Clone, Copy)]
pub(super) enum Credential<'a> {
    /// No credential.
    None,
    ApiKey(&'a str),
    /// An API key or a token.
    Bearer(&'a str),
    /// A token in the path.
    Ticket(&'a str),
}

impl<'a> Credential<'a> {
    /// The one credential of a request.
    pub(super) fn from_request(
        headers: &'a HeaderMap,
        ticket: Option<&'a str>,
        auth: &Auth,
    ) -> Result<Self, Denied> {
        if !auth.is_required() {
            return Ok(Self::None);
        }
        let has_key = auth.api_keys.is_some() && headers.contains_key(&API_KEY);
        let has_header = headers.contains_key(header::AUTHORIZATION);
        let credential = match (ticket, has_key, has_header) {
            (Some(ticket), false, false) => Ok(Self::Ticket(ticket)),
            (None, true, false) => only_text(headers, &API_KEY)
                .map(Self::ApiKey)
                .ok_or("`x-api-key` is repeated, not ASCII or too long"),
            (None, false, true) => bearer(headers)
                .map(Self::Bearer)
                .ok_or("`authorization` is repeated, not ASCII, too long or not `Bearer`"),
            (None, false, false) => {
                Err("there are no credentials of a kind that AUTH_MODE accepts")
            }
            // Two credentials may differ, so neither counts.
            _ => Err("there are two credentials"),
        };
        credential.map_err(Denied::Unauthorized)
    }
}

/// The parameter `name` of a request to a route below `prefix`.
pub(super) async fn in_path(parts: &mut Parts, prefix: &str, name: &str) -> Option<String> {
    let route = parts.extensions.get::<MatchedPath>()?;
    if !route.as_str().starts_with(prefix) {
        return None;
    }
    // A value that is too long or cannot be decoded is invalid, not missing.
    let value = path_parameter(parts, name).await.ok();
    let value = value.filter(|value| value.len() <= MAX_TOKEN_BYTES);
    Some(value.unwrap_or_default())
}

/// The token after `Bearer`,
/// [whatever its case](https://www.rfc-editor.org/rfc/rfc9110#section-11.1).
pub(in crate::http) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only_text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of a header that must not be repeated, if it can be a token.
fn only_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = only(headers, name)?.to_str().ok()?;
    (value.len() <= MAX_TOKEN_BYTES).then_some(value)
}
