//! Buckets that keep versions, and those that may retain them.

use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::markers::is_object;
use super::{check, check_at, check_fails, check_passes, with};
use crate::stand_in::{StandIn, error, xml};

/// The answer of a bucket that keeps versions.
const VERSIONING: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";

/// A bucket with versions. `says` tells which answers name the version of an object.
async fn versioned(status: &'static str, says: &'static [Method]) -> (StandIn, Versions) {
    let versions = Versions::default();
    let kept = Arc::clone(&versions);
    let stand = StandIn::between(move |request: Request, next: Next| {
        let kept = Arc::clone(&kept);
        async move {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let (key, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
            if query.starts_with("versioning") && status == "unknown" {
                return error(403, "AccessDenied");
            }
            if query.starts_with("versioning") {
                return xml(&format!(
                    "<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
                ));
            }
            let (version, marker) = match status {
                "Enabled" => ("the-version", "the-marker"),
                _ => ("null", "null"),
            };
            let is_of_parts = query.contains("uploadId") || query.contains("uploads");
            let mut response: Response = next.run(request).await;
            if is_of_parts
                || method == Method::OPTIONS
                || !response.status().is_success()
                || !is_object(&key) && method != Method::POST
            {
                return response;
            }
            let mut kept = kept.lock().unwrap();
            let headers = response.headers_mut();
            if method == Method::DELETE {
                let named = query
                    .split('&')
                    .find_map(|part| part.strip_prefix("versionId="));
                if let Some(named) = named {
                    kept.retain(|kept| *kept != (key.clone(), named.to_owned()));
                } else {
                    kept.retain(|kept| {
                        status == "Enabled" || *kept != (key.clone(), version.to_owned())
                    });
                    kept.insert((key, marker.to_owned()));
                    headers.insert("x-amz-delete-marker", "true".parse().unwrap());
                    headers.insert("x-amz-version-id", marker.parse().unwrap());
                }
            } else {
                // A form's key is in its body: its HEAD tells.
                if method != Method::POST {
                    kept.insert((key, version.to_owned()));
                }
                if says.contains(&method) {
                    headers.insert("x-amz-version-id", version.parse().unwrap());
                }
            }
            response
        }
    })
    .await;
    (stand, versions)
}

/// Keys and versions that are in the bucket.
type Versions = Arc<Mutex<std::collections::BTreeSet<(String, String)>>>;

#[tokio::test]
async fn versions_and_delete_markers_are_removed_too() {
    for (status, says) in [
        // As S3 answers.
        ("Enabled", &[Method::PUT, Method::POST, Method::HEAD][..]),
        // As Ceph does.
        ("Enabled", &[Method::PUT, Method::HEAD]),
        ("Suspended", &[]),
    ] {
        let (stand, versions) = versioned(status, says).await;
        let run = check(&with(&stand.url(), &[]), &["--prove"]).await;
        assert_eq!(run.code, Some(0), "{:#}", run.report);
        run.says("post", "ok", &["removed"]);
        run.says("kept-of-parts", "ok", &[]);
        let left = versions.lock().unwrap().clone();
        assert!(left.is_empty(), "{status} {says:?}: {left:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_keeps_objects_for_a_time_gets_none() {
    let stand = StandIn::except(|_, uri| {
        if uri.contains("?versioning") {
            Some(xml(VERSIONING))
        } else if uri.contains("?object-lock") {
            Some(xml("<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"))
        } else {
            None
        }
    })
    .await;
    let run = check_at(&stand.url(), &[]).await;
    run.says("put", "skipped", &["Object Lock"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn an_object_whose_version_cannot_be_found_out_is_named() {
    let stand = StandIn::except(|method, uri| {
        if uri.contains("?versioning") {
            Some(xml(VERSIONING))
        } else if method == Method::HEAD && is_object(uri) {
            Some(error(403, "AccessDenied"))
        } else {
            None
        }
    })
    .await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("post", "failed", &["cannot be removed", "403"]);
    run.says("left-behind", "failed", &["presignd-check.txt"]);
}

#[tokio::test]
async fn nothing_is_uploaded_unless_it_is_certain_that_the_bucket_retains_nothing() {
    for (status, code, expected, words) in [
        (404, "ObjectLockConfigurationNotFoundError", "ok", ""),
        (501, "NotImplemented", "ok", ""),
        (
            403,
            "AccessDenied",
            "skipped",
            "s3:GetBucketObjectLockConfiguration",
        ),
        (503, "SlowDown", "skipped", "503"),
    ] {
        let stand = StandIn::except(move |_, uri| {
            if uri.contains("?versioning") {
                Some(xml(VERSIONING))
            } else {
                uri.contains("?object-lock").then(|| error(status, code))
            }
        })
        .await;
        let run = check_passes(&stand.url(), &[]).await;
        run.says("put", expected, &[words]);
        run.says("post", expected, &[words]);
        stand.is_as_it_was();
    }
    // Versions that the credentials may not ask about.
    let (stand, versions) = versioned("unknown", &[]).await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("put", "skipped", &["s3:GetBucketVersioning"]);
    let left = versions.lock().unwrap().clone();
    assert!(left.is_empty(), "{left:?}");
}
