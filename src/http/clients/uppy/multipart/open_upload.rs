//! The upload that a request continues.

use std::time::SystemTime;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use utoipa::IntoParams;

use crate::http::auth::Authenticated;
use crate::http::clients::uppy::{Pairs, parameter};
use crate::http::problem::Problem;
use crate::http::{AppState, path_parameter};
use crate::upload::{Invalid, OpenUpload};

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes what `Opened` reads")]
pub(super) struct UploadIdParam {
    /// From the answer that created the upload.
    #[param(rename = "uploadId")]
    upload_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes what `Opened` reads")]
pub(super) struct KeyParam {
    /// The key, from the same answer.
    key: String,
}

/// A multipart upload that the caller may continue. Its id and key are checked before any body is
/// read.
pub(super) struct Opened {
    pub(super) caller: Authenticated,
    pub(super) upload: OpenUpload,
}

impl FromRequestParts<AppState> for Opened {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let caller = Authenticated::from_request_parts(parts, state).await?;
        let token = path_parameter(parts, "uploadId").await?;
        let pairs = Pairs::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(IntoResponse::into_response)?;
        let key = parameter(&pairs, "key").ok_or_else(|| {
            let invalid = Invalid::new("required", "is required");
            Problem::for_field("/key", invalid).into_response()
        })?;
        let (uploads, now) = (&state.uploads, SystemTime::now());
        let upload = uploads.open_upload(&caller, &token, Some(key), now);
        let upload = upload.map_err(IntoResponse::into_response)?;
        Ok(Self { caller, upload })
    }
}
