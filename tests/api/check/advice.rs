//! What `presignd check` advises where something else than the store answers, or stands before it.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use presignd::webhook::Secrets;
use tempfile::TempDir;

use super::{check_at, check_fails, check_passes};
use crate::stand_in::{StandIn, empty, error, page};

fn redirect(status: u16, to: &str) -> Response {
    let mut response = empty(status);
    let to = HeaderValue::from_str(to).unwrap();
    response.headers_mut().insert(header::LOCATION, to);
    response
}

async fn redirecting(status: u16, to: &'static str) -> StandIn {
    StandIn::answering(move |_| std::future::ready(redirect(status, to))).await
}

#[tokio::test]
async fn where_an_endpoint_redirects_to_is_named() {
    for status in [301, 302, 307, 308] {
        let store = redirecting(status, "https://s3.example.com:9443/secret?key=hidden").await;
        let run = check_fails(&store.url(), &[]).await;
        let words = [
            "redirects to",
            "AWS_ENDPOINT_URL_S3=https://s3.example.com:9443",
        ];
        run.says("bucket", "failed", &words);
        assert!(!run.report.to_string().contains("hidden"));
    }
    // A page for people to log in.
    let store = redirecting(302, "/login").await;
    let run = check_fails(&store.url(), &[]).await;
    run.says("bucket", "failed", &["redirects", "AWS_ENDPOINT_URL_S3"]);
}

#[tokio::test]
async fn where_the_endpoint_of_clients_redirects_to_is_named() {
    let stand = StandIn::embedded().await;
    let public = redirecting(308, "https://uploads.s3.example.com/")
        .await
        .url();
    let run = check_fails(&stand.url(), &[("S3_PUBLIC_ENDPOINT_URL", &public)]).await;
    let words = [
        "redirects to",
        "S3_PUBLIC_ENDPOINT_URL=https://s3.example.com",
    ];
    run.says("public-endpoint", "failed", &words);
    stand.is_as_it_was();
    // Something else that is not the store.
    let public = StandIn::with_status(405).await.url();
    let run = check_fails(&stand.url(), &[("S3_PUBLIC_ENDPOINT_URL", &public)]).await;
    let line = run.line("public-endpoint").to_string();
    let is_right = line.contains("S3_PUBLIC_ENDPOINT_URL") && !line.contains("AWS_ENDPOINT");
    assert!(is_right, "{line}");
}

#[tokio::test]
async fn a_webhook_that_redirects_is_a_warning() {
    let stand = StandIn::embedded().await;
    let application = redirecting(301, "https://app.example.com/hooks?key=hidden").await;
    let secret = Secrets::generate().unwrap();
    let more = [
        ("WEBHOOK_URL", application.url()),
        ("WEBHOOK_SECRET", secret),
        ("EVENTS_TOKEN", "a-token-of-the-store".to_owned()),
    ];
    let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
    let run = check_passes(&stand.url(), &more).await;
    let words = ["301", "redirects to https://app.example.com", "WEBHOOK_URL"];
    run.says("webhook", "warning", &words);
    assert!(!run.report.to_string().contains("hidden"));
}

#[tokio::test]
async fn an_issuer_that_redirects_is_named() {
    let stand = StandIn::embedded().await;
    let issuer = redirecting(301, "https://issuer.example.com/keys")
        .await
        .url();
    let more = [
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "me"),
        ("JWT_AUDIENCE", "you"),
        ("JWT_JWKS_URL", &issuer),
    ];
    let run = check_fails(&stand.url(), &more).await;
    run.says("issuer", "failed", &["redirects", "jwks_uri"]);
}

#[tokio::test]
async fn a_server_that_does_nothing_is_not_the_store() {
    for status in [405, 501] {
        let server = StandIn::with_status(status).await;
        let run = check_fails(&server.url(), &[]).await;
        run.says("multipart", "failed", &["AWS_ENDPOINT_URL_S3"]);
        let line = run.line("multipart").to_string();
        assert!(!line.contains("server_side_encryption"), "{line}");
    }
}

#[tokio::test]
async fn what_answers_before_the_store_is_named() {
    for (status, words) in [
        (401, "asks for a login"),
        (407, "user and a password"),
        (429, "try again"),
    ] {
        let server = StandIn::answering(move |_| std::future::ready(page(status))).await;
        let run = check_fails(&server.url(), &[]).await;
        run.says("bucket", "failed", &[words]);
    }
    // The store itself, as its code shows.
    let store = StandIn::answering(async |_| error(401, "InvalidAccessKeyId")).await;
    let run = check_fails(&store.url(), &[]).await;
    run.says("bucket", "failed", &["AWS_ACCESS_KEY_ID"]);
}

#[tokio::test]
async fn a_proxy_that_may_be_the_reason_is_named() {
    for (variable, endpoint, is_named) in [
        ("HTTP_PROXY", "http://127.0.0.1:2", true),
        ("http_proxy", "http://127.0.0.1:2", true),
        ("ALL_PROXY", "http://127.0.0.1:2", true),
        ("HTTPS_PROXY", "https://127.0.0.1:2", true),
        ("HTTPS_PROXY", "http://127.0.0.1:2", false),
        ("HTTP_PROXY", "https://127.0.0.1:2", false),
    ] {
        let run = check_fails(endpoint, &[(variable, "http://127.0.0.1:1")]).await;
        run.says("endpoint", "failed", &["AWS_ENDPOINT_URL_S3"]);
        let line = run.line("endpoint").to_string();
        let says = line.contains(&format!("{variable} is set"));
        assert_eq!(says, is_named, "{variable} {endpoint}: {line}");
    }
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "[default]\nregion = us-east-1\n").unwrap();
    let more = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_PROFILE", "prod"),
        ("AWS_CONFIG_FILE", file.to_str().unwrap()),
    ];
    let run = check_at("http://127.0.0.1:1", &more).await;
    let line = run.line("credentials");
    let fix = line["fix"].as_str().unwrap();
    let words = ["profile prod", "AWS_PROFILE", "AWS_CONFIG_FILE"];
    assert!(words.iter().all(|words| fix.contains(words)), "{line:#}");
}

#[tokio::test]
async fn a_store_without_tls_is_none_for_a_page_with_it() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    let run = check_passes(&url, &[]).await;
    assert!(
        run.statuses()
            .iter()
            .all(|(check, _)| *check != "mixed-content")
    );
    let named = format!("http://store.invalid:{}", stand.addr.port());
    for (origins, is_blocked) in [
        ("https://app.example.com", true),
        ("http://a.example,https://*.example.com", true),
        ("http://app.example.com", false),
        ("*", false),
    ] {
        let more = [
            ("S3_PUBLIC_ENDPOINT_URL", named.as_str()),
            ("CORS_ALLOWED_ORIGINS", origins),
        ];
        let run = check_passes(&url, &more).await;
        let statuses = run.statuses();
        let warns = statuses.contains(&("mixed-content", "warning"));
        assert_eq!(warns, is_blocked, "{origins}: {:#}", run.report);
        if is_blocked {
            run.says(
                "mixed-content",
                "warning",
                &["store.invalid", "https://", "S3_PUBLIC_ENDPOINT_URL"],
            );
        }
    }
}
