//! The caller of a request: extracted from its credentials, or from a call that was sealed.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::credential::{Credential, in_path};
use super::{Denied, Gate, ISSUER_RETRY_AFTER, ON_BEHALF_OF, POLICY_PATH, Refused, TICKET_PATH};
use crate::http::AppState;
use crate::http::client_ip::{client_ip, network};
use crate::http::context::RequestContext;
use crate::http::memory::Work;
use crate::http::problem::{Problem, catalogue, retry_later};
use crate::turns::{CallerKey, Turn};
use crate::upload::Caller;

/// The caller of a request that may call, and whose rate limit has room for it.
///
/// This extractor does both, so that no handler can forget the limit. Requests that fail to
/// authenticate count for the address that they come from.
pub(in crate::http) struct Authenticated {
    caller: Caller,
    gate: Arc<Gate>,
    context: Arc<RequestContext>,
    /// The number of requests that it is counted as.
    counted: u32,
}

impl Authenticated {
    /// The caller that a sealed call names, who authenticated when it was sealed. The request counts
    /// for the rate limit of that caller, or of the API key whose holder called for it; or for the
    /// address that it comes from if the call is invalid.
    ///
    /// # Errors
    ///
    /// The answer if there were too many requests.
    pub(in crate::http) fn by_seal(
        caller: Option<&Caller>,
        parts: &Parts,
        state: &AppState,
    ) -> Result<Self, Response> {
        let gate = &state.gate;
        let caller = caller.cloned().unwrap_or_else(Caller::anonymous);
        let key = caller.sender_key().or_else(|| network_of(parts, gate));
        let counted = gate.count(key.as_ref(), 0, NonZeroU32::MIN)?;
        Ok(Self::new(caller, key.as_ref(), parts, gate, counted))
    }

    fn new(
        caller: Caller,
        key: Option<&CallerKey>,
        parts: &Parts,
        gate: &Arc<Gate>,
        counted: u32,
    ) -> Self {
        let caller = match key {
            Some(CallerKey::Network(network)) => caller.in_network(*network),
            _ => caller,
        };
        let context = RequestContext::of(&parts.extensions).clone();
        context.set_caller(&caller);
        Self {
            caller,
            gate: Arc::clone(gate),
            context,
            counted,
        }
    }

    /// Counts the request as `requests` additional ones.
    ///
    /// # Errors
    ///
    /// The answer if the caller has sent too many requests.
    pub(in crate::http) fn count_more(&mut self, requests: usize) -> Result<(), Response> {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        if let Some(more) = NonZeroU32::new(requests) {
            let key = self.caller.sender_key();
            self.counted = self.gate.count(key.as_ref(), self.counted, more)?;
        }
        Ok(())
    }

    /// Waits for memory to work with.
    ///
    /// # Errors
    ///
    /// The answer when earlier requests take too long.
    pub(in crate::http) async fn turn(&self, work: Work) -> Result<Option<Turn>, Response> {
        self.context.work(work).await
    }

    /// Returns a permit to hold while a request waits for an upload. It limits how many connections
    /// one caller can keep busy.
    ///
    /// # Errors
    ///
    /// The answer when too many requests of this caller wait already.
    pub(in crate::http) fn waiting_permit(&self) -> Result<Turn, Response> {
        let turn = self.gate.waiting.try_acquire(self.caller.key().as_ref(), 1);
        turn.map_err(|_full| retry_later(&catalogue::TOO_MANY_WAITING, Duration::from_secs(1)))
    }
}

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let gate = &state.gate;
        let ticket = in_path(parts, TICKET_PATH, "ticket").await;
        let policy = in_path(parts, POLICY_PATH, "policy").await;
        let network = || network_of(parts, gate);
        let sender = match Credential::from_request(&parts.headers, ticket.as_deref(), &gate.auth) {
            Ok(credential) => gate.sender(credential, network).await,
            Err(denied) => Err(denied),
        };
        let sender = sender.map_err(|denied| {
            let why = Refused::from(&denied);
            gate.refuse(parts, why, || gate.refusal(denied))
        })?;
        let key = sender.caller.key().or_else(network);
        let counted = gate.count(key.as_ref(), 0, NonZeroU32::MIN);
        let counted = counted.inspect_err(|_limited| {
            RequestContext::of(&parts.extensions).set_caller(&sender.caller); // for the log
        })?;
        let headers = &parts.headers;
        let caller = if gate.auth.is_required() && headers.contains_key(&ON_BEHALF_OF) {
            let user = sender.on_behalf_of(headers);
            user.map_err(Problem::into_response)?
        } else {
            sender.caller
        };
        let caller = match policy {
            Some(policy) => caller.with_policy(&policy),
            None => caller,
        };
        Ok(Self::new(caller, key.as_ref(), parts, gate, counted))
    }
}

impl Gate {
    /// The answer to a request without valid credentials: `refusal`, or 429 if too many of them came
    /// from the same address.
    pub(in crate::http) fn refuse(
        &self,
        parts: &Parts,
        why: Refused,
        refusal: impl FnOnce() -> Response,
    ) -> Response {
        let counted = self.count(network_of(parts, self).as_ref(), 0, NonZeroU32::MIN);
        let mut answer = counted.err().unwrap_or_else(refusal);
        answer.extensions_mut().insert(why);
        answer
    }

    /// The answer to a request without a caller.
    fn refusal(&self, denied: Denied) -> Response {
        match denied {
            Denied::Unauthorized(_) => {
                let problem = Problem::new(&catalogue::UNAUTHORIZED);
                self.auth.challenge(problem)
            }
            Denied::InvalidTicket(why) => {
                let problem = Problem::with_detail(&catalogue::INVALID_TICKET, &why);
                self.auth.challenge(problem)
            }
            Denied::TooManyFailures(wait) => retry_later(&catalogue::RATE_LIMITED, wait),
            Denied::IssuerUnavailable => {
                retry_later(&catalogue::ISSUER_UNAVAILABLE, ISSUER_RETRY_AFTER)
            }
        }
    }
}

/// The network that a request comes from.
fn network_of(parts: &Parts, gate: &Gate) -> Option<CallerKey> {
    let peer = RequestContext::of(&parts.extensions).peer?;
    let client = client_ip(peer, &parts.headers, &gate.trusted_proxies);
    Some(CallerKey::Network(network(client)))
}
