//! What clients get when the way to the store is broken, and what is left in the store then.

mod expected;
mod proxy;

use std::net::SocketAddr;
use std::time::Duration;

use aws_config::Region;
use futures_util::stream::{self, StreamExt};
use presignd::dev::BUCKET;
use presignd::http;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::expected::{FAULTS, ROUTES, Route};
use self::proxy::{Fault, Operation, Proxy};
use crate::helpers::{
    App, get, hurry, post, problem, service, spawn, spawn_app, spawn_app_with_policies,
    with_policies,
};
use crate::uppy::{Upload, create_at};

/// A service whose way to its store is broken for one operation, and a request that needs it.
struct Case {
    route: Route,
    fault: Fault,
    app: App,
    proxy: Proxy,
    base: String,
    key: String,
    upload: Option<Upload>,
    parts: Value,
}

const BYTES: &[u8] = b"hello";

/// A service that reaches the store of `app` through a proxy.
async fn behind(app: &App, operations: &[Operation], fault: Fault) -> (Proxy, String) {
    let store = app.config.endpoint_url().unwrap();
    let store: SocketAddr = store.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = Proxy::start(store, operations, fault).await;
    let config = app.config.clone().into_builder();
    let config = config
        .endpoint_url(format!("http://{}", proxy.addr))
        // SDK clients in the same region share a retry quota.
        .region(Region::new(format!("faults-{}", proxy.addr.port())))
        .build();
    let uploads = service(&config, BUCKET, true, with_policies(POLICIES)).await;
    let router = http::router(uploads, &http::Settings::default());
    (proxy, format!("http://{}", spawn(router).await))
}

const POLICIES: &str = "[policies.default]\n[policies.sniffed]\nsniff = true";

async fn begun(base: &str) -> Upload {
    create_at(base, json!({"filename": "a.txt", "type": "text/plain"})).await
}

impl Case {
    async fn new(route: Route, fault: Fault) -> Self {
        let app = spawn_app_with_policies(POLICIES).await;
        let (mut key, mut upload, mut parts) = (String::new(), None, Value::Null);
        match route {
            Route::Verify | Route::Sniff => {
                let grant = app.grant("a.txt", "text/plain").await;
                assert_eq!(app.upload(&grant, BYTES).await.status(), 200);
                key = grant.key;
            }
            Route::List | Route::Complete | Route::Abort => {
                let begun = begun(&app.base).await;
                let etag = begun.put(1, BYTES.to_vec()).await;
                parts = json!([{"PartNumber": 1, "ETag": etag}]);
                key.clone_from(&begun.key);
                upload = Some(begun);
            }
            Route::Create | Route::Readyz => {}
        }
        let (proxy, base) = behind(&app, &[route.operation()], fault).await;
        Self {
            route,
            fault,
            upload: upload.map(|upload| upload.at(&base)),
            app,
            proxy,
            base,
            key,
            parts,
        }
    }

    async fn ask(&self) -> Response {
        let post = async |path: &str, body: Value| post(&self.base, path, &body).await;
        let verify = async |body| post("/upload/verify", body).await;
        match (self.route, &self.upload) {
            (Route::Verify, _) => verify(json!({"key": self.key})).await,
            (Route::Sniff, _) => verify(json!({"key": self.key, "policy": "sniffed"})).await,
            (Route::Create, _) => {
                post("/s3/multipart", json!({"filename": "a", "type": "a/b"})).await
            }
            (Route::List, Some(upload)) => upload.call(Method::GET, "", &[], None).await,
            (Route::Complete, Some(upload)) => upload.complete(self.parts.clone()).await,
            (Route::Abort, Some(upload)) => upload.call(Method::DELETE, "", &[], None).await,
            (Route::Readyz, _) => get(&self.base, "/readyz").await,
            _ => unreachable!(),
        }
    }

    /// Sends the request and checks the answer, its time, and what is left in the store.
    async fn run(self) {
        let name = format!("{:?} at {:?}", self.fault, self.route);
        let begin = Instant::now();
        let response = self.ask().await;
        let took = begin.elapsed();
        let status = response.status().as_u16();
        let expected = self.route.expected(self.fault);
        assert!(expected.contains(&status), "{name}: {status}");
        // A slow machine needs some time of its own.
        let limit = self.route.limit() + Duration::from_secs(5);
        assert!(took <= limit, "{name}: {took:?}");
        self.check_answer(response, &name).await;
        self.check_what_is_left(&name).await;
    }

    async fn check_answer(&self, response: Response, name: &str) {
        let status = response.status().as_u16();
        let has_to_wait = response.headers().contains_key("retry-after");
        assert_eq!(has_to_wait, status == 503, "{name}");
        if status == 200 {
            return;
        }
        let problem = problem(response).await;
        let code = match status {
            502 => "storage-error",
            503 => "storage-unavailable",
            504 => "storage-timeout",
            _ => panic!("{name}: {problem}"),
        };
        assert_eq!(problem["code"], code, "{name}");
        let text = problem.to_string();
        for cause in ["secret", "127.0.0.1", "error:", "SlowDown", "InternalError"] {
            assert!(!text.contains(cause), "{name}: {text}");
        }
    }

    /// Nothing is left that should not be there, and nothing is lost: without the fault it works.
    async fn check_what_is_left(&self, name: &str) {
        let did_it = self.fault.reaches_the_store();
        let uploads = |files: &[String]| files.iter().filter(|f| f.starts_with(".upload-")).count();
        match self.route {
            // At most one: creating is not retried when the store may have done it.
            Route::Create => {
                assert_eq!(
                    uploads(&self.app.unfinished()),
                    usize::from(did_it),
                    "{name}"
                );
            }
            Route::Complete | Route::Abort => {
                assert_eq!(self.app.unfinished().is_empty(), did_it, "{name}");
            }
            _ => {}
        }
        self.proxy.lift_fault();
        if self.route == Route::Readyz {
            // The last result is cached for some seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        let again = self.ask().await;
        assert_eq!(again.status(), 200, "{name}, without it");
        match self.route {
            Route::Create => {
                let begun = begun(&self.base).await;
                assert_eq!(begun.send(BYTES.to_vec()).await.status(), 200);
            }
            Route::List => {
                let upload = self.upload.as_ref().unwrap();
                let completed = upload.complete(self.parts.clone()).await;
                assert_eq!(completed.status(), 200, "{name}");
            }
            _ => {}
        }
        if let Route::List | Route::Complete = self.route {
            let (bytes, _) = self.app.stored(&self.key).await.unwrap();
            assert_eq!(bytes, BYTES, "{name}");
            let verify = json!({"key": self.key, "size": BYTES.len()});
            let verified = self.app.post("/upload/verify", &verify).await;
            assert_eq!(verified.status(), 200, "{name}");
        }
        if self.route == Route::Abort {
            assert_eq!(self.app.stored(&self.key).await, None, "{name}");
        }
        if let Route::List | Route::Complete | Route::Abort = self.route {
            assert_eq!(self.app.unfinished(), Vec::<String>::new(), "{name}");
        }
    }
}

/// Tries these faults at every route, a few at a time, and reports all failures at the end.
async fn try_all(which: impl Fn(Fault) -> bool) {
    let faults = FAULTS.into_iter().filter(|fault| which(*fault));
    let cases = faults.flat_map(|fault| ROUTES.map(|route| (route, fault)));
    let failures = stream::iter(cases)
        .map(async |(route, fault)| {
            // In a task, so that a panic does not end the other cases.
            let run = tokio::spawn(async move { Case::new(route, fault).await.run().await });
            run.await.err()
        })
        .buffer_unordered(8)
        .filter_map(async |failure| failure)
        .count();
    hurry();
    assert_eq!(failures.await, 0, "see the panics above");
}

#[tokio::test]
async fn a_store_that_hangs_is_reported_in_time_and_nothing_is_lost() {
    try_all(Fault::hangs).await;
}

#[tokio::test]
async fn a_store_that_breaks_off_or_answers_nonsense_is_reported_and_nothing_is_lost() {
    try_all(|fault| !fault.hangs()).await;
}

#[tokio::test]
async fn an_upload_whose_completion_got_lost_can_be_completed_again() {
    hurry();
    let app = spawn_app().await;
    let upload = begun(&app.base).await;
    let etag = upload.put(1, BYTES.to_vec()).await;
    let parts = json!([{"PartNumber": 1, "ETag": etag}]);
    let broken = [Operation::CompleteMultipartUpload, Operation::HeadObject];
    let (proxy, base) = behind(&app, &broken, Fault::AnswerLost).await;
    let upload = upload.at(&base);
    // The second time the store knows no such upload, but presignd cannot be sure yet.
    for _ in 0..2 {
        let lost = problem(upload.complete(parts.clone()).await).await;
        assert_eq!(lost["code"], "storage-unavailable");
    }
    proxy.lift_fault();
    // Afterwards it finds the object, however often the client calls.
    for _ in 0..2 {
        let answer: Value = upload.complete(parts.clone()).await.json().await.unwrap();
        assert_eq!(answer["key"], upload.key);
        let location = answer["location"].as_str().unwrap();
        assert!(location.ends_with(&upload.key), "{location}");
    }
    let verify = json!({"key": upload.key, "size": BYTES.len()});
    let verified = app.post("/upload/verify", &verify).await;
    assert_eq!(verified.status(), 200);
}

#[tokio::test]
async fn an_aborted_upload_does_not_count_as_completed() {
    let app = spawn_app_with_policies(
        "[policies.default]
        [policies.fixed]
        key = 'fixed/{filename}'
        overwrite = true",
    )
    .await;
    let begin = async |policy: &str| {
        let body = json!({"filename": "a.txt", "type": "text/plain", "policy": policy});
        let upload = create_at(&app.base, body).await;
        let etag = upload.put(1, BYTES.to_vec()).await;
        (upload, json!([{"PartNumber": 1, "ETag": etag}]))
    };
    let (other, parts) = begin("fixed").await;
    assert_eq!(other.complete(parts).await.status(), 200);
    // With `fixed` there is an object under the key: that of the other upload.
    for policy in ["default", "fixed"] {
        let (upload, parts) = begin(policy).await;
        let aborted = upload.call(Method::DELETE, "", &[], None).await;
        assert_eq!(aborted.status(), 200);
        let gone = problem(upload.complete(parts).await).await;
        assert_eq!(gone["code"], "no-such-upload", "{policy}");
    }
}

#[tokio::test]
async fn grants_do_not_depend_on_the_store() {
    let app = spawn_app().await;
    let upload = begun(&app.base).await;
    for fault in FAULTS {
        let name = format!("{fault:?}");
        let (proxy, base) = behind(&app, &Operation::ALL, fault).await;
        let upload = upload.at(&base);
        let file = json!({"filename": "a.txt", "contentType": "text/plain"});
        let post = async |path: &str, body: &Value| post(&base, path, body).await.status();
        let get = async |path: &str| get(&base, path).await.status();
        let part = async |path: &str, query: &[(&str, &str)]| {
            upload.call(Method::GET, path, query, None).await.status()
        };
        let begin = Instant::now();
        for status in [
            post("/upload/presigned-url", &file).await,
            post("/upload/presigned-urls", &json!({"files": [file]})).await,
            post("/upload/presigned-post", &file).await,
            get("/s3/params?filename=a.txt&type=text/plain").await,
            part("1", &[]).await,
            part("batch", &[("partNumbers", "1,2")]).await,
            get("/healthz").await,
        ] {
            assert!(status.is_success(), "{name}: {status}");
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{name}");
        assert_eq!(proxy.asked(), 0, "{name}");
    }
}
