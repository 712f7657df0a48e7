//! What browsers need of the bucket, and `--fix-cors`.

use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Run, check, check_at, check_fails, with};
use crate::stand_in::{StandIn, error, xml};

/// Rules of a bucket, as the store keeps them.
type Rules = Arc<Mutex<Option<String>>>;

/// A store that keeps rules, and begins with these. Without rules it answers as S3 does.
async fn keeping(rules: Option<&str>) -> (StandIn, Rules) {
    keeping_with(rules, || error(404, "NoSuchCORSConfiguration")).await
}

/// The same with another answer where there are no rules.
async fn keeping_with(rules: Option<&str>, none: fn() -> Response) -> (StandIn, Rules) {
    answering(rules, none, || StatusCode::OK.into_response()).await
}

/// The same with another answer when rules are set.
async fn answering(
    rules: Option<&str>,
    none: fn() -> Response,
    set: fn() -> Response,
) -> (StandIn, Rules) {
    let kept: Rules =
        Arc::new(Mutex::new(rules.map(|rules| {
            format!("<CORSConfiguration>{rules}</CORSConfiguration>")
        })));
    let rules = Arc::clone(&kept);
    let stand = StandIn::reading(move |head, body| {
        let mut rules = rules.lock().unwrap();
        if head.method == Method::OPTIONS && rules.is_none() {
            return Some(error(403, "AccessForbidden"));
        }
        if !head.uri.to_string().contains("?cors") {
            return None;
        }
        if head.method == Method::PUT {
            *rules = Some(String::from_utf8(body.to_vec()).unwrap());
            return Some(set());
        }
        Some(rules.as_deref().map_or_else(none, xml))
    })
    .await;
    (stand, kept)
}

/// A run with `--fix-cors`, which has to end with this code.
async fn fixed(stand: &StandIn, code: i32) -> Run {
    let run = check(&with(&stand.url(), &[]), &["--fix-cors"]).await;
    assert_eq!(run.code, Some(code), "{:#}", run.report);
    run
}

const GOOD: &str = "<CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedMethod>POST</AllowedMethod><AllowedHeader>*</AllowedHeader><ExposeHeader>ETag</ExposeHeader></CORSRule>";
const OTHER: &str = "<CORSRule><ID>theirs</ID><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod><MaxAgeSeconds>5</MaxAgeSeconds></CORSRule>";

#[tokio::test]
async fn for_a_bucket_without_rules_the_exact_ones_are_shown() {
    let (stand, _) = keeping(None).await;
    let policies = format!("{}/policies.example.toml", env!("CARGO_MANIFEST_DIR"));
    let origins = "https://app.example.com,http://localhost:5173";
    let more = [
        ("UPLOAD_POLICIES_FILE", policies.as_str()),
        ("CORS_ALLOWED_ORIGINS", origins),
    ];
    let run = check_fails(&stand.url(), &more).await;
    run.says("cors", "failed", &["no rules", "--fix-cors"]);
    let rules = &run.line("cors")["corsConfiguration"];
    let expected = serde_json::json!({"CORSRules": [{
        "AllowedOrigins": ["https://app.example.com", "http://localhost:5173"],
        "AllowedMethods": ["PUT", "POST"],
        "AllowedHeaders": [
            "cache-control", "content-disposition", "content-type", "if-none-match", "x-amz-checksum-crc64nvme",
            "x-amz-checksum-sha256", "x-amz-meta-album", "x-amz-meta-source", "x-amz-server-side-encryption", "x-amz-storage-class",
        ],
        "ExposeHeaders": ["ETag", "Location"],
        "MaxAgeSeconds": 3600,
    }]});
    assert_eq!(rules, &expected);
}

#[tokio::test]
async fn fix_cors_leaves_rules_that_are_enough_as_they_were_written() {
    let (stand, rules) = keeping(Some(GOOD)).await;
    let before = rules.lock().unwrap().clone();
    let run = fixed(&stand, 0).await;
    run.says("cors", "ok", &[]);
    assert_eq!(*rules.lock().unwrap(), before);
}

#[tokio::test]
async fn rules_are_never_changed_unasked() {
    let (stand, rules) = keeping(Some(OTHER)).await;
    let before = rules.lock().unwrap().clone();
    let run = check_at(&stand.url(), &[]).await;
    run.says(
        "cors",
        "failed",
        &["PUT from https://app.example.com is not allowed"],
    );
    assert_eq!(*rules.lock().unwrap(), before);
    // What there is has to stay when the rules are pasted.
    assert_eq!(
        run.line("cors")["corsConfiguration"]["CORSRules"][1]["ID"],
        "theirs"
    );
}

#[tokio::test]
async fn fix_cors_adds_what_is_missing_and_keeps_the_rest() {
    let (stand, rules) = keeping(Some(OTHER)).await;
    let run = fixed(&stand, 0).await;
    run.says("cors", "ok", &["added", "kept of those that were there: 1"]);
    let set = rules.lock().unwrap().clone().unwrap();
    for part in [
        "<ID>theirs</ID>",
        "<AllowedMethod>GET<",
        "<MaxAgeSeconds>5<",
        "https://app.example.com",
        "ETag",
        "<AllowedHeader>*<",
    ] {
        assert!(set.contains(part), "{part}: {set}");
    }
    let again = fixed(&stand, 0).await;
    again.says("cors", "ok", &["may PUT and POST"]);
    assert!(again.line("cors").get("corsConfiguration").is_none());
    assert_eq!(rules.lock().unwrap().clone().unwrap(), set);
    // Pages of another origin still may not.
    let other = [("CORS_ALLOWED_ORIGINS", "https://other.example")];
    let run = check_at(&stand.url(), &other).await;
    run.says("cors", "failed", &["https://other.example"]);
}

/// A store that has no rules, and keeps none whatever it answers to those that it is given.
async fn without_rules(given: fn() -> Response) -> StandIn {
    StandIn::except(move |method, uri| {
        if method == Method::OPTIONS {
            Some(error(403, "AccessForbidden"))
        } else if !uri.contains("?cors") {
            None
        } else if method == Method::PUT {
            Some(given())
        } else {
            Some(error(404, "NoSuchCORSConfiguration"))
        }
    })
    .await
}

#[tokio::test]
async fn a_store_that_refuses_the_rules_is_quoted() {
    let stand = without_rules(|| error(403, "AccessDenied")).await;
    let run = fixed(&stand, 1).await;
    run.says("cors", "failed", &["cannot be added", "s3:PutBucketCORS"]);
    assert!(run.line("cors")["corsConfiguration"].is_object());
}

#[tokio::test]
async fn a_store_that_accepts_the_rules_and_does_not_keep_them_fails() {
    let stand = without_rules(|| StatusCode::OK.into_response()).await;
    // Browsers send no preflight for a form, which would show it.
    let variables = [
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com"),
        ("S3_FORMS_ONLY", "true"),
    ];
    let run = check(&with(&stand.url(), &variables), &["--fix-cors"]).await;
    assert_eq!(run.code, Some(1), "{:#}", run.report);
    run.says("cors", "failed", &["accepted the rules, and still"]);
}

#[tokio::test]
async fn a_store_that_keeps_no_rules_is_asked_as_browsers_ask() {
    let stand = StandIn::embedded().await;
    let run = check_at(&stand.url(), &[]).await;
    run.says("cors", "ok", &["NotImplemented", "preflights are answered"]);
    let run = check_at(&stand.url(), &[("CORS_ALLOWED_ORIGINS", "*")]).await;
    run.says("cors", "ok", &[]);

    // Swift answers nothing else, except for a form.
    let strict = StandIn::except(|method, uri| {
        let is_of_form = uri == "/uploads/";
        let is_other = method == Method::OPTIONS && !uri.contains("X-Amz-Credential=");
        (is_other && !is_of_form).then(|| error(400, "InvalidRequest"))
    })
    .await;
    let run = check_at(&strict.url(), &[]).await;
    run.says("cors", "ok", &[]);

    let refusing = StandIn::except(|method, _| {
        let is_preflight = method == Method::OPTIONS;
        is_preflight.then(|| error(403, "AccessForbidden"))
    })
    .await;
    let run = check_fails(&refusing.url(), &[]).await;
    run.says(
        "cors",
        "failed",
        &["preflight of PUT from https://app.example.com"],
    );
    assert!(run.line("cors")["corsConfiguration"].is_object());

    let hiding = StandIn::changing(|_, _, response| {
        let headers = response.headers_mut();
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    })
    .await;
    let run = check_fails(&hiding.url(), &[]).await;
    run.says("cors", "failed", &["ETag"]);
}

/// As MinIO does: it has no rules of buckets, and allows every page.
#[tokio::test]
async fn a_store_that_answers_for_all_buckets_alike_needs_no_rules() {
    let stand = StandIn::except(|method, uri| {
        let is_set = method == Method::PUT;
        uri.contains("?cors").then(|| {
            if is_set {
                error(501, "NotImplemented")
            } else {
                error(404, "NoSuchCORSConfiguration")
            }
        })
    })
    .await;
    for args in [&[][..], &["--fix-cors"]] {
        let run = check(&with(&stand.url(), &[]), args).await;
        assert_eq!(run.code, Some(0), "{:#}", run.report);
        run.says("cors", "ok", &["no rules", "preflights are answered"]);
    }
}

#[tokio::test]
async fn where_no_page_may_call_no_rules_are_added_and_whoever_asks_for_them_is_told() {
    let (stand, rules) = keeping(None).await;
    let url = stand.url();
    let variables = with(&url, &[("CORS_ALLOWED_ORIGINS", "")]);
    for (args, status) in [(vec![], "skipped"), (vec!["--fix-cors"], "warning")] {
        let run = check(&variables, &args).await;
        assert_eq!(run.code, Some(0));
        run.says("cors", status, &["CORS_ALLOWED_ORIGINS"]);
        assert!(rules.lock().unwrap().is_none());
    }
}

/// As Garage answers.
#[tokio::test]
async fn a_bucket_without_rules_may_answer_204() {
    let (stand, rules) = keeping_with(None, || StatusCode::NO_CONTENT.into_response()).await;
    let run = check_at(&stand.url(), &[]).await;
    run.says("cors", "failed", &["no rules", "--fix-cors"]);
    let run = fixed(&stand, 0).await;
    run.says("cors", "ok", &["added"]);
    assert!(rules.lock().unwrap().is_some());
}

/// Some stores know `*` alone as a pattern of headers, and answer preflights accordingly.
#[tokio::test]
async fn a_store_that_understands_a_pattern_literally_is_found_by_a_preflight() {
    for (allowed, expected) in [("x-amz-meta-*", "failed"), ("*", "ok")] {
        let rule = GOOD.replace(
            "<AllowedHeader>*</AllowedHeader>",
            &format!(
                "<AllowedHeader>content-type</AllowedHeader><AllowedHeader>content-disposition</AllowedHeader>\
                 <AllowedHeader>x-amz-checksum-*</AllowedHeader>\
                 <AllowedHeader>{allowed}</AllowedHeader>"
            ),
        );
        let is_literal = allowed != "*";
        let rules = format!("<CORSConfiguration>{rule}</CORSConfiguration>");
        let stand = StandIn::reading(move |head, _| {
            if head.uri.to_string().contains("?cors") {
                return Some(xml(&rules));
            }
            let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            let has_metadata =
                asked.is_some_and(|asked| asked.to_str().unwrap().contains("x-amz-meta-"));
            let is_refused = head.method == Method::OPTIONS && has_metadata && is_literal;
            is_refused.then(|| error(403, "AccessForbidden"))
        })
        .await;
        let run = check_at(&stand.url(), &[]).await;
        run.says("cors", expected, &[]);
        if expected == "failed" {
            run.says(
                "cors",
                "failed",
                &["refuses the preflight", "x-amz-meta-", "AllowedHeaders"],
            );
            let rules = &run.line("cors")["corsConfiguration"]["CORSRules"];
            assert_eq!(rules[0]["AllowedHeaders"], serde_json::json!(["*"]));
        }
    }
}

#[tokio::test]
async fn a_store_that_understands_a_pattern_of_origins_literally_is_found_by_a_preflight() {
    const PATTERN: &str = "https://*.example.com";
    let stand = StandIn::reading(|head, _| {
        let origin = head.headers.get(header::ORIGIN);
        let is_a_page = origin.is_some_and(|origin| origin != PATTERN);
        let is_refused = head.method == Method::OPTIONS && is_a_page;
        is_refused.then(|| error(403, "AccessForbidden"))
    })
    .await;
    let run = check_fails(&stand.url(), &[("CORS_ALLOWED_ORIGINS", PATTERN)]).await;
    run.says("cors", "failed", &["refuses the preflight of PUT"]);
}

#[tokio::test]
async fn rules_that_are_in_force_though_the_answer_was_an_error_count() {
    let none = || error(404, "NoSuchCORSConfiguration");
    let (stand, _) = answering(None, none, || error(504, "GatewayTimeout")).await;
    let run = fixed(&stand, 0).await;
    run.says("cors", "ok", &["added"]);
}
