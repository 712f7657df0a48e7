//! Why a request has no caller: the log says it, and the answer does not.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use presignd::http::auth::new_api_key;
use serde_json::{Value, json};

use super::jwks::{published, publishing};
use super::jwt::{ISSUER, IssuerKey, JWT, SECRET, changed, claims, now};
use crate::helpers::asking_at;
use crate::process::{Running, request_lines};

/// A service that accepts the tokens of the issuer at `jwks`, and an API key, and this key.
fn started(folder: &Path, jwks: &str, more: &[(&str, &str)]) -> (Running, String, String) {
    let (key, entry) = new_api_key("web").unwrap();
    std::fs::write(folder.join("keys.toml"), entry).unwrap();
    let both = [
        ("AUTH_MODE", "jwt,api-key"),
        ("API_KEYS_FILE", "keys.toml"),
        ("JWT_JWKS_URL", jwks),
    ];
    let (dev, base) = Running::dev(folder, &[&JWT[1..3], &both, more].concat());
    (dev, base, key)
}

/// Tokens that are refused, and why.
fn tokens(key: &IssuerKey) -> Vec<(String, &'static str)> {
    let now = now();
    let good = claims("chosen-sub");
    let but = |name: &str, value| key.sign(Some("k"), &changed(good.clone(), name, value));
    let with = |name: &str, value: Value| but(name, Some(value));
    let without = |name: &str| but(name, None);
    let mut shared = Header::new(Algorithm::HS256);
    shared.kid = Some("k".into());
    let mut critical = Header::new(Algorithm::ES256);
    critical.crit = Some(vec!["chosen-extension".into()]);
    let by_secret = jsonwebtoken::encode(&shared, &good, &EncodingKey::from_secret(SECRET));
    let foreign = IssuerKey::ec(Algorithm::ES256);
    vec![
        (
            "chosen-text".to_owned(),
            "it is neither an API key nor a JWT with a known `alg`",
        ),
        (
            jsonwebtoken::encode(&critical, &good, &key.private).unwrap(),
            "the token has `crit`",
        ),
        (
            key.sign(Some("chosen-kid"), &good),
            "the issuer has no key of this `kid`",
        ),
        (
            key.sign(None, &good),
            "the token has no `kid`, and the issuer has several keys",
        ),
        (by_secret.unwrap(), "no key is for this `alg`"),
        (
            foreign.sign(Some("k"), &good),
            "no key has made this signature",
        ),
        (with("exp", json!(now - 60)), "the token has expired"),
        (without("exp"), "`exp` is missing or not a number"),
        (with("nbf", json!(now + 300)), "the token is not valid yet"),
        (with("nbf", json!("chosen-nbf")), "`nbf` is not a number"),
        (
            with("iss", json!("https://chosen.example/")),
            "`iss` is not JWT_ISSUER",
        ),
        (with("iss", json!([ISSUER])), "`iss` is a list"),
        (without("iss"), "`iss` is missing or not text"),
        (
            with("aud", json!("chosen-aud")),
            "`aud` is not JWT_AUDIENCE",
        ),
        (without("aud"), "`aud` is missing or not text"),
        (without("sub"), "`sub` is missing or not text"),
        (with("sub", json!("")), "`sub` is empty"),
        (with("sub", json!("web")), "`sub` is the name of an API key"),
        (
            with("upload", json!({"chosen-member": 1})),
            "the ticket is invalid, and the answer says why",
        ),
    ]
}

#[tokio::test]
async fn the_log_says_why_a_request_was_refused_and_never_what_the_client_sent() {
    let key = IssuerKey::ec(Algorithm::ES256);
    let other = IssuerKey::ec(Algorithm::ES256);
    let issuer = publishing(&[published("k", &key), published("other", &other)]).await;
    let folder = tempfile::tempdir().unwrap();
    let jwks = format!("http://{issuer}/jwks");
    let (dev, base, known) = started(folder.path(), &jwks, &[("LOG_FORMAT", "json")]);

    let mut requests = vec![
        (
            asking_at(&base),
            "there are no credentials of a kind that AUTH_MODE accepts",
        ),
        (
            asking_at(&base)
                .bearer_auth(&known)
                .header("x-api-key", &known),
            "there are two credentials",
        ),
        (
            asking_at(&base).header("x-api-key", "chosen-key"),
            "there is no such API key",
        ),
        (
            asking_at(&base).header("x-api-key", "x".repeat(20_000)),
            "`x-api-key` is repeated, not ASCII or too long",
        ),
        (
            asking_at(&base).basic_auth("chosen-user", Some("chosen-password")),
            "`authorization` is repeated, not ASCII, too long or not `Bearer`",
        ),
        (
            asking_at(&format!("{base}/t/{}", key.sign(Some("k"), &claims("a")))),
            "the ticket is invalid, and the answer says why",
        ),
    ];
    for (token, why) in tokens(&key) {
        requests.push((asking_at(&base).bearer_auth(token), why));
    }
    let mut expected = Vec::new();
    for (request, why) in requests {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{why}");
        expected.push(json!(why));
    }
    let granted = asking_at(&base).bearer_auth(&known).send().await.unwrap();
    assert_eq!(granted.status(), 201);
    expected.push(Value::Null);

    let (_, _, log) = dev.stop("INT");
    let lines = request_lines(&log);
    let refused: Vec<Value> = lines.iter().map(|line| line["refused"].clone()).collect();
    assert_eq!(refused, expected);
    assert!(!log.contains("chosen") && !log.contains(&known), "{log}");
}

#[tokio::test]
async fn the_log_of_dev_says_it_too_also_where_no_token_can_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let down = "http://127.0.0.1:9/jwks";
    let rate = [
        ("RATE_LIMIT_PER_SECOND", "0.001"),
        ("RATE_LIMIT_BURST", "2"),
    ];
    let (dev, base, _) = started(folder.path(), down, &rate);
    let token = IssuerKey::ec(Algorithm::ES256).sign(Some("k"), &claims("alice"));
    let mut statuses = Vec::new();
    for request in [
        asking_at(&base),
        asking_at(&base).bearer_auth(&token),
        asking_at(&base).bearer_auth(&token),
    ] {
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [401, 503, 429]);
    let (_, _, log) = dev.stop("INT");
    for why in [
        "there are no credentials of a kind that AUTH_MODE accepts",
        "the keys of JWT_JWKS_URL could not be fetched)",
        "too many invalid tokens came from this address",
    ] {
        assert!(log.contains(why), "{why}: {log}");
    }
}

#[tokio::test]
async fn the_log_has_the_code_of_a_problem_and_who_got_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("RATE_LIMIT_PER_SECOND", "0.001"),
        ("RATE_LIMIT_BURST", "2"),
        ("LOG_FORMAT", "json"),
    ];
    let (dev, base, known) = started(folder.path(), "http://127.0.0.1:9/jwks", &settings);
    let asking = || asking_at(&base).header("x-api-key", &known);
    for (request, status) in [
        (asking(), 201),
        (asking().json(&json!({"filename": "chosen/name"})), 400),
        (asking(), 429),
    ] {
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let (_, _, log) = dev.stop("INT");
    let lines = request_lines(&log);
    let codes: Vec<&Value> = lines.iter().map(|line| &line["code"]).collect();
    assert_eq!(
        codes,
        [
            &Value::Null,
            &json!("invalid-request"),
            &json!("rate-limited")
        ]
    );
    assert!(lines.iter().all(|line| line["caller"] == "web"), "{log}");
    assert!(!log.contains("chosen"), "{log}");
}
