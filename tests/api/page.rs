use presignd::http;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use serde_json::{Value, json};

use crate::helpers::{App, built_in, spawn_app_where};

/// A service with a page, for a store at `127.0.0.1:9000`.
async fn spawn_page() -> App {
    let page = http::page::Settings::new("http://127.0.0.1:9000").unwrap();
    spawn_app_where(built_in(), |it| it.page = Some(page)).await
}

#[tokio::test]
async fn the_page_may_reach_the_service_and_the_store_and_nothing_else() {
    let app = spawn_page().await;
    let response = app.get("/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[REFERRER_POLICY], "no-referrer");
    assert_eq!(
        response.headers()[CONTENT_SECURITY_POLICY],
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
         connect-src 'self' http://127.0.0.1:9000; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    );
}

#[tokio::test]
async fn everything_that_the_page_names_is_there() {
    let app = spawn_page().await;
    let page = app.get("/").await.text().await.unwrap();
    let mut paths: Vec<String> = page
        .split('"')
        .filter(|text| text.starts_with('/') && !text.contains('>'))
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let response = app.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let content_type = match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            _ => "text/html",
        };
        let actual = response.headers()[CONTENT_TYPE].to_str().unwrap();
        assert!(actual.starts_with(content_type), "{path}: {actual}");
    }
}

#[tokio::test]
async fn the_page_learns_the_policies_and_whether_it_needs_a_credential() {
    let app = spawn_page().await;
    let settings = app.get("/page/settings.json").await;
    let settings: Value = settings.json().await.unwrap();
    assert_eq!(
        settings,
        json!({"policies": ["default"], "needsCredential": false})
    );
}

#[test]
fn a_store_that_no_header_can_hold_is_an_error() {
    assert!(http::page::Settings::new("http://127.0.0.1\n").is_err());
}
