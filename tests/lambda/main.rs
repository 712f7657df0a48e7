//! presignd as a function of AWS Lambda: the real binary, a stand-in of Lambda, the events of all that
//! can stand in front of a function, and a store that checks signatures.

// Tests may panic.
#![allow(clippy::unwrap_used)]

mod events;
mod fronts;
mod function;
// `api` uses all of these two.
#[allow(dead_code)]
#[path = "../api/helpers.rs"]
mod helpers;
#[allow(dead_code)]
#[path = "../api/process.rs"]
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fronts::{Answer, FRONTS, Front, Sent};
use crate::function::Function;
use crate::helpers::client;

const PRESIGN: &str = "/upload/presigned-url";

fn photo() -> Value {
    json!({"filename": "한 a+b.jpg", "contentType": "image/jpeg"})
}

#[track_caller]
fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert_eq!(problem["requestId"], id);
}

#[tokio::test]
async fn behind_each_front_a_grant_is_good_for_the_store() {
    let function = Function::start(&[]).await;
    let client = client();
    for front in FRONTS {
        for is_binary in [false, true] {
            let sent = Sent {
                is_binary,
                ..Sent::post(PRESIGN, &photo())
            };
            let answer = function.ask(front, &sent).await;
            assert_eq!(answer.status, 201, "{front:?}: {answer:?}");
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers["cache-control"], "no-store");
            let grant = answer.json();
            assert_eq!(grant["headers"], json!({"content-type": "image/jpeg"}));
            let body = format!("{front:?} {is_binary}");
            let put = client
                .put(grant["url"].as_str().unwrap())
                .header("content-type", "image/jpeg")
                .body(body.clone());
            assert_eq!(put.send().await.unwrap().status(), 200);
            let key = grant["key"].as_str().unwrap();
            assert!(key.ends_with("/한 a+b.jpg"), "{key}");
            assert_eq!(function.stored(key), body.as_bytes());
        }
    }
}

#[tokio::test]
async fn behind_each_front_what_is_wrong_is_a_problem() {
    let folder = tempfile::TempDir::new().unwrap();
    let (key, entry) = presignd::http::auth::new_api_key("web").unwrap();
    let file = folder.path().join("api-keys.toml");
    std::fs::write(&file, entry).unwrap();
    let variables = [
        ("AUTH_MODE", "api-key"),
        ("API_KEYS_FILE", file.to_str().unwrap()),
    ];
    let function = Function::start(&variables).await;
    for front in FRONTS {
        let ask = async |sent: Sent| function.ask(front, &sent).await;
        let with_key = |sent: Sent| sent.header("x-api-key", &key);

        let stranger = ask(Sent::post(PRESIGN, &photo())).await;
        is_problem(&stranger, 401, "unauthorized");
        assert!(stranger.headers.contains_key("www-authenticate"));
        let granted = ask(with_key(Sent::post(PRESIGN, &photo()))).await;
        assert_eq!(granted.status, 201);

        let empty = ask(with_key(Sent::post(PRESIGN, &json!({"filename": ""})))).await;
        is_problem(&empty, 400, "invalid-request");
        assert_eq!(empty.json()["errors"].as_array().unwrap().len(), 2);
        let mut not_text = with_key(Sent::post(PRESIGN, &photo()));
        not_text.body = vec![b'"', 0xff, b'"'];
        not_text.is_binary = true;
        is_problem(&ask(not_text).await, 400, "invalid-json");
        let mut long = with_key(Sent::post(PRESIGN, &photo()));
        long.body = vec![b' '; 100_000];
        is_problem(&ask(long).await, 413, "body-too-large");
        is_problem(
            &ask(Sent::get("/upload/nothing")).await,
            404,
            "no-such-route",
        );
        is_problem(&ask(Sent::get(PRESIGN)).await, 405, "method-not-allowed");
    }
    // Of two keys neither counts, also where an event has its headers in two forms.
    let other = "x".repeat(key.len());
    for keys in [[&key, &other], [&other, &key]] {
        let sent = Sent::post(PRESIGN, &photo());
        let sent = sent
            .header("x-api-key", keys[0])
            .header("x-api-key", keys[1]);
        for front in [Front::RestApi, Front::AlbMultiValue] {
            is_problem(&function.ask(front, &sent).await, 401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn a_query_arrives_as_it_was_sent() {
    let function = Function::start(&[]).await;
    for front in FRONTS {
        for name in ["a b+c&d=e%20f?.txt", "한.txt", "<x>\"'#;.txt"] {
            let mut sent = Sent::get("/s3/params");
            sent.query = vec![("filename", name), ("type", "text/plain")];
            let answer = function.ask(front, &sent).await;
            assert_eq!(answer.status, 200, "{front:?}: {answer:?}");
            let key = answer.json()["fields"]["key"].as_str().unwrap().to_owned();
            assert!(key.ends_with(&format!("/{name}")), "{front:?}: {key}");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_client_sends_fails_the_function() {
    let function = Function::start(&[]).await;
    for front in FRONTS {
        for host in ["xn--a", "[", "a:99999", "a b", "%", "é"] {
            let sent = Sent::get("/healthz").header("host", host);
            let answer = function.ask(front, &sent).await;
            assert_eq!(answer.status, 200, "{front:?}: {host}");
        }
        let sent = Sent::get("/healthz").header("x-forwarded-proto", "a b");
        let answer = function.ask(front, &sent).await;
        assert_eq!(answer.status, 200, "{front:?}: {answer:?}");
        for path in [
            "//",
            "/%zz",
            "/%ff",
            "/a\\..\\b",
            "/한",
            "/a b",
            "/../..",
            "*",
            // A front that lets everyone see `/healthz` has not authorised another route.
            "/healthz/../s3/params",
            "/healthz/%2e%2e/s3/params",
            "/healthz\\..\\s3/params",
            "/s3/par\tams",
            "/s3/params?",
            "/s3/params#",
            "/$default/s3/params",
        ] {
            let answer = function.ask(front, &Sent::get(path)).await;
            is_problem(&answer, 404, "no-such-route");
        }
    }
    for front in [Front::FunctionUrl, Front::HttpApi] {
        let mut event = front.event(&Sent::get("/s3/params"));
        event["rawQueryString"] = "filename=<a>\"{|}^`é&type=text/plain".into();
        let answer = front.answer(&function.outcome(event.clone()).await.unwrap());
        assert_eq!(answer.status, 200, "{front:?}: {answer:?}");
        event["rawQueryString"] = "filename=%ff&type=text/plain".into();
        let answer = front.answer(&function.outcome(event).await.unwrap());
        is_problem(&answer, 400, "invalid-request");
    }
    // An event of something else is not a request that was answered: it failed, and may come again.
    let queue = json!({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]});
    assert!(function.outcome(queue).await.is_err());
    let healthy = function.ask(Front::Alb, &Sent::get("/healthz")).await;
    assert_eq!(healthy.status, 200);
}

#[tokio::test]
async fn the_rate_limit_counts_the_address_that_the_front_saw() {
    let variables = [
        ("RATE_LIMIT_PER_SECOND", "0.001"),
        ("RATE_LIMIT_BURST", "1"),
    ];
    let function = Function::start(&variables).await;
    for (number, front) in FRONTS.into_iter().enumerate() {
        let from = |address: &str| Sent {
            from: format!("{address}.{number}"),
            ..Sent::post(PRESIGN, &photo())
        };
        let first = function.ask(front, &from("198.51.100")).await;
        assert_eq!(first.status, 201, "{front:?}");
        let second = function.ask(front, &from("198.51.100")).await;
        is_problem(&second, 429, "rate-limited");
        assert!(second.headers.contains_key("retry-after"));
        let neighbour = function.ask(front, &from("203.0.113")).await;
        assert_eq!(neighbour.status, 201, "{front:?}");
    }
}

/// What it does in the background stops with it after the answer, and fails once it goes on.
#[tokio::test]
async fn a_function_asks_the_issuer_only_while_a_request_waits() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let keys = get(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        Json(json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "b"}]}))
    });
    let issuer = helpers::spawn(Router::new().route("/", keys)).await;
    let variables = [
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "https://issuer.example"),
        ("JWT_AUDIENCE", "presignd"),
        ("JWT_JWKS_URL", &format!("http://{issuer}/")),
    ];
    let function = Function::start(&variables).await;
    let answer = function
        .ask(Front::FunctionUrl, &Sent::get("/healthz"))
        .await;
    assert_eq!(answer.status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let header = r#"{"alg":"EdDSA","kid":"a","typ":"JWT"}"#;
    let parts =
        [header, r#"{"sub":"alice"}"#, "signature"].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let sent = Sent::post(PRESIGN, &photo())
        .header("authorization", format!("Bearer {}", parts.join(".")));
    is_problem(
        &function.ask(Front::FunctionUrl, &sent).await,
        401,
        "unauthorized",
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_list_is_refused_whose_answer_its_front_would_not_accept() {
    let function = Function::start(&[]).await;
    // The events of both versions of the ALB are limited, and no other one below 6 MB.
    let name = format!("{}.txt", "n".repeat(240));
    let file = json!({"filename": name, "contentType": "text/plain"});
    let ask = async |front: Front, count: usize| {
        let list = json!({"files": vec![file.clone(); count]});
        let sent = Sent::post("/upload/presigned-urls", &list);
        function.ask(front, &sent).await
    };
    for front in FRONTS {
        let (fits, too_long) = match front {
            Front::Alb | Front::AlbMultiValue => (500, Some(1000)),
            _ => (900, None),
        };
        let answer = ask(front, fits).await;
        assert_eq!(answer.status, 201, "{front:?}");
        assert_eq!(answer.json()["uploads"].as_array().unwrap().len(), fits);
        if let Some(count) = too_long {
            let refused = ask(front, count).await;
            is_problem(&refused, 413, "answer-too-large");
            assert_eq!(refused.headers["cache-control"], "no-store");
        }
    }
    let (_, log) = function.stop().await;
    assert_eq!(log.matches("so the client got 413").count(), 2, "{log}");
}

#[tokio::test]
async fn requests_without_an_address_are_limited_as_one_client() {
    let variables = [
        ("RATE_LIMIT_PER_SECOND", "0.001"),
        ("RATE_LIMIT_BURST", "1"),
    ];
    let function = Function::start(&variables).await;
    // As with `routing.http.xff_header_processing.mode=remove`.
    let mut event = Front::Alb.event(&Sent::post(PRESIGN, &photo()));
    event["headers"]
        .as_object_mut()
        .unwrap()
        .remove("x-forwarded-for");
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let outcome = function.outcome(event.clone()).await.unwrap();
        statuses.push(Front::Alb.answer(&outcome).status.as_u16());
    }
    assert_eq!(statuses, [201, 429]);
}

#[tokio::test]
async fn a_stage_may_be_called_as_a_route_begins() {
    let function = Function::start(&[]).await;
    let mut event = Front::RestApi.event(&Sent::post(PRESIGN, &photo()));
    event["requestContext"]["stage"] = "upload".into();
    event["requestContext"]["path"] = format!("/upload{PRESIGN}").into();
    let outcome = function.outcome(event).await.unwrap();
    assert_eq!(Front::RestApi.answer(&outcome).status, 201);
}

#[tokio::test]
async fn an_image_goes_out_byte_for_byte() {
    let function = Function::start(&[]).await;
    for front in FRONTS {
        let sent = Sent::get("/docs/favicon-32x32.png");
        let answer = function.ask(front, &sent).await;
        assert_eq!(answer.status, 200, "{front:?}");
        assert_eq!(answer.headers["content-type"], "image/png");
        assert!(answer.body.starts_with(b"\x89PNG\r\n\x1a\n"), "{front:?}");
    }
}

/// An event holds all that a request does: it is in the log as little.
#[tokio::test]
async fn the_log_has_the_id_of_the_invocation_and_none_of_its_secrets() {
    let function = Function::start(&[("RUST_LOG", "trace"), ("LOG_FORMAT", "json")]).await;
    let mut ids = Vec::new();
    for front in FRONTS {
        let file = json!({"filename": "private.txt", "contentType": "text/plain"});
        let sent = Sent::post(PRESIGN, &file).header("authorization", "Bearer private");
        let id = Uuid::new_v4().to_string();
        let answer = function.ask_as(&id, front, &sent).await;
        assert_eq!(answer.headers["x-request-id"], id);
        ids.push(id);
        // A client cannot choose one.
        let sent = Sent::get("/healthz").header("x-request-id", "of-my-own");
        let answer = function.ask(front, &sent).await;
        assert_ne!(answer.headers["x-request-id"], "of-my-own");
    }
    let (code, log) = function.stop().await;
    assert_eq!(code, Some(0), "{log}");
    for id in ids {
        assert!(log.contains(&id), "{id}: {log}");
    }
    for secret in ["private", "X-Amz-Signature", "presignd-dev-secret"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    assert!(log.contains("ANYONE"), "{log}");
    assert!(log.contains("PUBLIC_URL"), "{log}");
}
