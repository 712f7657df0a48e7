//! What `presignd check` puts into a bucket it takes out again, whatever happens in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use tempfile::TempDir;

use super::{check_at, check_fails, check_passes, check_with, policies_file, with};
use crate::auth::jwt::JWT;
use crate::helpers::eventually;
use crate::process::Running;
use crate::stand_in::{StandIn, error, files};

pub(super) fn is_object(uri: &str) -> bool {
    uri.starts_with("/uploads/uploads/")
}

fn is_removal(method: &Method, uri: &str) -> bool {
    method == Method::DELETE && is_object(uri) && !uri.contains("uploadId")
}

#[tokio::test]
async fn missing_permissions_are_named() {
    let stand = StandIn::denying(|method, uri| method == Method::PUT && is_object(uri)).await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("put", "failed", &["403 AccessDenied", "s3:PutObject"]);
    run.says("post", "ok", &[]);
    run.says("multipart", "failed", &["s3:PutObject"]);
    run.says("unsigned-headers", "skipped", &["no marker was accepted"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn nothing_is_uploaded_that_could_not_be_removed() {
    let stand = StandIn::denying(is_removal).await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("put", "skipped", &["s3:DeleteObject"]);
    run.says("post", "skipped", &["s3:DeleteObject"]);
    run.says("multipart", "ok", &[]);
    stand.is_as_it_was();

    let is_abort =
        |method: &Method, uri: &str| method == Method::DELETE && uri.contains("uploadId");
    let stand = StandIn::denying(is_abort).await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("multipart", "failed", &["s3:AbortMultipartUpload"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn an_object_of_someone_else_is_never_replaced() {
    let stand = StandIn::embedded().await;
    let logo = stand.data.path().join("uploads/logo.png");
    std::fs::write(&logo, "theirs").unwrap();
    let policies = "[policies.logo]\nkey = 'logo.png'\noverwrite = true\n";
    let run = check_with(&stand, policies, &[]).await;
    run.says("put", "skipped", &["{uuid}"]);
    run.says("post", "skipped", &["{uuid}"]);
    assert_eq!(std::fs::read(&logo).unwrap(), b"theirs");
}

#[tokio::test]
async fn what_fails_in_between_leaves_nothing() {
    for fails in ["HEAD", "parts"] {
        let stand = StandIn::denying(move |method, uri| match fails {
            "HEAD" => method == Method::HEAD && is_object(uri),
            _ => method == Method::GET && uri.contains("uploadId"),
        })
        .await;
        let run = check_at(&stand.url(), &[]).await;
        if fails == "HEAD" {
            run.says("head", "warning", &["s3:GetObject"]);
        } else {
            run.says("multipart", "failed", &["s3:ListMultipartUploadParts"]);
        }
        stand.is_as_it_was();
    }
}

#[tokio::test]
async fn what_stays_is_named() {
    // The first removal is the trial.
    let trials = Arc::new(Mutex::new(0));
    let stand = StandIn::denying(move |method, uri| {
        let mut trials = trials.lock().unwrap();
        *trials += usize::from(is_removal(method, uri));
        is_removal(method, uri) && *trials > 1
    })
    .await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("put", "failed", &["cannot be removed"]);
    let key = files(&stand.data.path().join("uploads"));
    let key = key
        .iter()
        .find(|name| name.ends_with("presignd-check.txt"))
        .unwrap();
    run.says("left-behind", "failed", &[key]);
}

/// What becomes of a request.
#[derive(PartialEq)]
enum Fate {
    Passes,
    IsDenied,
    /// The first such request only.
    Hangs,
}

fn hangs_if(is_meant: fn(&Request) -> bool) -> impl Fn(&Request) -> Fate + Copy {
    move |request| {
        if is_meant(request) {
            Fate::Hangs
        } else {
            Fate::Passes
        }
    }
}

/// Runs the check until a request hangs, then sends it a signal. The store has all that it was sent before.
async fn interrupted(
    args: &[&str],
    signal: &str,
    fate: impl Fn(&Request) -> Fate + Clone + Send + Sync + 'static,
) -> StandIn {
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_asked);
    let stand = StandIn::between(move |request: Request, next: Next| {
        let (asked, fate) = (Arc::clone(&asked), fate(&request));
        async move {
            if fate == Fate::Hangs && !asked.swap(true, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if fate == Fate::IsDenied {
                return error(403, "AccessDenied");
            }
            next.run(request).await
        }
    })
    .await;
    let folder = TempDir::new().unwrap();
    let url = stand.url();
    let args = [&["check"], args].concat();
    let mut check = Running::start(&args, folder.path(), &with(&url, &[]));
    let hangs = async || {
        let ended = check.child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before the store was asked");
        is_asked.load(Ordering::SeqCst)
    };
    eventually("the store is asked", hangs).await;
    let signal = signal.to_owned();
    let ended = tokio::task::spawn_blocking(move || check.stop(&signal));
    let (code, _, errors) = ended.await.unwrap();
    assert_eq!((code, errors.as_str()), (Some(1), "presignd: stopped\n"));
    stand
}

#[tokio::test]
async fn ctrl_c_leaves_nothing() {
    let hangs = hangs_if(|request| {
        request.method() == Method::HEAD && is_object(&request.uri().to_string())
    });
    interrupted(&[], "INT", hangs).await.is_as_it_was();
}

#[tokio::test]
async fn ctrl_c_while_the_rest_is_removed_leaves_nothing() {
    // As its parts cannot be listed, this upload is left until the end.
    let left = Arc::new(Mutex::new(String::new()));
    let fate = move |request: &Request| {
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("uploadId=") {
            return Fate::Passes;
        }
        let mut left = left.lock().unwrap();
        if request.method() == Method::GET {
            request.uri().path().clone_into(&mut left);
            return Fate::IsDenied;
        }
        if request.method() == Method::DELETE && request.uri().path() == *left {
            return Fate::Hangs;
        }
        Fate::Passes
    };
    interrupted(&[], "INT", fate).await.is_as_it_was();
}

#[tokio::test]
async fn a_proof_that_is_interrupted_leaves_nothing() {
    // While there is an object whose grant is tried in another way.
    let is_other_method = hangs_if(|request| {
        let query = request.uri().query().unwrap_or_default();
        request.method() == Method::GET && query.contains("X-Amz-Signature=")
    });
    let stand = interrupted(&["--prove"], "TERM", is_other_method).await;
    stand.is_as_it_was();
    // While there is a part.
    let completes = hangs_if(|request| {
        let query = request.uri().query().unwrap_or_default();
        request.method() == Method::POST && query.contains("uploadId=")
    });
    let stand = interrupted(&["--prove"], "INT", completes).await;
    stand.is_as_it_was();
}

#[tokio::test]
async fn for_a_store_without_forms_the_variable_is_named() {
    let stand = StandIn::except(|method, uri| {
        let is_form = method == Method::POST && !uri.contains("uploads?");
        (is_form && !uri.contains('?')).then(|| error(501, "NotImplemented"))
    })
    .await;
    let url = stand.url();
    let run = check_fails(&url, &[]).await;
    run.says("post", "failed", &["S3_SUPPORTS_POST_POLICY=false"]);
    let run = check_passes(&url, &[("S3_SUPPORTS_POST_POLICY", "false")]).await;
    run.says("post", "skipped", &[]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_store_that_changes_what_it_keeps_is_found_out() {
    let stand = StandIn::changing(|method, uri, response| {
        if method == Method::HEAD && is_object(uri) {
            let html = "text/html".parse().unwrap();
            response.headers_mut().insert("content-type", html);
        }
    })
    .await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("put", "failed", &["text/plain", "text/html"]);
    stand.is_as_it_was();
}

/// A policy that lets callers download and delete.
const ALBUM: &str = "[policies.album]\nkey = 'album/{uuid}'\ndownload = true\ndelete = true\n";

/// These policies, and an issuer of tokens, which downloads and deletes need.
fn with_callers(policies: &str) -> Vec<(&str, &str)> {
    [&JWT[..], &[("UPLOAD_POLICIES_FILE", policies)]].concat()
}

#[tokio::test]
async fn permissions_for_downloads_and_deletes_are_tried_where_a_policy_needs_them() {
    let (_folder, file) = policies_file(ALBUM);
    let variables = with_callers(&file);
    let is_marker = |uri: &str| uri.starts_with("/uploads/album/");

    let stand = StandIn::embedded().await;
    let run = check_passes(&stand.url(), &variables).await;
    run.says("delete", "ok", &["album"]);
    stand.is_as_it_was();

    let is_head = move |method: &Method, uri: &str| method == Method::HEAD && is_marker(uri);
    let stand = StandIn::denying(is_head).await;
    let run = check_fails(&stand.url(), &variables).await;
    run.says("head", "failed", &["s3:GetObject for downloads", "album"]);
    stand.is_as_it_was();

    let stand = StandIn::denying(move |method, uri| {
        method == Method::DELETE && is_marker(uri) && !uri.contains("uploadId")
    })
    .await;
    let run = check_fails(&stand.url(), &variables).await;
    run.says("delete", "failed", &["s3:DeleteObject", "album"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_permission_that_one_policy_lacks_is_named_whatever_the_others_have() {
    let (_folder, file) = policies_file(&format!("[policies.a]\nkey = 'a/{{uuid}}'\n{ALBUM}"));
    for denied in ["/uploads/a", "/uploads/album/"] {
        let stand =
            StandIn::denying(move |method, uri| method == Method::HEAD && uri.starts_with(denied))
                .await;
        for forms_only in ["false", "true"] {
            let mut variables = with_callers(&file);
            variables.push(("S3_FORMS_ONLY", forms_only));
            let run = check_fails(&stand.url(), &variables).await;
            assert!(
                run.statuses().contains(&("head", "failed")),
                "{denied} {forms_only}: {:#}",
                run.report
            );
        }
        stand.is_as_it_was();
    }
}

#[tokio::test]
async fn what_is_stored_though_the_answer_is_an_error_is_removed() {
    let stand = StandIn::failing_after(|method, uri| {
        method == Method::PUT && is_object(uri) && !uri.contains("uploadId")
    })
    .await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("put", "failed", &["504 GatewayTimeout"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_store_that_repeats_a_request_in_its_message_is_not_quoted() {
    let stand = StandIn::except(|method, uri| {
        let is_put = method == Method::PUT && is_object(uri);
        let xml = format!("<Error><Code>Broken</Code><Message>cannot do {uri}</Message></Error>");
        let xml = xml.replace('&', "&amp;");
        is_put.then(|| (StatusCode::BAD_REQUEST, xml).into_response())
    })
    .await;
    // Each run checks that it has printed no signature.
    let run = check_fails(&stand.url(), &[]).await;
    run.says("put", "failed", &["400 Broken", "not shown"]);
}

#[tokio::test]
async fn an_upload_that_was_completed_though_the_answer_is_an_error_is_removed() {
    let stand = StandIn::failing_after(|method, uri| {
        let is_completion = method == Method::POST && uri.contains("uploadId");
        is_completion || (method == Method::HEAD && is_object(uri))
    })
    .await;
    let run = check_with(&stand, "[policies.default]\npending = true", &[]).await;
    run.says("tags", "failed", &["504 GatewayTimeout"]);
    stand.is_as_it_was();
}
