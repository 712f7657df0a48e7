//! `deploy/` and `docs/operations.md` name only metrics, log fields and headings that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;

use presignd::http;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docs::anchors;
use crate::helpers::{built_in, client, service_counting, spawn, with_policies};
use crate::operations::{app_with_metrics, metrics};
use crate::process::Running;

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/presignd.json");

/// The labels of each metric, and the values that they were served with.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The metrics after everything that is counted has happened at least once.
async fn served() -> Served {
    let (app, url) = app_with_metrics(with_policies("[policies.default]\nsniff = true")).await;
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let _granted: Value = app.granted("/upload/presigned-url", &file).await;
    let _granted: Value = app.granted("/upload/presigned-post", &file).await;
    let call = async |method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>| {
        let url = format!("{}{path}", app.base);
        let request = app.client.request(method, url).query(query);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap()
    };
    assert_eq!(
        call(Method::GET, "/readyz", &[], None).await.status(),
        StatusCode::OK
    );
    for ends_with in [Method::DELETE, Method::POST] {
        let file = json!({"filename": "a.txt", "type": "text/plain"});
        let created = call(Method::POST, "/s3/multipart", &[], Some(&file)).await;
        let created: BTreeMap<String, String> = created.json().await.unwrap();
        let upload = format!("/s3/multipart/{}", created["uploadId"]);
        let key = [("key", created["key"].as_str())];
        let part = call(Method::GET, &format!("{upload}/1"), &key, None).await;
        let part: Value = part.json().await.unwrap();
        let sent = app
            .client
            .put(part["url"].as_str().unwrap())
            .body("x")
            .send()
            .await;
        let etag = sent.unwrap().headers()["etag"].to_str().unwrap().to_owned();
        let parts = json!({"parts": [{"PartNumber": 1, "ETag": etag}]});
        let end = if ends_with == Method::POST {
            call(
                Method::POST,
                &format!("{upload}/complete"),
                &key,
                Some(&parts),
            )
            .await
        } else {
            call(Method::DELETE, &upload, &key, None).await
        };
        assert_eq!(end.status(), StatusCode::OK);
        if ends_with == Method::POST {
            let uploaded = json!({"key": created["key"]});
            let verified = call(Method::POST, "/upload/verify", &[], Some(&uploaded)).await;
            assert_eq!(verified.status(), StatusCode::OK);
        }
    }
    let mut served = parse(&metrics(&url).await);

    // A second service without credentials adds `failed`.
    let settings = http::Settings::default();
    let nobody = app.config.clone().into_builder();
    let nobody = nobody
        .credentials_provider(crate::http::no_credentials())
        .build();
    let uploads = service_counting(&nobody, "bucket", true, built_in(), &settings.metrics).await;
    let base = spawn(http::router(Arc::clone(&uploads), &settings)).await;
    let own = spawn(http::metrics_router(uploads, &settings)).await;
    let url = format!("http://{base}/upload/presigned-url");
    let failed = client().post(url).json(&file).send().await.unwrap();
    assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    for (name, labels) in parse(&metrics(&format!("http://{own}/metrics")).await) {
        for (label, values) in labels {
            let known = served.entry(name.clone()).or_default();
            known.entry(label).or_default().extend(values);
        }
    }
    served
}

fn parse(text: &str) -> Served {
    let mut served = Served::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let known = served.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split_terminator(',') {
            let (label, value) = label.split_once('=').unwrap();
            let values = known.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    served
}

/// The words after each `marker`, up to the first character that is not part of a name.
fn names_after<'a>(text: &'a str, marker: &'static str) -> impl Iterator<Item = &'a str> {
    text.match_indices(marker).map(move |(at, _)| {
        let rest = &text[at + marker.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// promtool checks the expressions; this checks that their metrics and labels are served.
#[tokio::test]
async fn the_dashboard_and_the_alerts_name_only_what_is_served() {
    let served = served().await;
    // Prometheus adds `instance`.
    let mut labels = BTreeSet::from(["instance"]);
    labels.extend(
        served
            .values()
            .flat_map(|labels| labels.keys().map(String::as_str)),
    );
    for (file, text) in [("dashboard", DASHBOARD), ("alerts", ALERTS)] {
        let metrics: Vec<_> = names_after(text, "presignd_").collect();
        assert!(metrics.len() > 10, "{file}: {metrics:?}");
        for metric in metrics {
            let name = format!("presignd_{metric}");
            assert!(served.contains_key(&name), "{file}: {name} is not served");
        }
        let groups = text
            .split("by (")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for label in groups.flat_map(|group| group.split(',')).map(str::trim) {
            assert!(labels.contains(label), "{file}: no metric has {label}");
        }
        for label in names_after(text, "$labels.") {
            assert!(labels.contains(label), "{file}: no metric has {label}");
        }
    }
}

#[test]
fn each_alert_leads_to_the_runbook() {
    let anchors = anchors(OPERATIONS);
    let alerts = ALERTS.matches("- alert: ").count();
    let links = ALERTS.split("runbook_url: docs/operations.md#").skip(1);
    let links: Vec<_> = links.filter_map(|rest| rest.lines().next()).collect();
    assert_eq!(links.len(), alerts);
    for anchor in links {
        assert!(anchors.contains(anchor), "{anchor} is not in {anchors:#?}");
    }
}

#[tokio::test]
async fn each_metric_is_explained_with_its_labels_and_their_values() {
    for (name, labels) in served().await {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(&name);
        let row = OPERATIONS
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}`")))
            .unwrap_or_else(|| panic!("{name} is not explained"));
        for (label, values) in labels.iter().filter(|(label, _)| *label != "le") {
            let explained = row.contains(&format!("`{label}`"));
            assert!(explained, "the label {label} of {name} is not explained");
            if ["kind", "outcome", "operation", "result"].contains(&label.as_str()) {
                for value in values {
                    let explained = OPERATIONS.contains(&format!("`{value}`"));
                    assert!(explained, "{label} {value} is not explained");
                }
            }
        }
    }
}

#[tokio::test]
async fn each_field_of_the_log_is_explained() {
    let secret = "a secret of more than thirty-two bytes";
    let folder = TempDir::new().unwrap();
    let variables = [
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
        ("BIND_ADDR", "127.0.0.1:0"),
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "x"),
        ("JWT_AUDIENCE", "y"),
        ("JWT_SECRET", secret),
    ];
    let mut serve = Running::start(&["serve"], folder.path(), &variables);
    let mut log = String::new();
    serve.stderr.read_line(&mut log).unwrap();
    let listening: Value = serde_json::from_str(&log).unwrap();
    let base = format!("http://{}", listening["addr"].as_str().unwrap());
    let claims = json!({"iss": "x", "aud": "y", "sub": "alice", "exp": 4_000_000_000_u64});
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let ready = client().get(format!("{base}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let params = format!("{base}/s3/params?filename=a");
    let granted = client().get(params).bearer_auth(&token).send().await;
    assert_eq!(granted.unwrap().status(), StatusCode::OK);
    log.push_str(&serve.stop("TERM").2);

    let mut fields = BTreeSet::new();
    for line in log.lines() {
        let line: BTreeMap<String, Value> = serde_json::from_str(line).expect(line);
        for (field, value) in line {
            let inner = value.as_object().into_iter().flatten();
            fields.extend(inner.map(|(field, _)| field.clone()));
            fields.insert(field);
        }
    }
    for seen in ["caller", "error", "request_id", "us"] {
        assert!(fields.contains(seen), "{log}");
    }
    for field in fields {
        let explained = OPERATIONS.contains(&format!("`{field}`"));
        assert!(explained, "the field {field} is not explained");
    }
}
