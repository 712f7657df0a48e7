//! Bad input gets a clear answer: each mistake its own, all wrong fields at once.

mod json;

use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::helpers::{App, fields, is, problem, spawn_app, spawn_app_with_policies};

const URL: &str = "/upload/presigned-url";

async fn post(app: &App, body: impl Into<reqwest::Body>) -> Value {
    problem(app.post_text(URL, body).await).await
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
        is(&problem, 400, "invalid-request");
        assert_eq!(fields(&problem), expected, "{body}");
    }
}

#[tokio::test]
async fn the_detail_is_a_sentence_for_people() {
    let app = spawn_app().await;
    let problem = post(&app, r#"{"filename":"","contentType":"a/b"}"#).await;
    assert_eq!(problem["detail"], "filename must not be empty");
    let problem = post(&app, r#"{"filename":7,"contentTyp":"a/b"}"#).await;
    let expected = "contentTyp is not a field of this request, which has `filename`, \
        `contentType`, `size`, `checksumSha256`, `checksumCrc64nvme`, `contentMd5`, `policy`, `metadata`; contentType is required; \
        filename must be a string, not a number";
    assert_eq!(problem["detail"], expected);
    let near = r#"{"file_name":"a","contenttype":"a/b","content-type":"a/b"}"#;
    let detail = post(&app, near).await["detail"].to_string();
    for (field, known) in [
        ("file_name", "filename"),
        ("contenttype", "contentType"),
        ("content-type", "contentType"),
    ] {
        let why = format!("{field} is not a field of this request; did you mean `{known}`?");
        assert!(detail.contains(&why), "{detail}");
    }
    // The fields are listed once.
    let problem = post(&app, r#"{"a":1,"b":1}"#).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("; b is not a field of this request; see /a; "),
        "{detail}"
    );
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
        is(&post(&app, body(length)).await, 413, "body-too-large");
    }
}

#[tokio::test]
async fn a_body_with_very_many_faults_is_soon_answered_with_some_and_the_number_of_the_others() {
    let app = spawn_app().await;
    let members: Vec<String> = (0..5000).map(|n| format!(r#""{n}":1"#)).collect();
    let unknown = format!("{{{}}}", members.join(","));
    let begin = std::time::Instant::now();
    let unknown = problem(app.post_text("/upload/presigned-url", unknown).await).await;
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
    assert_eq!(fields(&unknown).len(), 50);
    let detail = unknown["detail"].as_str().unwrap();
    assert!(detail.ends_with("; and 4995 more"), "{detail}");
}

/// The longest problem document.
const LONGEST: usize = 64 * 1024;

/// Sends a body that has to be refused, and gives the length of the answer.
async fn length_of_answer(app: &App, path: &str, body: String) -> usize {
    let response = app.post_text(path, body).await;
    assert!(response.status().is_client_error(), "{path}");
    response.bytes().await.unwrap().len()
}

#[tokio::test]
async fn no_body_makes_a_problem_of_more_than_64_kib() {
    let app = spawn_app_with_policies("[policies.default]\nmax_size = '5 B'").await;
    let twice: Vec<String> = (0..50).map(|n| format!(r#""{n}":0,"{n}":1"#)).collect();
    let twice = format!("{{{}}}", twice.join(","));
    // Each makes a longer text of a name: a pointer escapes it, JSON does, or both.
    for (path, longest) in [
        ("/upload/presigned-url", 64 * 1024),
        ("/upload/presigned-urls", 2 * 1024 * 1024),
        ("/upload/verify", 1024 * 1024),
        ("/download/presigned-url", 2 * 1024 * 1024),
        ("/s3/multipart", 64 * 1024),
        ("/better-upload", 64 * 1024),
    ] {
        for unit in ["/", "\\u0000", "\\\"", "한"] {
            let name = unit.repeat((longest - 3000) / unit.len());
            let short = unit.repeat(2000 / unit.len());
            let names = |count: usize, value: &str| {
                let members: Vec<String> = (0..count)
                    .map(|n| format!(r#""{n}{short}":{value}"#))
                    .collect();
                format!("{{{}}}", members.join(","))
            };
            let count = longest / 2020;
            for body in [
                format!(r#"{{"{name}":{twice}}}"#),
                format!(r#"{{"metadata":{{"{name}":1}}}}"#),
                names(count - 2, "1"),
                format!(r#"{{"metadata":{}}}"#, names(count - 2, "1")),
                format!(r#"{{"filename":"{name}","contentType":"{short}"}}"#),
                format!(r#"{{"key":"{name}","keys":["{short}"]}}"#),
                format!(r#"{{"route":"{name}","files":[{{"name":"{short}"}}]}}"#),
            ] {
                assert!(body.len() <= longest, "{path} {unit}: {}", body.len());
                let response = app.post_text(path, body).await;
                let status = response.status();
                let length = response.bytes().await.unwrap().len();
                assert!(length <= LONGEST, "{path} {unit} {status}: {length}");
            }
        }
    }
    // All files are wrong in all ways, and all names are long.
    let metadata: serde_json::Map<String, Value> = (0..20)
        .map(|n| (format!("{n}{}", "~".repeat(70)), json!("")))
        .collect();
    let file = json!({"filename": "/", "contentType": "x", "metadata": metadata});
    let body = json!({"files": vec![file; 1000]}).to_string();
    let length = length_of_answer(&app, "/upload/presigned-urls", body).await;
    assert!(length <= LONGEST, "{length}");
}

#[tokio::test]
async fn what_a_policy_allows_is_not_repeated_for_each_file() {
    let types: Vec<String> = (0..300)
        .map(|n| format!("'application/x-type-number-{n}'"))
        .collect();
    let policy = format!("[policies.default]\ncontent_types = [{}]", types.join(","));
    let app = spawn_app_with_policies(&policy).await;
    let file = json!({"filename": "a", "contentType": "a/b"});
    let body = json!({"files": vec![file; 1000]});
    let problem = app.refused("/upload/presigned-urls", &body).await;
    let text = problem.to_string();
    assert!(text.len() <= LONGEST, "{}", text.len());
    // Once in the list, and once in the sentence.
    assert_eq!(text.matches("application/x-type-number-0,").count(), 2);
    let length = length_of_answer(&app, "/s3/multipart", r#"{"filename":"a"}"#.into()).await;
    assert!(length <= LONGEST, "{length}");
}

#[tokio::test]
async fn a_long_name_is_cut_where_it_is_named() {
    let app = spawn_app().await;
    let name = format!("한/{}", "x".repeat(5000));
    let problem = post(&app, json!({ name: 1 }).to_string()).await;
    let pointer = problem["errors"][2]["pointer"].as_str().unwrap();
    assert_eq!(pointer, format!("/한~1{}…", "x".repeat(96)));
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
        is(&problem, 415, "unsupported-media-type");
    }
    let json = || {
        app.client
            .post(&url)
            .header(CONTENT_TYPE, "application/json")
    };
    for request in [
        json().header("content-encoding", "gzip"),
        json().header("content-encoding", "identity"),
        json().header(CONTENT_TYPE, "application/json"),
    ] {
        let problem = problem(request.body(body).send().await.unwrap()).await;
        is(&problem, 415, "unsupported-media-type");
    }
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = app
            .client
            .post(&url)
            .body(body)
            .header(CONTENT_TYPE, content_type);
        assert_eq!(request.send().await.unwrap().status(), 201);
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
        // Companion hands out credentials for a whole bucket here.
        "/s3/sts",
        // The page is there if it is asked for, as `/` is.
        "/client/index.js",
        "/page/settings.json",
    ] {
        is(&problem(app.get(path).await).await, 404, "no-such-route");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let request = app
            .client
            .request(method.clone(), format!("{}{URL}", app.base));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()[ALLOW], "POST");
        let problem = problem(response).await;
        is(&problem, 405, "method-not-allowed");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(method.as_str()), "{detail}");
    }
}

#[tokio::test]
async fn a_wrong_path_or_method_is_refused_as_the_client_reads_it() {
    let app = spawn_app_with_policies("[policies.default]\n[policies.other]").await;
    let answer = async |path: &str| {
        let request = app.client.put(format!("{}{path}", app.base));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        assert!(response.headers().contains_key(ALLOW), "{path}");
        response
    };
    for path in [
        "/s3/params",
        "/s3/multipart",
        "/s3/sign",
        "/p/other/s3/params",
    ] {
        let problem = problem(answer(path).await).await;
        is(&problem, 405, "method-not-allowed");
        for member in ["error", "message"] {
            assert_eq!(problem[member], problem["detail"], "{path}");
        }
    }
    let unknown = problem(app.get("/p/other/s3/sts").await).await;
    is(&unknown, 404, "no-such-route");
    assert_eq!(unknown["message"], unknown["detail"]);
    for of_better_upload in [
        answer("/better-upload").await,
        app.post("/better-upload/", &json!({})).await,
        app.post("/t/ticket/better-upload/", &json!({})).await,
    ] {
        let problem = problem(of_better_upload).await;
        assert_eq!(
            problem["error"],
            json!({"type": "invalid_request", "message": problem["detail"]})
        );
    }
    let of_s3 = answer("/s3/upload/x").await;
    assert_eq!(of_s3.headers()[CONTENT_TYPE], "application/xml");
    let xml = of_s3.text().await.unwrap();
    assert!(xml.contains("<Code>MethodNotAllowed</Code>"), "{xml}");
}
