//! `/`: a page to drop files on, for `presignd dev`. Its files, which live in `clients/js`, are part
//! of the binary.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::upload::UploadService;

/// Where the page sends files.
#[derive(Clone, Debug)]
pub struct Settings {
    content_security_policy: HeaderValue,
}

impl Settings {
    /// `store` is the origin of the S3 that URLs lead to: `http://127.0.0.1:9000`.
    ///
    /// # Errors
    ///
    /// If a header cannot hold `store`.
    pub fn new(store: &str) -> Result<Self, header::InvalidHeaderValue> {
        // Allows what the page does and nothing else. `blob:` is for previews of the user's own
        // pictures.
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
             connect-src 'self' {store}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        Ok(Self {
            content_security_policy: policy.try_into()?,
        })
    }
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Path, content type and text of files in `clients/js`, whose imports need the same layout here.
macro_rules! files {
    ($($path:literal: $kind:expr),+ $(,)?) => {
        [$((
            concat!("/client/", $path),
            $kind,
            include_str!(concat!("../../clients/js/", $path)),
        )),+]
    };
}

/// The files that the page loads.
const FILES: [(&str, &str, &str); 15] = files![
    "page/page.css": CSS,
    "page/icon.svg": "image/svg+xml",
    "page/page.js": JS,
    "batch.js": JS,
    "checksum.js": JS,
    "element.js": JS,
    "element/attributes.js": JS,
    "element/row.js": JS,
    "element/style.js": JS,
    "element/text.js": JS,
    "index.js": JS,
    "list.js": JS,
    "requests.js": JS,
    "sessions.js": JS,
    "upload.js": JS,
];

/// The page, its files, and what it has to know of the service: the policies to choose from, and
/// whether requests need a credential.
pub(super) fn router(
    settings: &Settings,
    uploads: Arc<UploadService>,
    needs_credential: bool,
) -> Router {
    let html = include_str!("../../clients/js/page/index.html");
    let policy = settings.content_security_policy.clone();
    let policy = [(header::CONTENT_SECURITY_POLICY, policy)];
    let page = (policy, asset("text/html; charset=utf-8", html));
    let settings = async move || {
        Json(json!({ "policies": uploads.policy_names(), "needsCredential": needs_credential }))
    };
    let router = Router::new()
        .route("/", get(async || page))
        .route("/page/settings.json", get(settings));
    FILES
        .into_iter()
        .fold(router, |router, (path, kind, text)| {
            router.route(path, get(asset(kind, text)))
        })
}

type Asset = ([(HeaderName, &'static str); 1], &'static str);

fn asset(content_type: &'static str, text: &'static str) -> Asset {
    ([(header::CONTENT_TYPE, content_type)], text)
}
