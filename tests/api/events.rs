//! The store reports uploads, and the application is notified of them: at least once, and only of what was
//! verified.

mod delivery;
mod messages;
mod missing;
mod strangers;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use presignd::http::events::Token;
use presignd::webhook::{Secrets, Webhook};
use presignd::{dev, http};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::helpers::{App, client, service, spawn, spawn_app_with_both, with_policies};
use crate::stand_in::StandIn;

const TOKEN: &str = "a-token-of-the-store";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A service that posts webhooks to `url`.
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
struct Received {
    id: String,
    message: Value,
}

type Answer = fn() -> Response;

/// An application: what it received, and how it answers.
#[derive(Clone)]
struct Application {
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Application {
    async fn start() -> (Self, String) {
        let application = Self {
            received: Arc::default(),
            answer: Arc::new(Mutex::new(|| StatusCode::NO_CONTENT.into_response())),
        };
        let router = Router::new()
            .fallback(receive)
            .with_state(application.clone());
        let addr = spawn(router).await;
        (application, format!("http://{addr}/hook?secret=1"))
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
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
    this.received.lock().unwrap().push(Received { id, message });
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
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
    key.replace("%20", "+")
}

fn record(bucket: &str, key: &str, age: Duration) -> Value {
    let at = humantime::format_rfc3339_millis(SystemTime::now() - age);
    json!({
        "eventVersion": "2.1", "eventSource": "rustfs:s3", "eventTime": at.to_string(),
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": encoded(key), "size": 5}},
    })
}

pub(crate) fn notification(key: &str) -> Value {
    json!({"Records": [record(dev::BUCKET, key, Duration::ZERO)]})
}

async fn report_to(base: &str, notification: &Value) -> reqwest::Response {
    let request = client().post(format!("{base}/events/s3"));
    let request = request.bearer_auth(TOKEN).body(notification.to_string());
    request.send().await.unwrap()
}

/// The same, which gives events up after seconds.
fn impatient(mut settings: http::Settings) -> http::Settings {
    settings.events.as_mut().unwrap().give_up_after = Duration::from_secs(5);
    settings
}

/// A service at this store, and its application.
async fn start_at(
    store: &StandIn,
    policies: &str,
    settings: impl FnOnce(http::Settings) -> http::Settings,
) -> (String, Application) {
    let (application, url) = Application::start().await;
    let uploads = service(&store.config(), dev::BUCKET, true, with_policies(policies)).await;
    let addr = spawn(http::router(uploads, &settings(self::settings(&url)))).await;
    (format!("http://{addr}"), application)
}

/// The status for a notification of this store, and the messages that the application gets.
async fn reported_by(store: &StandIn, policies: &str, notification: &Value) -> (u16, Vec<Value>) {
    let (base, application) = start_at(store, policies, |it| it).await;
    let answer = report_to(&base, notification).await;
    let received = application.received().into_iter();
    let messages = received.map(|received| received.message).collect();
    (answer.status().as_u16(), messages)
}

impl App {
    pub(crate) async fn report(&self, notification: &Value) -> reqwest::Response {
        report_to(&self.base, notification).await
    }

    /// Reports what the service has to acknowledge.
    pub(crate) async fn acknowledges(&self, notification: &Value) {
        let answer = self.report(notification).await;
        assert_eq!(answer.status(), 200, "{notification}");
    }

    pub(crate) async fn uploaded(&self, filename: &str, content_type: &str) -> String {
        let file = json!({"filename": filename, "contentType": content_type});
        self.sent(&file, "hello").await.key
    }
}

const ANY: &str = "[policies.default]\nallowed_metadata = ['*']";
