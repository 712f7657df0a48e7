//! Bad input gets a clear answer: each mistake its own, all wrong fields at once.

use reqwest::header::{ALLOW, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::helpers::{App, fields, problem, spawn_app};

async fn post(app: &App, body: impl Into<reqwest::Body>) -> Value {
    let url = format!("{}/upload/presigned-url", app.base);
    let request = app
        .client
        .post(url)
        .header(CONTENT_TYPE, "application/json");
    problem(request.body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let app = spawn_app().await;
    for (body, expected) in [
        (
            "{}",
            vec![("/contentType", "required"), ("/filename", "required")],
        ),
        (
            r#"{"filename":"","contentType":""}"#,
            vec![("/contentType", "not-a-media-type"), ("/filename", "empty")],
        ),
        (
            r#"{"filename":"a/b","contentTyp":"image/png"}"#,
            vec![
                ("/contentTyp", "unknown-field"),
                ("/contentType", "required"),
                ("/filename", "path-separator"),
            ],
        ),
        (
            r#"{"filename":5,"contentType":null,"a":1,"b/c~":2}"#,
            vec![
                ("/a", "unknown-field"),
                ("/b~1c~0", "unknown-field"),
                ("/contentType", "wrong-type"),
                ("/filename", "wrong-type"),
            ],
        ),
        (
            r#"{"filename":"a","filename":"b","contentType":"x"}"#,
            vec![
                ("/contentType", "not-a-media-type"),
                ("/filename", "duplicate-field"),
            ],
        ),
        (
            r#"{"filename":["a"],"contentType":{"a":1}}"#,
            vec![("/contentType", "wrong-type"), ("/filename", "wrong-type")],
        ),
        (r#"["a.jpg","image/jpeg"]"#, vec![("", "wrong-type")]),
        (r#""a.jpg""#, vec![("", "wrong-type")]),
        ("null", vec![("", "wrong-type")]),
    ] {
        let problem = post(&app, body).await;
        assert_eq!(problem["status"], 400, "{body}");
        assert_eq!(problem["code"], "invalid-request", "{body}");
        assert_eq!(fields(&problem), expected, "{body}");
    }
}

#[tokio::test]
async fn the_detail_is_a_sentence_for_people() {
    let app = spawn_app().await;
    let problem = post(&app, r#"{"filename":"","contentType":"a/b"}"#).await;
    assert_eq!(problem["detail"], "filename must not be empty");
    let problem = post(&app, r#"{"filename":7,"contentTyp":"a/b"}"#).await;
    let expected = "contentTyp is not a field of this request, which takes `filename`, \
        `contentType`, `size`, `checksumSha256`, `policy`, `metadata`; contentType is required; \
        filename must be a string, not a number";
    assert_eq!(problem["detail"], expected);
}

#[tokio::test]
async fn a_content_type_is_a_media_type_and_smuggles_no_header() {
    let app = spawn_app().await;
    for content_type in [
        "",
        "image",
        "*/*",
        "image/*",
        "image/jpeg\r\nx-amz-acl: public-read",
        "image/jpeg\n",
        "image/jpeg;\u{0}",
        "image/jpeg, text/html",
        "이미지/jpeg",
    ] {
        let body = json!({"filename": "a", "contentType": content_type});
        let problem = problem(app.ask(&body).await).await;
        let expected = [("/contentType", "not-a-media-type")];
        assert_eq!(fields(&problem), expected, "{content_type:?}");
    }
    let long = format!("text/{}", "a".repeat(251));
    let problem = problem(
        app.ask(&json!({"filename": "a", "contentType": long}))
            .await,
    )
    .await;
    assert_eq!(fields(&problem), [("/contentType", "length")]);
}

#[tokio::test]
async fn a_whole_number_is_one_however_it_is_written() {
    let app = spawn_app().await;
    let send = async |path: &str, body: &str| {
        let request = app.client.post(format!("{}{path}", app.base));
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(body.to_owned()).send().await.unwrap()
    };
    for (number, size) in [("6", 6), ("6.0", 6), ("0.6e1", 6), ("-0.0", 0)] {
        let file = format!(r#"{{"filename":"a","contentType":"text/plain","size":{number}}}"#);
        let grant: Value = send("/upload/presigned-post", &file)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(grant["maxSize"], size, "{number}");
        let file = format!(r#"{{"filename":"a","size":{number}}}"#);
        let response = send("/s3/multipart", &file).await;
        assert_eq!(response.status(), StatusCode::OK, "{number}");
    }
    let verify = r#"{"key":"a","size":6.0,"wait":1.0}"#;
    let problem = problem(send("/upload/verify", verify).await).await;
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
async fn what_is_not_json_is_told_from_what_is_wrong_json() {
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
            br#"{"filename":"\ud800","contentType":"a/b"}"#,
            "invalid-json",
        ),
        (
            b"{\"filename\":\"\xff\",\"contentType\":\"a/b\"}",
            "invalid-json",
        ),
        (br#"{"filename":1e999,"contentType":"a/b"}"#, "invalid-json"),
        (deep.as_bytes(), "json-too-deep"),
        (deep_field.as_bytes(), "json-too-deep"),
    ] {
        let problem = post(&app, body.to_vec()).await;
        let body = String::from_utf8_lossy(body);
        assert_eq!(problem["status"], 400, "{body}");
        assert_eq!(problem["code"], code, "{body}");
        assert_eq!(fields(&problem), [], "{body}");
    }
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_and_one_below_is_read() {
    let app = spawn_app().await;
    let body = |length: usize| {
        let head = r#"{"filename":"a","contentType":"a/b","x":""#;
        format!("{head}{}\"}}", "x".repeat(length - head.len() - 2))
    };
    let problem = post(&app, body(64 * 1024)).await;
    assert_eq!(fields(&problem), [("/x", "unknown-field")]);
    for length in [64 * 1024 + 1, 10_000_000] {
        let problem = post(&app, body(length)).await;
        assert_eq!(problem["status"], 413);
        assert_eq!(problem["code"], "body-too-large");
    }
}

#[tokio::test]
async fn thousands_of_wrong_fields_are_answered_soon_and_briefly() {
    let app = spawn_app().await;
    let body: serde_json::Map<String, Value> =
        (0..5000).map(|n| (format!("f{n}"), json!(n))).collect();
    let begin = std::time::Instant::now();
    let problem = post(&app, Value::Object(body).to_string()).await;
    assert_eq!(problem["errors"].as_array().unwrap().len(), 50);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_request_that_is_not_json_by_its_content_type_is_refused() {
    let app = spawn_app().await;
    let url = format!("{}/upload/presigned-url", app.base);
    let body = r#"{"filename":"a","contentType":"a/b"}"#;
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/jsonx"),
        Some("json"),
    ] {
        let mut request = app.client.post(&url).body(body);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!(problem["status"], 415, "{content_type:?}");
        assert_eq!(problem["code"], "unsupported-media-type");
    }
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = app
            .client
            .post(&url)
            .body(body)
            .header(CONTENT_TYPE, content_type);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn an_unknown_route_is_404_and_a_wrong_method_405_with_allow() {
    let app = spawn_app().await;
    for path in [
        "/",
        "/nope",
        "/upload",
        "/upload/presigned-url/",
        "/docs/nope",
    ] {
        let response = app.client.get(format!("{}{path}", app.base)).send().await;
        let problem = problem(response.unwrap()).await;
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(404), &json!("no-such-route")),
            "{path}"
        );
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let url = format!("{}/upload/presigned-url", app.base);
        let response = app
            .client
            .request(method.clone(), url)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()[ALLOW], "POST");
        let problem = problem(response).await;
        assert_eq!(problem["status"], 405);
        assert_eq!(problem["code"], "method-not-allowed");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains(method.as_str())
        );
    }
}
