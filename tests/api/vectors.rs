//! Signatures compared with a second implementation, which is itself compared with the examples
//! that AWS publishes.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::helpers::{built_in, file, presign_put, service};

const SECRET: &str = "presignd-dev-secret";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/aws-published.json")).unwrap()
}

/// The signature of a presigned URL, computed from the URL itself as
/// [AWS describes it](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
fn signature(secret: &str, method: &str, url: &Url, headers: &[(&str, &str)]) -> String {
    let query = url.query().unwrap();
    let mut parameters: Vec<&str> = query
        .split('&')
        .filter(|parameter| !parameter.starts_with("X-Amz-Signature="))
        .collect();
    parameters.sort_unstable();
    let parameter = |name: &str| {
        let (_, value) = url.query_pairs().find(|(n, _)| n == name).unwrap();
        value.into_owned()
    };
    let signed_headers = parameter("X-Amz-SignedHeaders");
    let mut canonical_headers = String::new();
    for name in signed_headers.split(';') {
        let (_, value) = headers.iter().find(|(n, _)| *n == name).unwrap();
        writeln!(canonical_headers, "{name}:{value}").unwrap();
    }
    let canonical_request = format!(
        "{method}\n{}\n{}\n{canonical_headers}\n{signed_headers}\nUNSIGNED-PAYLOAD",
        url.path(),
        parameters.join("&"),
    );
    let credential = parameter("X-Amz-Credential");
    let (_, scope) = credential.split_once('/').unwrap();
    let date = parameter("X-Amz-Date");
    let mut hash = String::new();
    for byte in Sha256::digest(canonical_request) {
        write!(hash, "{byte:02x}").unwrap();
    }
    let string_to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let region = scope.split('/').nth(1).unwrap();
    let key = generate_signing_key(secret, parse_date(&date), region, "s3");
    calculate_signature(key, string_to_sign.as_bytes())
}

/// `20130524T000000Z`
fn parse_date(date: &str) -> SystemTime {
    let number = |range: std::ops::Range<usize>| date[range].parse::<u8>().unwrap();
    let year = date[0..4].parse().unwrap();
    let month = time::Month::try_from(number(4..6)).unwrap();
    time::Date::from_calendar_date(year, month, number(6..8))
        .unwrap()
        .with_hms(number(9..11), number(11..13), number(13..15))
        .unwrap()
        .assume_utc()
        .into()
}

#[test]
fn the_second_implementation_agrees_with_the_published_example() {
    let vectors = vectors();
    let get = &vectors["presigned_get"];
    let url = "https://examplebucket.s3.amazonaws.com/test.txt\
        ?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
        &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host";
    let url = Url::parse(url).unwrap();
    let secret = vectors["secret_access_key"].as_str().unwrap();
    let host = get["host"].as_str().unwrap();
    let signature = signature(secret, "GET", &url, &[("host", host)]);
    assert_eq!(signature, get["signature"].as_str().unwrap());
}

#[tokio::test]
async fn grants_are_signed_as_the_second_implementation_signs() {
    let addr = "127.0.0.1:9000".parse().unwrap();
    let uploads = service(
        &crate::helpers::sdk_config(addr),
        "bucket",
        true,
        built_in(),
    )
    .await;
    for name in ["a.txt", "a b+c%d&e=f~g'(h)*!.txt", "한글 🎉.txt"] {
        let file = file(name, "text/plain");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_601);
        let grant = presign_put(&uploads, &file, now).await;
        let url = Url::parse(&grant.request.url).unwrap();
        assert_eq!(url.as_str(), grant.request.url, "the URL is already normal");
        let headers = [("host", "127.0.0.1:9000"), ("content-type", "text/plain")];
        let expected = signature(SECRET, "PUT", &url, &headers);
        let found = url.query_pairs().find(|(n, _)| n == "X-Amz-Signature");
        assert_eq!(found.unwrap().1, expected, "{name}");
    }
}
