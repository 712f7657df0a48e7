//! What routing and authentication find out about a request, for the log line and for the limits of
//! its caller.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::Extensions;
use axum::response::Response;
use tower::util::MapRequestLayer;

use super::auth::TICKET_PATH;
use super::memory::{Memory, Work};
use super::middleware::Observer;
use super::problem::{Dialect, catalogue, retry_later};
use crate::turns::{CallerKey, Turn};
use crate::upload::Caller;

/// A request's extension, in an [`Arc`], which the middleware adds and reads.
#[derive(Debug)]
pub(super) struct RequestContext {
    pub(super) observer: Arc<Observer>,
    /// The `x-request-id` of the answer.
    pub(super) id: String,
    /// Who sent the request: the client, or the last proxy.
    pub(super) peer: Option<IpAddr>,
    /// Whether a trusted proxy forwarded the request, so that its headers can be trusted.
    pub(super) is_by_proxy: bool,
    /// The route that the router has found.
    pub(super) route: OnceLock<MatchedPath>,
    caller: OnceLock<CallerKey>,
    /// How the problems of the route are written, if it is not presignd's own way.
    pub(super) dialect: OnceLock<Dialect>,
}

/// A layer of routes that notes how their problems are written, also those that the routes do not
/// make themselves.
pub(super) fn problems_in(
    dialect: Dialect,
) -> MapRequestLayer<impl Fn(Request) -> Request + Clone> {
    MapRequestLayer::new(move |request: Request| {
        let context = RequestContext::of(request.extensions());
        context.dialect.set(dialect).ok(); // a request matches one route
        request
    })
}

impl RequestContext {
    pub(super) fn new(
        observer: Arc<Observer>,
        id: String,
        (peer, is_by_proxy): (Option<IpAddr>, bool),
    ) -> Self {
        Self {
            observer,
            id,
            peer,
            is_by_proxy,
            route: OnceLock::new(),
            caller: OnceLock::new(),
            dialect: OnceLock::new(),
        }
    }

    /// The context of a request with these extensions.
    pub(super) fn of(extensions: &Extensions) -> &Arc<Self> {
        extensions
            .get()
            .expect("the middleware adds it to each request")
    }

    /// The pattern of the route.
    pub(super) fn route(&self) -> Option<&str> {
        self.route.get().map(pattern)
    }

    /// Sets who calls, and with whose API key.
    pub(super) fn set_caller(&self, caller: &Caller) {
        if let Some(key) = caller.key() {
            self.caller.set(key).ok(); // only the first extractor of a request counts
        }
    }

    /// Waits for the memory that the work on the request needs.
    ///
    /// # Errors
    ///
    /// The answer when earlier requests keep it for too long.
    pub(super) async fn work(&self, work: Work) -> Result<Option<Turn>, Response> {
        self.memory().work(self.caller(), work).await
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.observer.memory
    }

    /// The answer when there is no room for a long body. Only a store that sends notifications is no
    /// caller.
    pub(super) fn no_room(&self) -> Response {
        let kind = match self.caller() {
            Some(_) => &catalogue::TOO_MANY_LONG_BODIES,
            None => &catalogue::EVENT_NOT_DELIVERED,
        };
        retry_later(kind, Duration::from_secs(1))
    }

    /// The caller whose limits apply, once known.
    pub(super) fn caller(&self) -> Option<&CallerKey> {
        self.caller.get()
    }

    /// The user whom the sender calls for, if it is not the sender itself.
    pub(super) fn on_behalf_of(&self) -> Option<&str> {
        match self.caller()? {
            CallerKey::User { name, .. } => Some(name),
            CallerKey::Name(_) | CallerKey::Network(_) => None,
        }
    }

    /// The name of the sender, who owns the credentials, if it has one.
    pub(super) fn sender_name(&self) -> Option<&str> {
        match self.caller()? {
            CallerKey::Name(name) | CallerKey::User { api_key: name, .. } => Some(name),
            CallerKey::Network(_) => None,
        }
    }
}

/// The pattern of a route, which is the same with a ticket in the path.
fn pattern(route: &MatchedPath) -> &str {
    let pattern = route.as_str();
    pattern.strip_prefix(TICKET_PATH).unwrap_or(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Settings;
    use crate::telemetry::Metrics;

    /// A store gives up a notification that was wrong, and repeats one that came at a bad moment.
    #[test]
    fn a_notification_without_room_has_to_be_sent_again() {
        let observer = Observer::new(&Settings::default(), None, Metrics::default());
        let response =
            RequestContext::new(Arc::new(observer), String::new(), (None, false)).no_room();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
    }
}
