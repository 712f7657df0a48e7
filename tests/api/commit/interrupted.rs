//! Commits that something happens to between writing the tag and verifying again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::races::send;
use super::{COMMIT, PENDING, URL, state_of};
use crate::helpers::{Grant, eventually, granted, post, s3_client};
use crate::stand_in::StandIn;

fn is_tag(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    *request.method() == Method::PUT && query.starts_with("tagging")
}

/// An upload of five bytes under a policy that allows any other ones in their place.
pub(super) async fn uploaded(base: &str) -> Grant {
    let file = json!({"filename": "a.txt", "contentType": "text/plain", "policy": "lax"});
    let grant: Grant = granted(base, URL, &file).await;
    send(&grant, b"first").await;
    grant
}

async fn commit(base: &str, body: &Value) -> StatusCode {
    post(base, COMMIT, body).await.status()
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_no_commit_between_its_steps() {
    let grant = Arc::new(Mutex::new(None::<Grant>));
    let (tagged, hung_up) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let replaced = Arc::clone(&grant);
    let (tells, waits) = (Arc::clone(&tagged), Arc::clone(&hung_up));
    let stand = StandIn::between(move |request: Request, next: Next| {
        let (tells, waits) = (Arc::clone(&tells), Arc::clone(&waits));
        let grant = is_tag(&request).then(|| replaced.lock().unwrap().take());
        async move {
            let Some(grant) = grant.flatten() else {
                return next.run(request).await;
            };
            send(&grant, b"another").await;
            let response = next.run(request).await;
            tells.notify_one();
            waits.notified().await;
            response
        }
    })
    .await;
    let store = s3_client(&stand.config());
    let base = stand.service(PENDING).await;
    let upload = uploaded(&base).await;
    *grant.lock().unwrap() = Some(upload.clone());
    let body = json!({"key": upload.key, "policy": "lax", "size": 5});
    tokio::select! {
        status = commit(&base, &body) => panic!("{status}"),
        () = tagged.notified() => {}
    }
    // Now it has hung up, and what is there has the tag of what was verified.
    assert_ne!(state_of(&store, &upload.key).await, "pending");
    tokio::time::sleep(Duration::from_millis(200)).await;
    hung_up.notify_one();
    let is_undone = async || state_of(&store, &upload.key).await == "pending";
    eventually("the tag of what nobody has verified is undone", is_undone).await;
}

#[tokio::test]
async fn a_commit_does_not_undo_what_another_replica_has_committed() {
    let plan = Arc::new(Mutex::new(None::<(Grant, String)>));
    let planned = Arc::clone(&plan);
    let stand = StandIn::between(move |request: Request, next: Next| {
        let plan = is_tag(&request).then(|| planned.lock().unwrap().take());
        async move {
            let response = next.run(request).await;
            if let Some((grant, replica)) = plan.flatten() {
                send(&grant, b"another").await;
                let body = json!({"key": grant.key, "policy": "lax"});
                assert_eq!(commit(&replica, &body).await, 200);
            }
            response
        }
    })
    .await;
    let store = s3_client(&stand.config());
    let (base, replica) = (stand.service(PENDING).await, stand.service(PENDING).await);
    let upload = uploaded(&base).await;
    *plan.lock().unwrap() = Some((upload.clone(), replica));
    let body = json!({"key": upload.key, "policy": "lax", "size": 5});
    assert_eq!(commit(&base, &body).await, 409);
    assert_ne!(state_of(&store, &upload.key).await, "pending");
}
