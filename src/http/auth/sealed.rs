//! Callers whom a sealed call names: they authenticated when it was sealed.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::response::Response;

use super::{Authenticated, CallerKey, network_of};
use crate::http::AppState;
use crate::http::context::RequestContext;
use crate::upload::Caller;

impl Authenticated {
    /// The caller that a sealed call names. The request counts for the rate limit of that caller, or
    /// of the API key whose holder called for it; or for the address that it comes from if the call
    /// is invalid.
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
        let api_key = caller.and_then(Caller::api_key);
        let key = match (api_key, caller) {
            (Some(api_key), _) => Some(CallerKey::Name(Arc::clone(api_key))),
            (None, Some(caller)) if !caller.is_anonymous() => caller.key(),
            _ => network_of(parts, gate),
        };
        gate.count(key.as_ref(), NonZeroU32::MIN)?;
        let context = parts.extensions.get::<RequestContext>().cloned();
        if let (Some(context), Some(key)) = (&context, key.clone()) {
            context.set_caller(key, caller.filter(|_| api_key.is_some()));
        }
        let caller = caller.cloned().unwrap_or_else(Caller::anonymous);
        let caller = match &key {
            Some(CallerKey::Network(network)) => caller.in_network(*network),
            _ => caller,
        };
        Ok(Self {
            caller,
            key,
            gate: Arc::clone(gate),
            context,
        })
    }
}
