//! What `deploy/` and `docs/operations.md` say of metrics, log and runbook is what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;

use presignd::http;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{built_in, client, service_counting, spawn, with_policies};
use crate::operations::{app_with_metrics, metrics};
use crate::process::Running;

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/presignd.json");

/// The labels of each metric, and the values that they were served with.
type Served = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What `/metrics` serves once everything that is counted has happened.
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

    // And where there are no credentials.
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

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Each metric of an expression of Prometheus is served, and has the labels that the expression and `text`, which
/// shows its result, speak of, with those values.
#[track_caller]
fn check(expression: &str, text: &str, served: &Served) {
    // Prometheus adds it to all.
    let mut labels = BTreeSet::from(["instance"]);
    let mut metrics = 0;
    for (at, _) in expression.match_indices("presignd_") {
        let rest = &expression[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let Some(of_metric) = served.get(&rest[..end]) else {
            panic!("{} is not served: {expression}", &rest[..end]);
        };
        metrics += 1;
        labels.extend(of_metric.keys().map(String::as_str));
        let Some(matchers) = rest[end..].strip_prefix('{') else {
            continue;
        };
        for matcher in matchers.split_once('}').unwrap().0.split(',') {
            let (label, value) = matcher.split_at(matcher.find(|c| !is_name(c)).unwrap());
            let Some(known) = of_metric.get(label) else {
                panic!("{} has no label {label}: {expression}", &rest[..end]);
            };
            let value = value
                .trim_start_matches(['=', '!', '~'])
                .trim_matches('"')
                .split('|');
            // Others are patterns.
            for value in value.filter(|v| v.chars().all(is_name)) {
                let is_known = known.contains(value)
                    || OPERATIONS.contains(&format!("`{value}`"))
                    || (label == "status" && value.parse().is_ok_and(|s: u16| s >= 100));
                assert!(is_known, "{label} is never {value}: {expression}");
            }
        }
    }
    assert!(metrics > 0, "{expression}");
    let mut shown: Option<BTreeSet<&str>> = None;
    for (_, rest) in expression
        .match_indices("by (")
        .map(|(at, by)| expression.split_at(at + by.len()))
    {
        let names = rest.split_once(')').unwrap().0.split(',').map(str::trim);
        shown.get_or_insert_default().extend(names);
    }
    let shown = shown.unwrap_or_else(|| labels.clone());
    assert!(shown.is_subset(&labels), "{shown:?}: {expression}");
    let templates = text
        .split("{{")
        .skip(1)
        .map(|t| t.trim_start().trim_start_matches("$labels."))
        .filter(|t| !t.starts_with('$'));
    for template in templates {
        let name = &template[..template.find(|c| !is_name(c)).unwrap()];
        assert!(shown.contains(name), "{name} is not shown by {expression}");
    }
}

#[tokio::test]
async fn the_dashboard_names_only_what_is_served() {
    fn targets<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(fields) if fields.contains_key("expr") => found.push(value),
            Value::Object(fields) => fields.values().for_each(|v| targets(v, found)),
            Value::Array(values) => values.iter().for_each(|v| targets(v, found)),
            _ => {}
        }
    }
    let served = served().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    targets(&dashboard, &mut found);
    assert!(found.len() > 10);
    for target in found {
        let legend = target["legendFormat"].as_str().unwrap();
        check(target["expr"].as_str().unwrap(), legend, &served);
    }
    // The choices of a variable are the values of a label.
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        if let Some(query) = query.strip_prefix("label_values(") {
            let (metric, label) = query.trim_end_matches(')').split_once(", ").unwrap();
            assert!(served[metric].contains_key(label), "{query}");
        }
    }
}

#[tokio::test]
async fn alerts_name_only_what_is_served_and_lead_to_the_runbook() {
    let served = served().await;
    let anchors: BTreeSet<String> = OPERATIONS
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            // As GitHub makes them.
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            heading
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect();
    let alerts: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 5);
    for alert in alerts {
        let of = |name: &str| {
            let (_, rest) = alert.split_once(&format!(" {name}: ")).expect(alert);
            rest
        };
        let line_of = |name: &str| of(name).lines().next().unwrap();
        let (expression, _) = of("expr").split_once(" for: ").expect(alert);
        check(expression, line_of("summary"), &served);
        assert!(
            ["critical", "warning"].contains(&line_of("severity")),
            "{alert}"
        );
        let runbook = line_of("runbook_url").strip_prefix("docs/operations.md#");
        let anchor = runbook.expect(alert);
        assert!(anchors.contains(anchor), "{anchor} is not in {anchors:#?}");
    }
    // Links within the page lead somewhere, too.
    for link in OPERATIONS.split("](#").skip(1) {
        let (anchor, _) = link.split_once(')').unwrap();
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
