//! The dashboard and the alerts name only what exists.

use std::collections::BTreeSet;

use serde_json::json;

use crate::docs::anchors;
use crate::events;
use crate::helpers::{spawn_app_with_both, with_policies};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/presignd.json");

/// The names of all metrics, and of all labels.
async fn served() -> (BTreeSet<String>, BTreeSet<String>) {
    // Nobody receives webhooks, which is measured as well.
    let settings = events::settings("http://127.0.0.1:1/");
    let policies = with_policies("[policies.default]\npending = true\ndelete = true");
    let app = spawn_app_with_both(policies, &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    app.report(&events::notification(&key)).await;
    let committed = app.post("/upload/commit", &json!({"key": key})).await;
    assert_eq!(committed.status(), 200);
    let deleted = app.post("/upload/delete", &json!({"key": key})).await;
    assert_eq!(deleted.status(), 200);
    assert_eq!(app.get("/readyz").await.status(), 200);
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let text = app.metrics().await;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, _value) = line.rsplit_once(' ').unwrap();
        let (name, pairs) = name.split_once('{').unwrap_or((name, ""));
        names.insert(name.to_owned());
        let pairs = pairs.trim_end_matches('}').split_terminator(',');
        labels.extend(pairs.map(|pair| pair.split_once('=').unwrap().0.to_owned()));
    }
    // Prometheus adds this one.
    labels.insert("instance".to_owned());
    (names, labels)
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
    let (served, labels) = served().await;
    for (file, text) in [("dashboard", DASHBOARD), ("alerts", ALERTS)] {
        let metrics: Vec<_> = names_after(text, "presignd_").collect();
        assert!(metrics.len() > 10, "{file}: {metrics:?}");
        for metric in metrics {
            let name = format!("presignd_{metric}");
            assert!(served.contains(&name), "{file}: {name} is not served");
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
