//! Stores for tests: one that answers as the test says, and an embedded one, some of whose answers the
//! test changes. Both count what they are asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use presignd::{dev, http};
use tempfile::TempDir;

use crate::helpers::{service, spawn, with_policies};

/// A key that the built-in policies have granted.
pub(crate) const KEY: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";

pub(crate) struct StandIn {
    pub(crate) addr: SocketAddr,
    /// The folder of the embedded store.
    pub(crate) data: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Nothing but `answer`.
    pub(crate) async fn answering<F>(
        answer: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self::layered(|_| Router::new().fallback(answer)).await
    }

    /// The same status for every request.
    pub(crate) async fn with_status(status: u16) -> Self {
        Self::answering(move |_| async move { empty(status) }).await
    }

    /// An object of 5 bytes under every key, by what HEAD says. Anything else gets this answer.
    pub(crate) async fn with_object_but(
        answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::answering(move |request: Request| {
            let is_head = request.method() == Method::HEAD;
            std::future::ready(if is_head { object(&[]) } else { answer() })
        })
        .await
    }

    /// An object of 5 bytes under every key, with these headers instead or besides.
    pub(crate) async fn with_object(headers: &'static [(&'static str, &'static str)]) -> Self {
        Self::answering(move |_| std::future::ready(object(headers))).await
    }

    pub(crate) async fn embedded() -> Self {
        Self::layered(|store| store).await
    }

    /// An embedded store, except for the requests that `answer` handles, by their method, path and query.
    pub(crate) async fn except(
        answer: impl Fn(&Method, &str) -> Option<Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::between(move |request, next| {
            let answer = answer(request.method(), &request.uri().to_string());
            async {
                let Some(answer) = answer else {
                    return next.run(request).await;
                };
                // A client may miss an answer that arrives before it has sent its whole body.
                let body = axum::body::to_bytes(request.into_body(), usize::MAX);
                body.await.ok(); // best effort
                answer
            }
        })
        .await
    }

    /// An embedded store that answers these requests, by their method, path and query, with `AccessDenied`.
    pub(crate) async fn denying(
        denies: impl Fn(&Method, &str) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::except(move |method, uri| denies(method, uri).then(|| error(403, "AccessDenied")))
            .await
    }

    /// An embedded store, except for the requests that `answer` handles, whose bodies it reads, too.
    pub(crate) async fn reading(
        answer: impl Fn(&Parts, &[u8]) -> Option<Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::between(move |request: Request, next: Next| {
            let answer = answer.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                match answer(&head, &body) {
                    Some(answer) => answer,
                    None => next.run(Request::from_parts(head, body.into())).await,
                }
            }
        })
        .await
    }

    /// An embedded store whose answers `change` changes, by the method, path and query of their requests.
    pub(crate) async fn changing(
        change: impl Fn(&Method, &str, &mut Response) + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::between(move |request, next| {
            let change = change.clone();
            async move {
                let (method, uri) = (request.method().clone(), request.uri().to_string());
                let mut response = next.run(request).await;
                change(&method, &uri, &mut response);
                response
            }
        })
        .await
    }

    /// An embedded store that does what it is asked, and answers these requests with an error all the same.
    pub(crate) async fn failing_after(
        fails: impl Fn(&Method, &str) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::changing(move |method, uri, response| {
            if fails(method, uri) {
                *response = error(504, "GatewayTimeout");
            }
        })
        .await
    }

    /// An embedded store behind `handle`, which can change requests and answers.
    pub(crate) async fn between<F>(
        handle: impl Fn(Request, Next) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        Self::layered(|store| store.layer(from_fn(handle))).await
    }

    /// An embedded store whose requests and answers pass through `layer`.
    pub(crate) async fn layered(layer: impl FnOnce(Router) -> Router) -> Self {
        let data = TempDir::new().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&requests);
        let note = from_fn(move |request: Request, next: Next| {
            let line = format!("{} {}", request.method(), request.uri());
            log.lock().unwrap().push(line);
            next.run(request)
        });
        let store = layer(crate::helpers::store(data.path())).layer(note);
        let addr = spawn(store).await;
        Self {
            addr,
            data,
            requests,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The method, path and query of each request since this was last called.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// How many there were.
    pub(crate) fn asked(&self) -> usize {
        self.requests().len()
    }

    /// How many of them had this method.
    pub(crate) fn asked_to(&self, method: &Method) -> usize {
        let requests = self.requests();
        let begin = format!("{method} ");
        requests.iter().filter(|it| it.starts_with(&begin)).count()
    }

    pub(crate) fn config(&self) -> SdkConfig {
        crate::helpers::sdk_config(self.addr)
    }

    /// The address of a service on this store, with these policies.
    pub(crate) async fn service(&self, policies: &str) -> String {
        service_on(&self.config(), policies).await
    }

    #[track_caller]
    pub(crate) fn is_as_it_was(&self) {
        let files = files(self.data.path());
        assert_eq!(files, BTreeSet::from([dev::BUCKET.to_owned()]));
    }
}

/// The address of a service on the store that `config` leads to.
pub(crate) async fn service_on(config: &SdkConfig, policies: &str) -> String {
    let uploads = service(config, dev::BUCKET, true, with_policies(policies)).await;
    let router = http::router(uploads, &http::Settings::default());
    format!("http://{}", spawn(router).await)
}

/// The names of all files and folders below a folder.
pub(crate) fn files(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = files(&entry.path()).into_iter();
            names.extend(below.map(|below| format!("{name}/{below}")));
        }
        names.insert(name);
    }
    names
}

pub(crate) fn empty(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

/// An error as S3 words it.
pub(crate) fn error(status: u16, code: &str) -> Response {
    let xml = format!("<Error><Code>{code}</Code><Message>secret cause</Message></Error>");
    (StatusCode::from_u16(status).unwrap(), xml).into_response()
}

/// The same answer of a store whose clock shows this time.
pub(crate) fn dated(mut answer: Response, at: SystemTime) -> Response {
    let date = DateTime::from(at).fmt(DateTimeFormat::HttpDate).unwrap();
    let date = date.parse().unwrap();
    answer.headers_mut().insert("date", date);
    answer
}

/// The page of a proxy between the service and its store.
pub(crate) fn page(status: u16) -> Response {
    let headers = [("content-type", "text/html")];
    let text = "<!doctype html><html><body>default backend</body></html>";
    (StatusCode::from_u16(status).unwrap(), headers, text).into_response()
}

pub(crate) fn xml(text: &str) -> Response {
    text.to_owned().into_response()
}

/// The answer of a store where an upload in parts begins.
pub(crate) const CREATED: &str =
    "<InitiateMultipartUploadResult><UploadId>x</UploadId></InitiateMultipartUploadResult>";

/// A page of a list of ten thousand parts. The answer has a thousand of them, as S3's has.
pub(crate) fn ten_thousand_parts(query: &str) -> Response {
    let marker = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("part-number-marker="));
    let after: u32 = marker.map_or(0, |number| number.parse().unwrap());
    let (is_more, next) = (after < 9000, after + 1000);
    let parts = (after + 1..=next).map(|n| {
        format!(
            "<Part><PartNumber>{n}</PartNumber><ETag>\"{n:032}\"</ETag><Size>5242880</Size></Part>"
        )
    });
    let parts: String = parts.collect();
    xml(&format!(
        "<ListPartsResult><IsTruncated>{is_more}</IsTruncated><NextPartNumberMarker>{next}</NextPartNumberMarker>{parts}</ListPartsResult>"
    ))
}

/// The answer to a HEAD of an object of 5 bytes, with these headers instead or besides.
pub(crate) fn object(headers: &[(&'static str, &str)]) -> Response {
    let usual = [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("etag", "\"e\""),
        ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    let mut response = Response::new(Body::empty());
    for (name, value) in usual.iter().chain(headers) {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}
