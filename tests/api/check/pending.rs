//! What `presignd check` says of policies with `pending`: does the store keep the tag, and does a rule expire
//! what nobody commits? `--fix-lifecycle` adds the rules.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter,
};
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use base64::prelude::{BASE64_STANDARD, Engine};
use md5::{Digest, Md5};
use presignd::dev::BUCKET;
use presignd::upload::Arrival;

use super::{Run, check, check_with, with};
use crate::helpers::{s3_client, service, with_policies};
use crate::stand_in::{StandIn, empty, error, xml};

const PENDING: &str = "[policies.default]\npending = true\n";

fn sets_rules(method: &Method, uri: &str) -> bool {
    method == Method::PUT && uri.contains("?lifecycle")
}

/// A run with `--fix-lifecycle`, which has to end with this code.
async fn fixed(stand: &StandIn, code: i32) -> Run {
    let run = check_with(stand, PENDING, &["--fix-lifecycle"]).await;
    assert_eq!(run.code, Some(code), "{:#}", run.report);
    run
}

fn client(stand: &StandIn) -> Client {
    s3_client(&stand.config())
}

async fn rules(stand: &StandIn) -> Vec<LifecycleRule> {
    let rules = client(stand).get_bucket_lifecycle_configuration();
    rules.bucket(BUCKET).send().await.unwrap().rules.unwrap()
}

/// A rule of somebody else, which has nothing to do with uploads.
fn theirs() -> LifecycleRule {
    LifecycleRule::builder()
        .id("theirs")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("logs/").build())
        .expiration(LifecycleExpiration::builder().days(30).build())
        .build()
        .unwrap()
}

async fn put_theirs(stand: &StandIn) {
    let before = BucketLifecycleConfiguration::builder().rules(theirs());
    let put = client(stand)
        .put_bucket_lifecycle_configuration()
        .bucket(BUCKET);
    let put = put.lifecycle_configuration(before.build().unwrap());
    put.send().await.unwrap();
}

#[tokio::test]
async fn fix_lifecycle_adds_what_is_missing_and_keeps_the_rest() {
    let stand = StandIn::embedded().await;
    put_theirs(&stand).await;
    let run = check_with(&stand, PENDING, &[]).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    run.says("tags", "ok", &["PUT, form, parts"]);
    run.says("lifecycle", "warning", &["--fix-lifecycle"]);
    run.says(
        "lifecycle-pending",
        "warning",
        &["presignd=pending", "--fix-lifecycle"],
    );
    assert_eq!(
        rules(&stand).await,
        [theirs()],
        "nothing was asked to change"
    );

    let run = fixed(&stand, 0).await;
    run.says("lifecycle", "ok", &["7 days", "added", "there: 1"]);
    run.says("lifecycle-pending", "ok", &["1 day"]);
    let added = rules(&stand).await;
    assert_eq!((added.len(), &added[0]), (3, &theirs()));
    let pending = added.last().unwrap();
    let tag = pending.filter().unwrap().tag().unwrap();
    assert_eq!((tag.key(), tag.value()), ("presignd", "pending"));

    let again = fixed(&stand, 0).await;
    let line = again.line("lifecycle");
    assert!(!line.to_string().contains("added"), "{line}");
    assert_eq!(rules(&stand).await, added);
}

#[tokio::test]
async fn without_pending_only_the_rule_for_parts_is_added() {
    let stand = StandIn::embedded().await;
    let run = check(&with(&stand.url(), &[]), &["--fix-lifecycle"]).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    run.says("lifecycle", "ok", &["added"]);
    let checks: Vec<&str> = run.statuses().into_iter().map(|(check, _)| check).collect();
    assert!(!checks.contains(&"tags") && !checks.contains(&"lifecycle-pending"));
    assert_eq!(rules(&stand).await.len(), 1);
}

#[tokio::test]
async fn a_rule_counts_if_it_is_for_all_pending_uploads_and_for_no_others() {
    const TAG: &str = "<Tag><Key>presignd</Key><Value>pending</Value></Tag>";
    const OTHER: &str = "<Tag><Key>a</Key><Value>b</Value></Tag>";
    let and = |more: &str| format!("<And>{TAG}{more}</And>");
    for (filter, status, expected) in [
        (TAG.to_owned(), "Enabled", "ok"),
        (and("<Prefix>uploads/</Prefix>"), "Enabled", "ok"),
        (and("<Prefix>up</Prefix>"), "Enabled", "ok"),
        (and("<Prefix>other/</Prefix>"), "Enabled", "warning"),
        (and("<Prefix>uploads/a</Prefix>"), "Enabled", "warning"),
        (and(OTHER), "Enabled", "warning"),
        (
            and("<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>"),
            "Enabled",
            "warning",
        ),
        (OTHER.to_owned(), "Enabled", "warning"),
        ("<Prefix></Prefix>".to_owned(), "Enabled", "warning"),
        (TAG.to_owned(), "Disabled", "warning"),
    ] {
        let text = format!(
            "<LifecycleConfiguration><Rule><Status>{status}</Status><Filter>{filter}</Filter><Expiration><Days>2</Days></Expiration></Rule></LifecycleConfiguration>"
        );
        let stand =
            StandIn::except(move |_, uri| uri.contains("?lifecycle").then(|| xml(&text))).await;
        let run = check_with(&stand, PENDING, &[]).await;
        assert_eq!(run.code, Some(0), "{:#}", run.report);
        let line = run.line("lifecycle-pending");
        assert_eq!(line["status"], expected, "{filter} {status}: {line}");
        if expected == "ok" {
            run.says("lifecycle-pending", "ok", &["2 days"]);
        }
    }
}

#[tokio::test]
async fn a_store_that_refuses_rules_or_has_none_is_named() {
    let stand = StandIn::except(|_, uri| {
        uri.contains("?lifecycle")
            .then(|| error(501, "NotImplemented"))
    });
    let run = fixed(&stand.await, 0).await;
    run.says("lifecycle", "skipped", &["does not support"]);
    run.says(
        "lifecycle-pending",
        "warning",
        &["stay for ever", "`pending`"],
    );

    let stand = StandIn::denying(sets_rules).await;
    let run = fixed(&stand, 1).await;
    run.says("lifecycle", "failed", &["s3:PutLifecycleConfiguration"]);
}

/// As RustFS drops the tags of forms, and Ceph those of uploads in parts.
#[tokio::test]
async fn a_store_that_loses_the_tags_of_some_uploads_is_named() {
    for (loses, kept, fix) in [
        ("form", "PUT, parts", "S3_SUPPORTS_POST_POLICY=false"),
        ("parts", "PUT, form", "multipart = false"),
    ] {
        let lost = Arc::new(Mutex::new(BTreeSet::new()));
        let stand = StandIn::between(move |request: Request, next: Next| {
            let lost = Arc::clone(&lost);
            async move {
                let uri = request.uri().clone();
                let query = uri.query().unwrap_or_default().to_owned();
                if request.method() == Method::GET && query.contains("tagging") {
                    if lost.lock().unwrap().contains(uri.path()) {
                        return xml("<Tagging><TagSet></TagSet></Tagging>");
                    }
                    return next.run(request).await;
                }
                let is_post = request.method() == Method::POST;
                let answer = next.run(request).await;
                let location = answer.headers().get("location");
                let location = location.map(|location| location.to_str().unwrap());
                if is_post && answer.status().is_success() {
                    let key = match location.and_then(|it| it.split_once("/uploads/")) {
                        Some((_, key)) if loses == "form" => Some(format!("/uploads/{key}")),
                        None if loses == "parts" && query.contains("uploadId") => {
                            Some(uri.path().to_owned())
                        }
                        _ => None,
                    };
                    // The location encodes slashes of the key as they are, and hyphens and dots.
                    let key = key.map(|key| key.replace("%2D", "-").replace("%2E", "."));
                    lost.lock().unwrap().extend(key);
                }
                answer
            }
        })
        .await;
        let run = check_with(&stand, PENDING, &[]).await;
        run.says("tags", "failed", &[&format!("them: {loses}"), kept, fix]);
        stand.is_as_it_was();
    }
}

#[tokio::test]
async fn a_store_without_tags_and_credentials_that_may_not_tag_are_named() {
    for (status, code, words) in [
        (501, "NotImplemented", "no tags"),
        (403, "AccessDenied", "s3:PutObjectTagging"),
    ] {
        let stand =
            StandIn::except(move |_, uri| uri.contains("?tagging").then(|| error(status, code)));
        let stand = stand.await;
        let run = check_with(&stand, PENDING, &[]).await;
        run.says("tags", "failed", &[words]);
        stand.is_as_it_was();
    }
}

/// As Garage reads rules: it skips the tag, and would expire every object.
#[tokio::test]
async fn a_store_that_ignores_the_tag_of_a_rule_never_keeps_the_rule() {
    for has_tags in [true, false] {
        let kept = Arc::new(Mutex::new(None));
        let rules = Arc::clone(&kept);
        let stand = StandIn::reading(move |head, body| {
            let query = head.uri.query().unwrap_or_default();
            if !has_tags && query.starts_with("tagging") {
                return Some(error(501, "NotImplemented"));
            }
            if !query.starts_with("lifecycle") {
                return None;
            }
            let mut rules = rules.lock().unwrap();
            if head.method == Method::PUT {
                let body = str::from_utf8(body).unwrap();
                let tag = "<Tag><Key>presignd</Key><Value>pending</Value></Tag>";
                assert!(has_tags || !body.contains(tag), "{body}");
                *rules = Some(body.replace(tag, ""));
            } else if head.method == Method::DELETE {
                *rules = None;
                return Some(empty(204));
            }
            let none = || error(404, "NoSuchLifecycleConfiguration");
            Some(rules.as_deref().map_or_else(none, xml))
        })
        .await;
        let run = fixed(&stand, 1).await;
        run.says("lifecycle", "ok", &["added"]);
        if has_tags {
            let why = ["former rules were set again"];
            run.says("lifecycle-pending", "failed", &why);
        } else {
            let why = ["was not added", "`tags` is not ok", "expire every object"];
            run.says("lifecycle-pending", "warning", &why);
        }
        let rules = kept.lock().unwrap().clone();
        assert!(!rules.unwrap().contains("Expiration>"));
    }
}

/// As MinIO does, which removes unfinished uploads itself.
#[tokio::test]
async fn a_store_without_rules_for_parts_gets_the_one_for_pending_uploads() {
    let stand = StandIn::reading(|head, body| {
        let sets_rules = sets_rules(&head.method, &head.uri.to_string());
        let is_for_parts = String::from_utf8_lossy(body).contains("AbortIncompleteMultipartUpload");
        (sets_rules && is_for_parts).then(|| error(400, "InvalidArgument"))
    })
    .await;
    let run = fixed(&stand, 0).await;
    let words = ["400 InvalidArgument", "docs/stores.md"];
    run.says("lifecycle", "warning", &words);
    run.says(
        "lifecycle-pending",
        "ok",
        &["1 day; the rule has been added"],
    );
    assert_eq!(rules(&stand).await.len(), 1);
}

#[tokio::test]
async fn the_store_may_notify_the_service_of_markers() {
    let stand = StandIn::embedded().await;
    check_with(&stand, PENDING, &[]).await;
    let requests = stand.requests();
    let removed = requests.iter();
    let removed = removed.filter_map(|it| it.strip_prefix("DELETE /uploads/"));
    let keys: BTreeSet<&str> = removed.map(|it| it.split('?').next().unwrap()).collect();
    assert!(keys.len() >= 6, "{keys:?}");
    let uploads = service(&stand.config(), BUCKET, true, with_policies(PENDING)).await;
    for key in keys {
        let arrival = uploads.arrival(BUCKET, key);
        assert_eq!(arrival.await.unwrap(), Arrival::UnknownKey, "{key}");
    }
}

#[tokio::test]
async fn rules_that_are_in_force_though_the_answer_is_an_error_count() {
    let stand = StandIn::failing_after(sets_rules).await;
    let run = fixed(&stand, 0).await;
    run.says("lifecycle", "ok", &["added"]);
    run.says("lifecycle-pending", "ok", &[]);
}

/// S3 replaces this setting together with the rules.
#[tokio::test]
async fn fix_lifecycle_keeps_what_is_said_of_small_objects_beside_the_rules() {
    const HEADER: &str = "x-amz-transition-default-minimum-object-size";
    let kept = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&kept);
    let stand = StandIn::between(move |request: Request, next: Next| {
        let is_it = request.uri().to_string().contains("?lifecycle");
        if is_it && request.method() == Method::PUT {
            let value = request.headers().get(HEADER).cloned();
            log.lock().unwrap().push(value);
        }
        async move {
            let mut response = next.run(request).await;
            let value = "varies_by_storage_class".parse().unwrap();
            response.headers_mut().insert(HEADER, value);
            response
        }
    })
    .await;
    put_theirs(&stand).await;
    kept.lock().unwrap().clear();
    let run = check(&with(&stand.url(), &[]), &["--fix-lifecycle"]).await;
    run.says("lifecycle", "ok", &["added", "there: 1"]);
    let kept = kept.lock().unwrap();
    let [Some(value)] = &kept[..] else {
        panic!("{kept:?}");
    };
    assert_eq!(value, "varies_by_storage_class");
}

#[tokio::test]
async fn rules_are_sent_with_the_md5_that_some_stores_demand() {
    let stand = StandIn::between(|request: Request, next: Next| async {
        let uri = request.uri().to_string();
        let is_about_cors = uri.contains("?cors") || request.method() == Method::OPTIONS;
        if is_about_cors && request.method() != Method::PUT {
            return error(404, "NoSuchCORSConfiguration");
        }
        if !is_about_cors && !sets_rules(request.method(), &uri) {
            return next.run(request).await;
        }
        let given = request.headers().get("content-md5").cloned();
        let body = to_bytes(request.into_body(), 100_000).await.unwrap();
        match given {
            None => error(400, "InvalidRequest"),
            Some(md5) if md5 != BASE64_STANDARD.encode(Md5::digest(&body)) => {
                error(400, "BadDigest")
            }
            Some(_) => error(501, "NotImplemented"),
        }
    })
    .await;
    let run = check_with(&stand, PENDING, &["--fix-lifecycle", "--fix-cors"]).await;
    run.says("lifecycle", "warning", &["501"]);
    run.says("cors", "failed", &["501"]);
}
