//! The embedded store reports its new objects.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use presignd::dev::Notifier;
use presignd::http;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::helpers::{Grant, built_in, client, eventually, granted, service, spawn};
use crate::presigned_post::PostGrant;
use crate::uppy::create_at;

/// Sends requests to a store that reports them, and returns the keys that the application receives, in
/// order.
async fn reported(folder: &TempDir, expected: usize) -> Vec<String> {
    let reported: Arc<Mutex<Vec<String>>> = Arc::default();
    let keys = Arc::clone(&reported);
    let application = Router::new().fallback(async move |body: Bytes| {
        let message: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(message["type"], "upload.arrived", "{message}");
        let key = message["data"]["key"].as_str().unwrap().to_owned();
        keys.lock().unwrap().push(key);
        StatusCode::NO_CONTENT
    });
    let url = format!("http://{}/", spawn(application).await);
    let mut events = None;
    let notifier = Notifier::open(folder.path(), Some(url.parse().unwrap()), &mut events);
    let notifier = notifier.unwrap();
    assert!(notifier.banner().contains("whsec_"));
    let store = notifier.watching(crate::helpers::store(folder.path()));
    let config = crate::helpers::sdk_config(spawn(store).await);
    let uploads = service(&config, presignd::dev::BUCKET, true, built_in()).await;
    let settings = http::Settings {
        events,
        ..http::Settings::default()
    };
    let addr = spawn(http::router(uploads, &settings)).await;
    let base = format!("http://{addr}");
    if expected > 0 {
        upload_in_each_way(&base).await;
    }
    let stop = CancellationToken::new();
    let (sent, ()) = tokio::join!(notifier.run(addr, &stop), async {
        let left = folder.path().join(".events");
        let is_done = async || {
            let is_empty = std::fs::read_dir(&left).unwrap().count() == 0;
            is_empty && reported.lock().unwrap().len() >= expected
        };
        eventually("all events are sent", is_done).await;
        stop.cancel();
    });
    sent.unwrap();
    reported.lock().unwrap().clone()
}

fn form_name() -> String {
    format!("form {}.txt", "한".repeat(40))
}

async fn upload_in_each_way(base: &str) {
    let client = client();
    let file = json!({"filename": "put a+b%.txt", "contentType": "text/plain"});
    let put: Grant = granted(base, "/upload/presigned-url", &file).await;
    assert_eq!(put.send(&client, "hello").await.status(), 200);

    // The store keeps the object of such a key under a shorter name.
    let file = json!({"filename": form_name(), "contentType": "text/plain"});
    let form: PostGrant = granted(base, "/upload/presigned-post", &file).await;
    assert_eq!(form.send(&client, "hello").await.status(), 201);

    let file = json!({"filename": "parts 🎉.txt", "type": "text/plain"});
    let upload = create_at(base, file).await;
    let sent = upload.send(b"hello".to_vec()).await;
    assert_eq!(sent.status(), 200);
}

#[tokio::test]
async fn each_way_to_upload_is_reported_once() {
    let folder = TempDir::new().unwrap();
    let mut names: Vec<String> = reported(&folder, 3)
        .await
        .iter()
        .map(|key| key.rsplit('/').next().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [form_name().as_str(), "parts 🎉.txt", "put a+b%.txt"]
    );
    // Nothing is left for the next start.
    assert_eq!(reported(&folder, 0).await, [""; 0]);
}
