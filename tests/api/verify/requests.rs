//! What a request may say, and what is said of several uploads.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{URL, VERIFY, Verified, refused, replace, upload};
use crate::helpers::{Grant, answer, fields, is, spawn_app, spawn_app_with_policies};
use crate::policies::sha256;

#[tokio::test]
async fn a_request_says_what_is_wrong_with_it() {
    let app = spawn_app_with_policies("[policies.default]\n[policies.other]").await;
    let keys = |count: usize| vec!["k"; count];
    for (body, expected) in [
        (json!({}), [("/key", "required")].as_slice()),
        (json!({"key": null}), &[("/key", "required")]),
        (json!({"keys": null}), &[("/key", "required")]),
        (
            json!({"key": 7, "size": -1}),
            &[("/key", "wrong-type"), ("/size", "out-of-range")],
        ),
        (
            json!({"key": "k", "keys": ["k"]}),
            &[("/keys", "key-and-keys")],
        ),
        (json!({"keys": []}), &[("/keys", "length")]),
        (json!({"keys": keys(101)}), &[("/keys", "length")]),
        (json!({"keys": ["k", 7]}), &[("/keys/1", "wrong-type")]),
        (
            json!({"keys": ["k"], "size": 1, "checksumSha256": sha256("")}),
            &[("/checksumSha256", "needs-key"), ("/size", "needs-key")],
        ),
        (
            json!({"key": "k", "wait": 21, "checksumSha256": "x"}),
            &[
                ("/checksumSha256", "not-a-checksum"),
                ("/wait", "out-of-range"),
            ],
        ),
        (json!({"key": "k", "wait": "1"}), &[("/wait", "wrong-type")]),
        (
            json!({"keys": keys(11), "wait": 1}),
            &[("/wait", "too-many-keys")],
        ),
        (
            json!({"key": "k", "Key": "k"}),
            &[("/Key", "unknown-field")],
        ),
    ] {
        let problem = refused(&app, body.clone()).await;
        is(&problem, 400, "invalid-request");
        assert_eq!(fields(&problem), expected, "{body}");
    }
    for body in [
        json!({"key": "k", "policy": "x"}),
        json!({"keys": ["k"], "policy": "x"}),
    ] {
        is(&refused(&app, body).await, 422, "unknown-policy");
    }
}

#[tokio::test]
async fn several_uploads_are_verified_at_once_each_with_its_own_result() {
    let app = spawn_app_with_policies("[policies.default]\nmax_size = '5 B'").await;
    let request = json!({"filename": "a.txt", "contentType": "text/plain", "size": 5});
    let good = upload(&app, request.clone(), b"hello").await;
    let large = upload(&app, request.clone(), b"hello").await;
    replace(&app, &large, "text/plain", b"hello!").await;
    let absent: Grant = app.granted(URL, &request).await;
    let keys = json!([large, good, absent.key, "foreign", good]);
    let answer: Value = app.accepted(VERIFY, &json!({"keys": keys})).await;
    assert_eq!(answer.as_object().unwrap().len(), 1);
    let results = answer["results"].as_array().unwrap();
    let found: Vec<_> = results
        .iter()
        .map(|result| (&result["key"], &result["status"]))
        .collect();
    let statuses = [409, 200, 404, 404, 200].map(Value::from);
    let expected: Vec<_> = keys.as_array().unwrap().iter().zip(&statuses).collect();
    assert_eq!(found, expected);
    let expected = json!({
        "code": "mismatch",
        "detail": "size must be at most 5 bytes; it is 6",
        "errors": [{"pointer": "/size", "code": "file-too-large", "detail": "must be at most 5 bytes; it is 6"}],
    });
    assert_eq!(results[0]["problem"], expected);
    let one: Verified = serde_json::from_value(results[1]["upload"].clone()).unwrap();
    assert_eq!((one.key, one.size), (good, 5));
    for absent in &results[2..4] {
        let expected = json!({
            "code": "not-uploaded",
            "detail": "there is no such upload under the policy of this request (`default`, unless `policy` names another one), or not yet",
        });
        assert_eq!(absent["problem"], expected);
        assert_eq!(absent.get("upload"), None);
    }
}

#[tokio::test]
async fn a_hundred_of_the_longest_keys_fit_into_a_request() {
    let app = spawn_app().await;
    let mut body = r#"{"keys": ["#.to_owned();
    for n in 0..100 {
        let comma = if n > 0 { "," } else { "" };
        write!(body, "{comma}\"{}\"", "\\u0061".repeat(1024)).unwrap();
    }
    body.push_str("]}");
    let answer: Value = answer(200, app.post_text(VERIFY, body).await).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 100);
}
