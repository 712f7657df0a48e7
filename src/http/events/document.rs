//! Adds to the OpenAPI document what the routes of events do not declare: how a store
//! authenticates, and the webhooks.

use utoipa::OpenApi;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    self, ContentBuilder, Object, PathItem, Ref, Required, ResponseBuilder, Type,
};

use super::message::Message;

#[derive(OpenApi)]
#[openapi(components(schemas(Message)))]
struct Schemas;

/// Adds the token of the store, and the webhooks.
pub(in crate::http) fn complete(document: &mut openapi::OpenApi) {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "`EVENTS_TOKEN`, which the store and the service share",
        ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("eventsToken", SecurityScheme::Http(scheme.build()));
    document.merge(Schemas::openapi());
    document.webhooks = Some(webhooks());
}

fn webhooks() -> Paths {
    let [arrived, refused] = [
        (
            "uploadArrived",
            "An upload has arrived",
            "Posted to `WEBHOOK_URL` for each upload that is what its policy allows. A duplicate has the same `webhook-id`.",
        ),
        (
            "uploadRefused",
            "An upload violates its policy",
            "Posted to `WEBHOOK_URL` for each object that is not what its policy allows; `errors` says why. A duplicate has the same `webhook-id`.",
        ),
    ]
    .map(|(id, summary, description)| {
        let operation = operation()
            .operation_id(Some(id))
            .summary(Some(summary))
            .description(Some(description));
        PathItem::new(HttpMethod::Post, operation)
    });
    PathsBuilder::new()
        .path("upload.arrived", arrived)
        .path("upload.refused", refused)
        .build()
}

fn operation() -> OperationBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("UploadMessage")));
    let body = RequestBodyBuilder::new()
        .content("application/json", content.build())
        .required(Some(Required::True));
    let delivered = ResponseBuilder::new().description("The application has the message");
    let failed = ResponseBuilder::new()
        .description("The store sends the event again, and presignd the message");
    let operation = OperationBuilder::new()
        .tag("events")
        .request_body(Some(body.build()))
        .response("2XX", delivered.build())
        .response("default", failed.build())
        .securities(Some([]));
    [
        (
            "webhook-id",
            Type::String,
            "The same for each message about one version of an object",
        ),
        (
            "webhook-timestamp",
            Type::Integer,
            "When the message was sent, in seconds since 1970",
        ),
        (
            "webhook-signature",
            Type::String,
            "One or more of `v1,` and an HMAC-SHA256 in base64, separated by spaces",
        ),
    ]
    .into_iter()
    .fold(operation, |operation, (name, kind, description)| {
        let header = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(Object::with_type(kind)));
        operation.parameter(header)
    })
}
