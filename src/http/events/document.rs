//! Adds to the OpenAPI document what the routes of events do not declare: how a store
//! authenticates, and the webhooks.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoParams, IntoResponses, OpenApi, openapi};

use super::message::Message;

/// The webhooks, written as if they were routes. With `x-internal`, generators of clients leave them out: what
/// openapi-generator writes for webhooks is not valid Python, for example.
#[derive(OpenApi)]
#[openapi(
    paths(upload_arrived, upload_refused),
    tags((name = "webhooks", description = "What the service posts to `WEBHOOK_URL`"))
)]
struct Webhooks;

/// Adds the token of the store, and the webhooks.
pub(in crate::http) fn complete(document: &mut openapi::OpenApi) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "`EVENTS_TOKEN`, which the store and the service share",
        ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("eventsToken", SecurityScheme::Http(scheme.build()));
    let mut webhooks = Webhooks::openapi();
    document.webhooks = Some(std::mem::take(&mut webhooks.paths));
    document.merge(webhooks);
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes what is posted")]
struct Headers {
    /// The same for each message about one version of an object
    #[param(rename = "webhook-id")]
    id: String,
    /// When the message was sent, in seconds since 1970
    #[param(rename = "webhook-timestamp")]
    timestamp: u64,
    /// One or more of `v1,` and an HMAC-SHA256 in base64, separated by spaces
    #[param(rename = "webhook-signature")]
    signature: String,
}

#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes what an application answers")]
enum Answer {
    /// The application has the message
    #[response(status = "2XX")]
    Delivered,
    /// The store sends the event again, and presignd then posts the message again
    #[response(status = "default")]
    Failed,
}

/// An upload has arrived
///
/// Posted to `WEBHOOK_URL` for each upload that is what its policy allows. A duplicate has the same `webhook-id`.
#[utoipa::path(
    post,
    path = "upload.arrived",
    tag = "webhooks",
    extensions(("x-internal" = json!(true))),
    operation_id = "uploadArrived",
    params(Headers),
    request_body = Message,
    responses(Answer),
    security()
)]
#[expect(dead_code, reason = "it describes what is posted")]
fn upload_arrived() {}

/// An upload violates its policy
///
/// Posted to `WEBHOOK_URL` for each object that is not what its policy allows; `errors` says why. A duplicate has the
/// same `webhook-id`.
#[utoipa::path(
    post,
    path = "upload.refused",
    tag = "webhooks",
    extensions(("x-internal" = json!(true))),
    operation_id = "uploadRefused",
    params(Headers),
    request_body = Message,
    responses(Answer),
    security()
)]
#[expect(dead_code, reason = "it describes what is posted")]
fn upload_refused() {}
