//! The description of the API. The types and routes say the most of it; here is the rest.

use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "presignd",
        description = "Hands out presigned S3 upload URLs: ask for one, then send the file straight to S3.\n\nEvery response carries `x-request-id` and `cache-control: no-store`. Every error is a problem document (RFC 9457).",
    ),
    tags(
        (name = "upload", description = "Leave to upload"),
        (name = "operations", description = "For those who run the service"),
    ),
)]
pub(super) struct ApiDoc;
