//! Tickets in the path, for clients that send no headers.

use presignd::http::auth::new_api_key;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::jwt::{JWT, changed, claims, now, signed};
use super::on_behalf::with_both;
use super::tickets::{POLICIES, app, ticket};
use crate::helpers::{
    App, Grant, asking_at, get, post, problem, spawn_app_with_policies, with_members,
};
use crate::process::Running;
use crate::uppy::create_at;

const DAY: u64 = 24 * 3600;

async fn ask(app: &App, ticket: &str) -> Response {
    let path = format!("/t/{ticket}/upload/presigned-url");
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "size": 3});
    app.post(&path, &body).await
}

#[tokio::test]
async fn every_route_that_authenticates_accepts_a_ticket_in_its_path() {
    let app = app().await;
    let token = ticket(json!({"max_size": 100, "metadata": {"order": "42"}}));
    let response = ask(&app, &token).await;
    assert_eq!(response.headers()["referrer-policy"], "no-referrer");
    let grant: Grant = response.json().await.unwrap();
    assert_eq!(grant.headers["x-amz-meta-order"], "42");
    assert_eq!(app.upload(&grant, "abc").await.status(), 200);

    let base = format!("{}/t/{token}", app.base);
    let verified = post(&base, "/upload/verify", &json!({"key": grant.key})).await;
    assert_eq!(verified.status(), 200);
    let params = get(&base, "/s3/params?filename=a.txt&type=text/plain").await;
    assert_eq!(params.status(), 200);
    let create = json!({"filename": "a.bin", "type": "a/b", "metadata": {}});
    let upload = create_at(&base, create).await;
    for path in ["1", ""] {
        let answer = upload.call(Method::GET, path, &[], None).await;
        assert_eq!(answer.status(), 200, "{path}");
    }
    let document = app.document().await;
    let about = document["info"]["description"].as_str().unwrap();
    assert_eq!(about.matches("/t/{ticket}").count(), 1);
    let paths = document["paths"].as_object().unwrap();
    assert!(!paths.keys().any(|path| path.starts_with("/t/")));
    // No API key is accepted, so nobody may name another caller.
    assert!(!document.to_string().contains("onBehalfOf"));
}

#[tokio::test]
async fn only_a_short_lived_token_with_a_ticket_may_stand_in_a_path() {
    let app = app().await;
    let with_ticket = with_members(claims("alice"), &json!({"upload": {}}));
    let with = |changes: Value| with_members(with_ticket.clone(), &changes);
    for claims in [
        with(json!({})),
        with(json!({"iat": now(), "exp": now() + DAY})),
    ] {
        assert_eq!(ask(&app, &signed(&claims)).await.status(), 201);
    }
    let without_iat = changed(with_ticket.clone(), "iat", None);
    for claims in [
        claims("alice"),
        without_iat,
        with(json!({"exp": now() + DAY + 60})),
        with(json!({"iat": now() - DAY, "exp": now() + 60})),
        with(json!({"iat": now() + DAY, "exp": now() + 2 * DAY})),
        with(json!({"iat": "now"})),
    ] {
        let token = signed(&claims);
        // In a header it is as good as ever, also after it was refused here.
        for _ in 0..2 {
            let problem = problem(ask(&app, &token).await).await;
            assert_eq!(
                (&problem["status"], &problem["code"]),
                (&json!(401), &json!("invalid-ticket"))
            );
            assert!(!problem.to_string().contains(&token));
            let in_header = super::asking(&app).bearer_auth(&token);
            let body = json!({"filename": "a", "contentType": "a/b", "size": 1});
            let status = super::status(in_header.json(&body)).await;
            assert!(status == 201 || claims["iat"] == "now", "{claims}");
        }
    }
    let long = signed(&with(json!({"pad": "x".repeat(13_000)})));
    assert!(long.len() > 16 * 1024);
    assert_eq!(
        ask(&app, &long).await.status(),
        401,
        "no caller has such a long one"
    );
    let expired = signed(&with(json!({"exp": now() - 60})));
    for token in [
        expired.as_str(),
        "x",
        "a.b.c",
        "..",
        "%00",
        "%ff",
        &"x".repeat(20_000),
    ] {
        let response = ask(&app, token).await;
        let status = response.status().as_u16();
        assert!([400, 401, 404].contains(&status), "{status}");
        assert!(!problem(response).await.to_string().contains(&expired));
    }
}

#[tokio::test]
async fn a_ticket_of_an_issuer_whose_clock_is_ahead_is_accepted_once_its_time_has_come() {
    let app = app().await;
    let mut claims = claims("alice");
    claims["upload"] = json!({});
    // Clocks may differ by 30 seconds.
    claims["iat"] = json!(now() + 33);
    let token = signed(&claims);
    assert_eq!(ask(&app, &token).await.status(), 401);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(ask(&app, &token).await.status(), 201);
}

#[tokio::test]
async fn a_ticket_in_the_path_beside_any_other_credential_is_refused() {
    let (app, key) = with_both(POLICIES).await;
    let token = ticket(json!({}));
    assert_eq!(ask(&app, &token).await.status(), 201);
    let url = format!("{}/t/{token}/upload/presigned-url", app.base);
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "size": 3});
    let asking = || app.client.post(&url).json(&body);
    for request in [
        asking().bearer_auth(signed(&claims("bob"))),
        asking().bearer_auth(&token),
        asking().bearer_auth(&key),
        asking().header("x-api-key", &key),
        asking().header("authorization", "x"),
    ] {
        assert_eq!(super::status(request).await, 401);
    }
    let for_bob = asking().header("x-on-behalf-of", "bob");
    assert_eq!(super::status(for_bob).await, 403);
    // A key has no place in a path.
    assert_eq!(ask(&app, &key).await.status(), 401);
}

#[tokio::test]
async fn there_are_no_such_paths_without_tokens_or_for_public_routes() {
    let token = ticket(json!({}));
    let open = spawn_app_with_policies(POLICIES).await;
    assert_eq!(ask(&open, &token).await.status(), 404);
    let app = app().await;
    for path in [
        "",
        "/",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/t/x/s3/params",
    ] {
        let problem = problem(app.get(&format!("/t/{token}{path}")).await).await;
        assert_eq!(problem["status"], 404, "{path}");
        assert!(!problem.to_string().contains(&token), "{path}");
    }
}

#[tokio::test]
async fn metrics_show_the_route_without_the_ticket() {
    let app = app().await;
    let token = ticket(json!({}));
    assert_eq!(ask(&app, &token).await.status(), 201);
    let metrics = app.metrics().await;
    assert!(
        metrics.contains("route=\"/upload/presigned-url\""),
        "{metrics}"
    );
    assert!(!metrics.contains("/t/") && !metrics.contains(&token));
}

#[tokio::test]
async fn no_log_shows_a_ticket_of_a_path_and_names_who_calls_for_whom() {
    let folder = tempfile::tempdir().unwrap();
    let (key, entry) = new_api_key("back-end").unwrap();
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, format!("{entry}on_behalf = true\n")).unwrap();
    let variables = [
        ("AUTH_MODE", "jwt,api-key"),
        ("API_KEYS_FILE", keys.to_str().unwrap()),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "debug"),
    ];
    let (dev, base) = Running::dev(folder.path(), &[&JWT[1..], &variables].concat());
    let token = ticket(json!({}));
    let bad = ticket(json!({"nope": 1}));
    for path in [
        format!("/t/{token}/s3/params?filename=a.txt"),
        format!("/t/{token}/s3/params"),
        format!("/t/{token}/nope"),
        format!("/t/{bad}/s3/params?filename=a.txt"),
    ] {
        get(&base, &path).await;
    }
    let request = asking_at(&base)
        .header("x-api-key", key)
        .header("x-on-behalf-of", "user-17");
    assert_eq!(super::status(request).await, 201);
    let (_, printed, log) = dev.stop("INT");
    assert!(
        log.contains(r#""caller":"back-end","on_behalf_of":"user-17""#),
        "{log}"
    );
    assert!(log.contains(r#""route":"/s3/params""#), "{log}");
    let claims = token.split('.').nth(1).unwrap();
    let bad = bad.split('.').nth(1).unwrap();
    for secret in [claims, bad] {
        assert!(!log.contains(secret) && !printed.contains(secret));
    }
}
