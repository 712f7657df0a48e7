//! The store reports uploads, and the application is told of them: at least once, and only of what was
//! verified.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use presignd::http::events::Token;
use presignd::webhook::{Secrets, Webhook};
use presignd::{dev, http};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::helpers::{
    App, is, problem, spawn, spawn_app, spawn_app_with_both, spawn_app_with_policies, with_policies,
};

const TOKEN: &str = "a-token-of-the-store";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A service that tells `url` of uploads.
pub(crate) fn settings(url: &str) -> http::Settings {
    let webhook = Webhook::new(url.parse().unwrap(), Secrets::parse(SECRET).unwrap());
    http::Settings {
        events: Some(http::events::Settings {
            token: Some(Token::parse(TOKEN).unwrap()),
            webhook: webhook.unwrap(),
            give_up_after: Duration::from_hours(24),
        }),
        ..http::Settings::default()
    }
}

#[derive(Clone)]
struct Told {
    id: String,
    message: Value,
}

type Answer = fn() -> Response;

/// An application: what it was told, and how it answers.
#[derive(Clone)]
struct Application {
    told: Arc<Mutex<Vec<Told>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Application {
    async fn start() -> (Self, String) {
        let application = Self {
            told: Arc::default(),
            answer: Arc::new(Mutex::new(|| StatusCode::NO_CONTENT.into_response())),
        };
        let router = Router::new()
            .fallback(receive)
            .with_state(application.clone());
        let addr = spawn(router).await;
        (application, format!("http://{addr}/hook?secret=1"))
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    fn set_answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

async fn receive(State(this): State<Application>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
    let key = BASE64_STANDARD.decode(&SECRET[6..]).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&body);
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(text("webhook-signature"), format!("v1,{signature}"));
    assert_eq!(text("content-type"), "application/json");
    let message = serde_json::from_slice(&body).unwrap();
    this.told.lock().unwrap().push(Told { id, message });
    let answer = *this.answer.lock().unwrap();
    answer()
}

async fn start(policies: &str) -> (App, Application) {
    let (application, url) = Application::start().await;
    let app = spawn_app_with_both(with_policies(policies), &settings(&url)).await;
    (app, application)
}

/// A key as AWS, MinIO and RustFS encode it.
fn encoded(key: &str) -> String {
    let form: String = key
        .bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect();
    form
}

fn record(bucket: &str, key: &str, age: Duration) -> Value {
    let at = humantime::format_rfc3339_millis(SystemTime::now() - age);
    json!({
        "eventVersion": "2.1", "eventSource": "rustfs:s3", "eventTime": at.to_string(),
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": encoded(key), "size": 5}},
    })
}

fn notification(key: &str) -> Value {
    json!({"Records": [record(dev::BUCKET, key, Duration::ZERO)]})
}

impl App {
    async fn report(&self, notification: &Value) -> reqwest::Response {
        let url = format!("{}/events/s3", self.base);
        let request = self.client.post(url).bearer_auth(TOKEN);
        let request = request.body(notification.to_string());
        request.send().await.unwrap()
    }

    async fn uploaded(&self, filename: &str, content_type: &str) -> String {
        let grant = self.grant(filename, content_type).await;
        assert_eq!(self.upload(&grant, "hello").await.status(), StatusCode::OK);
        grant.key
    }
}

const ANY: &str = "[policies.default]\nallowed_metadata = ['*']";

#[tokio::test]
async fn an_upload_is_told_with_a_signature_whatever_its_name() {
    let (app, application) = start(ANY).await;
    for name in ["a.txt", "a b+c%2B.txt", "100%.txt", "사진.txt", "🎉.txt"] {
        let key = app.uploaded(name, "text/plain").await;
        let answer = app.report(&notification(&key)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        let message = application.told().pop().unwrap().message;
        assert_eq!(message["type"], "upload.arrived");
        let data = &message["data"];
        let found = (&data["bucket"], &data["key"], &data["policy"]);
        assert_eq!(found, (&json!("uploads"), &json!(key), &json!("default")));
        let found = (&data["size"], &data["contentType"], &data["metadata"]);
        assert_eq!(found, (&json!(5), &json!("text/plain"), &json!({})));
        assert!(data["etag"].is_string() && data["lastModified"].is_string());
        assert!(data.get("caller").is_none() && data.get("errors").is_none());
    }
}

#[tokio::test]
async fn ceph_and_event_bridge_send_keys_as_they_are() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a+b%25 한.txt", "text/plain").await;
    let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut of_ceph = record(dev::BUCKET, &key, Duration::ZERO);
    of_ceph["eventSource"] = "ceph:s3".into();
    of_ceph["eventName"] = "ObjectCreated:Put".into();
    of_ceph["s3"]["object"]["key"] = key.as_str().into();
    let of_event_bridge = json!({
        "source": "aws.s3", "detail-type": "Object Created", "time": at,
        "detail": {"bucket": {"name": dev::BUCKET}, "object": {"key": key, "size": 5}},
    });
    for notification in [json!({"Records": [of_ceph]}), of_event_bridge] {
        let answer = app.report(&notification).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let told = application.told();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].id, told[1].id, "it is the same version");
}

#[tokio::test]
async fn the_same_version_has_the_same_id_and_another_one_has_not() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    for body in ["one", "one", "two"] {
        if body != "one" || application.told().is_empty() {
            assert_eq!(app.upload(&grant, body).await.status(), StatusCode::OK);
        }
        app.report(&notification(&grant.key)).await;
    }
    let ids: Vec<String> = application.told().into_iter().map(|told| told.id).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
    assert!(ids[0].starts_with("msg_"));
}

#[tokio::test]
async fn an_object_that_violates_its_policy_is_told_as_refused() {
    let (app, application) = start(
        "[policies.small]\nkey = 'small/{uuid}/{filename}'\nmax_size = '3 B'\n[policies.default]",
    )
    .await;
    // As if someone else had put it there.
    let key = "small/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";
    let put = app.store.put_object().bucket(dev::BUCKET).key(key);
    let put = put.body(b"hello".to_vec().into());
    put.content_type("text/plain").send().await.unwrap();
    let answer = app.report(&notification(key)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let message = application.told().pop().unwrap().message;
    assert_eq!(message["type"], "upload.refused");
    assert_eq!(message["data"]["policy"], "small");
    assert_eq!(message["data"]["errors"][0]["pointer"], "/size");
}

#[tokio::test]
async fn a_key_tells_its_caller() {
    let (app, application) = start("[policies.own]\nkey = 'own/{caller}/{uuid}.{ext}'").await;
    let key = "own/auth0=7C7/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e.txt";
    let put = app.store.put_object().bucket(dev::BUCKET).key(key);
    put.content_type("text/plain").send().await.unwrap();
    app.report(&notification(key)).await;
    let message = application.told().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived", "{message}");
    assert_eq!(message["data"]["caller"], "auth0=7C7");
}

#[tokio::test]
async fn whatever_is_no_upload_is_acknowledged_and_told_to_nobody() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let mut removed = record(dev::BUCKET, &key, Duration::ZERO);
    removed["eventName"] = "s3:ObjectRemoved:Delete".into();
    let gone = key.replace("a.txt", "gone.txt");
    for (what, body) in [
        (
            "test",
            json!({"Event": "s3:TestEvent", "Service": "Amazon S3"}),
        ),
        ("removed", json!({"Records": [removed]})),
        (
            "other bucket",
            json!({"Records": [record("other", &key, Duration::ZERO)]}),
        ),
        ("unknown key", notification("elsewhere/a.txt")),
        (
            "deleted",
            json!({"Records": [record(dev::BUCKET, &gone, Duration::from_mins(3))]}),
        ),
        ("nothing", json!({"Records": []})),
    ] {
        assert_eq!(app.report(&body).await.status(), StatusCode::OK, "{what}");
    }
    assert!(application.told().is_empty());
}

#[tokio::test]
async fn an_object_that_comes_late_is_waited_for() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    let body = notification(&grant.key);
    let (answer, ()) = tokio::join!(app.report(&body), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        app.upload(&grant, "hello").await;
    });
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(application.told().len(), 1);
}

#[tokio::test]
async fn a_new_event_of_a_missing_object_comes_again() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    let answer = app.report(&notification(&grant.key)).await;
    assert!(answer.headers().contains_key("retry-after"));
    is(&problem(answer).await, 503, "event-not-delivered");
    assert!(application.told().is_empty());
}

#[tokio::test]
async fn an_application_that_does_not_accept_a_message_gets_it_again() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let answers: [Answer; 4] = [
        || StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        || (StatusCode::MOVED_PERMANENTLY, [("location", "/elsewhere")]).into_response(),
        || (StatusCode::BAD_REQUEST, vec![b'x'; 2_000_000]).into_response(),
        || StatusCode::GONE.into_response(),
    ];
    for answer in answers {
        application.set_answer(answer);
        let begin = std::time::Instant::now();
        let answer = app.report(&notification(&key)).await;
        is(&problem(answer).await, 503, "event-not-delivered");
        // The store does not repeat it a thousand times a second.
        assert!(begin.elapsed() >= Duration::from_secs(2));
    }
    assert_eq!(application.told().len(), 4, "and nobody follows a redirect");
    // A long answer, and an endless one, count by their status.
    application.set_answer(|| vec![b'x'; 2_000_000].into_response());
    assert_eq!(
        app.report(&notification(&key)).await.status(),
        StatusCode::OK
    );
    application.set_answer(|| {
        let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        Body::from_stream(endless).into_response()
    });
    assert_eq!(
        app.report(&notification(&key)).await.status(),
        StatusCode::OK
    );
    let ids: BTreeSet<String> = application.told().into_iter().map(|told| told.id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn an_event_that_can_never_be_delivered_is_given_up() {
    let app = spawn_app_with_both(with_policies(ANY), &settings("http://127.0.0.1:1/")).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    for (hours, status) in [(23, 503), (25, 200)] {
        let record = record(dev::BUCKET, &key, Duration::from_hours(hours));
        let answer = app.report(&json!({"Records": [record]})).await;
        assert_eq!(answer.status(), status, "{hours}");
    }
}

#[tokio::test]
async fn one_event_that_fails_makes_all_of_its_notification_come_again() {
    let (app, application) = start(ANY).await;
    let there = app.uploaded("a.txt", "text/plain").await;
    let missing = app.grant("b.txt", "text/plain").await.key;
    let records = [&there, &missing].map(|key| record(dev::BUCKET, key, Duration::ZERO));
    let answer = app.report(&json!({"Records": records})).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(application.told().len(), 1);
}

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
    assert!(application.told().is_empty());
    let in_path = post(&format!("/events/s3/{TOKEN}")).body(body);
    assert_eq!(in_path.send().await.unwrap().status(), StatusCode::OK);
    for path in ["/", "/events/s3", "/events/s3/x"] {
        let head = app.client.head(format!("{}{path}", app.base)).send().await;
        assert_eq!(head.unwrap().status(), StatusCode::OK, "{path}");
    }
    is(&problem(app.get("/").await).await, 404, "no-such-route");
    let without = spawn_app().await;
    is(
        &without.refused("/events/s3", &json!({})).await,
        404,
        "no-such-route",
    );
}

#[tokio::test]
async fn hostile_bodies_are_refused() {
    let (app, _application) = start(ANY).await;
    let report = async |body: Vec<u8>| {
        let url = format!("{}/events/s3", app.base);
        let request = app.client.post(url).bearer_auth(TOKEN).body(body);
        problem(request.send().await.unwrap()).await
    };
    for body in [
        "{}".to_owned(),
        String::new(),
        format!("{{\"Records\": {}", "[".repeat(1_000_000)),
        format!("{{\"Records\": [{}7]}}", "7,".repeat(500_000)),
        format!("{{\"Records\": [{}]}}", vec!["{}"; 1001].join(",")),
    ] {
        is(&report(body.into_bytes()).await, 400, "not-an-event");
    }
    is(&report(vec![b' '; 2_000_000]).await, 413, "body-too-large");
}

#[tokio::test]
async fn of_several_policies_the_first_that_allows_the_object_counts() {
    let policies = "[policies.a]\nmax_size = '3 B'\n[policies.b]\n[policies.c]";
    let (application, url) = Application::start().await;
    let app = spawn_app_with_both(with_policies(policies), &settings(&url)).await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "policy": "c"});
    let grant = app.granted("/upload/presigned-url", &body).await;
    app.upload(&grant, "hello").await;
    app.report(&notification(&grant.key)).await;
    let message = application.told().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived");
    assert_eq!(message["data"]["policy"], "b");
}

#[tokio::test]
async fn nothing_is_routed_without_settings() {
    let app = spawn_app_with_policies(ANY).await;
    let head = app.client.head(format!("{}/", app.base)).send().await;
    assert_eq!(head.unwrap().status(), StatusCode::NOT_FOUND);
}
