//! Stores that lack something that a policy asks for: no permission is missing then.

use axum::extract::Request;
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use serde_json::Value;

use super::kept::is_form;
use super::prove::prove_with;
use super::{Run, check_with};
use crate::stand_in::{StandIn, error};

/// A policy that any store can keep, and one that not every store can.
fn policies(special: &str) -> String {
    format!(
        "[policies.default]\nkey = 'uploads/{{uuid}}'\n[policies.special]\nkey = 'special/{{uuid}}'\n{special}"
    )
}

/// A form must not have tags.
async fn without_tags_in_forms(status: u16, code: &'static str) -> StandIn {
    StandIn::reading(move |head, body| {
        let field = b"name=\"tagging\"";
        let has_tags = body.windows(field.len()).any(|it| it == field);
        (is_form(&head.headers) && has_tags).then(|| error(status, code))
    })
    .await
}

fn lines<'a>(run: &'a Run, check: &str) -> Vec<(&'a str, &'a str, &'a Value)> {
    let lines = run.report["checks"].as_array().unwrap().iter();
    let lines = lines.filter(|line| line["check"] == check);
    lines
        .map(|line| {
            let [policy, status] = ["policy", "status"].map(|name| line[name].as_str().unwrap());
            (policy, status, &line["fix"])
        })
        .collect()
}

#[tokio::test]
async fn each_way_of_uploading_is_tried_under_each_policy() {
    let stand = without_tags_in_forms(403, "AccessDenied").await;
    let run = check_with(&stand, &policies("tagging = { a = 'b' }"), &[]).await;
    assert_eq!(run.code, Some(1), "{:#}", run.report);
    let [default, special] = lines(&run, "post")[..] else {
        panic!("{:#}", run.report)
    };
    assert_eq!(default, ("default", "ok", &Value::Null));
    assert_eq!((special.0, special.1), ("special", "failed"));
    let fix = special.2.as_str().unwrap();
    assert!(fix.contains("S3_SUPPORTS_POST_POLICY=false"), "{fix}");
    for check in ["put", "multipart"] {
        let statuses = lines(&run, check).into_iter();
        let statuses: Vec<_> = statuses
            .map(|(policy, status, _)| (policy, status))
            .collect();
        assert_eq!(statuses, [("default", "ok"), ("special", "ok")], "{check}");
    }
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_form_that_is_refused_for_its_tag_is_no_missing_permission() {
    // As SeaweedFS and CloudServer answer.
    for (status, code) in [(403, "AccessDenied"), (501, "NotImplemented")] {
        let stand = without_tags_in_forms(status, code).await;
        let run = check_with(&stand, &policies("pending = true"), &[]).await;
        run.says(
            "tags",
            "failed",
            &["form", "PUT, parts", code, "S3_SUPPORTS_POST_POLICY=false"],
        );
        let fix = run.line("tags")["fix"].as_str().unwrap();
        assert!(!fix.contains("s3:"), "{fix}");
        stand.is_as_it_was();
    }
}

/// As Ceph and RustFS do.
#[tokio::test]
async fn an_answer_to_a_form_without_an_etag_is_a_warning() {
    let stand = StandIn::between(|request: Request, next: Next| async move {
        let is_form = is_form(request.headers());
        let mut response = next.run(request).await;
        if is_form {
            response.headers_mut().remove("etag");
        }
        response
    })
    .await;
    let run = check_with(&stand, &policies(""), &[]).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    let words = ["no ETag", "Uppy 4 and 5", "shouldUseMultipart"];
    run.says("post", "warning", &words);
}

#[tokio::test]
async fn what_the_store_refuses_of_a_policy_is_named_and_proves_nothing() {
    // As Ceph and SeaweedFS answer.
    for (status, code) in [(400, "InvalidRequest"), (500, "InternalError")] {
        let stand = StandIn::reading(move |head, _| {
            let mut names = head.headers.keys().map(HeaderName::as_str);
            let encrypts = names.any(|name| name.starts_with("x-amz-server-side-encryption"));
            (head.method == Method::PUT && encrypts).then(|| error(status, code))
        })
        .await;
        let special = "server_side_encryption = 'AES256'\nmultipart = false\noverwrite = false";
        let run = prove_with(&stand, &policies(special)).await;
        let [_, (policy, "failed", fix)] = lines(&run, "put")[..] else {
            panic!("{:#}", run.report)
        };
        let fix = fix.as_str().unwrap();
        assert!(
            policy == "special" && fix.contains("server_side_encryption"),
            "{fix}"
        );
        let kept = lines(&run, "kept");
        let [_, ("special", status, fix)] = kept[..] else {
            panic!("{kept:?}")
        };
        assert_eq!((status, fix), ("skipped", &Value::Null));
        stand.is_as_it_was();
    }
}
