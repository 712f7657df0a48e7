//! A receipt states what was verified, and anyone can check it with the published keys.

mod languages;

use aws_config::SdkConfig;
use aws_lc_rs::signature::Ed25519KeyPair;
use axum::http::Method;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode, decode_header};
use presignd::dev::BUCKET;
use presignd::http;
use presignd::upload::{self, Receipts};
use serde_json::{Value, json};

use crate::auth::api_keys;
use crate::helpers::{
    App, Grant, answer, built_in, get, hurry, post, service, spawn, spawn_app, with_policies,
};
use crate::stand_in::{KEY, StandIn, empty};
use crate::uppy::create_at;

const URL: &str = "/upload/presigned-url";
const VERIFY: &str = "/upload/verify";
const KEYS: &str = "/.well-known/jwks.json";

pub(crate) fn pem() -> String {
    let key = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    let key = BASE64_STANDARD.encode(key);
    format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n")
}

/// A service that signs with the first of these keys.
async fn app_with(pem: &str) -> App {
    let mut app = spawn_app().await;
    app.base = service_with(pem, &app.config).await;
    app
}

/// The address of such a service on the store that `config` leads to.
pub(crate) async fn service_with(pem: &str, config: &SdkConfig) -> String {
    service_for(pem, config, built_in(), &http::Settings::default()).await
}

pub(crate) async fn service_for(
    pem: &str,
    config: &SdkConfig,
    settings: upload::Settings,
    http_settings: &http::Settings,
) -> String {
    let settings = upload::Settings {
        receipts: Some(Receipts::parse(pem).unwrap()),
        ..settings
    };
    let uploads = service(config, BUCKET, true, settings).await;
    let router = http::router(uploads, http_settings);
    format!("http://{}", spawn(router).await)
}

/// A verified upload, as the answer has it.
async fn verified(app: &App) -> Value {
    let file = json!({
        "filename": "메모 +1.txt",
        "contentType": "text/plain",
        "metadata": {"album": "앨범 7"},
    });
    let grant = app.sent(&file, "hello").await;
    app.accepted(VERIFY, &json!({"key": grant.key})).await
}

async fn published(app: &App) -> JwkSet {
    app.get(KEYS).await.json().await.unwrap()
}

/// What the valid receipt in an answer states.
fn stated(answer: &Value, keys: &JwkSet) -> Value {
    checked(answer["receipt"].as_str().unwrap(), keys)
        .unwrap()
        .claims
}

/// Checks a receipt as a back end does, with nothing but the published keys.
fn checked(receipt: &str, keys: &JwkSet) -> jsonwebtoken::errors::Result<TokenData<Value>> {
    let name = decode_header(receipt)?.kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&name).unwrap())?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    decode(receipt, &key, &validation)
}

#[tokio::test]
async fn a_receipt_states_what_was_verified() {
    let app = app_with(&pem()).await;
    let upload = verified(&app).await;
    let receipt = checked(upload["receipt"].as_str().unwrap(), &published(&app).await).unwrap();
    assert_eq!(receipt.header.typ.as_deref(), Some("upload-receipt+jwt"));
    let mut claims = receipt.claims;
    assert!(
        claims["iat"]
            .as_u64()
            .is_some_and(|iat| iat > 1_700_000_000)
    );
    claims.as_object_mut().unwrap().remove("iat");
    let expected = json!({
        "bucket": BUCKET,
        "key": upload["key"],
        "size": 5,
        "contentType": "text/plain",
        "etag": upload["etag"],
        "checksumCrc64nvme": "M3eFcAZSQlc=",
        "policy": "default",
        "metadata": {"album": "앨범 7"},
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn a_receipt_names_the_version_and_the_checksum_that_the_store_has() {
    const SHA256: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let store = StandIn::with_object(&[
        ("x-amz-version-id", "v7"),
        ("x-amz-checksum-sha256", SHA256),
    ])
    .await;
    let base = service_with(&pem(), &store.config()).await;
    let keys: JwkSet = get(&base, KEYS).await.json().await.unwrap();
    let body = json!({"key": KEY});
    let upload: Value = post(&base, VERIFY, &body).await.json().await.unwrap();
    let claims = stated(&upload, &keys);
    assert_eq!(claims["versionId"], "v7");
    assert_eq!(claims["checksumSha256"], SHA256);
}

#[tokio::test]
async fn a_receipt_names_a_caller_only_if_the_key_says_whose_upload_it_is() {
    let settings = with_policies(
        r#"
        [policies.default]
        key = "shared/{uuid}"
        [policies.own]
        key = "own/{caller}/{uuid}"
        "#,
    );
    let entries = [("alice", ""), ("mallory", "")];
    let ([key_of_alice, key_of_mallory], auth) = api_keys(entries, &settings.policies);
    let http_settings = http::Settings {
        auth,
        ..http::Settings::default()
    };
    let mut app = spawn_app().await;
    app.base = service_for(&pem(), &app.config, settings, &http_settings).await;
    let keys = published(&app).await;
    let ask = async |path: &str, api_key: &str, body: &Value| -> Value {
        let request = app.client.post(format!("{}{path}", app.base)).json(body);
        let response = request.header("x-api-key", api_key).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        response.json().await.unwrap()
    };
    for (policy, verifies, caller) in [
        ("default", &key_of_alice, None),
        ("default", &key_of_mallory, None),
        ("own", &key_of_alice, Some("alice")),
    ] {
        let file = json!({"filename": "a.txt", "contentType": "text/plain", "policy": policy});
        let grant = ask(URL, &key_of_alice, &file).await;
        let grant: Grant = serde_json::from_value(grant).unwrap();
        assert_eq!(app.upload(&grant, "hello").await.status(), 200);
        let body = json!({"key": grant.key, "policy": policy});
        let upload = ask(VERIFY, verifies, &body).await;
        let claims = stated(&upload, &keys);
        assert_eq!(claims["caller"].as_str(), caller, "{policy}");
    }
}

/// The answer to the completion of an upload in one part.
async fn completed(base: &str) -> Value {
    let file = json!({"filename": "a.mp4", "type": "video/mp4", "metadata": {"album": "7"}});
    let upload = create_at(base, file).await;
    answer(200, upload.send(b"hello".to_vec()).await).await
}

#[tokio::test]
async fn a_completed_upload_in_parts_has_a_receipt_even_if_the_store_s_answer_is_lost() {
    for loses_answer in [false, true] {
        let store = StandIn::changing(move |method, uri, response| {
            let is_completion = method == Method::POST && uri.contains("uploadId");
            if is_completion && loses_answer && response.status().is_success() {
                *response = empty(500);
            }
        })
        .await;
        let base = service_with(&pem(), &store.config()).await;
        let answer = completed(&base).await;
        let keys: JwkSet = get(&base, KEYS).await.json().await.unwrap();
        let claims = stated(&answer, &keys);
        let body = json!({"key": answer["key"]});
        let upload: Value = post(&base, VERIFY, &body).await.json().await.unwrap();
        for claim in [
            "key",
            "size",
            "contentType",
            "etag",
            "checksumCrc64nvme",
            "metadata",
            "policy",
        ] {
            assert_eq!(claims[claim], upload[claim], "{claim}");
        }
        assert_eq!(
            (&claims["bucket"], &claims["size"]),
            (&json!(BUCKET), &json!(5))
        );
    }
}

#[tokio::test]
async fn an_upload_in_parts_is_complete_without_a_receipt_if_it_cannot_be_verified() {
    hurry();
    let store = StandIn::except(|method, _| (method == Method::HEAD).then(|| empty(500))).await;
    let base = service_with(&pem(), &store.config()).await;
    let answer = completed(&base).await;
    assert_eq!(answer.get("receipt"), None, "{answer}");
}

#[tokio::test]
async fn a_tampered_receipt_is_detected() {
    let app = app_with(&pem()).await;
    let upload = verified(&app).await;
    let receipt = upload["receipt"].as_str().unwrap();
    let [header, claims, signature] = receipt.split('.').collect::<Vec<_>>()[..] else {
        panic!("a receipt has three segments");
    };
    let middle = claims.len() / 2;
    let other = if claims.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    let tampered = format!("{}{other}{}", &claims[..middle], &claims[middle + 1..]);
    let tampered = format!("{header}.{tampered}.{signature}");
    assert!(checked(&tampered, &published(&app).await).is_err());
}

#[tokio::test]
async fn receipts_of_a_replaced_key_are_checked_while_it_is_published() {
    let (old, new) = (pem(), pem());
    let before = app_with(&old).await;
    let upload = verified(&before).await;
    let after = app_with(&format!("{new}{old}")).await;
    let keys = published(&after).await;
    assert_eq!(keys.keys.len(), 2);
    stated(&upload, &keys);
    let upload = verified(&after).await;
    let receipt = upload["receipt"].as_str().unwrap();
    let name = decode_header(receipt).unwrap().kid;
    assert_eq!(name, keys.keys[0].common.key_id, "the first key signs");
}

#[tokio::test]
async fn the_published_keys_hold_nothing_private_and_may_be_read_by_any_page() {
    let app = app_with(&pem()).await;
    let response = app.get(KEYS).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let keys: Value = response.json().await.unwrap();
    let mut names: Vec<&String> = keys["keys"][0].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
}

#[tokio::test]
async fn without_a_key_there_are_no_receipts() {
    let app = spawn_app().await;
    assert!(verified(&app).await.get("receipt").is_none());
    assert!(completed(&app.base).await.get("receipt").is_none());
    let keys: Value = app.get(KEYS).await.json().await.unwrap();
    assert_eq!(keys, json!({"keys": []}));
}
