//! Many files in one request: the same as one by one, all or nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::helpers::{
    App, Grant, fields, is, spawn_app, spawn_app_with_forms_only, spawn_app_with_policies,
    spawn_app_without_forms,
};
use crate::presigned_post::send;

const URLS: &str = "/upload/presigned-urls";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grants {
    uploads: Vec<Grant>,
}

#[tokio::test]
async fn a_thousand_files_are_granted_in_their_order() {
    let app = spawn_app().await;
    // As long as names and types can be.
    let name = |n: usize| format!("{n:04}{}", "한".repeat(83));
    let files: Vec<Value> = (0..1000)
        .map(|n| json!({"filename": name(n), "contentType": "text/plain", "size": n}))
        .collect();
    let grants: Grants = app.granted(URLS, &json!({ "files": files })).await;
    assert_eq!(grants.uploads.len(), 1000);
    for (n, grant) in grants.uploads.iter().enumerate() {
        assert!(grant.key.ends_with(&name(n)), "{}", grant.key);
    }
    for n in [1, 999] {
        let response = app.upload(&grants.uploads[n], "x".repeat(n)).await;
        assert_eq!(response.status(), 200);
    }
    let keys: std::collections::BTreeSet<&str> =
        grants.uploads.iter().map(|g| g.key.as_str()).collect();
    assert_eq!(keys.len(), 1000);
}

#[tokio::test]
async fn a_file_is_granted_as_it_would_be_alone() {
    let app = spawn_app_with_policies(include_str!("../../policies.example.toml")).await;
    let file = json!({
        "filename": "me.png", "contentType": "image/png", "size": 5,
        "policy": "avatar", "metadata": {"album": "7"}
    });
    let mut grants: Grants = app.granted(URLS, &json!({"files": [file]})).await;
    let listed = grants.uploads.remove(0);
    let alone: Grant = app.granted("/upload/presigned-url", &file).await;
    assert_eq!(listed.headers, alone.headers);
    assert_eq!(listed.method, alone.method);
    let parameters = |url: &str| -> Vec<String> {
        let query = url.split_once('?').unwrap().1;
        let is_stable =
            |p: &&str| !p.starts_with("X-Amz-Date") && !p.starts_with("X-Amz-Signature");
        query
            .split('&')
            .filter(is_stable)
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(parameters(&listed.url), parameters(&alone.url));
    assert_eq!(app.upload(&listed, "12345").await.status(), 200);
}

#[tokio::test]
async fn one_wrong_file_refuses_all_and_every_reason_has_its_place() {
    let app = spawn_app_with_policies("[policies.default]\nmax_size = '5 B'").await;
    let files = json!({"files": [
        {"filename": "a", "contentType": "a/b", "size": 5},
        {"filename": "b/c", "contentTyp": "a/b"},
        {"filename": "", "contentType": "a", "size": "5"},
        7,
        ["a", "a/b"],
        {"filename": "a", "contentType": "a/b", "metadata": {"x": 1}},
    ]});
    let problem = app.refused(URLS, &files).await;
    assert_eq!(problem["status"], 400);
    let expected = [
        ("/files/1/contentTyp", "unknown-field"),
        ("/files/1/contentType", "required"),
        ("/files/1/filename", "path-separator"),
        ("/files/2/contentType", "not-a-media-type"),
        ("/files/2/filename", "empty"),
        ("/files/2/size", "wrong-type"),
        ("/files/3", "wrong-type"),
        ("/files/4", "wrong-type"),
        ("/files/5/metadata/x", "wrong-type"),
    ];
    assert_eq!(fields(&problem), expected);

    let files = json!({"files": [
        {"filename": "a", "contentType": "a/b", "size": 5},
        {"filename": "b", "contentType": "a/b", "size": 6},
        {"filename": "c", "contentType": "a/b"},
        {"filename": "d", "contentType": "a/b", "policy": "nope"},
    ]});
    let problem = app.refused(URLS, &files).await;
    is(&problem, 422, "file-too-large");
    let expected = [
        ("/files/1/size", "file-too-large"),
        ("/files/2/size", "size-required"),
        ("/files/3/policy", "unknown-policy"),
    ];
    assert_eq!(fields(&problem), expected);

    // A store would replace this in a form, and a PUT needs the size.
    let name = |name| json!({"filename": name, "contentType": "a/b"});
    let files = [
        name("a"),
        name("${filename}"),
        name("b"),
        name("c${filename}"),
    ];
    let forms = json!({"forms": true, "files": files});
    let problem = app.refused(URLS, &forms).await;
    let expected = [
        ("/files/1/filename", "reserved"),
        ("/files/3/filename", "reserved"),
    ];
    assert_eq!(fields(&problem), expected);
}

#[tokio::test]
async fn a_list_has_1_to_1000_files() {
    let app = spawn_app().await;
    let file = json!({"filename": "a", "contentType": "a/b"});
    for (files, code) in [
        (json!({}), "required"),
        (json!({"files": []}), "length"),
        (json!({"files": vec![&file; 1001]}), "length"),
        (json!({"files": vec![json!({}); 500_000]}), "length"),
        (json!({"files": file}), "wrong-type"),
        (json!({"files": null}), "wrong-type"),
    ] {
        let problem = app.refused(URLS, &files).await;
        assert_eq!(problem["status"], 400);
        assert_eq!(fields(&problem), [("/files", code)]);
    }
    let too_long = json!({"files": [], "x": "x".repeat(2 * 1024 * 1024)});
    assert_eq!(app.refused(URLS, &too_long).await["status"], 413);
}

#[tokio::test]
async fn a_list_that_is_all_wrong_is_answered_soon() {
    let app = spawn_app().await;
    let wrong = json!({"filename": 1, "contentType": 2, "size": "3", "x": [], "y": {}});
    let begin = std::time::Instant::now();
    let wrong = json!({"files": vec![wrong; 1000]});
    let problem = app.refused(URLS, &wrong).await;
    assert_eq!(problem["errors"].as_array().unwrap().len(), 50);
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
    // Of faults of meaning, as many are listed as a bounded answer holds, and all are counted.
    let wrong = json!({"filename": "/", "contentType": "x"});
    let wrong = json!({"files": vec![wrong; 1000]});
    let problem = app.refused(URLS, &wrong).await;
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.len() > 300);
    // In the order of the files, two of each.
    for (index, error) in errors.iter().enumerate() {
        let begin = format!("/files/{}/", index / 2);
        assert!(
            error["pointer"].as_str().unwrap().starts_with(&begin),
            "{index}: {error}"
        );
    }
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with("and 1995 more"), "{detail}");
}

#[tokio::test]
async fn a_long_name_costs_its_length_and_not_that_for_each_value_below_it() {
    let app = spawn_app().await;
    let time = async |name: String, values: usize| {
        let zeros = vec!["0"; values].join(",");
        let body = format!(r#"{{"{name}":[{zeros}]}}"#);
        let begin = std::time::Instant::now();
        let problem = crate::helpers::problem(app.post_text(URLS, body).await).await;
        assert_eq!(problem["status"], 400);
        begin.elapsed()
    };
    // The machine may be busy during one of them.
    for attempt in 0..3 {
        let harmless = time("x".into(), 450_000).await;
        let hostile = time("/".repeat(500_000), 450_000).await;
        if hostile < harmless * 20 {
            return;
        }
        println!("{attempt}: {hostile:?}, otherwise {harmless:?}");
    }
    panic!("it always takes far longer");
}

/// An upload of a list with `forms`.
#[derive(Debug, Deserialize)]
struct Listed {
    url: String,
    key: String,
    method: String,
    headers: BTreeMap<String, String>,
    fields: Option<BTreeMap<String, String>>,
    #[serde(rename = "maxSize")]
    max_size: Option<u64>,
}

async fn listed(app: &App, files: Value) -> Vec<Listed> {
    let body = json!({"forms": true, "files": files});
    let mut answer: BTreeMap<String, Vec<Listed>> =
        app.granted("/upload/presigned-urls", &body).await;
    answer.remove("uploads").unwrap()
}

#[tokio::test]
async fn a_list_has_forms_where_they_can_keep_the_policy_and_puts_elsewhere() {
    let policies = "[policies.default]\n[policies.once]\noverwrite = false\n";
    let app = spawn_app_with_policies(policies).await;
    let file = |name: &str, policy: &str| json!({"filename": name, "contentType": "text/plain", "size": 5, "policy": policy});
    let files = json!([
        file("a.txt", "default"),
        file("b.txt", "once"),
        // A form would replace this.
        file("${filename}.txt", "default"),
    ]);
    let uploads = listed(&app, files).await;
    let methods: Vec<&str> = uploads.iter().map(|it| it.method.as_str()).collect();
    assert_eq!(methods, ["POST", "PUT", "PUT"]);
    assert!(uploads[0].headers.is_empty());
    let fields = uploads[0].fields.as_ref().unwrap();
    assert!(uploads[1].fields.is_none() && uploads[2].fields.is_none());
    let max_sizes: Vec<_> = uploads.iter().map(|it| it.max_size).collect();
    assert_eq!(max_sizes, [Some(5), None, None]);
    // The store accepts exactly the size that was granted.
    for (body, status) in [("123456", 400), ("12345", 201)] {
        let answer = send(&app.client, &uploads[0].url, fields, body).await;
        assert_eq!(answer.status(), status, "{body}");
    }
    assert!(uploads[0].key.ends_with("/a.txt"));
    app.refused(
        "/upload/presigned-urls",
        &json!({"forms": "yes", "files": [file("a.txt", "default")]}),
    )
    .await;
    let many = vec![file("a.txt", "default"); 251];
    let body = json!({"forms": true, "files": many});
    let problem = app.refused("/upload/presigned-urls", &body).await;
    assert_eq!(crate::helpers::fields(&problem), [("/files", "length")]);
    let uploads = listed(&app, json!(many[..250])).await;
    assert!(uploads.iter().all(|upload| upload.method == "POST"));
}

#[tokio::test]
async fn a_list_has_puts_alone_where_the_store_has_no_forms_and_forms_alone_where_only_these_are_granted()
 {
    let file = json!([{"filename": "a.txt", "contentType": "text/plain"}]);
    let without = spawn_app_without_forms("[policies.default]").await;
    assert_eq!(listed(&without, file.clone()).await[0].method, "PUT");
    // Garage, RustFS and Ceph do not compare the checksum of a form.
    let sums = [
        (
            "checksumSha256",
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        ),
        ("checksumCrc64nvme", "AAAAAAAAAAA="),
        ("contentMd5", "XUFAKrxLKna5cZ2REBfFkg=="),
    ];
    let with_sums = sums
        .map(|(name, sum)| json!({"filename": "a.txt", "contentType": "text/plain", name: sum}));
    let app = spawn_app().await;
    for upload in listed(&app, json!(with_sums)).await {
        assert_eq!(upload.method, "PUT");
    }
    let only = spawn_app_with_forms_only().await;
    assert_eq!(listed(&only, file).await[0].method, "POST");
    for upload in listed(&only, json!(with_sums[..2])).await {
        assert_eq!(upload.method, "POST");
    }
}
