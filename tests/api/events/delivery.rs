//! Whatever fails on the way, an event is acknowledged only after the application has accepted its message.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use presignd::{dev, http};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{ANY, Answer, impatient, notification, record, reported_by, settings, start};
use crate::helpers::{
    App, eventually, hurry, is, problem, spawn, spawn_app_with_both, with_policies,
};
use crate::stand_in::{StandIn, error};

#[tokio::test]
async fn an_object_that_comes_late_is_waited_for() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    let body = notification(&grant.key);
    let (answer, ()) = tokio::join!(app.report(&body), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        app.upload(&grant, "hello").await;
    });
    assert_eq!(answer.status(), 200);
    assert_eq!(application.received().len(), 1);
}

#[tokio::test]
async fn a_new_event_of_a_missing_object_comes_again() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    hurry();
    let answer = app.report(&notification(&grant.key)).await;
    assert!(answer.headers().contains_key("retry-after"));
    is(&problem(answer).await, 503, "event-not-delivered");
    assert!(application.received().is_empty());
}

#[tokio::test]
async fn an_application_that_does_not_accept_a_message_gets_it_again() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let answers: [Answer; 4] = [
        || StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        || (StatusCode::PERMANENT_REDIRECT, [("location", "/elsewhere")]).into_response(),
        || (StatusCode::BAD_REQUEST, vec![b'x'; 2_000_000]).into_response(),
        || StatusCode::GONE.into_response(),
    ];
    hurry();
    for answer in answers {
        application.set_answer(answer);
        let begin = Instant::now();
        let answer = app.report(&notification(&key)).await;
        is(&problem(answer).await, 503, "event-not-delivered");
        // The store does not repeat it a thousand times a second.
        assert!(begin.elapsed() >= Duration::from_secs(2));
    }
    assert_eq!(
        application.received().len(),
        4,
        "and nobody follows a redirect"
    );
    // A long answer, and an endless one, count by their status.
    application.set_answer(|| vec![b'x'; 2_000_000].into_response());
    app.acknowledges(&notification(&key)).await;
    application.set_answer(|| {
        let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        Body::from_stream(endless).into_response()
    });
    app.acknowledges(&notification(&key)).await;
    let ids: BTreeSet<String> = application
        .received()
        .into_iter()
        .map(|received| received.id)
        .collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn an_event_that_can_never_be_delivered_is_given_up() {
    hurry();
    let settings = impatient(settings("http://127.0.0.1:1/"));
    let app = spawn_app_with_both(with_policies(ANY), &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let old = record(dev::BUCKET, &key, Duration::from_mins(10));
    let mut new = old.clone();
    let soon = SystemTime::now() + Duration::from_mins(1);
    new["eventTime"] = humantime::format_rfc3339_seconds(soon).to_string().into();
    // It may be old because presignd did not run, so it is not given up at once.
    let status = async |record: &Value| {
        let notification = json!({"Records": [record]});
        app.report(&notification).await.status().as_u16()
    };
    let statuses = async || tokio::join!(status(&new), status(&old));
    assert_eq!(statuses().await, (503, 503));
    sleep(Duration::from_secs(6)).await;
    // However long it has failed, one that is not old comes again.
    assert_eq!(statuses().await, (503, 200));
}

#[tokio::test]
async fn one_event_that_fails_makes_all_of_its_notification_come_again() {
    let (app, application) = start(ANY).await;
    let there = app.uploaded("a.txt", "text/plain").await;
    let missing = app.grant("b.txt", "text/plain").await.key;
    let records = [&there, &missing].map(|key| record(dev::BUCKET, key, Duration::ZERO));
    hurry();
    let answer = app.report(&json!({"Records": records})).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(application.received().len(), 1);
}

#[tokio::test]
async fn an_application_that_does_not_answer_in_time_gets_the_message_again() {
    // The clock stands still from now on, and jumps to the next timeout whenever everyone waits.
    let application = Router::new().fallback(async || {
        tokio::time::pause();
        std::future::pending::<StatusCode>().await
    });
    let settings = settings(&format!("http://{}/", spawn(application).await));
    let app = spawn_app_with_both(with_policies(ANY), &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let begin = Instant::now();
    let answer = app.report(&notification(&key)).await;
    is(&problem(answer).await, 503, "event-not-delivered");
    assert!(begin.elapsed() >= Duration::from_secs(15));
    tokio::time::resume();
    let metrics = app.metrics().await;
    for line in [
        r#"presignd_webhook_duration_seconds_count{result="timeout"} 1"#,
        r#"presignd_events_total{outcome="failed"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

/// An application that needs a second for each of its first answers and then hangs, and how often it was asked.
async fn slow_application(
    status: StatusCode,
    answers: usize,
) -> (http::Settings, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let application = Router::new().fallback(async move || {
        if counter.fetch_add(1, Ordering::SeqCst) >= answers {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_secs(1)).await;
        status
    });
    let url = format!("http://{}/", spawn(application).await);
    (settings(&url), asked)
}

/// A store that hangs up once the application was asked so often.
async fn hang_up_after(app: &App, notification: &Value, asked: &AtomicUsize, count: usize) {
    let is_asked = async || asked.load(Ordering::SeqCst) == count;
    tokio::select! {
        answer = app.report(notification) => panic!("{answer:?}"),
        () = eventually("the application is asked", is_asked) => {}
    }
}

async fn until_counted(app: &App, outcome: &str) {
    let line = format!("presignd_events_total{{outcome=\"{outcome}\"}} 1\n");
    eventually(&line, async || app.metrics().await.contains(&line)).await;
}

#[tokio::test]
async fn a_store_that_hangs_up_early_has_its_event_delivered_once() {
    let (settings, asked) = slow_application(StatusCode::OK, 9).await;
    let app = spawn_app_with_both(with_policies(ANY), &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let notification = notification(&key);
    hang_up_after(&app, &notification, &asked, 1).await;
    // The attempt is still in progress, and this one waits for it.
    app.acknowledges(&notification).await;
    until_counted(&app, "arrived").await;
    until_counted(&app, "repeated").await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Once it is acknowledged, somebody who sends it again wants to have it again.
    app.acknowledges(&notification).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_event_that_the_application_has_accepted_needs_its_object_no_more() {
    let (settings, asked) = slow_application(StatusCode::OK, 9).await;
    let app = spawn_app_with_both(with_policies(ANY), &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let notification = notification(&key);
    hang_up_after(&app, &notification, &asked, 1).await;
    until_counted(&app, "arrived").await;
    std::fs::remove_file(app.data().join(dev::BUCKET).join(&key)).unwrap();
    app.acknowledges(&notification).await;
    until_counted(&app, "repeated").await;
}

#[tokio::test]
async fn an_event_is_given_up_although_the_store_never_waits_for_the_answer() {
    let (settings, asked) = slow_application(StatusCode::INTERNAL_SERVER_ERROR, 2).await;
    let app = spawn_app_with_both(with_policies(ANY), &impatient(settings)).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let old = json!({"Records": [record(dev::BUCKET, &key, Duration::from_mins(10))]});
    hang_up_after(&app, &old, &asked, 1).await;
    sleep(Duration::from_secs(6)).await;
    hang_up_after(&app, &old, &asked, 2).await;
    until_counted(&app, "lost").await;
    // The application has a last chance each time, and the store its acknowledgement soon.
    let acknowledged = tokio::time::timeout(Duration::from_secs(5), app.acknowledges(&old));
    acknowledged.await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    until_counted(&app, "repeated").await;
    until_counted(&app, "lost").await;
}

#[tokio::test]
async fn an_event_that_comes_again_before_its_attempts_end_is_given_up() {
    let (mut settings, _) = slow_application(StatusCode::OK, 0).await;
    // Longer than a notification may take.
    settings.events.as_mut().unwrap().give_up_after = Duration::from_mins(2);
    let app = spawn_app_with_both(with_policies(ANY), &settings).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let old = json!({"Records": [record(dev::BUCKET, &key, Duration::from_mins(10))]});
    hurry();
    let lost = r#"presignd_events_total{outcome="lost"} 1"#;
    for _ in 0..120 {
        let answer = tokio::time::timeout(Duration::from_secs(5), app.report(&old));
        answer.await.ok(); // the store hangs up
        if app.metrics().await.contains(lost) {
            return;
        }
    }
    panic!("not given up within ten minutes");
}

#[tokio::test]
async fn an_event_that_comes_late_is_reported_with_its_own_time() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let mut record = record(dev::BUCKET, &key, Duration::ZERO);
    let days_ago = SystemTime::now() - Duration::from_hours(72);
    let days_ago = humantime::format_rfc3339_seconds(days_ago).to_string();
    record["eventTime"] = days_ago.as_str().into();
    app.acknowledges(&json!({"Records": [record]})).await;
    let message = application.received().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived");
    assert_eq!(message["timestamp"], days_ago);
}

#[tokio::test]
async fn events_out_of_order_are_all_about_the_object_that_is_there() {
    let (app, application) = start(ANY).await;
    let grant = app.grant("a.txt", "text/plain").await;
    let mut notifications = Vec::new();
    for (body, age) in [("first", 20), ("second and last", 10)] {
        assert_eq!(app.upload(&grant, body).await.status(), 200);
        let record = record(dev::BUCKET, &grant.key, Duration::from_secs(age));
        notifications.push(json!({"Records": [record]}));
    }
    for notification in notifications.iter().rev() {
        app.acknowledges(notification).await;
    }
    let received = application.received();
    let sizes = received
        .iter()
        .map(|received| received.message["data"]["size"].clone());
    assert_eq!(sizes.collect::<Vec<_>>(), [15, 15]);
    assert_eq!(received[0].id, received[1].id, "it is the same version");
    assert!(received[0].id.starts_with("msg_"));
}

/// The store reports the object that is there in the end, too.
#[tokio::test]
async fn an_event_of_an_object_that_is_replaced_all_the_time_does_not_come_again() {
    let store = StandIn::with_object_but(|| error(412, "PreconditionFailed")).await;
    let sniffing = "[policies.default]\nsniff = true";
    let key = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";
    let (status, messages) = reported_by(&store, sniffing, &notification(key)).await;
    assert_eq!((status, messages.len()), (200, 0));
}
