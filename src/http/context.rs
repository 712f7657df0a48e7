//! What is learned about a request on its way to the handler, and needed outside of all routes: for
//! the log line, and for limits on what one caller may use.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::auth::{CallerKey, TICKET_PATH, retry_later};
use super::middleware::Observer;
use super::problem::catalogue::{self, Kind};
use crate::turns::Turns;
use crate::upload::Caller;

/// How long a request waits for earlier ones of the same caller.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's extension, which the middleware adds and reads.
#[derive(Clone, Debug)]
pub(super) struct RequestContext(Arc<Learned>);

#[derive(Debug)]
struct Learned {
    observer: Arc<Observer>,
    route: OnceLock<MatchedPath>,
    sender: OnceLock<CallerKey>,
    on_behalf_of: OnceLock<Arc<str>>,
}

/// What a request has waited for. Others can have it when this is dropped.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

impl RequestContext {
    pub(super) fn new(observer: Arc<Observer>) -> Self {
        Self(Arc::new(Learned {
            observer,
            route: OnceLock::new(),
            sender: OnceLock::new(),
            on_behalf_of: OnceLock::new(),
        }))
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.0.observer
    }

    /// Notes the route that the router has found.
    pub(super) fn set_route(&self, route: MatchedPath) {
        self.0.route.set(route).ok(); // a request matches one route
    }

    /// The pattern of the route.
    pub(super) fn route(&self) -> Option<&str> {
        self.0.route.get().map(pattern)
    }

    /// Notes who calls. `sender` is whose credentials the request has.
    pub(super) fn set_caller(&self, sender: CallerKey, on_behalf_of: Option<&Caller>) {
        self.0.sender.set(sender).ok(); // only the first extractor of a request counts
        if let Some(caller) = on_behalf_of {
            let name = Arc::clone(caller.shared_segment());
            self.0.on_behalf_of.set(name).ok(); // the same
        }
    }

    /// Waits until there is room for a long body of the caller, from its arrival to the answer.
    ///
    /// # Errors
    ///
    /// The answer when earlier bodies keep the room for too long.
    pub(super) async fn room_for_body(&self, bytes: usize) -> Result<Turn, Response> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let kind = &catalogue::TOO_MANY_LONG_BODIES;
        self.wait(&self.0.observer.long_bodies, bytes, kind).await
    }

    /// Waits until earlier requests of the caller leave `units` of memory, of 2 MiB each, for the work on
    /// this one. So one caller makes the service use little memory, however many requests it sends.
    ///
    /// # Errors
    ///
    /// The answer when the earlier requests take too long.
    pub(super) async fn turn(&self, units: u32) -> Result<Turn, Response> {
        self.wait(&self.0.observer.work, units, &catalogue::TOO_MUCH_AT_ONCE)
            .await
    }

    async fn wait(
        &self,
        turns: &Turns<CallerKey>,
        permits: u32,
        kind: &Kind,
    ) -> Result<Turn, Response> {
        let Some(key) = self.sender().filter(|_| permits > 0) else {
            return Ok(None);
        };
        let turn = turns.of(key).acquire_many_owned(permits);
        match tokio::time::timeout(TURN_TIMEOUT, turn).await {
            Ok(turn) => Ok(turn.ok()), // it fails only once the semaphore is closed, which nobody does
            Err(_elapsed) => Err(retry_later(kind, Duration::from_secs(1))),
        }
    }

    /// Whose credentials the request has, once that is known.
    pub(super) fn sender(&self) -> Option<&CallerKey> {
        self.0.sender.get()
    }

    /// Whom the sender calls for, if that is not itself.
    pub(super) fn on_behalf_of(&self) -> Option<&str> {
        self.0.on_behalf_of.get().map(|name| &**name)
    }

    /// The name of the sender, if it has one.
    pub(super) fn sender_name(&self) -> Option<&str> {
        match self.sender()? {
            CallerKey::Name(name) => Some(name),
            CallerKey::Network(_) => None,
        }
    }
}

/// The pattern of a route, which is the same with a ticket in the path.
fn pattern(route: &MatchedPath) -> &str {
    let pattern = route.as_str();
    pattern.strip_prefix(TICKET_PATH).unwrap_or(pattern)
}
