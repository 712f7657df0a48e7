//! `/`: a page to drop files on, for `presignd dev`. Its files, which live in
//! `clients/js`, are part of the binary.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::routing::get;

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
        // What the page does and nothing else. `blob:` is for previews of the user's own pictures.
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

pub(super) fn router<S: Clone + Send + Sync + 'static>(settings: &Settings) -> Router<S> {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const JS: &str = "text/javascript; charset=utf-8";
    const SVG: &str = "image/svg+xml";

    let policy = settings.content_security_policy.clone();
    let page = || {
        (
            [(header::CONTENT_SECURITY_POLICY, policy)],
            asset(HTML, include_str!("../../clients/js/page/index.html")),
        )
    };
    Router::new()
        .route("/", get(async move || page()))
        .route(
            "/page/upload.css",
            get(asset(CSS, include_str!("../../clients/js/page/upload.css"))),
        )
        .route(
            "/page/upload.js",
            get(asset(JS, include_str!("../../clients/js/upload.js"))),
        )
        .route(
            "/page/page.js",
            get(asset(JS, include_str!("../../clients/js/page/page.js"))),
        )
        .route(
            "/page/icon.svg",
            get(asset(SVG, include_str!("../../clients/js/page/icon.svg"))),
        )
}

type Asset = ([(HeaderName, &'static str); 1], &'static str);

fn asset(content_type: &'static str, text: &'static str) -> Asset {
    ([(header::CONTENT_TYPE, content_type)], text)
}
