//! Tokens: each way to tamper with one, and each kind of key.

mod issuer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use presignd::http::auth::{Auth, Jwt, JwtKey, Keys};
use serde_json::{Value, json};

pub(crate) use self::issuer::IssuerKey;
use self::issuer::pem;
use super::names::{hostile, kept_apart};
use super::{POLICIES, asking, asking_for_mine, by, refused, spawn, unauthorized};
use crate::helpers::{App, with_policies};

pub(crate) const ISSUER: &str = "https://issuer.example/";
pub(crate) const AUDIENCE: &str = "presignd";
const SECRET_TEXT: &str = "a secret of more than 32 bytes, as it has to be";
pub(crate) const SECRET: &[u8] = SECRET_TEXT.as_bytes();

/// The variables of a process that accepts the tokens of these tests.
pub(crate) const JWT: [(&str, &str); 4] = [
    ("AUTH_MODE", "jwt"),
    ("JWT_ISSUER", ISSUER),
    ("JWT_AUDIENCE", AUDIENCE),
    ("JWT_SECRET", SECRET_TEXT),
];

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What a good token says.
pub(crate) fn claims(sub: &str) -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "exp": now() + 300, "iat": now()})
}

pub(super) fn jwt(keys: Keys, policies_claim: Option<&str>) -> Auth {
    let jwt = Jwt {
        keys,
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        policies_claim: policies_claim.map(str::to_owned),
    };
    Auth {
        jwt: Some(jwt),
        ..Auth::default()
    }
}

async fn app(key: JwtKey) -> App {
    spawn(
        with_policies(POLICIES),
        jwt(Keys::from(vec![Arc::new(key)]), None),
    )
    .await
}

/// The key of an issuer that shares `SECRET` with the service.
pub(super) fn shared_key() -> Keys {
    Keys::from(vec![Arc::new(JwtKey::from_secret(SECRET).unwrap())])
}

/// Callers have tokens that `signed` makes.
pub(super) fn by_secret() -> Auth {
    jwt(shared_key(), None)
}

pub(super) async fn with_secret() -> App {
    spawn(with_policies(POLICIES), by_secret()).await
}

pub(crate) fn signed(claims: &Value) -> String {
    let header = Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// A good token's claims, with one changed or taken away.
fn claims_but(name: &str, value: Option<Value>) -> Value {
    changed(claims("alice"), name, value)
}

/// These claims, with one changed or taken away.
pub(super) fn changed(mut claims: Value, name: &str, value: Option<Value>) -> Value {
    let members = claims.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.into(), value),
        None => members.remove(name),
    };
    claims
}

#[tokio::test]
async fn good_tokens_are_let_in() {
    let app = with_secret().await;
    for claims in [
        claims("alice"),
        claims_but("aud", Some(json!(["other", AUDIENCE]))),
        claims_but("nbf", Some(json!(now()))),
        claims_but("iat", None),
        // Clocks differ a little.
        claims_but("exp", Some(json!(now() - 10))),
        claims_but("nbf", Some(json!(now() + 10))),
    ] {
        assert_eq!(by(&app, &signed(&claims)).await, 201, "{claims}");
    }
}

/// Tokens that were properly signed, and say the wrong thing.
fn wrong() -> Vec<(String, String)> {
    let now = now();
    let text = |text: &str| Some(json!(text));
    let cases = [
        ("exp", Some(json!(now - 60))),
        ("exp", None),
        ("exp", text("never")),
        ("exp", Some(json!(-1))),
        ("nbf", Some(json!(now + 300))),
        ("nbf", text("soon")),
        ("iss", text("https://evil.example/")),
        ("iss", text(ISSUER.trim_end_matches('/'))),
        ("iss", Some(json!([ISSUER]))),
        ("iss", None),
        ("aud", text("other")),
        ("aud", Some(json!(["other"]))),
        ("aud", None),
        ("sub", None),
        ("sub", text("")),
        ("sub", Some(json!(7))),
        ("sub", Some(Value::Null)),
        // Too long to be read at all.
        ("x", text(&"x".repeat(20_000))),
    ];
    cases
        .into_iter()
        .map(|(name, value)| {
            let token = signed(&claims_but(name, value.clone()));
            (format!("{name} is {value:.40?}"), token)
        })
        .collect()
}

/// A good token after somebody else had it in hand.
fn tampered(good: &str) -> Vec<(String, String)> {
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("{good}");
    };
    let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let with_alg = |alg: &str| encoded(&json!({"alg": alg, "typ": "JWT"}).to_string());
    let of_bob = encoded(&claims("bob").to_string());
    let backwards: String = signature.chars().rev().collect();
    let with_key = |header: &Header, secret: &[u8]| {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(header, &claims("alice"), &key).unwrap()
    };
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["x".into()]);
    let no_list = encoded(r#"{"alg":"HS256","crit":null}"#);
    let no_list = format!("{no_list}.{payload}");
    let key = EncodingKey::from_secret(SECRET);
    let by_key = jsonwebtoken::crypto::sign(no_list.as_bytes(), &key, Algorithm::HS256).unwrap();
    let plain = Header::new(Algorithm::HS256);
    let foreign = b"another secret of more than 32 bytes, of somebody else";
    let cases = [
        ("alg none", format!("{}.{payload}.", with_alg("none"))),
        (
            "alg NoNe",
            format!("{}.{payload}.{signature}", with_alg("NoNe")),
        ),
        (
            "unknown alg",
            format!("{}.{payload}.{signature}", with_alg("HS1")),
        ),
        (
            "another alg",
            format!("{}.{payload}.{signature}", with_alg("RS256")),
        ),
        ("no alg", format!("{}.{payload}.{signature}", encoded("{}"))),
        ("truncated", good[..good.len() - 4].to_owned()),
        ("no signature", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.x")),
        ("tampered payload", format!("{header}.{of_bob}.{signature}")),
        (
            "tampered signature",
            format!("{header}.{payload}.{backwards}"),
        ),
        ("foreign signature", with_key(&plain, foreign)),
        ("an extension that counts", with_key(&critical, SECRET)),
        ("no list of extensions", format!("{no_list}.{by_key}")),
        ("no token", "x".into()),
        ("dots", "..".into()),
        ("percent-encoded", good.replace('.', "%2E")),
    ];
    cases.map(|(case, token)| (case.to_owned(), token)).into()
}

#[tokio::test]
async fn wrong_and_tampered_tokens_are_refused_and_nobody_learns_why() {
    let app = with_secret().await;
    let good = signed(&claims("alice"));
    let mut answers = BTreeSet::new();
    for (case, token) in wrong().into_iter().chain(tampered(&good)) {
        println!("{case}");
        answers.insert(refused(&app, &token).await.to_string());
    }
    // Without any, and as if it were a key of the other mode.
    for request in [asking(&app), asking(&app).header("x-api-key", &good)] {
        let response = request.send().await.unwrap();
        answers.insert(unauthorized(response).await.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(by(&app, &good).await, 201);
}

#[tokio::test]
async fn each_kind_of_public_key_verifies_its_own_tokens_alone() {
    let keys = [
        IssuerKey::rsa(Algorithm::RS256),
        IssuerKey::rsa(Algorithm::PS512),
        IssuerKey::ec(Algorithm::ES256),
        IssuerKey::ec(Algorithm::ES384),
        IssuerKey::ed(),
    ];
    for key in &keys {
        let app = app(JwtKey::from_pem(key.pem().as_bytes()).unwrap()).await;
        for other in &keys {
            let token = other.sign(None, &claims("alice"));
            let expected = if std::ptr::eq(key, other) { 201 } else { 401 };
            let pair = (key.algorithm, other.algorithm);
            assert_eq!(by(&app, &token).await, expected, "{pair:?}");
        }
        // The public key is known to all: it must not pass for a shared secret.
        let pem = key.pem();
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), &key.public_der] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let secret = EncodingKey::from_secret(secret);
                let header = Header::new(algorithm);
                let token = jsonwebtoken::encode(&header, &claims("alice"), &secret).unwrap();
                refused(&app, &token).await;
            }
        }
    }
}

#[test]
fn a_key_that_could_never_verify_is_refused_at_start() {
    let why = |pem: &str| JwtKey::from_pem(pem.as_bytes()).unwrap_err();
    // The encodings of these keys are longer than those of the shortest modulus.
    for short in [
        include_str!("short-rsa.pem"),
        include_str!("short-rsa-certificate.pem"),
    ] {
        assert!(why(short).contains("too short"));
    }
    let private = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = private.as_der().unwrap();
    let private = pem("PRIVATE", private.as_ref());
    assert!(why(&private).contains("is a private key"));
    let pair =
        EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let public = pem("PUBLIC", pair.public_key().as_der().unwrap().as_ref());
    assert!(why(&public).contains("nothing but public keys"));
}

#[tokio::test]
async fn no_sub_leads_outside_of_its_own_place() {
    let app = with_secret().await;
    let ask = async |sub: &str| {
        let request = asking_for_mine(&app).bearer_auth(signed(&claims(sub)));
        request.send().await.unwrap()
    };
    kept_apart(&app, hostile(), ["files/", "/a.txt"], ask).await;
}

#[tokio::test]
async fn a_claim_lists_the_policies_of_a_caller() {
    let auth = jwt(shared_key(), Some("upload_policies"));
    let app = spawn(with_policies(POLICIES), auth).await;
    for (claim, allowed) in [
        (Some(json!(["default"])), true),
        (Some(json!("mine default")), true),
        (Some(json!(["mine"])), false),
        (Some(json!("mine")), false),
        (Some(json!([])), false),
        (Some(json!(7)), false),
        (Some(json!([["default"]])), false),
        (None, false),
    ] {
        let token = signed(&claims_but("upload_policies", claim.clone()));
        let expected = if allowed { 201 } else { 403 };
        assert_eq!(by(&app, &token).await, expected, "{claim:?}");
    }
}
