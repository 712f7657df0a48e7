//! What those who run the service see of it: readiness, metrics, and an end without loss.

mod connections;
mod faults;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use futures_util::future::join_all;
use presignd::http;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::helpers::{
    App, asking_at, built_in, client, eventually, hurry, is, later, problem, service,
    service_counting, spawn, spawn_app, spawn_app_where, spawn_app_with_policies,
    without_credentials,
};
use crate::stand_in::{StandIn, dated, empty};
use crate::uppy::create_at;

/// `/readyz` of a service on the bucket that `config` leads to.
async fn readyz_of(config: &SdkConfig, bucket: &str) -> String {
    let uploads = service(config, bucket, true, built_in()).await;
    let addr = spawn(http::router(uploads, &http::Settings::default())).await;
    format!("http://{addr}/readyz")
}

async fn get(url: &str) -> Response {
    client().get(url).send().await.unwrap()
}

/// A store that answers everything after a while.
async fn slow(after: Duration) -> StandIn {
    StandIn::answering(move |_| async move {
        tokio::time::sleep(after).await;
        empty(200)
    })
    .await
}

#[tokio::test]
async fn a_service_is_healthy_and_ready_when_the_store_answers_for_the_bucket() {
    let app = spawn_app().await;
    for path in ["/healthz", "/readyz"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await.unwrap(), r#"{"status":"ok"}"#);
    }
    // Credentials that may only write are refused the question, by a store that is well.
    let store = StandIn::with_status(403).await;
    let (base, own) = with_metrics(&store.config()).await;
    let answer = get(&format!("{base}/readyz")).await;
    assert_eq!(answer.status(), 200);
    let counted =
        r#"presignd_storage_call_duration_seconds_count{operation="HeadBucket",result="denied"} 1"#;
    has(&metrics(&own).await, counted);
}

/// Grants still succeed then, and only the store notices.
#[tokio::test]
async fn a_clock_that_differs_from_that_of_the_store_is_in_the_metrics() {
    let store = StandIn::answering(|_| async {
        let there = SystemTime::now() + Duration::from_mins(20);
        dated(empty(403), there)
    });
    let (base, own) = with_metrics(&store.await.config()).await;
    has(&metrics(&own).await, "presignd_clock_ahead_seconds 0");
    assert_eq!(get(&format!("{base}/readyz")).await.status(), 200);
    let text = metrics(&own).await;
    let ahead = text
        .lines()
        .find_map(|line| line.strip_prefix("presignd_clock_ahead_seconds "));
    let ahead: i64 = ahead.unwrap().parse().unwrap();
    assert!((-1202..=-1198).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn a_service_is_not_ready_when_a_part_fails_and_names_it() {
    hurry();
    let app = spawn_app().await;
    let closed = crate::helpers::sdk_config("127.0.0.1:1".parse().unwrap());
    let hanging = slow(Duration::from_mins(10)).await.config();
    let broken = StandIn::with_status(500).await.config();
    for (config, bucket) in [
        (&app.config, "no-such-bucket"),
        (&closed, "bucket"),
        (&hanging, "bucket"),
        (&broken, "bucket"),
    ] {
        let response = get(&readyz_of(config, bucket).await).await;
        assert_eq!(response.status(), 503, "{bucket}");
        assert!(response.headers().contains_key("retry-after"));
        let problem = problem(response).await;
        assert_eq!(problem["code"], "storage-unavailable");
        assert!(!problem.to_string().contains("127.0.0.1"), "{problem}");
    }
    let url = readyz_of(&without_credentials(), "uploads").await;
    let problem = problem(get(&url).await).await;
    assert_eq!(problem["code"], "credentials-unavailable");
    assert!(!problem.to_string().contains("secret cause"), "{problem}");
}

#[tokio::test]
async fn many_probes_cost_the_store_one_call_in_a_while() {
    let store = slow(Duration::from_millis(50)).await;
    let url = readyz_of(&store.config(), "bucket").await;
    for answer in join_all((0..20).map(|_| get(&url))).await {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(store.asked(), 1);
    later(Duration::from_secs(6)).await;
    assert_eq!(get(&url).await.status(), 200);
    assert_eq!(store.asked(), 1);
}

#[tokio::test]
async fn probes_that_hang_up_cost_the_store_nothing_more() {
    let release = Arc::new(Semaphore::new(0));
    let released = Arc::clone(&release);
    let store = StandIn::answering(move |_| {
        let released = Arc::clone(&released);
        async move {
            released.acquire().await.unwrap().forget();
            empty(200)
        }
    });
    let store = store.await;
    let url = readyz_of(&store.config(), "bucket").await;
    for _ in 0..20 {
        let asking = tokio::time::timeout(Duration::from_millis(10), get(&url));
        assert!(asking.await.is_err(), "it answered before the store did");
    }
    release.add_permits(1);
    assert_eq!(get(&url).await.status(), 200);
    assert_eq!(store.asked(), 1);
}

#[tokio::test]
async fn a_request_whose_client_hangs_up_is_counted_too() {
    let store = slow(Duration::from_mins(1)).await;
    let (base, own) = with_metrics(&store.config()).await;
    let client = tokio::spawn(async move { get(&format!("{base}/readyz")).await });
    eventually("the store is asked", async || store.asked() > 0).await;
    client.abort();
    let counted = r#"presignd_http_request_duration_seconds_count{method="GET",route="/readyz",status="499"} 1"#;
    eventually(counted, async || metrics(&own).await.contains(counted)).await;
}

#[tokio::test]
async fn a_grant_that_fails_is_not_counted_as_refused() {
    let (base, own) = with_metrics(&without_credentials()).await;
    let response = asking_at(&base).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let problem = problem(response).await;
    is(&problem, 503, "credentials-unavailable");
    assert!(!problem.to_string().contains("secret cause"));
    let text = metrics(&own).await;
    let counted = r#"presignd_grants_total{policy="default",kind="put",outcome="failed"} 1"#;
    has(&text, counted);
}

#[tokio::test]
async fn every_route_is_counted_under_its_pattern() {
    let page = http::page::Settings::new("http://127.0.0.1:1").unwrap();
    let app = spawn_app_where(built_in(), |it| it.page = Some(page)).await;
    let document = app.document().await;
    let of_api = document["paths"].as_object().unwrap().keys();
    let others = [
        "/",
        "/client/page/page.js",
        "/docs/",
        "/docs/{*rest}",
        "/openapi.json",
    ];
    let patterns: Vec<&str> = of_api.map(String::as_str).chain(others).collect();
    assert!(patterns.len() > 15, "{patterns:?}");
    for pattern in &patterns {
        let parameters = ["uploadId", "partNumber", "*rest"].map(|name| format!("{{{name}}}"));
        let mut path = (*pattern).to_owned();
        for parameter in parameters {
            path = path.replace(&parameter, "1");
        }
        assert!(!path.contains('{'), "{path}");
        assert!(!app.get(&path).await.status().is_server_error(), "{path}");
    }
    let text = app.metrics().await;
    for pattern in patterns {
        let label = format!(r#"route="{pattern}""#);
        assert!(text.contains(&label), "{label} is not in\n{text}");
    }
    assert!(!text.contains("<unknown>"), "{text}");
}

impl App {
    /// A service at an address of its own, for those who run this one.
    async fn operations(&self) -> String {
        let uploads = Arc::clone(&self.uploads);
        let addr = spawn(http::metrics_router(uploads, &self.http_settings)).await;
        format!("http://{addr}")
    }

    pub(crate) async fn metrics(&self) -> String {
        metrics(&format!("{}/metrics", self.operations().await)).await
    }
}

/// The address of a service on the store that `config` leads to, and where its metrics are.
async fn with_metrics(config: &SdkConfig) -> (String, String) {
    let settings = http::Settings::default();
    let uploads = service_counting(config, "bucket", true, built_in(), &settings.metrics).await;
    let base = spawn(http::router(Arc::clone(&uploads), &settings)).await;
    let own = spawn(http::metrics_router(uploads, &settings)).await;
    (format!("http://{base}"), format!("http://{own}/metrics"))
}

pub(crate) async fn metrics(url: &str) -> String {
    let response = get(url).await;
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
}

#[tokio::test]
async fn what_the_service_does_is_counted() {
    let policies = "[policies.default]\n[policies.small]\nmax_size = '1 KiB'";
    let app = spawn_app_with_policies(policies).await;
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let large =
        json!({"filename": "a.txt", "contentType": "text/plain", "policy": "small", "size": 2000});
    let _granted: Value = app.granted("/upload/presigned-url", &file).await;
    let _granted: Value = app.granted("/upload/presigned-post", &file).await;
    let three = json!({"files": [file, file, file]});
    let _granted: Value = app.granted("/upload/presigned-urls", &three).await;
    app.refused("/upload/presigned-url", &large).await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    let key = &upload.key;
    let call = async |method, path, query: &[(&str, &str)]| {
        let answer = upload.call(method, path, query, None).await;
        answer.status().as_u16()
    };
    let numbers = [("partNumbers", "1,2,3")];
    assert_eq!(call(Method::GET, "batch", &numbers).await, 200);
    assert_eq!(call(Method::GET, "", &[]).await, 200);
    assert_eq!(call(Method::DELETE, "", &[]).await, 200);
    assert_eq!(call(Method::GET, "", &[]).await, 404);
    app.refused("/upload/verify", &json!({"key": key})).await;

    let text = app.metrics().await;
    for (policy, kind, outcome, count) in [
        ("default", "put", "granted", 4),
        ("default", "post", "granted", 1),
        ("default", "multipart", "granted", 1),
        ("default", "part", "granted", 3),
        ("small", "put", "refused", 1),
    ] {
        let labels = format!(r#"policy="{policy}",kind="{kind}",outcome="{outcome}""#);
        has(&text, &format!("presignd_grants_total{{{labels}}} {count}"));
    }
    for (operation, result) in [
        ("CreateMultipartUpload", "ok"),
        ("ListParts", "ok"),
        ("ListParts", "no_such_upload"),
        ("AbortMultipartUpload", "ok"),
        ("HeadObject", "ok"),
    ] {
        let labels = format!(r#"operation="{operation}",result="{result}""#);
        let name = "presignd_storage_call_duration_seconds_count";
        has(&text, &format!("{name}{{{labels}}} 1"));
    }
    for (route, status) in [
        ("/upload/presigned-url", 201),
        ("/upload/presigned-url", 422),
    ] {
        let labels = format!(r#"method="POST",route="{route}",status="{status}""#);
        let name = "presignd_http_request_duration_seconds_count";
        has(&text, &format!("{name}{{{labels}}} 1"));
    }
    let version = env!("CARGO_PKG_VERSION");
    let build = format!(r#"presignd_build_info{{version="{version}"}} 1"#);
    has(&text, &build);
    has(&text, "presignd_credentials_life_seconds inf");
    assert!(!text.contains(key.as_str()), "{text}");
}

#[tokio::test]
async fn probes_are_answered_beside_the_metrics_too() {
    let app = spawn_app().await;
    let base = app.operations().await;
    for probe in ["healthz", "readyz"] {
        let response = get(&format!("{base}/{probe}")).await;
        assert_eq!(response.status(), 200, "{probe}");
    }
}

#[tokio::test]
async fn names_that_clients_choose_make_no_series() {
    let app = spawn_app().await;
    let series = async || app.metrics().await.lines().count();
    let send = async |n: u32| {
        let file = json!({"filename": "a", "contentType": "a/b", "policy": format!("policy-{n}")});
        app.refused("/upload/presigned-url", &file).await;
        app.get(&format!("/unknown-{n}")).await;
        let method = Method::from_bytes(format!("METHOD{n}").as_bytes()).unwrap();
        let request = app.client.request(method, format!("{}/healthz", app.base));
        assert_eq!(request.send().await.unwrap().status(), 405);
        app.get(&format!("/s3/multipart/token-{n}?key=key-{n}"))
            .await;
    };
    send(0).await;
    let before = series().await;
    for n in 1..20 {
        send(n).await;
    }
    assert_eq!(series().await, before);
    // The service itself does not serve them.
    assert_eq!(app.get("/metrics").await.status(), 404);
}
