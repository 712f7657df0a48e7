//! Sealed calls in the wrong hands, at the wrong time, and with bodies that no client sends.

use std::time::{Duration, SystemTime};

use presignd::dev::BUCKET;
use presignd::upload::{Caller, GrantRequest, Operation};
use reqwest::Method;
use serde_json::json;

use super::{Uppy, element, list_of, refused, send, signed};
use crate::helpers::{client, file, service, spawn_app, with_another_secret};
use crate::uppy::create_at;

async fn begun() -> (crate::helpers::App, Uppy) {
    let app = spawn_app().await;
    let upload = Uppy::begin(&app.base, "a.mp4", "video/mp4").await;
    (app, upload)
}

#[tokio::test]
async fn a_tampered_foreign_or_other_token_makes_no_call() {
    let (app, upload) = begun().await;
    let call = upload.signed("GET").await;
    let (base, token) = call["url"].as_str().unwrap().rsplit_once('/').unwrap();
    let mut tampered: Vec<String> = (0..token.len() - 1)
        .step_by(token.len() / 25)
        .map(|at| {
            let other = if &token[at..=at] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &token[..at], &token[at + 1..])
        })
        .collect();
    // Another kind of token of ours, and what is no token.
    tampered.extend([
        upload.id.clone(),
        "x".to_owned(),
        "..".replace('.', "%2E."),
        "%00".to_owned(),
    ]);
    tampered.push(token[..token.len() - 3].to_owned());
    // A call of this very upload, sealed by a service with another secret.
    let (anyone, now) = (Caller::anonymous(), SystemTime::now());
    let open = app.uploads.open_upload(&anyone, &upload.id, None, now);
    let other = service(&app.config, BUCKET, true, with_another_secret()).await;
    let list = Operation::List;
    let foreign = other.seal_call(&anyone, &open.unwrap(), list, Duration::ZERO, now);
    tampered.push(foreign.token);
    for token in tampered {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let call = client().request(method, format!("{base}/{token}"));
            let call = call.body(list_of(&[(1, "x")])).send().await;
            assert_eq!(call.unwrap().status(), 404, "{token}");
        }
    }
    // A session is no permission for a call, nor a call a session.
    let as_session = client().get(format!("{}/s3/multipart/{token}?key=a", app.base));
    assert_eq!(as_session.send().await.unwrap().status(), 404);
    let list = send(&call, None, Vec::new()).await;
    assert_eq!(list.status(), 200);
}

#[tokio::test]
async fn a_token_is_for_one_call_of_one_upload() {
    let (app, upload) = begun().await;
    let etag = upload.put(1, vec![1; 10]).await;
    let begin = signed(&app.base, &json!({"method": "POST", "key": "a"})).await;
    for (signed, methods) in [
        (&upload.signed("GET").await, &["POST", "DELETE"][..]),
        (&upload.signed("DELETE").await, &["GET", "POST"]),
        (&upload.signed("POST").await, &["GET", "DELETE"]),
        (&begin, &["GET", "DELETE"]),
    ] {
        for method in methods {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let call = client().request(method, signed["url"].as_str().unwrap());
            let answer = call.body(list_of(&[(1, &etag)])).send().await.unwrap();
            assert_eq!(refused(answer).await, (404, "NoSuchUpload".to_owned()));
        }
    }
    // Whatever key a request names, the id decides which upload it is for.
    let other = Uppy::begin(&app.base, "b.mp4", "video/mp4").await;
    let request = json!({"method": "GET", "key": "uploads/x/b.mp4", "uploadId": upload.id});
    let list = signed(&app.base, &request).await;
    let list = send(&list, None, Vec::new()).await.text().await.unwrap();
    assert!(element(&list, "Key").ends_with("/a.mp4"), "{list}");
    let parts_of_another = other.complete(&[(1, &etag)]).await;
    assert_eq!(
        refused(parts_of_another).await,
        (400, "InvalidParts".to_owned())
    );
    // One answer that begins an upload begins another one each time, under its own key.
    let new_key = async || {
        let answer = send(&begin, Some("a/b"), Vec::new()).await;
        element(&answer.text().await.unwrap(), "Key").to_owned()
    };
    assert_ne!(new_key().await, new_key().await);
}

#[tokio::test]
async fn only_the_caller_who_began_an_upload_gets_its_calls_and_only_in_time() {
    let app = spawn_app().await;
    let (alice, bob) = (Caller::named("alice", None), Caller::named("bob", None));
    let now = SystemTime::now();
    let file = file("a.txt", "a/b");
    let upload = app
        .uploads
        .create_multipart(GrantRequest::new(&alice, &file, now));
    let upload = upload.await.unwrap();
    let open = |caller, now| app.uploads.open_upload(caller, &upload.token, None, now);
    let seal = |caller, now| {
        let (uploads, list) = (&app.uploads, Operation::List);
        let seal = |upload| uploads.seal_call(caller, &upload, list, Duration::ZERO, now);
        open(caller, now).map(seal)
    };
    assert!(seal(&bob, now).is_err());
    let anyone = Caller::anonymous();
    assert!(seal(&anyone, now).is_err());
    assert!(open(&bob, now).is_err());
    let call = seal(&alice, now).unwrap();
    let url = format!("{}/s3/upload/{}", app.base, call.token);
    assert_eq!(client().get(url).send().await.unwrap().status(), 200);
    // As long as the URL of a part, and to the second.
    let last = call.expires_at - Duration::from_secs(1);
    assert!(app.uploads.open_call(&call.token, last).is_ok());
    assert!(app.uploads.open_call(&call.token, call.expires_at).is_err());
    // And no longer than the upload itself, however late the call was sealed.
    let end = now + Duration::from_hours(7 * 24);
    let late = seal(&alice, end - Duration::from_mins(1)).unwrap();
    assert!(late.expires_at > end);
    let before = end - Duration::from_secs(10);
    assert!(app.uploads.open_call(&late.token, before).is_ok());
    assert!(app.uploads.open_call(&late.token, end).is_err());
    let expired = seal(&alice, now - Duration::from_secs(601)).unwrap();
    let url = format!("{}/s3/upload/{}", app.base, expired.token);
    let expired = client().get(url).send().await.unwrap();
    assert_eq!(refused(expired).await, (403, "CallExpired".to_owned()));
}

#[tokio::test]
async fn no_list_of_parts_but_the_right_one_completes_an_upload() {
    let (app, upload) = begun().await;
    let etag = upload.put(1, vec![1; 10]).await;
    let call = upload.signed("POST").await;
    let good = list_of(&[(1, &etag)]);
    let bomb = format!(
        "<!DOCTYPE x [<!ENTITY a \"{}\"><!ENTITY b \"&a;&a;&a;&a;\">]><CompleteMultipartUpload><Part><ETag>&b;</ETag></Part></CompleteMultipartUpload>",
        "a".repeat(1000)
    );
    let too_many: Vec<(u16, &str)> = (1..=10_001).map(|number| (number, "x")).collect();
    for (body, status, code) in [
        (String::new(), 400, "InvalidXml"),
        (bomb, 400, "InvalidXml"),
        (list_of(&[]), 400, "InvalidRequest"),
        (list_of(&[(0, &etag)]), 400, "InvalidRequest"),
        (list_of(&[(1, &etag), (1, &etag)]), 400, "InvalidRequest"),
        (list_of(&too_many), 400, "InvalidRequest"),
        (good.replace("PartNumber", "Number"), 400, "InvalidRequest"),
        (
            list_of(&[(1, "d41d8cd98f00b204e9800998ecf8427e")]),
            400,
            "InvalidParts",
        ),
        (list_of(&[(1, &etag), (2, &etag)]), 400, "InvalidParts"),
        (" ".repeat(2 * 1024 * 1024 + 1), 413, "BodyTooLarge"),
    ] {
        let answer = send(&call, Some("application/xml"), body.clone().into()).await;
        let found = refused(answer).await;
        assert_eq!(found, (status, code.to_owned()), "{body:.60}");
    }
    assert_eq!(send(&call, None, good.clone().into()).await.status(), 200);
    // A lost answer: the same call says again that the object is there.
    let again = send(&call, None, good.clone().into()).await;
    assert_eq!(again.status(), 200);
    let key = element(&again.text().await.unwrap(), "Key").to_owned();
    assert_eq!(app.stored(&key).await.unwrap().0, [1; 10]);
}

#[tokio::test]
async fn an_aborted_upload_is_neither_listed_nor_completed() {
    let (_app, upload) = begun().await;
    let etag = upload.put(1, vec![1; 10]).await;
    let (list, complete) = (upload.signed("GET").await, upload.signed("POST").await);
    for _ in 0..2 {
        let abort = upload.signed("DELETE").await;
        let abort = send(&abort, None, Vec::new()).await;
        assert_eq!(abort.status(), 204);
    }
    let list = send(&list, None, Vec::new()).await;
    assert_eq!(refused(list).await, (404, "NoSuchUpload".to_owned()));
    let complete = send(&complete, None, list_of(&[(1, &etag)]).into()).await;
    assert_eq!(refused(complete).await, (404, "NoSuchUpload".to_owned()));
}

#[tokio::test]
async fn both_protocols_continue_the_same_upload() {
    let app = spawn_app().await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    let request = json!({"method": "DELETE", "key": upload.key, "uploadId": upload.id});
    let abort = signed(&app.base, &request).await;
    assert_eq!(send(&abort, None, Vec::new()).await.status(), 204);
}
