//! What `presignd check` says of permissions that are missing, and of an upload that it may not try.

use axum::http::Method;
use presignd::webhook::Secrets;

use super::markers::is_object;
use super::{Run, check_at, check_fails, check_passes, policies_file};
use crate::stand_in::StandIn;

fn of_check<'a>(run: &'a Run, check: &str) -> Vec<&'a serde_json::Value> {
    let lines = run.report["checks"].as_array().unwrap().iter();
    lines.filter(|line| line["check"] == check).collect()
}

async fn without_heads() -> StandIn {
    StandIn::denying(|method, uri| method == Method::HEAD && is_object(uri)).await
}

#[tokio::test]
async fn uploads_that_cannot_be_verified_are_a_warning_which_stands_there_once() {
    let stand = without_heads().await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("post", "ok", &[]);
    let [head] = of_check(&run, "head")[..] else {
        panic!("{:#}", run.report)
    };
    assert_eq!(head["status"], "warning", "{head:#}");
    let fix = head["fix"].as_str().unwrap();
    assert!(
        fix.contains("s3:GetObject") && !fix.contains("nothing else"),
        "{fix}"
    );
    stand.is_as_it_was();
}

#[tokio::test]
async fn webhooks_and_pending_uploads_need_the_permission_to_read() {
    let stand = without_heads().await;
    let secret = Secrets::generate().unwrap();
    let (_folder, pending) = policies_file("[policies.default]\npending = true\n");
    let events = [
        ("WEBHOOK_URL", "http://127.0.0.1:1/hooks"),
        ("WEBHOOK_SECRET", &secret),
        ("EVENTS_TOKEN", "a-token-of-the-store"),
    ];
    let policies = [("UPLOAD_POLICIES_FILE", pending.as_str())];
    for (more, words) in [(&events[..], "events"), (&policies, "/upload/commit")] {
        let run = check_fails(&stand.url(), more).await;
        run.says("head", "failed", &["s3:GetObject", words]);
    }
    stand.is_as_it_was();
}

/// Runs it with these policies, for a bucket into which no page uploads.
async fn without_pages(stand: &StandIn, toml: &str, forms_only: &str) -> Run {
    let (_folder, file) = policies_file(toml);
    let more = [
        ("UPLOAD_POLICIES_FILE", file.as_str()),
        ("CORS_ALLOWED_ORIGINS", ""),
        ("S3_FORMS_ONLY", forms_only),
    ];
    check_at(&stand.url(), &more).await
}

/// Policies without uploads in parts, which would show by themselves what the credentials may do. The markers
/// of the other one could replace an object.
const ONE_REQUEST: [&str; 2] = [
    "[policies.default]\nkey = 'uploads/{uuid}'\nmultipart = false\n",
    "[policies.default]\nkey = 'uploads/logo'\nmultipart = false\noverwrite = true\n",
];

#[tokio::test]
async fn credentials_that_may_do_nothing_fail() {
    for policies in ONE_REQUEST {
        let stand = StandIn::denying(|_, _| true).await;
        let run = without_pages(&stand, policies, "false").await;
        run.says("put", "skipped", &[]);
        assert_eq!(run.code, Some(1), "{:#}", run.report);
        let words = [
            "no upload was tried",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
        ];
        run.says("write", "failed", &words);
    }
    // An abort is permitted, and nothing else.
    for policies in ONE_REQUEST {
        let stand = StandIn::denying(|_, uri| !uri.contains("uploadId")).await;
        let run = without_pages(&stand, policies, "false").await;
        assert_eq!(run.code, Some(1), "{:#}", run.report);
        run.says("write", "failed", &["no upload was tried", "s3:PutObject"]);
    }
}

#[tokio::test]
async fn credentials_that_may_only_write_are_a_warning() {
    let is_removal = |method: &Method, uri: &str| {
        method == Method::DELETE && is_object(uri) && !uri.contains("uploadId")
    };
    for (policies, forms_only) in [
        (ONE_REQUEST[0], "false"),
        (ONE_REQUEST[0], "true"),
        (ONE_REQUEST[1], "false"),
    ] {
        let stand = StandIn::denying(is_removal).await;
        let logo = stand.data.path().join("uploads/uploads/logo");
        std::fs::create_dir_all(logo.parent().unwrap()).unwrap();
        std::fs::write(&logo, "theirs").unwrap();
        let run = without_pages(&stand, policies, forms_only).await;
        assert_eq!(run.code, Some(0), "{:#}", run.report);
        run.says("put", "skipped", &[]);
        run.says("write", "warning", &["no file was uploaded", "may write"]);
        assert_eq!(std::fs::read(&logo).unwrap(), b"theirs");
        std::fs::remove_dir_all(logo.parent().unwrap()).unwrap();
        stand.is_as_it_was();
    }
}
