//! `presignd check --prove`: on a store that refuses everything that it should, and on stores that let
//! one thing through.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;

use super::kept::is_form;
use super::{Run, check_with};
use crate::stand_in::{StandIn, empty, error, xml};

/// Each promise is one that a policy here needs.
const POLICIES: &str = "
    [policies.default]
    key = 'uploads/{uuid}/{filename}'
    [policies.once]
    key = 'once/{uuid}'
    overwrite = false
    cache_control = 'no-store'
    tagging = { kind = 'test' }
    metadata = { source = 'web' }
    [policies.named]
    key = 'named/{filename}'
    overwrite = true
";

/// In the order in which they are tried.
const REFUSED: [&str; 23] = [
    "put-longer",
    "put-shorter",
    "put-type",
    "put-checksum",
    "put-expired",
    "put-as-get",
    "put-as-delete",
    "put-key",
    "put-proxy-path",
    "put-forwarded-prefix",
    "put-encoded-key",
    "put-again",
    "part-upload",
    "part-number",
    "complete-etag",
    "form-longer",
    "form-shorter",
    "form-type",
    "form-checksum",
    "form-expired",
    "form-key",
    "form-field",
    "form-signature",
];

async fn prove(stand: &StandIn) -> Run {
    prove_with(stand, POLICIES).await
}

pub(super) async fn prove_with(stand: &StandIn, policies: &str) -> Run {
    check_with(stand, policies, &["--prove"]).await
}

pub(super) fn failed(run: &Run) -> Vec<&str> {
    let statuses = run.statuses().into_iter();
    let failed = statuses.filter(|(_, status)| *status == "failed");
    failed.map(|(check, _)| check).collect()
}

#[tokio::test]
async fn the_embedded_store_keeps_every_promise_and_nothing_stays_there() {
    let stand = StandIn::embedded().await;
    let run = prove(&stand).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    for check in REFUSED {
        run.says(check, "ok", &["refused"]);
    }
    run.says("form-headers", "ok", &[]);
    run.says("form-fanout", "ok", &[]);
    run.says("form-of-returns", "ok", &["1 MiB"]);
    for check in ["kept", "kept-of-forms", "kept-of-parts"] {
        run.says(check, "ok", &[]);
    }
    let cost = run.line("cost")["detail"].as_str().unwrap().to_owned();
    let sent: u32 = cost.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((60..150).contains(&sent), "{cost}");
    stand.is_as_it_was();
}

/// Whether a client sends this, and only that which a grant allows or should refuse.
fn is_attempt(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    // Of other checks.
    let tries_headers = request.headers().iter().any(|(name, value)| {
        let name = name.as_str();
        let others = [
            "x-amz-copy-source",
            "x-amz-acl",
            "x-amz-decoded-content-length",
            "response-content-disposition",
        ];
        let is_named = name.ends_with("presignd-unsigned") || value == "presignd-unsigned=1";
        is_named || others.contains(&name)
    });
    let is_form = is_form(request.headers());
    let completes = request.method() == Method::POST && query.contains("uploadId=");
    !tries_headers && (query.contains("X-Amz-Signature=") || is_form || completes)
}

#[tokio::test]
async fn what_a_store_lets_through_fails_and_nothing_else_does() {
    for (number, check) in REFUSED.into_iter().enumerate() {
        let refused = Arc::new(AtomicUsize::new(0));
        let stand = StandIn::between(move |request: Request, next: Next| {
            let refused = Arc::clone(&refused);
            async move {
                let is_attempt = is_attempt(&request);
                let response = next.run(request).await;
                if is_attempt
                    && response.status().is_client_error()
                    && refused.fetch_add(1, Ordering::SeqCst) == number
                {
                    return xml("<CompleteMultipartUploadResult/>");
                }
                response
            }
        })
        .await;
        let run = prove(&stand).await;
        assert_eq!(failed(&run), [check], "{:#}", run.report);
        run.says(check, "failed", &["accepted: ", "fix"]);
        stand.is_as_it_was();
    }
}

/// As MinIO does for credentials that may do everything.
#[tokio::test]
async fn a_store_that_writes_the_keys_of_a_field_fails() {
    for obeys in [true, false] {
        let has_list = Arc::new(AtomicBool::new(false));
        let stand = StandIn::reading(move |head, body| {
            let list = b"x-minio-fanout-list";
            if body.windows(list.len()).any(|it| it == list) {
                has_list.store(true, Ordering::SeqCst);
                return Some(empty(204));
            }
            let is_other = head.method == Method::HEAD && head.uri.path().ends_with("txtx");
            let is_written = obeys && has_list.load(Ordering::SeqCst);
            (is_other && is_written).then(|| empty(200))
        })
        .await;
        let run = prove(&stand).await;
        if obeys {
            assert_eq!(failed(&run), ["form-fanout"], "{:#}", run.report);
            run.says("form-fanout", "failed", &["any object", "s3:*"]);
        } else {
            assert_eq!(failed(&run), [""; 0], "{:#}", run.report);
        }
        stand.is_as_it_was();
    }
}

/// As `SeaweedFS` does: it signs another path than that of the request.
#[tokio::test]
async fn a_store_that_signs_another_path_than_that_of_the_request_fails() {
    let stand = StandIn::between(|mut request: Request, next: Next| async move {
        let prefix = request.headers_mut().remove("x-forwarded-prefix");
        let prefix = prefix.map(|prefix| prefix.to_str().unwrap().to_owned());
        let uri = format!("{}{}", prefix.unwrap_or_default(), request.uri());
        *request.uri_mut() = uri.replace("%2Fx?", "%252Fx?").parse().unwrap();
        next.run(request).await
    })
    .await;
    let run = prove_with(&stand, POLICIES).await;
    let expected = ["put-forwarded-prefix", "put-encoded-key"];
    assert_eq!(failed(&run), expected, "{:#}", run.report);
    run.says(expected[0], "failed", &["X-Forwarded-Prefix", "proxy"]);
    run.says(expected[1], "failed", &["%2F", "{uuid}"]);
    let unique = "[policies.default]\nkey = '{uuid}/{filename}'";
    let run = prove_with(&stand, unique).await;
    assert_eq!(failed(&run), expected[..1], "{:#}", run.report);
    run.says(expected[1], "skipped", &["{uuid}"]);
}

/// As Garage does.
#[tokio::test]
async fn a_store_that_forgets_the_unfinished_uploads_of_a_deleted_key_is_tried_all_the_same() {
    let deleted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let stand = StandIn::between(move |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let mut deleted = deleted.lock().unwrap();
        let is_forgotten = query.contains("uploadId=") && deleted.contains(&path);
        if query.starts_with("uploads") {
            deleted.remove(&path);
        } else if request.method() == Method::DELETE && !query.contains("uploadId=") {
            deleted.insert(path);
        }
        drop(deleted);
        async move {
            if is_forgotten {
                return error(404, "NoSuchUpload");
            }
            next.run(request).await
        }
    })
    .await;
    let policies = "[policies.default]\nkey = '{uuid}'\npending = true";
    let run = prove_with(&stand, policies).await;
    assert_eq!(failed(&run), [""; 0], "{:#}", run.report);
    run.says("tags", "ok", &["parts"]);
    run.says("complete-etag", "ok", &["refused"]);
    run.says("kept-of-parts", "ok", &[]);
}

#[tokio::test]
async fn what_was_accepted_is_reported_though_the_store_breaks_down_later() {
    let refused = Arc::new(AtomicUsize::new(0));
    let stand = StandIn::between(move |request: Request, next: Next| {
        let refused = Arc::clone(&refused);
        async move {
            let query = request.uri().query().unwrap_or_default();
            let is_part = request.method() == Method::PUT && query.contains("uploadId=");
            let is_part = is_part && is_attempt(&request);
            // Both attempts have been made.
            if is_part && refused.load(Ordering::SeqCst) == 2 {
                return error(503, "SlowDown");
            }
            let response = next.run(request).await;
            let is_refused = is_part && response.status().is_client_error();
            if is_refused && refused.fetch_add(1, Ordering::SeqCst) == 0 {
                return empty(200);
            }
            response
        }
    })
    .await;
    let run = prove(&stand).await;
    assert_eq!(failed(&run), ["part-upload"], "{:#}", run.report);
    run.says("part-terms", "warning", &["503 SlowDown"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_proof_uploads_nothing_under_a_policy_whose_uploads_it_cannot_remove() {
    let stand = StandIn::denying(|method, uri| {
        let is_once = uri.starts_with("/uploads/once/") && !uri.contains("uploadId=");
        method == Method::DELETE && is_once
    })
    .await;
    let run = prove(&stand).await;
    run.says("put-again", "skipped", &["s3:DeleteObject"]);
    assert_eq!(failed(&run), [""; 0], "{:#}", run.report);
    stand.is_as_it_was();
}

#[tokio::test]
async fn the_cost_of_a_proof_is_what_the_store_was_asked() {
    let stand = StandIn::embedded().await;
    check_with(&stand, POLICIES, &[]).await;
    let without = stand.asked();
    let run = prove(&stand).await;
    let cost = format!("sent {} requests", stand.asked() - without);
    run.says("cost", "ok", &[&cost]);
}
