//! Who may report events, and what is no notification.

use presignd::http;
use serde_json::json;

use super::{ANY, Application, TOKEN, notification, settings, start};
use crate::helpers::{is, problem, spawn_app, spawn_app_with_both, with_policies};
use crate::rate_limit::limited;

#[tokio::test]
async fn without_the_token_nothing_is_read() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let post = |path: &str| app.client.post(format!("{}{path}", app.base));
    let body = notification(&key).to_string();
    for token in [
        "",
        "a",
        "a-token-of-the-storf",
        "a-token-of-the-store-and-more",
    ] {
        for request in [
            post("/events/s3").bearer_auth(token),
            post(&format!("/events/s3/{token}x")),
        ] {
            let answer = request.body(body.clone()).send().await.unwrap();
            assert!(answer.headers().contains_key("www-authenticate"));
            is(&problem(answer).await, 401, "unauthorized");
        }
    }
    assert!(application.received().is_empty());
    let in_path = post(&format!("/events/s3/{TOKEN}")).body(body);
    assert_eq!(in_path.send().await.unwrap().status(), 200);
    for path in ["/", "/events/s3", "/events/s3/x"] {
        let head = app.client.head(format!("{}{path}", app.base)).send().await;
        assert_eq!(head.unwrap().status(), 200, "{path}");
    }
    is(&problem(app.get("/").await).await, 404, "no-such-route");
}

#[tokio::test]
async fn guesses_of_the_token_count_for_the_address_and_the_store_is_never_refused() {
    let (_application, url) = Application::start().await;
    let limited = http::Settings {
        events: settings(&url).events,
        ..limited(3)
    };
    let app = spawn_app_with_both(with_policies(ANY), &limited).await;
    for (token, status) in [
        ("guess", 401),
        (TOKEN, 200),
        ("guess", 401),
        ("guess", 401),
        ("guess", 429),
        (TOKEN, 200),
    ] {
        let request = app.client.post(format!("{}/events/s3", app.base));
        let request = request.bearer_auth(token).body(r#"{"Records": []}"#);
        assert_eq!(request.send().await.unwrap().status(), status, "{token}");
    }
}

#[tokio::test]
async fn nothing_is_routed_without_settings() {
    let app = spawn_app().await;
    let head = app.client.head(format!("{}/", app.base)).send().await;
    assert_eq!(head.unwrap().status(), 404);
    let refused = app.refused("/events/s3", &json!({})).await;
    is(&refused, 404, "no-such-route");
}

#[tokio::test]
async fn hostile_bodies_are_refused() {
    let (app, _application) = start(ANY).await;
    let report = async |body: Vec<u8>| {
        let url = format!("{}/events/s3", app.base);
        let request = app.client.post(url).bearer_auth(TOKEN).body(body);
        problem(request.send().await.unwrap()).await
    };
    let many = format!("{{\"Records\": [{}7]}}", "7,".repeat(500_000));
    is(&report(many.into_bytes()).await, 400, "not-an-event");
    is(&report(vec![b' '; 2_000_000]).await, 413, "body-too-large");
}
