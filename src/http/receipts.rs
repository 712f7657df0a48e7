//! `/.well-known/jwks.json`: the public keys that check receipts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use axum::response::IntoResponse;
use jsonwebtoken::jwk::JwkSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use crate::upload::UploadService;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(keys))
}

/// A JSON Web Key Set (RFC 7517).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `JwkSet` is written as")]
struct ReceiptKeys {
    keys: Vec<ReceiptKey>,
}

/// The public half of an Ed25519 key (RFC 8037).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what `Jwk` is written as")]
struct ReceiptKey {
    /// Always `sig`.
    #[schema(rename = "use")]
    usage: String,
    /// Always `EdDSA`.
    alg: String,
    /// The key's thumbprint (RFC 7638), which the header of a receipt names.
    kid: String,
    /// Always `OKP`.
    kty: String,
    /// Always `Ed25519`.
    crv: String,
    /// The public key, base64url.
    x: String,
}

/// Get the keys of receipts
///
/// A JSON Web Key Set (RFC 7517). Without `RECEIPT_KEY_FILE` it has no keys.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "upload",
    operation_id = "getReceiptKeys",
    responses((
        status = 200,
        description = "The public keys",
        body = ReceiptKeys,
        example = json!({"keys": [{
            "use": "sig", "alg": "EdDSA", "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }]}),
    ))
)]
async fn keys(State(uploads): State<Arc<UploadService>>) -> impl IntoResponse {
    let keys = uploads.receipt_keys().cloned();
    let keys = keys.unwrap_or(JwkSet { keys: Vec::new() });
    // Pages of any origin may read public keys.
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(keys))
}
