//! Files that are uploaded already, under a policy that has the store refuse them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use presignd::dev::BUCKET;
use presignd::telemetry::Metrics;
use presignd::upload::UploadService;
use presignd::{http, s3};
use reqwest::Method;
use serde_json::{Value, json};

use super::{PATH, asked, complete, file, put, put_parts, refused};
use crate::helpers::{
    App, answer, fields, is, post, problem, spawn, spawn_app_with_both, spawn_app_with_policies,
    with_policies,
};
use crate::rate_limit::limited;
use crate::stand_in::{StandIn, empty};

const ONCE: &str = "[policies.once]\nkey = 'once/{filename}'\noverwrite = false\nmax_size = '10 B'\n\
    [policies.unique]\noverwrite = false\n\
    [policies.again]\nkey = 'again/{filename}'\noverwrite = true\n";

/// Sends `abc` as this file, in parts.
async fn send_in_parts(app: &App, file: &Value) {
    let answer = asked(app, "once", std::slice::from_ref(file)).await;
    let upload = &answer["multipart"]["files"][0];
    let list = put_parts(upload, &answer["multipart"]["partSize"], b"abc").await;
    assert_eq!(complete(upload, list).await.status(), 200);
}

#[tokio::test]
async fn better_upload_skips_a_file_that_the_store_would_refuse_as_uploaded_already() {
    let app = spawn_app_with_policies(ONCE).await;
    let old = file("old.txt", 3, "text/plain");
    let answer = asked(&app, "once", std::slice::from_ref(&old)).await;
    assert!(answer["files"][0].get("skip").is_none());
    assert_eq!(put(&answer["files"][0], b"abc".into()).await.status(), 200);

    let answer = asked(
        &app,
        "once",
        &[file("new.txt", 3, "text/plain"), old.clone()],
    )
    .await;
    let [new, skipped] = answer["files"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    assert_eq!(
        *skipped,
        json!({
            "signedUrl": "",
            "file": {"name": "old.txt", "size": 3, "type": "text/plain",
                "objectInfo": {"key": "once/old.txt", "metadata": {}}},
            "headers": {},
            "skip": "completed",
        })
    );
    assert!(new.get("skip").is_none());
    assert_eq!(put(new, b"new".into()).await.status(), 200);
    assert_eq!(app.stored("once/new.txt").await.unwrap().0, b"new");
    assert_eq!(app.stored("once/old.txt").await.unwrap().0, b"abc");

    // All of them: the answer is still of the same kind.
    let answer = asked(&app, "once", &[old]).await;
    assert_eq!(answer["files"][0]["skip"], "completed");

    // Another file of that name is sent, and the store refuses it.
    for other in [
        file("old.txt", 4, "text/plain"),
        file("old.txt", 3, "text/csv"),
    ] {
        let answer = asked(&app, "once", std::slice::from_ref(&other)).await;
        let single = &answer["files"][0];
        assert!(single.get("skip").is_none(), "{other}");
        let bytes = vec![b'x'; usize::try_from(other["size"].as_u64().unwrap()).unwrap()];
        assert_eq!(put(single, bytes).await.status(), 412);
    }
}

#[tokio::test]
async fn better_upload_skips_files_among_those_that_are_sent_in_parts() {
    let app = spawn_app_with_policies(ONCE).await;
    let old = file("old", 3, "");
    send_in_parts(&app, &old).await;

    let answer = asked(&app, "once", &[old, file("new", 3, "")]).await;
    let multipart = &answer["multipart"];
    assert_eq!(
        multipart["files"][0],
        json!({
            "file": {"name": "old", "size": 3, "type": "",
                "objectInfo": {"key": "once/old", "metadata": {}}},
            "parts": [], "uploadId": "", "completeSignedUrl": "", "abortSignedUrl": "",
            "skip": "completed",
        })
    );
    let new = &multipart["files"][1];
    assert!(new.get("skip").is_none());
    let list = put_parts(new, &multipart["partSize"], b"new").await;
    assert_eq!(complete(new, list).await.status(), 200);
    assert_eq!(app.stored("once/new").await.unwrap().0, b"new");
}

#[tokio::test]
async fn better_upload_asks_the_store_only_where_it_could_refuse_the_file() {
    let store = StandIn::embedded().await;
    let base = store.service(ONCE).await;
    store.asked();
    let ask = async |policy: &str, sizes: [u64; 2]| {
        let files =
            sizes.map(|size| json!({"name": size.to_string(), "size": size, "type": "a/b"}));
        let body = json!({"route": policy, "files": files});
        let status = post(&base, PATH, &body).await.status();
        (status.as_u16(), store.asked())
    };
    assert_eq!(ask("unique", [1, 2]).await, (200, 0));
    assert_eq!(ask("again", [1, 2]).await, (200, 0));
    assert_eq!(ask("once", [1, 2]).await, (200, 2));
    // A file that the policy refuses tells nobody what the store has.
    assert_eq!(ask("once", [1, 11]).await, (422, 0));
}

#[tokio::test]
async fn better_upload_sends_a_file_of_which_the_store_tells_nothing() {
    for status in [403, 500] {
        let store =
            StandIn::except(move |method, _| (*method == Method::HEAD).then(|| empty(status)));
        let base = store.await.service(ONCE).await;
        let body = json!({"route": "once", "files": [file("a", 1, "a/b")]});
        let answer: Value = answer(200, post(&base, PATH, &body).await).await;
        assert!(answer["files"][0].get("skip").is_none());
        assert_ne!(answer["files"][0]["signedUrl"], "");
    }
}

#[tokio::test]
async fn each_question_whether_a_file_is_uploaded_counts_as_a_request() {
    let app = spawn_app_with_both(with_policies(ONCE), &limited(20)).await;
    let files: Vec<Value> = (0..10).map(|n| file("a", n, "a/b")).collect();
    for _ in 0..2 {
        asked(&app, "once", &files).await;
    }
    let body = json!({"route": "once", "files": files});
    let (problem, _) = refused(&app, &body).await;
    is(&problem, 429, "rate-limited");
}

#[tokio::test]
async fn a_refusal_names_the_place_of_its_file_in_the_request_also_after_one_that_is_skipped() {
    let app = spawn_app_with_policies(
        "[policies.once]
        key = 'once/{filename}'
        overwrite = false",
    )
    .await;
    let old = file("old", 3, "");
    send_in_parts(&app, &old).await;

    let files = [old, file("a", 1, "a/b"), file("b", 1000 << 30, "a/b")];
    let body = json!({"route": "once", "files": files});
    let (problem, _) = refused(&app, &body).await;
    is(&problem, 422, "file-too-large");
    assert_eq!(fields(&problem), [("/files/2/size", "file-too-large")]);
}

/// Breaks the presigner of the SDK once it is set. What it adds to requests makes the presigner sign all URLs.
#[derive(Debug)]
struct Broken(Arc<AtomicBool>);

impl Intercept for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().insert("x-test", "1");
        if self.0.load(Ordering::SeqCst) {
            return Err("as the test wants".into());
        }
        Ok(())
    }
}

/// Nobody could abort them: the client did not get their URLs.
#[tokio::test]
async fn uploads_whose_urls_cannot_be_signed_are_aborted() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&is_broken);
    let store = StandIn::except(move |method, query| {
        let begins = *method == Method::POST && query.contains("uploads");
        breaks.fetch_or(begins, Ordering::SeqCst);
        None
    })
    .await;
    let config = store.config();
    let provider = config.credentials_provider().unwrap();
    let credentials = s3::CredentialsCache::new(provider, Duration::from_mins(10));
    let client_of_store = s3::client(&config, true, &credentials);
    let presigner = client_of_store.config().to_builder();
    let presigner = Client::from_conf(presigner.interceptor(Broken(is_broken)).build());
    let bucket = s3::Bucket::new(client_of_store, presigner, BUCKET.to_owned(), credentials);
    let settings = with_policies("[policies.default]\nmax_size = '100 MiB'");
    let service = UploadService::new(bucket.await.unwrap(), settings, Metrics::default());
    let router = http::router(Arc::new(service), &http::Settings::default());
    let addr = spawn(router).await;
    let files = [file("a", 1, "a/b"), file("b", 40 << 20, "a/b")];
    let body = json!({"route": "default", "files": files});
    let problem = problem(post(&format!("http://{addr}"), PATH, &body).await).await;
    assert_eq!(problem["status"], 500, "{problem}");
    assert_eq!(store.asked_to(&Method::DELETE), 2);
}
