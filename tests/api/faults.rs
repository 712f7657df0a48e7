//! What clients get when the way to the store is broken, and what is left in the store then. The table is that
//! of `docs/faults.md`: each fault, at each route, is tried here.

mod proxy;

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use aws_config::Region;
use futures_util::stream::{self, StreamExt};
use presignd::dev::BUCKET;
use presignd::http;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::proxy::{Fault, Operation, Proxy};
use crate::helpers::{
    App, client, problem, service, spawn, spawn_app, spawn_app_with_policies, with_policies,
};
use crate::uppy::{Upload, create_at};

const PAGE: &str = include_str!("../../docs/faults.md");

const ERROR: &str = "<Error><Code>InternalError</Code><Message>secret cause</Message></Error>";
const BUSY: &str = "<Error><Code>SlowDown</Code><Message>secret cause</Message></Error>";
const HTML: &str = "<!doctype html><title>secret cause</title>";
const XML: &str = "<ListBucketResult><Name>secret cause</Name></ListBucketResult>";

/// As the table names them.
const FAULTS: [(&str, Fault); 15] = [
    ("nobody listens", Fault::Closed),
    ("does not connect", Fault::Unreachable),
    ("never answers", Fault::Silent),
    ("answers too late", Fault::Late),
    ("silent within the answer", Fault::SilentWithin),
    ("reset before the store heard of it", Fault::Reset),
    ("reset after the store did it", Fault::AnswerLost),
    ("reset within the answer", Fault::ResetWithin),
    ("answer cut short", Fault::CutShort),
    ("500", Fault::Answers(500, ERROR)),
    ("503 `SlowDown`", Fault::Answers(503, BUSY)),
    ("200 and `<Error>`", Fault::Answers(200, ERROR)),
    ("200 and HTML", Fault::Answers(200, HTML)),
    ("200 and other XML", Fault::Answers(200, XML)),
    ("200 and nothing", Fault::Answers(200, "")),
];

/// What asks the store, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Verify,
    VerifyKeys,
    /// Under a policy that looks into files.
    Sniff,
    Create,
    List,
    Complete,
    Abort,
    Readyz,
}

const ROUTES: [Route; 8] = [
    Route::Verify,
    Route::VerifyKeys,
    Route::Sniff,
    Route::Create,
    Route::List,
    Route::Complete,
    Route::Abort,
    Route::Readyz,
];

impl Route {
    fn operation(self) -> Operation {
        match self {
            Self::Verify | Self::VerifyKeys => Operation::HeadObject,
            Self::Sniff => Operation::GetObject,
            Self::Create => Operation::CreateMultipartUpload,
            Self::List => Operation::ListParts,
            Self::Complete => Operation::CompleteMultipartUpload,
            Self::Abort => Operation::AbortMultipartUpload,
            Self::Readyz => Operation::HeadBucket,
        }
    }
}

/// The cells of the row that begins with this.
fn row(name: &str) -> Vec<&'static str> {
    let row = PAGE.lines().find_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        (cells.next()? == name).then(|| cells.collect())
    });
    row.unwrap_or_else(|| panic!("docs/faults.md has no row {name:?}"))
}

/// A service whose way to its store is broken for one operation, and something to ask it for.
struct Case {
    route: Route,
    fault: Fault,
    /// What has to come of it, as the table says: `503 ×3` for the status and how often the store is asked.
    expected: &'static str,
    within: Duration,
    app: App,
    proxy: Proxy,
    base: String,
    key: String,
    upload: Option<Upload>,
    parts: Value,
}

const BYTES: &[u8] = b"hello";

/// A service on the store of `app`, by way of a proxy.
async fn behind(app: &App, operations: &[Operation], fault: Fault) -> (Proxy, String) {
    let store = app.config.endpoint_url().unwrap();
    let store: SocketAddr = store.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = Proxy::start(store, operations, fault).await;
    let config = app.config.clone().into_builder();
    let config = config
        .endpoint_url(format!("http://{}", proxy.addr))
        // Clients in the same region share a quota of retries.
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
    async fn new(route: Route, fault: Fault, expected: &'static str, within: Duration) -> Self {
        let app = spawn_app_with_policies(POLICIES).await;
        let (mut key, mut upload, mut parts) = (String::new(), None, Value::Null);
        match route {
            Route::Verify | Route::VerifyKeys | Route::Sniff => {
                let grant = app.grant("a.txt", "text/plain").await;
                assert_eq!(app.upload(&grant, BYTES).await.status(), StatusCode::OK);
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
            expected,
            within,
            upload: upload.map(|upload| upload.at(&base)),
            app,
            proxy,
            base,
            key,
            parts,
        }
    }

    async fn ask(&self) -> Response {
        let post = async |path: &str, body: Value| {
            let request = client().post(format!("{}{path}", self.base)).json(&body);
            request.send().await.unwrap()
        };
        let verify = async |body| post("/upload/verify", body).await;
        match (self.route, &self.upload) {
            (Route::Verify, _) => verify(json!({"key": self.key})).await,
            (Route::VerifyKeys, _) => verify(json!({"keys": [self.key]})).await,
            (Route::Sniff, _) => verify(json!({"key": self.key, "policy": "sniffed"})).await,
            (Route::Create, _) => {
                post("/s3/multipart", json!({"filename": "a", "type": "a/b"})).await
            }
            (Route::List, Some(upload)) => upload.call(Method::GET, "", &[], None).await,
            (Route::Complete, Some(upload)) => upload.complete(self.parts.clone()).await,
            (Route::Abort, Some(upload)) => upload.call(Method::DELETE, "", &[], None).await,
            (Route::Readyz, _) => {
                let request = client().get(format!("{}/readyz", self.base));
                request.send().await.unwrap()
            }
            _ => unreachable!(),
        }
    }

    /// What the store keeps of uploads that are under way.
    fn under_way(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.app.data()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload")).collect()
    }

    /// Asks, holds the answer to the table, and looks at what is left. What differs, if anything does.
    async fn run(self) -> Option<String> {
        let name = format!("{:?} at {:?}", self.fault, self.route);
        let begin = Instant::now();
        let response = self.ask().await;
        let took = begin.elapsed();
        let status = response.status().as_u16();
        let found = format!("{status} ×{}", self.proxy.asked());
        let mut differs = String::new();
        if !self.expected.split(" or ").any(|cell| cell == found) {
            write!(differs, "{found} instead of {}; ", self.expected).unwrap();
        }
        // A slow machine takes some time of its own.
        if took > self.within + Duration::from_secs(5) {
            write!(differs, "{took:?} instead of {:?}; ", self.within).unwrap();
        }
        eprintln!("{name}: {found} after {took:.1?}");
        self.check_answer(response, &name).await;
        self.check_what_is_left(&name).await;
        (!differs.is_empty()).then(|| format!("{name}: {differs}"))
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

    /// Nothing that should not be there, and nothing is lost: without the fault it goes on.
    async fn check_what_is_left(&self, name: &str) {
        let did_it = self.fault.reaches_the_store();
        let uploads = |files: &[String]| files.iter().filter(|f| f.starts_with(".upload-")).count();
        match self.route {
            Route::Create => assert_eq!(uploads(&self.under_way()), usize::from(did_it), "{name}"),
            Route::Complete | Route::Abort => {
                assert_eq!(self.under_way().is_empty(), did_it, "{name}");
            }
            _ => {}
        }
        self.proxy.lift_fault();
        if self.route == Route::Readyz {
            // What it found out counts for some seconds.
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        let again = self.ask().await;
        assert_eq!(again.status(), StatusCode::OK, "{name}, without it");
        match self.route {
            Route::Create => {
                let begun = begun(&self.base).await;
                let etag = begun.put(1, BYTES.to_vec()).await;
                let parts = json!([{"PartNumber": 1, "ETag": etag}]);
                assert_eq!(begun.complete(parts).await.status(), StatusCode::OK);
            }
            Route::List => {
                let upload = self.upload.as_ref().unwrap();
                let completed = upload.complete(self.parts.clone()).await;
                assert_eq!(completed.status(), StatusCode::OK, "{name}");
            }
            _ => {}
        }
        if let Route::List | Route::Complete = self.route {
            let (bytes, _) = self.app.stored(&self.key).await.unwrap();
            assert_eq!(bytes, BYTES, "{name}");
            let verify = json!({"key": self.key, "size": BYTES.len()});
            let verified = self.app.post("/upload/verify", &verify).await;
            assert_eq!(verified.status(), StatusCode::OK, "{name}");
        }
        if self.route == Route::Abort {
            assert_eq!(self.app.stored(&self.key).await, None, "{name}");
        }
        if let Route::List | Route::Complete | Route::Abort = self.route {
            assert_eq!(self.under_way(), Vec::<String>::new(), "{name}");
        }
    }
}

/// Lets time fly while nothing happens.
async fn hurry() {
    loop {
        let begin = std::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Later, others had something to do.
        if begin.elapsed() < Duration::from_millis(9) {
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(100)).await;
            tokio::time::resume();
        }
    }
}

/// At every route, a few at a time. What differs from the table, and what else went wrong, is told at the end.
async fn try_all(which: impl Fn(Fault) -> bool) {
    let within = row("within");
    let mut runs = Vec::new();
    for (name, fault) in FAULTS.into_iter().filter(|&(_, fault)| which(fault)) {
        let cells = row(name);
        assert_eq!((cells.len(), within.len()), (ROUTES.len(), ROUTES.len()));
        for ((route, cell), within) in ROUTES.into_iter().zip(cells).zip(&within) {
            let within = within.strip_suffix(" s").unwrap().parse().unwrap();
            let within = Duration::from_secs(within);
            // Of its own, so that one that panics does not keep the others from being told.
            runs.push(async move {
                let run = async move { Case::new(route, fault, cell, within).await.run().await };
                let result = tokio::spawn(run).await;
                result.unwrap_or_else(|panic| Some(panic.to_string()))
            });
        }
    }
    let runs = stream::iter(runs).buffer_unordered(8);
    let runs = runs.filter_map(async |wrong| wrong).collect::<Vec<_>>();
    let wrong = tokio::select! {
        wrong = runs => wrong,
        () = hurry() => unreachable!(),
    };
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_store_that_hangs_is_told_in_time_and_loses_nothing() {
    try_all(Fault::hangs).await;
}

#[tokio::test]
async fn a_store_that_breaks_off_or_talks_nonsense_is_told_and_loses_nothing() {
    try_all(|fault| !fault.hangs()).await;
}

#[tokio::test]
async fn an_upload_whose_completion_got_lost_is_completed_when_it_is_asked_for_again() {
    let app = spawn_app().await;
    let upload = begun(&app.base).await;
    let etag = upload.put(1, BYTES.to_vec()).await;
    let parts = json!([{"PartNumber": 1, "ETag": etag}]);
    let broken = [Operation::CompleteMultipartUpload, Operation::HeadObject];
    let (proxy, base) = behind(&app, &broken, Fault::AnswerLost).await;
    let upload = upload.at(&base);
    // The second time the store says that there is no such upload, and that is not yet the answer.
    for _ in 0..2 {
        let lost = problem(upload.complete(parts.clone()).await).await;
        assert_eq!(lost["code"], "storage-unavailable");
    }
    proxy.lift_fault();
    // Nor is it afterwards, however often it is asked.
    for _ in 0..2 {
        let answer: Value = upload.complete(parts.clone()).await.json().await.unwrap();
        assert_eq!(answer["key"], upload.key);
        let location = answer["location"].as_str().unwrap();
        assert!(location.ends_with(&upload.key), "{location}");
    }
    let verify = json!({"key": upload.key, "size": BYTES.len()});
    let verified = app.post("/upload/verify", &verify).await;
    assert_eq!(verified.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_upload_that_was_aborted_is_not_taken_for_one_that_was_completed() {
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
    assert_eq!(other.complete(parts).await.status(), StatusCode::OK);
    // The second has a key under which there is an object: that of the other.
    for policy in ["default", "fixed"] {
        let (upload, parts) = begin(policy).await;
        let aborted = upload.call(Method::DELETE, "", &[], None).await;
        assert_eq!(aborted.status(), StatusCode::OK);
        let gone = problem(upload.complete(parts).await).await;
        assert_eq!(gone["code"], "no-such-upload", "{policy}");
    }
}

#[tokio::test]
async fn what_needs_no_store_is_granted_whatever_is_wrong_with_it() {
    let app = spawn_app().await;
    let upload = begun(&app.base).await;
    for (name, fault) in FAULTS {
        let (proxy, base) = behind(&app, &Operation::ALL, fault).await;
        let upload = upload.at(&base);
        let file = json!({"filename": "a.txt", "contentType": "text/plain"});
        let post = async |path: &str, body: &Value| {
            let request = client().post(format!("{base}{path}")).json(body);
            request.send().await.unwrap().status()
        };
        let get = async |path: &str| {
            let request = client().get(format!("{base}{path}"));
            request.send().await.unwrap().status()
        };
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
