//! `/events/s3`: the store reports new objects, and the application is notified of them.

mod delivery;
mod document;
mod message;
mod records;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use hmac::digest::CtOutput;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::delivery::{Events, NotReceived};
pub(super) use self::document::complete as complete_document;
use super::auth::{Gate, Refused, bearer};
use super::body;
use super::context::RequestContext;
use super::not_found;
use super::openapi::EventProblems;
use super::problem::{Problem, catalogue, retry_later};
use crate::webhook::Webhook;

/// Delays the answer to a failed call: stores repeat it at once, some of them a thousand times a
/// second.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3);
/// The longest notification. Those of stores have a few kilobytes for each event.
const MAX_BYTES: usize = 1024 * 1024;

/// Who may report events, and who is notified of them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Without a token there are no routes: a Lambda function gets its events from Lambda itself.
    pub token: Option<Token>,
    pub webhook: Webhook,
    /// How long after an event the store is asked to send it again.
    pub give_up_after: Duration,
}

/// The secret that a store reports events with.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub const MIN_BYTES: usize = 16;

    /// # Errors
    ///
    /// The rule that the text breaks. It completes a sentence that begins with the name of the
    /// variable.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if text.len() < Self::MIN_BYTES || !text.bytes().all(is_plain) {
            return Err("must be at least 16 letters, digits, `-`, `.`, `_` and `~`");
        }
        Ok(Self(text.to_owned()))
    }

    #[cfg(feature = "dev")]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not depend on where `other` differs.
    fn is(&self, other: &str) -> bool {
        let digest = |text: &str| CtOutput::<Sha256>::new(Sha256::digest(text));
        digest(&self.0) == digest(other)
    }
}

debug_name!(Token);

/// State shared by these routes.
#[derive(Clone)]
pub(super) struct EventsState {
    pub(super) events: Arc<Events>,
    pub(super) token: Token,
    pub(super) gate: Arc<Gate>,
}

pub(super) fn router() -> OpenApiRouter<EventsState> {
    OpenApiRouter::new()
        .routes(routes!(receive))
        .routes(routes!(receive_with_token_in_path))
}

/// Answers the HEAD requests that some stores send first, to find out whether the service exists.
/// With `has_page`, the root belongs to the page.
pub(super) fn probes(has_page: bool) -> Router {
    let here = || -> MethodRouter { routing::head(async || StatusCode::OK) };
    let router = Router::new()
        .route("/events/s3", here())
        .route("/events/s3/{token}", here());
    if has_page {
        return router;
    }
    router.route("/", here().fallback(not_found))
}

/// Report new objects
///
/// For the store: a bucket notification of AWS, MinIO, RustFS or Ceph, or an event of EventBridge. presignd
/// finds the policy that can have granted each key, verifies the object, and posts the webhook
/// `upload.arrived` or `upload.refused` to the application. The answer is 200 once the application has
/// accepted every webhook with a status of 2xx, or if there is nothing to report. After any other answer the
/// store has to send the notification again.
#[utoipa::path(
    post,
    path = "/events/s3",
    tag = "events",
    operation_id = "receiveEvents",
    request_body(content = records::Notification, content_type = "application/json", description = "Any `content-type` is accepted"),
    responses((status = 200, description = "There is nothing more to do"), EventProblems),
    security(("eventsToken" = [])),
)]
async fn receive(State(state): State<EventsState>, request: Request) -> Response {
    let token = bearer(request.headers()).unwrap_or_default().to_owned();
    state.answer(&token, request).await
}

/// Report new objects, with the token in the path
///
/// The same as `POST /events/s3`, for stores that can send no header of their own, such as Ceph. The path is
/// not logged.
#[utoipa::path(
    post,
    path = "/events/s3/{token}",
    tag = "events",
    operation_id = "receiveEventsWithTokenInPath",
    params(("token" = String, Path, description = "`EVENTS_TOKEN`")),
    request_body(content = records::Notification, content_type = "application/json", description = "Any `content-type` is accepted"),
    responses((status = 200, description = "There is nothing more to do"), EventProblems),
    security(()),
)]
async fn receive_with_token_in_path(
    State(state): State<EventsState>,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    state.answer(&token, request).await
}

impl EventsState {
    async fn answer(&self, token: &str, request: Request) -> Response {
        if !self.token.is(token) {
            let refusal = || {
                let challenge = HeaderValue::from_static("Bearer realm=\"presignd events\"");
                let problem = Problem::new(&catalogue::UNAUTHORIZED);
                ([(header::WWW_AUTHENTICATE, challenge)], problem).into_response()
            };
            let (parts, _body) = request.into_parts();
            return self.gate.refuse(&parts, Refused::NOT_THE_STORE, refusal);
        }
        let context = RequestContext::of(request.extensions()).clone();
        let received = match body::bytes(request, MAX_BYTES).await {
            Ok(received) => received,
            Err(response) => return response,
        };
        match self.events.receive(&context.id, received.bytes()).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(NotReceived::Invalid(why)) => {
                let detail = format!("the body {why}; it must be a notification of S3");
                Problem::with_detail(&catalogue::NOT_AN_EVENT, &detail).into_response()
            }
            Err(NotReceived::NotDelivered) => {
                sleep(PAUSE_AFTER_FAILURE).await;
                retry_later(&catalogue::EVENT_NOT_DELIVERED, Duration::from_secs(1))
            }
        }
    }
}
