//! What JSON a body may be, and how its values are read.

use serde_json::{Value, json};

use super::{URL, post};
use crate::helpers::{fields, is, problem, spawn_app};

#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let app = spawn_app().await;
    for (number, size) in [("6", 6), ("6.0", 6), ("0.6e1", 6), ("-0.0", 0)] {
        let file = format!(r#"{{"filename":"a","contentType":"text/plain","size":{number}}}"#);
        let grant = app.post_text("/upload/presigned-post", file).await;
        let grant: Value = grant.json().await.unwrap();
        assert_eq!(grant["maxSize"], size, "{number}");
        let file = format!(r#"{{"filename":"a","size":{number}}}"#);
        let response = app.post_text("/s3/multipart", file).await;
        assert_eq!(response.status(), 200, "{number}");
    }
    let verify = r#"{"key":"a","size":6.0,"wait":1.0}"#;
    let problem = problem(app.post_text("/upload/verify", verify).await).await;
    assert_eq!(problem["code"], "not-uploaded");
    for number in [
        "6.5",
        "-1",
        "-1.0",
        "1e300",
        "9007199254740994.0",
        "9223372036854775808",
    ] {
        let body = format!(r#"{{"filename":"a","contentType":"a/b","size":{number}}}"#);
        let problem = post(&app, body).await;
        assert_eq!(fields(&problem), [("/size", "out-of-range")], "{number}");
    }
}

#[tokio::test]
async fn text_that_is_not_json_has_a_code_of_its_own() {
    let app = spawn_app().await;
    let deep = "[".repeat(10_000);
    let deep_field = format!(r#"{{"filename":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for (body, code) in [
        (&b""[..], "invalid-json"),
        (b"  ", "invalid-json"),
        (b"{", "invalid-json"),
        (br#"{"filename":"a","contentType":"a/b"} x"#, "invalid-json"),
        (br#"{"filename":"a","contentType":"a/b",}"#, "invalid-json"),
        (
            b"{\"filename\":\"\xff\",\"contentType\":\"a/b\"}",
            "invalid-json",
        ),
        (deep.as_bytes(), "json-too-deep"),
        (deep_field.as_bytes(), "json-too-deep"),
    ] {
        let problem = post(&app, body.to_vec()).await;
        let body = String::from_utf8_lossy(body);
        is(&problem, 400, code);
        assert_eq!(fields(&problem), [], "{body}");
    }
}

#[tokio::test]
async fn brackets_in_a_text_are_no_depth_whatever_is_escaped_before_them() {
    let app = spawn_app().await;
    let brackets = "[".repeat(200);
    for escaped in [r#"\""#, r"\\", r#"\\\""#] {
        let metadata = format!(r#"{{"note":"{escaped}{brackets}"}}"#);
        let body = format!(r#"{{"filename":"a","contentType":"a/b","metadata":{metadata}}}"#);
        let answer = app.post_text(URL, body).await;
        assert_eq!(answer.status(), 201, "{escaped}");
    }
}

#[tokio::test]
async fn a_value_that_json_allows_and_no_text_has_is_an_error_at_its_field() {
    let app = spawn_app().await;
    for (filename, code) in [
        (r#""\ud800""#, "lone-surrogate"),
        (r#""a\udc00b""#, "lone-surrogate"),
        (r#""\ud800\u0041""#, "lone-surrogate"),
        ("1e999", "wrong-type"),
    ] {
        let body = format!(r#"{{"filename":{filename},"contentType":"a/b"}}"#);
        let problem = post(&app, body).await;
        assert_eq!(fields(&problem), [("/filename", code)], "{filename}");
    }
    let body = r#"{"filename":"\ud83d\ude00.png","contentType":"image/png"}"#;
    let grant: Value = app.post_text(URL, body).await.json().await.unwrap();
    assert!(grant["key"].as_str().unwrap().ends_with("/😀.png"));
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped_and_another_encoding_is_named() {
    let app = spawn_app().await;
    let text = r#"{"filename":"a","contentType":"a/b"}"#;
    let response = app.post_text(URL, format!("\u{feff}{text}")).await;
    assert_eq!(response.status(), 201);
    let units = || text.encode_utf16();
    let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
    let marked = [&[0xff, 0xfe], &little[..]].concat();
    for body in [little, big, marked] {
        let problem = post(&app, body).await;
        assert_eq!(problem["code"], "invalid-json");
        assert!(problem["detail"].as_str().unwrap().contains("UTF-16"));
    }
}

#[tokio::test]
async fn null_counts_as_absent_for_an_optional_field() {
    let app = spawn_app().await;
    let file = json!({
        "filename": "a.txt", "contentType": "text/plain", "size": null,
        "checksumSha256": null, "policy": null, "metadata": null,
    });
    for (path, body) in [
        ("/upload/presigned-url", file.clone()),
        ("/upload/presigned-post", file.clone()),
        ("/upload/presigned-urls", json!({"files": [file]})),
    ] {
        let _granted: Value = app.granted(path, &body).await;
    }
    let uppy = json!({
        "filename": "a", "type": null, "metadata": null, "policy": null, "size": null,
    });
    let response = app.post("/s3/multipart", &uppy).await;
    assert_eq!(response.status(), 200);
    let file = json!({"name": "a", "size": 1, "type": "a/b"});
    let better_upload = json!({"route": null, "files": [file], "metadata": null});
    let response = app.post("/better-upload", &better_upload).await;
    assert_eq!(response.status(), 200);
    let verify = json!({
        "key": "a", "keys": null, "policy": null, "size": null, "checksumSha256": null,
        "wait": null,
    });
    let problem = app.refused("/upload/verify", &verify).await;
    assert_eq!(problem["code"], "not-uploaded");
    let download = json!({
        "key": "a", "keys": null, "policy": null, "disposition": null, "filename": null,
    });
    let problem = app.refused("/download/presigned-url", &download).await;
    assert_eq!(problem["code"], "download-not-allowed");
}
