//! A presigned PUT does one thing, and the store enforces that.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use serde_json::json;

use crate::helpers::{App, Grant, spawn_app, spawn_app_with_policies};

async fn granted() -> (App, Grant) {
    let app = spawn_app().await;
    let grant = app.grant("example.jpg", "image/jpeg").await;
    (app, grant)
}

/// The names and values in the query of a URL.
fn query(url: &str) -> Vec<(String, String)> {
    let url = Url::parse(url).unwrap();
    url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_key_is_uploads_uuid_filename_and_never_comes_twice() {
    let (app, grant) = granted().await;
    let parts: Vec<&str> = grant.key.split('/').collect();
    let [prefix, id, filename] = parts[..] else {
        panic!("{}", grant.key);
    };
    assert_eq!((prefix, filename), ("uploads", "example.jpg"));
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    let another = app.grant("example.jpg", "image/jpeg").await;
    assert_ne!(another.key, grant.key);
}

#[tokio::test]
async fn the_store_refuses_whatever_the_holder_of_a_url_changes() {
    let (app, grant) = granted().await;
    let changed = |change: &dyn Fn(&mut Grant)| {
        let mut grant = grant.clone();
        change(&mut grant);
        grant
    };
    let mut others = vec![
        changed(&|it| drop(it.headers.insert("content-type".into(), "text/html".into()))),
        changed(&|it| it.headers.clear()),
        changed(&|it| it.url = it.url.replace("example.jpg", "other.jpg")),
    ];
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        others.push(changed(&|it| it.method = method.into()));
    }
    for (name, value) in query(&grant.url) {
        let value = match name.as_str() {
            "X-Amz-Expires" => "601".to_owned(),
            "X-Amz-SignedHeaders" => "host".to_owned(),
            // The store ignores `x-id`, which is signed all the same.
            _ => format!("{value}0"),
        };
        let unchanged = query(&grant.url).into_iter().filter(|(n, _)| *n != name);
        let mut url = Url::parse(&grant.url).unwrap();
        let mut parameters = url.query_pairs_mut();
        parameters
            .clear()
            .extend_pairs(unchanged)
            .append_pair(&name, &value);
        drop(parameters);
        others.push(changed(&|it| it.url = url.as_str().to_owned()));
    }
    for is_stored in [false, true] {
        for other in &others {
            let status = app.upload(other, "x").await.status();
            assert!(!status.is_success(), "{other:?}: {status}");
        }
        assert_eq!(app.stored(&grant.key).await.is_some(), is_stored);
        let status = app.upload(&grant, "x").await.status();
        assert_eq!(status, 200);
    }
    let other = grant.key.replace("example.jpg", "other.jpg");
    assert_eq!(app.stored(&other).await, None);
}

#[tokio::test]
async fn the_store_refuses_a_url_that_has_expired() {
    let app = spawn_app().await;
    let put = async |age: u64| {
        let grant = app
            .grant_at(SystemTime::now() - Duration::from_secs(age))
            .await;
        let request = app.client.put(&grant.request.url);
        let request = request.header("content-type", "text/plain");
        request.body("x").send().await.unwrap().status()
    };
    assert_eq!(put(590).await, 200);
    assert_eq!(put(602).await, 403);
}

#[tokio::test]
async fn a_grant_is_valid_for_600_seconds_and_says_so() {
    let app = spawn_app().await;
    // 2023-11-14T22:13:20.9Z
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
    let grant = app.grant_at(now).await;
    let query = query(&grant.request.url);
    assert!(query.contains(&("X-Amz-Date".into(), "20231114T221320Z".into())));
    assert!(query.contains(&("X-Amz-Expires".into(), "600".into())));
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_600);
    assert_eq!(grant.request.expires_at, end);

    let grant = app.grant("a.txt", "text/plain").await;
    let format = &time::format_description::well_known::Rfc3339;
    let end = time::OffsetDateTime::parse(&grant.expires_at, format).unwrap();
    let left = end - time::OffsetDateTime::now_utc();
    assert!((598..=600).contains(&left.whole_seconds()), "{left}");
    assert!(grant.expires_at.ends_with('Z') && grant.expires_at.len() == 20);
}

#[tokio::test]
async fn nothing_is_signed_that_was_not_requested() {
    let (_app, grant) = granted().await;
    let query: BTreeMap<_, _> = query(&grant.url).into_iter().collect();
    let names: Vec<&str> = query.keys().map(String::as_str).collect();
    // In particular no checksum: it could only be that of an empty body.
    let expected = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "x-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(query["X-Amz-SignedHeaders"], "content-type;host");
}

#[tokio::test]
async fn a_file_over_5_gib_goes_in_parts_and_the_refusal_says_so() {
    const GIB: u64 = 1 << 30;
    let app = spawn_app_with_policies(
        "[policies.default]
         [policies.whole]
         multipart = false
         [policies.checked]
         require_checksum = true
         [policies.small]
         max_size = '1 GiB'",
    )
    .await;
    let largest = json!({"filename": "a", "contentType": "a/b", "size": 5 * GIB});
    let _granted: Grant = app.granted("/upload/presigned-url", &largest).await;
    let hint = "is sent in parts, with `POST /s3/multipart`";
    for (path, policy, size, hints) in [
        ("/upload/presigned-url", "default", 5 * GIB + 1, true),
        ("/upload/presigned-post", "default", 5 * GIB + 1, true),
        ("/upload/presigned-url", "default", 1 << 50, false),
        ("/upload/presigned-url", "whole", 6 * GIB, false),
        ("/upload/presigned-url", "checked", 6 * GIB, false),
        ("/upload/presigned-url", "small", 2 * GIB, false),
    ] {
        let body = json!({"filename": "a", "contentType": "a/b", "size": size, "policy": policy});
        let problem = app.refused(path, &body).await;
        assert_eq!(problem["code"], "file-too-large");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("size must be at most"), "{detail}");
        assert_eq!(detail.contains(hint), hints, "{policy}: {detail}");
    }
    let body = json!({"filename": "a", "type": "a/b", "size": 5 * GIB + 1});
    let created = app.post("/s3/multipart", &body).await;
    assert_eq!(created.status(), 200);
}
