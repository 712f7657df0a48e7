//! Stores for tests: one that answers as the test says, and an embedded one, some of whose answers the
//! test changes. Both count what they are asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_config::SdkConfig;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use presignd::{dev, http};
use tempfile::TempDir;

use crate::helpers::{service, spawn, with_policies};

pub(crate) struct StandIn {
    pub(crate) addr: SocketAddr,
    /// The folder of the embedded store.
    pub(crate) data: TempDir,
    asked: Arc<AtomicU32>,
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

    /// An embedded store that does what it is asked, and answers these requests with an error all the same.
    pub(crate) async fn failing_after(
        fails: impl Fn(&Method, &str) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::between(move |request, next| {
            let fails = fails(request.method(), &request.uri().to_string());
            async move {
                let response = next.run(request).await;
                if fails {
                    return error(504, "GatewayTimeout");
                }
                response
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
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let count = from_fn(move |request: Request, next: Next| {
            counter.fetch_add(1, Ordering::SeqCst);
            next.run(request)
        });
        let store = layer(crate::helpers::store(data.path())).layer(count);
        let addr = spawn(store).await;
        Self { addr, data, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many requests there were since this was last called.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.swap(0, Ordering::SeqCst)
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

/// The page of a proxy between the service and its store.
pub(crate) fn page(status: u16) -> Response {
    let headers = [("content-type", "text/html")];
    let text = "<!doctype html><html><body>default backend</body></html>";
    (StatusCode::from_u16(status).unwrap(), headers, text).into_response()
}

pub(crate) fn xml(text: &str) -> Response {
    text.to_owned().into_response()
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
