//! Stores that cannot be used, or not as configured.

use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::IntoResponse;

use super::{check, check_at, check_fails, check_passes, policies_file, with};
use crate::helpers::spawn;
use crate::stand_in::{StandIn, dated, empty, error, page, xml};

#[tokio::test]
async fn a_closed_port_is_named_and_nothing_else_is_checked() {
    let run = check_fails("http://127.0.0.1:1", &[]).await;
    let expected = [
        ("settings", "ok"),
        ("credentials", "ok"),
        ("endpoint", "failed"),
        ("rest", "skipped"),
    ];
    assert_eq!(run.statuses(), expected);
    run.says(
        "endpoint",
        "failed",
        &["http://127.0.0.1:1/uploads", "AWS_ENDPOINT_URL_S3"],
    );
}

#[tokio::test]
async fn a_store_that_never_answers_is_not_waited_for() {
    let store = StandIn::answering(async |_| std::future::pending().await).await;
    let run = check_fails(&store.url(), &[]).await;
    run.says("endpoint", "failed", &["no answer in time"]);
    run.says("rest", "skipped", &[]);
}

#[tokio::test]
async fn wrong_credentials_are_not_missing_ones() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    for (name, value, says) in [
        ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN", "InvalidAccessKeyId"),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wrong-secret",
            "SignatureDoesNotMatch",
        ),
    ] {
        let run = check_fails(&url, &[(name, value)]).await;
        run.says("bucket", "failed", &[says, name]);
        run.says("rest", "skipped", &[]);
    }
    let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let run = check_fails(&url, &none).await;
    run.says("credentials", "failed", &["AWS_PROFILE"]);
    run.says("endpoint", "ok", &[]);
}

#[tokio::test]
async fn the_region_of_a_bucket_elsewhere_is_named() {
    // As S3 answers: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
    let store = StandIn::answering(async |request: Request| {
        let region = [("x-amz-bucket-region", "eu-west-1")];
        if request.method() == Method::HEAD {
            return (StatusCode::MOVED_PERMANENTLY, region).into_response();
        }
        let xml =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        (StatusCode::BAD_REQUEST, region, xml).into_response()
    })
    .await;
    let run = check_fails(&store.url(), &[]).await;
    run.says(
        "region",
        "failed",
        &["eu-west-1", "us-east-1", "set AWS_REGION=eu-west-1"],
    );
    run.says("rest", "skipped", &[]);
}

#[tokio::test]
async fn a_region_that_the_store_does_not_mind_is_a_warning() {
    let stand = StandIn::changing(|_, _, response| {
        let region = HeaderValue::from_static("auto");
        response.headers_mut().insert("x-amz-bucket-region", region);
    })
    .await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("region", "warning", &["AWS_REGION=auto"]);
}

#[tokio::test]
async fn a_page_of_a_proxy_is_not_a_missing_bucket() {
    for (status, outcome, says) in [
        (404, "failed", "404 without S3's code"),
        // A page for people to log in.
        (200, "failed", "cannot be read"),
        (403, "warning", "403 without S3's code"),
    ] {
        let proxy = StandIn::answering(move |_| std::future::ready(page(status))).await;
        let run = check_fails(&proxy.url(), &[]).await;
        run.says("bucket", outcome, &[says, "AWS_ENDPOINT_URL_S3"]);
        assert!(
            !run.report.to_string().contains("no bucket"),
            "{:#}",
            run.report
        );
    }
}

#[tokio::test]
async fn an_access_key_that_the_store_does_not_know_is_not_a_missing_bucket() {
    // As versitygw answers.
    let store = StandIn::answering(async |_| error(404, "XAdminUserNotFound")).await;
    let run = check_fails(&store.url(), &[]).await;
    run.says(
        "bucket",
        "failed",
        &["XAdminUserNotFound", "AWS_ACCESS_KEY_ID"],
    );
}

/// Setting rules replaces all others, so nothing may be set where they are not known.
#[tokio::test]
async fn a_page_of_a_proxy_is_not_a_bucket_without_rules() {
    let is_about_rules = |uri: &str| uri.contains("?cors") || uri.contains("?lifecycle");
    let stand = StandIn::except(move |_, uri| is_about_rules(uri).then(|| page(404))).await;
    let args = ["--fix-cors", "--fix-lifecycle"];
    let run = check(&with(&stand.url(), &[]), &args).await;
    run.says("cors", "ok", &["cannot be read", "404 without S3's code"]);
    run.says("lifecycle", "warning", &["404 without S3's code"]);
    let mut requests = stand.requests();
    requests.retain(|request| is_about_rules(request) && request.starts_with("PUT"));
    assert_eq!(requests, [""; 0]);
}

/// As Garage answers.
#[tokio::test]
async fn a_bucket_without_lifecycle_rules_may_answer_404_without_a_body() {
    let stand = StandIn::except(|_, uri| uri.contains("?lifecycle").then(|| empty(404))).await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("lifecycle", "warning", &["--fix-lifecycle"]);
}

#[tokio::test]
async fn an_endpoint_with_the_wrong_scheme_is_named() {
    let stand = StandIn::embedded().await;
    let run = check_fails(&format!("https://{}", stand.addr), &[]).await;
    run.says("endpoint", "failed", &["without TLS", "http://"]);
}

#[tokio::test]
async fn a_bucket_that_may_not_be_listed_is_tried_all_the_same() {
    let stand = StandIn::denying(|method, uri| {
        let of_bucket = uri == "/uploads" || uri == "/uploads/" || uri.contains("location");
        of_bucket && (method == Method::HEAD || method == Method::GET)
    })
    .await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("bucket", "warning", &["s3:ListBucket"]);
    run.says("put", "ok", &[]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn the_style_that_the_store_understands_is_named() {
    let stand = StandIn::embedded().await;
    // The name `uploads.localhost` is unknown, or leads to a store that does not look at it.
    let url = format!("http://localhost:{}", stand.addr.port());
    let run = check_fails(&url, &[("S3_FORCE_PATH_STYLE", "false")]).await;
    let fix = run.report.to_string();
    assert!(fix.contains("set S3_FORCE_PATH_STYLE=true"), "{fix}");
}

#[tokio::test]
async fn a_wrong_clock_is_reported_with_the_difference() {
    let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
    for (there, which) in [(now + hour, "behind"), (now - hour, "ahead of")] {
        let stand = StandIn::changing(move |_, _, response| {
            *response = dated(std::mem::take(response), there);
        })
        .await;
        let run = check_fails(&stand.url(), &[]).await;
        run.says("clock", "failed", &[which, "NTP"]);
        run.says("rest", "skipped", &[]);
        let detail = run.line("clock")["detail"].as_str().unwrap();
        assert!(detail.contains("59m") || detail.contains("1h"), "{detail}");
    }
}

#[tokio::test]
async fn an_endpoint_that_only_clients_reach_is_a_warning() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    let closed = [
        ("S3_PUBLIC_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("BIND_ADDR", "0.0.0.0:3000"),
        ("AUTH_MODE", "none"),
    ];
    let run = check_passes(&url, &closed).await;
    let lines = run.statuses();
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|(check, _)| *check == "public-endpoint")
        .collect();
    assert_eq!(lines, [("public-endpoint", "warning"); 2]);
    run.says(
        "public-endpoint",
        "warning",
        &["127.0.0.1", "S3_PUBLIC_ENDPOINT_URL"],
    );

    // The same store by another name.
    let public = format!("http://localhost:{}", stand.addr.port());
    let run = check_passes(&url, &[("S3_PUBLIC_ENDPOINT_URL", &public)]).await;
    run.says("public-endpoint", "ok", &["localhost"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_public_endpoint_that_changes_the_host_is_found_out() {
    let stand = StandIn::embedded().await;
    // A proxy that tells the store another host than that which clients sign for.
    let to = stand.addr.to_string();
    let proxy = axum::middleware::map_request(move |mut request: Request| {
        let host = HeaderValue::from_str(&to).unwrap();
        request.headers_mut().insert(header::HOST, host);
        async { request }
    });
    let store = crate::helpers::store(stand.data.path()).layer(proxy);
    let public = format!("http://{}", spawn(store).await);
    let run = check_fails(&stand.url(), &[("S3_PUBLIC_ENDPOINT_URL", &public)]).await;
    run.says(
        "public-endpoint",
        "failed",
        &["SignatureDoesNotMatch", "Host"],
    );
    stand.is_as_it_was();
}

#[tokio::test]
async fn the_bucket_should_clean_up_after_clients_and_be_private() {
    /// Rules for a part of the objects.
    const OTHERS: [&str; 3] = [
        "<Prefix>other/</Prefix>",
        "<Tag><Key>a</Key><Value>b</Value></Tag>",
        "<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan>",
    ];
    let lifecycle = |days: &str, filter: &str| {
        format!(
            "<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter>{filter}</Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>{days}</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
        )
    };
    let access = |blocked: bool| {
        let names = [
            "BlockPublicAcls",
            "IgnorePublicAcls",
            "BlockPublicPolicy",
            "RestrictPublicBuckets",
        ];
        let all: String = names
            .map(|name| format!("<{name}>{blocked}</{name}>"))
            .concat();
        format!("<PublicAccessBlockConfiguration>{all}</PublicAccessBlockConfiguration>")
    };
    for (rules, block, expected) in [
        (Some(lifecycle("7", "")), Some(access(true)), "ok"),
        (Some(lifecycle("1", "")), Some(access(false)), "warning"),
        (Some(lifecycle("7", OTHERS[0])), None, "warning"),
        (Some(lifecycle("7", OTHERS[1])), None, "warning"),
        (Some(lifecycle("7", OTHERS[2])), None, "warning"),
        (None, None, "warning"),
    ] {
        let stand = StandIn::except(move |_, uri| {
            let (found, code) = if uri.contains("?lifecycle") {
                (&rules, "NoSuchLifecycleConfiguration")
            } else if uri.contains("?publicAccessBlock") {
                (&block, "NoSuchPublicAccessBlockConfiguration")
            } else {
                return None;
            };
            Some(found.as_deref().map_or_else(|| error(404, code), xml))
        })
        .await;
        let run = check_passes(&stand.url(), &[]).await;
        run.says("lifecycle", expected, &[]);
        run.says("public-access", expected, &[]);
    }
}

/// As Garage answers requests that are signed with unknown keys, or wrongly.
#[tokio::test]
async fn wrong_credentials_are_named_where_the_store_calls_them_denied() {
    for (words, name) in [
        ("Forbidden: No such key: X", "AWS_ACCESS_KEY_ID"),
        ("Forbidden: Invalid signature", "AWS_SECRET_ACCESS_KEY"),
    ] {
        let stand = StandIn::except(move |method, _| {
            if method == Method::HEAD {
                return Some(StatusCode::FORBIDDEN.into_response());
            }
            let text =
                format!("<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>");
            Some((StatusCode::FORBIDDEN, text).into_response())
        })
        .await;
        let run = check_fails(&stand.url(), &[]).await;
        run.says("bucket", "failed", &[words, name]);
        run.says("rest", "skipped", &["until the failures above are fixed"]);
    }
}

#[tokio::test]
async fn the_region_is_read_from_the_error_too() {
    let stand = StandIn::except(|method, _| {
        if method == Method::HEAD {
            return Some(StatusCode::BAD_REQUEST.into_response());
        }
        let text = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>garage</Region></Error>";
        Some((StatusCode::BAD_REQUEST, text).into_response())
    })
    .await;
    let run = check_fails(&stand.url(), &[]).await;
    run.says("region", "failed", &["AWS_REGION=garage"]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_skipped() {
    let stand = StandIn::except(|_, uri| {
        let text = "<BlockPublicAccessBlockConfiguration></BlockPublicAccessBlockConfiguration>";
        uri.contains("?publicAccessBlock").then(|| xml(text))
    })
    .await;
    let run = check_at(&stand.url(), &[]).await;
    run.says("public-access", "skipped", &["cannot be read"]);
}

#[tokio::test]
async fn the_buckets_of_all_policies_are_checked_and_a_missing_one_is_named() {
    let toml = "[policies.default]\n[policies.media]\nbucket = 'media'";
    let (_folder, file) = policies_file(toml);
    let policies = [("UPLOAD_POLICIES_FILE", file.as_str())];
    let stand = StandIn::embedded().await;
    let run = check_fails(&stand.url(), &policies).await;
    let lines = run.report["checks"].as_array().unwrap();
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line["status"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{:#}", run.report);
    assert_eq!(failed[0]["bucket"], "media");
    assert_eq!(failed[0]["detail"], "there is no bucket media");
    stand.is_as_it_was();

    let data = tempfile::tempdir().unwrap();
    let store = crate::helpers::embedded_store(data.path(), ["media"].into_iter());
    let url = format!("http://{}", crate::helpers::spawn(store).await);
    let run = check_passes(&url, &policies).await;
    let puts = run.report["checks"].as_array().unwrap().iter();
    let puts: Vec<_> = puts
        .filter(|line| line["check"] == "put")
        .map(|line| (line["bucket"].as_str(), line["policy"].as_str()))
        .collect();
    let expected = [("uploads", "default"), ("media", "media")];
    assert_eq!(puts, expected.map(|(a, b)| (Some(a), Some(b))));
    let expected = ["media", "uploads"].map(str::to_owned);
    assert_eq!(crate::stand_in::files(data.path()), expected.into());
}
