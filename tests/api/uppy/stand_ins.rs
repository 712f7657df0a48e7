//! Uploads in parts at stores that fail, or that answer as S3 does to very large uploads; and tokens that no
//! store is asked about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::http::HeaderName;
use axum::middleware::Next;
use presignd::dev::BUCKET;
use presignd::upload::{Caller, GrantRequest};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ANYTHING, Upload, create_at, video};
use crate::helpers::{
    fields, file, get, hurry, is, post, problem, spawn_app, spawn_app_with, with_another_secret,
};
use crate::stand_in::{CREATED, StandIn, error, ten_thousand_parts, xml};

/// An upload whose token any service with the same secret accepts, at a service on `store`.
async fn upload_on(store: &StandIn) -> Upload {
    let app = spawn_app().await;
    video(&app).await.at(&store.service(ANYTHING).await)
}

#[tokio::test]
async fn an_invalid_expired_or_foreign_token_is_refused_without_asking_the_store() {
    let store = StandIn::with_status(200).await;
    let good = upload_on(&store).await;
    let foreign = video(&spawn_app_with(with_another_secret()).await).await;
    let expired = {
        let app = spawn_app().await;
        let long_ago = SystemTime::now() - Duration::from_hours(8 * 24);
        let (caller, file) = (Caller::anonymous(), file("a.mp4", "video/mp4"));
        let upload = app
            .uploads
            .create_multipart(GrantRequest::new(&caller, &file, long_ago));
        let upload = upload.await.unwrap();
        (upload.open.key().to_owned(), upload.token)
    };
    let other_key = good.key.replace("a b.mp4", "c.mp4");
    let invalid = format!("{}A{}", &good.id[..40], &good.id[41..]);
    for (id, key) in [
        (&good.id, &other_key),
        (&invalid, &good.key),
        (&good.id[..good.id.len() - 3].to_owned(), &good.key),
        (&foreign.id, &foreign.key),
        (&expired.1, &expired.0),
        (&"x".to_owned(), &good.key),
        (&"../../etc".to_owned(), &good.key),
    ] {
        let upload = Upload {
            key: key.clone(),
            id: id.clone(),
            ..good.clone()
        };
        for (call, answer) in upload.each_call().await {
            println!("{call} {id}");
            is(&problem(answer).await, 404, "no-such-upload");
        }
    }
    assert_eq!(store.asked(), 0);
    let without_key = get(&good.base, &format!("/s3/multipart/{}", good.id)).await;
    let problem = problem(without_key).await;
    assert_eq!(fields(&problem), [("/key", "required")]);
}

#[tokio::test]
async fn an_error_of_the_store_is_reported_in_bounded_time_and_without_its_cause() {
    hurry();
    for (status, code, expected, ours) in [
        (404, "NoSuchUpload", 404, "no-such-upload"),
        // Ceph's answer about an upload that was completed or aborted.
        (404, "NoSuchKey", 404, "no-such-upload"),
        (403, "AccessDenied", 502, "storage-error"),
        (500, "InternalError", 502, "storage-error"),
        (503, "SlowDown", 503, "storage-unavailable"),
        (429, "TooManyRequests", 503, "storage-unavailable"),
        // As proxies in between answer.
        (429, "", 503, "storage-unavailable"),
        (503, "", 503, "storage-unavailable"),
        (404, "NoSuchBucket", 502, "storage-error"),
        // As a proxy in between answers.
        (404, "", 502, "storage-error"),
    ] {
        let store = StandIn::answering(move |_| async move { error(status, code) }).await;
        let upload = upload_on(&store).await;
        let begin = Instant::now();
        let parts = json!([{"PartNumber": 1, "ETag": "\"a\""}]);
        let list = upload.call(Method::GET, "", &[], None).await;
        for answer in [list, upload.complete(parts).await] {
            let problem = problem(answer).await;
            let found = (&problem["status"], &problem["code"]);
            assert_eq!(found, (&json!(expected), &json!(ours)), "{code}");
            assert!(problem["message"].is_string());
            assert!(!problem.to_string().contains("secret cause"));
        }
        let abort = upload.call(Method::DELETE, "", &[], None).await;
        // An upload that is gone needs no abort.
        assert_eq!(
            abort.status().as_u16(),
            if expected == 404 { 200 } else { expected }
        );
        // Creating is repeated only if the store says that it did nothing: it might exist twice.
        store.asked();
        let body = json!({"filename": "a", "type": "a/b"});
        let create = post(&upload.base, "/s3/multipart", &body).await;
        assert_eq!(create.status().as_u16(), expected, "{code}");
        let does_nothing = status == 429 || code == "SlowDown";
        assert_eq!(store.asked() > 1, does_nothing, "{status} {code}");
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[tokio::test]
async fn no_checksum_is_asked_of_parts_that_browsers_do_not_send() {
    // S3 refuses to complete an upload that was begun with one.
    let store = StandIn::answering(async |request: Request| {
        let mut names = request.headers().keys().map(HeaderName::as_str);
        let asks = names.any(|name| name.contains("checksum"));
        if asks || request.uri().to_string().contains("checksum") {
            return error(400, "InvalidRequest");
        }
        xml(CREATED)
    });
    let base = store.await.service(ANYTHING).await;
    let upload = create_at(&base, json!({"filename": "a", "type": "a/b"})).await;
    let answer = upload.json(Method::GET, "1", &[], None).await;
    let url = answer["url"].as_str().unwrap();
    assert!(!url.to_lowercase().contains("checksum"), "{url}");
    assert!(url.contains("X-Amz-SignedHeaders=host&"), "{url}");
}

#[tokio::test]
async fn a_store_that_is_busy_for_a_moment_costs_no_upload() {
    let was_busy = Arc::new(AtomicBool::new(false));
    let store = StandIn::answering(move |_| {
        let is_first = !was_busy.swap(true, Ordering::SeqCst);
        std::future::ready(if is_first {
            error(503, "SlowDown")
        } else {
            xml(CREATED)
        })
    });
    let store = store.await;
    let base = store.service(ANYTHING).await;
    create_at(&base, json!({"filename": "a", "type": "a/b"})).await;
    assert_eq!(store.asked(), 2);
}

/// A client repeats a completion when the answer is late, also while the store works on the first one.
#[tokio::test]
async fn a_completion_is_repeated_while_the_store_works_on_it() {
    hurry();
    for (is_made, status, code, expected) in [
        (true, 412, "PreconditionFailed", None),
        (true, 409, "ConditionalRequestConflict", None),
        (false, 412, "PreconditionFailed", Some("object-exists")),
        (
            false,
            409,
            "ConditionalRequestConflict",
            Some("storage-unavailable"),
        ),
    ] {
        let store = StandIn::between(move |request: Request, next: Next| async move {
            let query = request.uri().query().unwrap_or_default();
            let is_completion = request.method() == Method::POST && query.contains("uploadId");
            if !is_completion {
                return next.run(request).await;
            }
            if is_made {
                next.run(request).await;
            }
            error(status, code)
        })
        .await;
        let base = store.service(ANYTHING).await;
        let upload = create_at(&base, json!({"filename": "a", "type": "a/b"})).await;
        let response = upload.send(b"hello".to_vec()).await;
        let Some(expected) = expected else {
            assert_eq!(response.status(), 200, "{code}");
            continue;
        };
        assert_eq!(problem(response).await["code"], expected);
    }
}

#[tokio::test]
async fn a_part_whose_size_the_store_does_not_tell_is_not_taken_for_an_empty_one() {
    // Otherwise an upload of any size would be as small as the policy wants.
    for lost in [
        "<Size>5</Size>",
        "<PartNumber>1</PartNumber>",
        "<ETag>\"a\"</ETag>",
    ] {
        let store = StandIn::answering(move |request| async move {
            assert_eq!(request.method(), Method::GET, "nothing is completed");
            let part = "<PartNumber>1</PartNumber><ETag>\"a\"</ETag><Size>5</Size>".replace(lost, "");
            xml(&format!("<ListPartsResult><IsTruncated>false</IsTruncated><Part>{part}</Part></ListPartsResult>"))
        })
        .await;
        let upload = upload_on(&store).await;
        let parts = json!([{"PartNumber": 1, "ETag": "\"a\""}]);
        let problem = problem(upload.complete(parts).await).await;
        assert_eq!(problem["code"], "storage-error", "without {lost}");
    }
}

#[tokio::test]
async fn ten_thousand_parts_are_completed_in_one_call() {
    let store = StandIn::answering(async |request: Request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() == Method::POST {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert_eq!(body.matches("<PartNumber>").count(), 10_000);
            let done = "<CompleteMultipartUploadResult><Location>http://there</Location></CompleteMultipartUploadResult>";
            return xml(done);
        }
        ten_thousand_parts(&query)
    })
    .await;
    let upload = upload_on(&store).await;
    assert_eq!(upload.list().await.as_array().unwrap().len(), 10_000);
    let parts: Vec<Value> = (1..=10_000)
        .map(|n| json!({"PartNumber": n, "ETag": format!("\"{n:032}\"")}))
        .collect();
    let response = upload.complete(json!(parts)).await;
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    // Its address for clients, whatever the store calls it.
    let address = format!("{}/{BUCKET}/{}", store.url(), upload.key);
    assert_eq!(answer["location"], address.replace(' ', "%20"));
    let over: Vec<Value> = (1..=10_001)
        .map(|n| json!({"PartNumber": n, "ETag": "x"}))
        .collect();
    let problem = problem(upload.complete(json!(over)).await).await;
    assert_eq!(fields(&problem), [("/parts", "length")]);
}

#[tokio::test]
async fn parts_are_in_their_order_whatever_that_of_the_store() {
    let completed = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&completed);
    let store = StandIn::answering(move |request: Request| {
        let seen = Arc::clone(&seen);
        async move {
            let query = request.uri().query().unwrap_or_default();
            if request.method() == Method::GET {
                let [first, second] = [1, 2].map(|n| {
                    format!("<Part><PartNumber>{n}</PartNumber><ETag>\"{n}\"</ETag><Size>5</Size></Part>")
                });
                return xml(&format!("<ListPartsResult>{second}{first}</ListPartsResult>"));
            }
            if !query.contains("uploadId") {
                return xml(CREATED);
            }
            let body = axum::body::to_bytes(request.into_body(), 10_000);
            let body = String::from_utf8(body.await.unwrap().to_vec()).unwrap();
            *seen.lock().unwrap() = body;
            xml("<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
        }
    })
    .await;
    let upload = upload_on(&store).await;
    let numbers = |list: &Value| -> Vec<u64> {
        let parts = list.as_array().unwrap().iter();
        parts
            .map(|part| part["PartNumber"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&upload.list().await), [1, 2]);
    let parts = [1, 2].map(|n| json!({"PartNumber": n, "ETag": format!("\"{n}\"")}));
    let answer = upload.complete(json!(parts)).await;
    assert_eq!(answer.status(), 200);
    // S3 refuses any other order.
    let completed = completed.lock().unwrap();
    let at = |n| completed.find(&format!("<PartNumber>{n}</PartNumber>"));
    assert!(at(1).is_some() && at(1) < at(2), "{completed}");
}
