//! Someone uploads again with the same URL while an upload is committed, at every step of it; and presignd
//! dies at every step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use presignd::dev::BUCKET;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::interrupted::uploaded;
use super::{COMMIT, PENDING, PNG, URL, png, state_of};
use crate::helpers::{Grant, client, granted, post, s3_client};
use crate::stand_in::StandIn;

/// As long as [`PNG`], as the grant is bound to the length. It is no picture.
const BAD: &[u8; 8] = b"<script>";
/// Another picture.
const OTHER: &[u8; 8] = b"\x89PNG\r\n\x1a!";

/// What happens at one step of a commit, which is a request to the store.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    /// Uploaded before the store does what it is asked.
    before: Option<&'static [u8]>,
    /// Uploaded afterwards.
    after: Option<&'static [u8]>,
    /// Whether presignd never sees the answer.
    dies: bool,
}

/// Counts the store's requests but PUTs of objects, and makes something happen at one of them.
#[derive(Default)]
struct Script {
    step: AtomicUsize,
    at: Mutex<Option<(usize, Event)>>,
    /// At every step.
    always: bool,
    grant: Mutex<Option<Grant>>,
    /// Notified when all of an event has happened after which no answer arrives.
    died: tokio::sync::Notify,
}

impl Script {
    fn begin(&self, at: Option<(usize, Event)>) {
        self.step.store(0, Ordering::SeqCst);
        *self.at.lock().unwrap() = at;
    }

    async fn upload(&self, body: &'static [u8]) {
        let grant = self.grant.lock().unwrap().clone().unwrap();
        send(&grant, body).await;
    }
}

pub(super) async fn send(grant: &Grant, body: &'static [u8]) {
    assert_eq!(grant.send(&client(), body).await.status(), 200);
}

async fn follow(script: Arc<Script>, request: Request, next: Next) -> axum::response::Response {
    let is_upload = *request.method() == Method::PUT
        && request
            .uri()
            .query()
            .is_some_and(|q| q.contains("X-Amz-Signature"));
    // A service that has "died" repeats its calls to the store, for another key.
    let key = script
        .grant
        .lock()
        .unwrap()
        .as_ref()
        .map(|grant| grant.key.clone());
    let is_followed = key.is_some_and(|key| request.uri().path().ends_with(&key));
    let at = *script.at.lock().unwrap();
    let Some((at, event)) = at.filter(|_| is_followed && !is_upload) else {
        return next.run(request).await;
    };
    let step = script.step.fetch_add(1, Ordering::SeqCst);
    if step != at && !script.always {
        return next.run(request).await;
    }
    if let Some(body) = event.before {
        script.upload(body).await;
    }
    let response = next.run(request).await;
    if let Some(body) = event.after {
        script.upload(body).await;
    }
    if event.dies {
        script.died.notify_one();
        std::future::pending::<()>().await;
    }
    response
}

struct Stage {
    stand: StandIn,
    script: Arc<Script>,
    base: String,
    store: Client,
    /// The value of the tag of what has these bytes and is committed.
    marks: BTreeMap<&'static [u8], String>,
}

impl Stage {
    async fn new(script: Script) -> Self {
        let script = Arc::new(script);
        let followed = Arc::clone(&script);
        let stand =
            StandIn::between(move |request, next| follow(Arc::clone(&followed), request, next))
                .await;
        let store = s3_client(&stand.config());
        let base = stand.service(PENDING).await;
        let mut stage = Self {
            stand,
            script,
            base,
            store,
            marks: BTreeMap::new(),
        };
        for body in [PNG, BAD, OTHER] {
            let mut request = png();
            request["policy"] = json!("lax");
            let key = stage.upload(&request, body).await;
            let (status, answer) = stage.commit(&json!({"key": key, "policy": "lax"})).await;
            assert_eq!(status, 200, "{answer}");
            let mark = state_of(&stage.store, &key).await;
            stage.marks.insert(body, mark);
        }
        stage
    }

    async fn upload(&self, request: &Value, body: &'static [u8]) -> String {
        let grant: Grant = granted(&self.base, URL, request).await;
        let key = grant.key.clone();
        *self.script.grant.lock().unwrap() = Some(grant);
        self.script.upload(body).await;
        key
    }

    async fn commit(&self, body: &Value) -> (StatusCode, Value) {
        let answer = post(&self.base, COMMIT, body).await;
        (answer.status(), answer.json().await.unwrap())
    }

    async fn bytes(&self, key: &str) -> Vec<u8> {
        let get = self.store.get_object().bucket(BUCKET).key(key);
        let object = get.send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    /// Whether what is there is committed, by its own mark.
    async fn is_committed(&self, key: &str) -> bool {
        let bytes = self.bytes(key).await;
        state_of(&self.store, key).await == self.marks[&bytes[..]]
    }

    /// How many requests a commit sends to the store.
    async fn steps(&self) -> usize {
        let key = self.upload(&png(), PNG).await;
        self.script.begin(Some((usize::MAX, Event::default())));
        assert_eq!(self.commit(&json!({"key": key})).await.0, 200);
        self.script.step.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_upload_at_any_step_is_pending_afterwards_or_was_verified() {
    let stage = Stage::new(Script::default()).await;
    let steps = stage.steps().await;
    assert!((5..=10).contains(&steps), "{steps}");
    for step in 0..steps {
        for body in [BAD, OTHER, PNG] {
            let uploaded = Some(&body[..]);
            let none = Event::default();
            for event in [
                Event {
                    before: uploaded,
                    ..none
                },
                Event {
                    after: uploaded,
                    ..none
                },
            ] {
                let key = stage.upload(&png(), PNG).await;
                stage.script.begin(Some((step, event)));
                let (status, answer) = stage.commit(&json!({"key": key})).await;
                stage.script.begin(None);
                let what = format!("step {step}, {event:?}: {status} {answer}");
                let bytes = stage.bytes(&key).await;
                assert_eq!(bytes, body, "{what}");
                let tag = state_of(&stage.store, &key).await;
                if body == BAD {
                    assert_eq!(tag, "pending", "{what}");
                } else if tag != "pending" {
                    assert_eq!(tag, stage.marks[&body[..]], "{what}");
                    assert_eq!(status, 200, "{what}");
                }
                assert!([200, 409].contains(&status.as_u16()), "{what}");
                // Whoever commits what is there now gets the truth.
                let (status, _) = stage.commit(&json!({"key": key})).await;
                assert_eq!(status == 200, body != BAD, "{what}");
                assert_eq!(stage.is_committed(&key).await, body != BAD, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_uploads_again_at_every_step_gets_nothing_committed() {
    for (body, code) in [(BAD, "content-mismatch"), (OTHER, "replaced")] {
        let stage = Stage::new(Script {
            always: true,
            ..Script::default()
        })
        .await;
        let key = stage.upload(&png(), PNG).await;
        let event = Event {
            before: Some(body),
            ..Event::default()
        };
        stage.script.begin(Some((0, event)));
        let (status, answer) = stage.commit(&json!({"key": key})).await;
        stage.script.begin(None);
        let found = (status, answer["code"].as_str());
        assert_eq!(found, (StatusCode::CONFLICT, Some(code)), "{answer}");
        assert_eq!(state_of(&stage.store, &key).await, "pending");
    }
}

#[tokio::test]
async fn presignd_dies_at_any_step_and_nothing_unverified_is_committed() {
    let mut stage = Stage::new(Script::default()).await;
    let steps = stage.steps().await;
    for step in 0..steps {
        let [bad, other] = [BAD, OTHER].map(|body| Some(&body[..]));
        for (before, after) in [
            (None, None),
            (bad, None),
            (None, bad),
            (other, None),
            (None, other),
        ] {
            let dies = Event {
                before,
                after,
                dies: true,
            };
            let what = format!("step {step}, {dies:?}");
            let key = stage.upload(&png(), PNG).await;
            stage.script.begin(Some((step, dies)));
            let commit = json!({"key": key});
            tokio::select! {
                answer = stage.commit(&commit) => panic!("{what}: {answer:?}"),
                () = stage.script.died.notified() => {}
            }
            stage.script.begin(None);
            let is_bad = stage.bytes(&key).await == BAD;
            assert!(!(is_bad && stage.is_committed(&key).await), "{what}");
            // Another process goes on.
            stage.base = stage.stand.service(PENDING).await;
            let (status, answer) = stage.commit(&json!({"key": key})).await;
            assert_eq!(status == 200, !is_bad, "{what}: {answer}");
            assert_eq!(stage.is_committed(&key).await, !is_bad, "{what}");
        }
    }
}

/// The first of two commits finds that what it has tagged was replaced, and undoes that while the second one verifies
/// what is there now.
#[tokio::test]
async fn a_commit_that_undoes_its_tag_does_not_undo_that_of_another_one() {
    let plan = Arc::new(Mutex::new(None::<(Grant, String)>));
    let tagged = Arc::new(AtomicUsize::new(0));
    let second = Arc::new(Mutex::new(None));
    let (planned, started) = (Arc::clone(&plan), Arc::clone(&second));
    let stand = StandIn::between(move |request: Request, next: Next| {
        let (planned, started, tagged) = (planned.clone(), started.clone(), tagged.clone());
        async move {
            let query = request.uri().query().unwrap_or_default();
            let is_tag = *request.method() == Method::PUT && query.starts_with("tagging");
            let step = if is_tag {
                tagged.fetch_add(1, Ordering::SeqCst)
            } else {
                usize::MAX
            };
            let plan = planned.lock().unwrap().clone();
            match (step, plan) {
                (0, Some((grant, _))) => send(&grant, b"another").await,
                (1, Some((grant, base))) => {
                    let body = json!({"key": grant.key, "policy": "lax"});
                    let commit = async move { post(&base, COMMIT, &body).await.status() };
                    let commit = tokio::spawn(commit);
                    // It may have to wait until this call has ended.
                    for _ in 0..100 {
                        if !commit.is_finished() {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                    *started.lock().unwrap() = Some(commit);
                }
                _ => {}
            }
            next.run(request).await
        }
    })
    .await;
    let store = s3_client(&stand.config());
    let base = stand.service(PENDING).await;
    let grant = uploaded(&base).await;
    *plan.lock().unwrap() = Some((grant.clone(), base.clone()));
    let body = json!({"key": grant.key, "policy": "lax", "size": 5});
    let first = post(&base, COMMIT, &body).await;
    assert_eq!(first.status(), 409);
    let second = second.lock().unwrap().take().unwrap();
    assert_eq!(second.await.unwrap(), 200);
    assert_ne!(state_of(&store, &grant.key).await, "pending");
}
