//! An event whose object is not there: not yet, not any more, or only because a proxy says so.

use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::{join_all, select_all};
use presignd::dev;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::{
    ANY, SECRET, TOKEN, impatient, notification, record, report_to, reported_by, start, start_at,
};
use crate::helpers::{client, hurry};
use crate::process::{Running, log_lines};
use crate::stand_in::{StandIn, dated, empty, error, page};

const KEY: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/private.txt";

const TOO_OLD: Duration = Duration::from_hours(25);

/// A store that answers HEAD with 404, and anything else with `answer`.
async fn without_object(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> StandIn {
    StandIn::answering(move |request: Request| {
        let is_head = request.method() == Method::HEAD;
        std::future::ready(if is_head { empty(404) } else { answer() })
    })
    .await
}

/// The status for an event of this age at such a store, and what the application got.
async fn reported(
    age: Duration,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (u16, usize) {
    let store = without_object(answer).await;
    let notification = json!({"Records": [record(dev::BUCKET, KEY, age)]});
    let (status, messages) = reported_by(&store, ANY, &notification).await;
    (status, messages.len())
}

/// The statuses for an event of more than a day at such a store, at first and when it is given up.
async fn given_up(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> [u16; 2] {
    let store = without_object(answer).await;
    let (base, _) = start_at(&store, ANY, impatient).await;
    let notification = json!({"Records": [record(dev::BUCKET, KEY, TOO_OLD)]});
    let first = report_to(&base, &notification).await.status();
    sleep(Duration::from_secs(6)).await;
    let second = report_to(&base, &notification).await.status();
    [first, second].map(|status| status.as_u16())
}

#[tokio::test]
async fn an_old_event_is_given_up_only_if_the_store_itself_says_that_its_object_is_missing() {
    let old = Duration::from_mins(3);
    let answers: [fn() -> Response; 5] = [
        || page(404),
        || empty(404),
        || error(404, "NoSuchBucket"),
        || error(403, "AccessDenied"),
        // A proxy answers HEAD, and the store has the object.
        || empty(200),
    ];
    let comes_again = answers.map(|answer| reported(old, answer));
    hurry();
    for reported in join_all(comes_again).await {
        assert_eq!(reported, (503, 0));
    }
    let missing = || error(404, "NoSuchKey");
    assert_eq!(reported(old, missing).await, (200, 0));
    // As whatever else fails, it comes again until it is given up.
    assert_eq!(given_up(|| page(404)).await, [503, 200]);
}

#[tokio::test]
async fn the_age_of_an_event_is_that_by_the_clock_of_the_store() {
    const BEHIND: Duration = Duration::from_mins(10);
    let missing = |behind: Duration| {
        move || {
            let there = SystemTime::now() - behind;
            dated(error(404, "NoSuchKey"), there)
        }
    };
    hurry();
    let new = reported(BEHIND, missing(BEHIND)).await;
    assert_eq!(new, (503, 0));
    let old = reported(BEHIND + Duration::from_mins(3), missing(BEHIND)).await;
    assert_eq!(old, (200, 0));
    // A clock that stands still may be behind by any time.
    assert_eq!(given_up(missing(TOO_OLD)).await, [503, 200]);
}

#[tokio::test]
async fn a_clock_that_is_behind_delays_no_event_once_the_store_was_probed() {
    let there = || SystemTime::now() + Duration::from_hours(1);
    let store = StandIn::answering(move |request: Request| {
        let is_head = request.method() == Method::HEAD;
        let answer = if is_head {
            empty(404)
        } else {
            error(404, "NoSuchKey")
        };
        std::future::ready(dated(answer, there()))
    })
    .await;
    let (base, _) = start_at(&store, ANY, |it| it).await;
    let mut record = record(dev::BUCKET, KEY, Duration::ZERO);
    let at = there() - Duration::from_mins(10);
    record["eventTime"] = humantime::format_rfc3339_seconds(at).to_string().into();
    let notification = json!({"Records": [record]});
    hurry();
    assert_eq!(report_to(&base, &notification).await.status(), 503);
    client().get(format!("{base}/readyz")).send().await.unwrap();
    assert_eq!(report_to(&base, &notification).await.status(), 200);
}

#[tokio::test]
async fn events_of_missing_objects_do_not_delay_those_of_others() {
    let (app, application) = start(ANY).await;
    let there = app.uploaded("a.txt", "text/plain").await;
    let missing = |index| notification(&there.replace("a.txt", &format!("gone-{index}.txt")));
    let missing: Vec<_> = (0..40).map(missing).collect();
    // Each of them waits for three seconds.
    let first_of_many = select_all(missing.iter().map(|it| Box::pin(app.report(it))));
    let other = async {
        sleep(Duration::from_millis(300)).await;
        app.acknowledges(&notification(&there)).await;
    };
    tokio::select! {
        () = other => {}
        _ = first_of_many => panic!("one of the others was answered first"),
    }
    assert_eq!(application.received().len(), 1);
}

#[tokio::test]
async fn an_event_that_makes_no_webhook_leaves_a_line_under_the_id_of_its_request() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("LOG_FORMAT", "json"),
        ("WEBHOOK_URL", "http://127.0.0.1:1/"),
        ("WEBHOOK_SECRET", SECRET),
        ("EVENTS_TOKEN", TOKEN),
    ];
    let (dev, base) = Running::dev(folder.path(), &variables);
    let record = |bucket, key| record(bucket, key, Duration::from_mins(3));
    let records = [
        record(dev::BUCKET, KEY),
        record(dev::BUCKET, "elsewhere/private.txt"),
        record(dev::BUCKET, "elsewhere/private.jpg"),
        record("other", KEY),
    ];
    let notification = json!({"Records": records});
    let answer = timeout(Duration::from_secs(20), report_to(&base, &notification)).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let (_, _, log) = dev.stop("INT");
    let mut lines = log_lines(&log);
    lines.retain(|line| line["request_id"] == *id && line["deleted"].is_u64());
    assert_eq!(lines.len(), 1, "{log}");
    let counted = ["deleted", "unknown_key", "other_bucket"].map(|name| lines[0][name].clone());
    assert_eq!(counted, [1, 2, 1].map(serde_json::Value::from), "{log}");
    assert!(!log.contains("private"), "{log}");
}
