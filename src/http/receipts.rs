//! `/.well-known/jwks.json`: the public keys that check receipts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use axum::response::IntoResponse;
use jsonwebtoken::jwk::JwkSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use crate::upload::UploadService;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(keys))
}

/// Get the keys of receipts
///
/// A JSON Web Key Set (RFC 7517). Without `RECEIPT_KEY_FILE` it has no keys.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "upload",
    operation_id = "receiptKeys",
    responses((
        status = 200,
        description = "The public keys",
        body = serde_json::Value,
        example = json!({"keys": [{
            "use": "sig", "alg": "EdDSA", "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }]}),
    ))
)]
async fn keys(State(uploads): State<Arc<UploadService>>) -> impl IntoResponse {
    let keys = uploads.receipt_keys().cloned();
    let keys = keys.unwrap_or(JwkSet { keys: Vec::new() });
    // Public keys are for everyone, and a replaced key stays published for longer than this.
    let headers = [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, Json(keys))
}
