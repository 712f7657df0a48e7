//! A checksum binds an upload to its bytes, and the store has a CRC64NVME of each file, in parts too.

use serde_json::{Value, json};

use crate::helpers::{
    App, Grant, fields, is, post, problem, spawn_app, spawn_app_with_policies, with_members,
};
use crate::policies::sha256;
use crate::presigned_post::PostGrant;
use crate::stand_in::StandIn;

const URL: &str = "/upload/presigned-url";
const VERIFY: &str = "/upload/verify";
const COMMIT: &str = "/upload/commit";

/// Of `hello` and `jello`, as another implementation computes them.
pub(crate) const HELLO: &str = "M3eFcAZSQlc=";
const JELLO: &str = "XQ2unw9y+Gs=";
const EMPTY: &str = "AAAAAAAAAAA=";
/// Of `hello`.
const MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";

fn text_file(more: &Value) -> Value {
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    with_members(file, more)
}

async fn granted(app: &App, more: Value) -> Grant {
    app.granted(URL, &text_file(&more)).await
}

/// The checksum in the answer to a request that has to be accepted.
async fn checksum(app: &App, route: &str, body: Value) -> Value {
    let mut answer: Value = app.accepted(route, &body).await;
    answer["checksumCrc64nvme"].take()
}

#[tokio::test]
async fn a_put_is_bound_to_the_checksum_that_was_given() {
    let app = spawn_app().await;
    for (field, header, sum, other) in [
        (
            "checksumSha256",
            "x-amz-checksum-sha256",
            &*sha256("hello"),
            Some(sha256("jello")),
        ),
        (
            "checksumCrc64nvme",
            "x-amz-checksum-crc64nvme",
            HELLO,
            Some(JELLO.to_owned()),
        ),
        // Without its header.
        ("contentMd5", "content-md5", MD5, None),
    ] {
        let grant = granted(&app, json!({field: sum})).await;
        assert_eq!(grant.headers[header], sum);
        let wrong = app.upload(&grant, "jello").await;
        assert_eq!(wrong.status(), 400, "{field}");
        assert!(wrong.text().await.unwrap().contains("BadDigest"));
        let mut changed = grant.clone();
        match other {
            Some(other) => changed.headers.insert(header.into(), other),
            None => changed.headers.remove(header),
        };
        assert_eq!(app.upload(&changed, "jello").await.status(), 403, "{field}");
        assert_eq!(app.stored(&grant.key).await, None);
        assert_eq!(app.upload(&grant, "hello").await.status(), 200);
    }
}

#[tokio::test]
async fn an_md5_is_16_bytes_and_for_no_form() {
    let app = spawn_app().await;
    let form = text_file(&json!({"contentMd5": MD5}));
    let form = app.refused("/upload/presigned-post", &form).await;
    assert_eq!(form["status"], 422);
    assert_eq!(fields(&form), [("/contentMd5", "post-not-supported")]);
    let invalid = app
        .refused(URL, &text_file(&json!({"contentMd5": "x"})))
        .await;
    assert_eq!(fields(&invalid), [("/contentMd5", "not-a-checksum")]);
}

#[tokio::test]
async fn a_form_is_bound_to_a_crc64nvme() {
    let app = spawn_app().await;
    let file = text_file(&json!({"checksumCrc64nvme": HELLO}));
    let grant: PostGrant = app.granted("/upload/presigned-post", &file).await;
    assert_eq!(grant.send(&app.client, "jello").await.status(), 400);
    assert_eq!(app.stored(&grant.key).await, None);
    assert_eq!(grant.send(&app.client, "hello").await.status(), 201);
    let body = json!({"key": grant.key, "checksumCrc64nvme": HELLO});
    assert_eq!(checksum(&app, VERIFY, body).await, HELLO);
}

#[tokio::test]
async fn an_upload_without_a_checksum_is_compared_with_the_one_that_the_store_computes() {
    let app = spawn_app_with_policies("[policies.default]\npending = true").await;
    let grant = granted(&app, json!({})).await;
    assert_eq!(app.upload(&grant, "hello").await.status(), 200);
    for route in [VERIFY, COMMIT] {
        let right = json!({"key": grant.key, "checksumCrc64nvme": HELLO});
        let wrong = json!({"key": grant.key, "checksumCrc64nvme": JELLO});
        let refused = app.refused(route, &wrong).await;
        is(&refused, 409, "mismatch");
        assert_eq!(
            fields(&refused),
            [("/checksumCrc64nvme", "checksum-differs")]
        );
        assert_eq!(checksum(&app, route, right).await, HELLO);
    }
}

#[tokio::test]
async fn a_file_of_which_the_store_has_no_crc64nvme_is_a_mismatch_that_says_so() {
    let app = spawn_app().await;
    // S3 keeps one checksum of a file.
    let grant = granted(&app, json!({"checksumSha256": sha256("hello")})).await;
    assert_eq!(app.upload(&grant, "hello").await.status(), 200);
    let body = json!({"key": grant.key, "checksumCrc64nvme": HELLO});
    let with_another = app.refused(VERIFY, &body).await;

    let store = StandIn::with_object(&[]).await;
    let base = store.service("[policies.default]").await;
    let without = problem(post(&base, VERIFY, &body).await).await;
    for refused in [with_another, without] {
        is(&refused, 409, "mismatch");
        assert_eq!(
            fields(&refused),
            [("/checksumCrc64nvme", "checksum-unknown")]
        );
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("no CRC64NVME"), "{detail}");
    }
}

#[tokio::test]
async fn an_empty_file_can_be_bound_and_has_a_crc64nvme_too() {
    let app = spawn_app().await;
    let mut grant = granted(&app, json!({"size": 0, "checksumCrc64nvme": EMPTY})).await;
    assert_eq!(app.upload(&grant, "1").await.status(), 403);
    // The client of the tests sends no length of an empty body by itself.
    grant.headers.insert("content-length".into(), "0".into());
    assert_eq!(app.upload(&grant, "").await.status(), 200);
    let body = json!({"key": grant.key, "checksumCrc64nvme": EMPTY});
    assert_eq!(checksum(&app, VERIFY, body).await, EMPTY);
}

#[tokio::test]
async fn what_is_no_crc64nvme_or_one_too_many_is_refused() {
    let app = spawn_app().await;
    for wrong in ["", "AAAA", "M3eFcAZSQlc", &sha256("hello")] {
        let file = text_file(&json!({"checksumCrc64nvme": wrong}));
        let body = json!({"key": "uploads/a", "checksumCrc64nvme": wrong});
        for (route, body) in [(URL, &file), (VERIFY, &body)] {
            let refused = app.refused(route, body).await;
            is(&refused, 400, "invalid-request");
            assert_eq!(fields(&refused), [("/checksumCrc64nvme", "not-a-checksum")]);
        }
    }
    let both = json!({"checksumCrc64nvme": HELLO, "checksumSha256": sha256("hello")});
    let refused = app.refused(URL, &text_file(&both)).await;
    assert_eq!(fields(&refused), [("/checksumCrc64nvme", "two-checksums")]);
    let list = json!({"keys": ["uploads/a"], "checksumCrc64nvme": HELLO});
    let refused = app.refused(VERIFY, &list).await;
    assert_eq!(fields(&refused), [("/checksumCrc64nvme", "needs-key")]);
}
