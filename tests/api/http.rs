//! What every response has, whatever the route.

use presignd::http::AllowedOrigins;
use reqwest::Response;
use serde_json::json;

use crate::connections::{connect, status_of};
use crate::helpers::{App, built_in, problem, spawn_app, spawn_app_where};

#[tokio::test]
async fn every_response_is_not_stored_and_carries_a_request_id() {
    let app = spawn_app().await;
    let ok = json!({"filename": "a", "contentType": "a/b"});
    let responses = [
        app.ask(&ok).await,
        app.ask(&json!({})).await,
        app.get("/nope").await,
        app.get("/healthz").await,
        app.get("/docs/").await,
    ];
    let mut ids = std::collections::BTreeSet::new();
    for response in responses {
        let headers = response.headers();
        assert_eq!(headers["cache-control"], "no-store", "{}", response.url());
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!headers.contains_key("server"));
        ids.insert(headers["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn a_request_id_from_a_trusted_proxy_is_kept_if_it_is_harmless() {
    let proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let app = spawn_app_where(built_in(), |it| it.trusted_proxies = proxies).await;
    let ask = async |id: &str| {
        let request = app.client.get(format!("{}/nope", app.base));
        let problem = problem(request.header("x-request-id", id).send().await.unwrap()).await;
        problem["requestId"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("abc-123_X.y:z").await, "abc-123_X.y:z");
    for hostile in ["a b", "", "a\"b", "{}", &"x".repeat(129)] {
        let id = ask(hostile).await;
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{hostile:?} gave {id}");
    }
}

#[tokio::test]
async fn a_client_cannot_choose_its_request_id() {
    let app = spawn_app().await;
    let request = app.client.get(format!("{}/nope", app.base));
    let response = request.header("x-request-id", "mine").send().await.unwrap();
    assert_ne!(response.headers()["x-request-id"], "mine");
}

/// An app that pages of other names must not reach, behind these proxies.
async fn local_app(trusted_proxies: &[&str]) -> App {
    let trusted = trusted_proxies.iter().map(|it| it.parse().unwrap());
    spawn_app_where(built_in(), |it| {
        it.local_hosts_only = true;
        it.trusted_proxies = trusted.collect();
    })
    .await
}

#[tokio::test]
async fn a_page_cannot_reach_a_loopback_service_under_a_name_of_its_own() {
    let app = local_app(&[]).await;
    let ask = async |host: &str| {
        let request = app.client.get(format!("{}/healthz", app.base));
        request.header("host", host).send().await.unwrap()
    };
    for host in [
        "localhost",
        "LocalHost:3000",
        "127.0.0.1:1",
        "[::1]:1",
        "app.localhost",
        "192.0.2.1",
    ] {
        assert_eq!(ask(host).await.status(), 200, "{host}");
    }
    for host in [
        "rebound.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a@b",
    ] {
        let response = ask(host).await;
        assert_eq!(response.status(), 403, "{host}");
        assert_eq!(problem(response).await["code"], "host-not-allowed");
    }
}

/// The host that clients name is the proxy's.
#[tokio::test]
async fn a_trusted_proxy_alone_may_forward_any_host_to_a_loopback_service() {
    for (trusted, status) in [("127.0.0.1/32", 200), ("10.0.0.1/32", 403)] {
        let app = local_app(&[trusted]).await;
        let request = app.client.get(format!("{}/healthz", app.base));
        let request = request.header("host", "uploads.example.com");
        assert_eq!(request.send().await.unwrap().status(), status, "{trusted}");
    }
}

#[tokio::test]
async fn a_target_that_names_another_host_counts_as_that_host() {
    let app = local_app(&[]).await;
    let addr = app.base.strip_prefix("http://").unwrap();
    for (host, status) in [
        ("rebound.evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("localhost:3000", 200),
    ] {
        let head = format!("GET http://{host}/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut stream = connect(addr, &head).await;
        assert_eq!(status_of(&mut stream).await, status, "{host}");
    }
}

#[tokio::test]
async fn a_query_that_is_not_utf_8_is_refused_and_not_repaired() {
    let app = spawn_app().await;
    for (name, status) in [
        ("%ff", 400),
        ("a%e2%82", 400),
        ("%ed%a0%80", 400),
        ("%EF%BF%BD", 200),
        ("%e2%82%ac", 200),
    ] {
        let path = format!("/s3/params?filename={name}&type=a/b");
        assert_eq!(app.get(&path).await.status(), status, "{name}");
    }
}

#[tokio::test]
async fn all_names_below_a_domain_can_be_allowed() {
    let below = AllowedOrigins::Exactly(vec!["https://*.a.example".parse().unwrap()]);
    for origin in ["https://x.a.example", "https://x-1.y.a.example"] {
        let response = preflight(below.clone(), origin).await;
        assert_eq!(response.headers()["access-control-allow-origin"], origin);
    }
    for origin in [
        "https://a.example",
        "https://.a.example",
        "http://x.a.example",
        "https://x.a.example:8443",
        "https://xa.example",
        "https://evil.example/.a.example",
        "https://x.a.example.evil.example",
    ] {
        let response = preflight(below.clone(), origin).await;
        let headers = response.headers();
        assert!(
            !headers.contains_key("access-control-allow-origin"),
            "{origin}"
        );
    }
}

/// A preflight from `origin`, to a service that lets `allowed` in.
async fn preflight(allowed: AllowedOrigins, origin: &str) -> Response {
    let app = spawn_app_where(built_in(), |it| it.allowed_origins = allowed).await;
    let url = format!("{}/upload/presigned-url", app.base);
    let headers = "content-type,traceparent,x-requested-with";
    crate::helpers::preflight(&url, origin, "POST", headers).await
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_call() {
    let only = AllowedOrigins::Exactly(vec!["https://a.example".parse().unwrap()]);
    let response = preflight(only.clone(), "https://a.example").await;
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    for (name, allowed) in [
        ("access-control-allow-methods", "POST"),
        (
            "access-control-allow-headers",
            "content-type,traceparent,x-requested-with",
        ),
    ] {
        let value = headers[name].to_str().unwrap();
        assert!(value.contains(allowed), "{name}: {value}");
    }
    assert!(headers.contains_key("access-control-max-age"));
    assert!(headers["vary"].to_str().unwrap().contains("origin"));

    let other = preflight(only, "https://b.example").await;
    let without_any = preflight(AllowedOrigins::None, "https://a.example").await;
    assert_eq!(without_any.status(), 405);
    for response in [other, without_any] {
        let allowed = response.headers().get("access-control-allow-origin");
        assert_eq!(allowed, None);
    }
    let response = preflight(AllowedOrigins::Any, "https://b.example").await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    for (origin, is_allowed) in [
        ("http://localhost:5173", true),
        ("http://[::1]:8080", true),
        ("https://localhost.b.example", false),
        ("null", false),
    ] {
        let response = preflight(AllowedOrigins::Loopback, origin).await;
        let allowed = response.headers().get("access-control-allow-origin");
        assert_eq!(allowed.is_some(), is_allowed, "{origin}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_long_is_refused_before_it_is_sent() {
    let app = spawn_app().await;
    let addr = app.base.strip_prefix("http://").unwrap();
    let head = "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
        content-length: 99999999\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = connect(addr, head).await;
    assert_eq!(status_of(&mut stream).await, 413);
}
