//! The keys of an issuer, and days on which it does not answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use presignd::http::auth::{Jwks, Keys};
use serde_json::{Value, json};

use super::jwt::{IssuerKey, claims, jwt};
use super::{POLICIES, asking, by, refused, spawn, status, unauthorized};
use crate::helpers::{App, eventually, is, later, problem, with_policies};

/// An issuer that publishes what the test puts here, and counts how often it is asked.
#[derive(Clone, Default)]
struct Issuer {
    /// Nothing: it is down.
    published: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
}

impl Issuer {
    /// One that publishes a key, which is called `d`, and a service that trusts it.
    async fn with_key() -> (Self, IssuerKey, App) {
        let (issuer, key) = (Self::default(), IssuerKey::ed());
        issuer.publish(&[published("d", &key)]);
        let app = issuer.app().await;
        (issuer, key, app)
    }

    async fn app(&self) -> App {
        self.app_that(false).await
    }

    async fn app_that(&self, freezes: bool) -> App {
        let issuer = self.clone();
        let answer = move || {
            issuer.asked.fetch_add(1, Ordering::SeqCst);
            let published = issuer.published.lock().unwrap().clone();
            let hangs = issuer.hangs.load(Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                match published {
                    Some(set) => Json(set).into_response(),
                    None => StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        };
        let addr = crate::helpers::spawn(axum::Router::new().route("/jwks", get(answer))).await;
        app_trusting(&format!("http://{addr}/jwks"), freezes).await
    }

    fn publish(&self, keys: &[Value]) {
        *self.published.lock().unwrap() = Some(json!({"keys": keys}));
    }

    fn goes_down(&self) {
        *self.published.lock().unwrap() = None;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A service that accepts tokens of the keys at this URL.
async fn app_trusting(url: &str, freezes: bool) -> App {
    let jwks = Jwks::new(url.parse().unwrap(), freezes).unwrap();
    spawn(with_policies(POLICIES), jwt(Keys::Set(jwks), None)).await
}

pub(crate) fn published(id: &str, key: &IssuerKey) -> Value {
    let mut jwk = Jwk::from_encoding_key(&key.private, key.algorithm).unwrap();
    jwk.common.key_id = Some(id.into());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    serde_json::to_value(jwk).unwrap()
}

/// The address of an issuer that publishes these keys under `/jwks`.
pub(crate) async fn publishing(keys: &[Value]) -> SocketAddr {
    let set = json!({"keys": keys});
    let routes = axum::Router::new().route("/jwks", get(async || Json(set)));
    crate::helpers::spawn(routes).await
}

#[tokio::test]
async fn published_keys_of_all_kinds_verify_tokens_by_their_ids() {
    let issuer = Issuer::default();
    let keys = [
        ("r", IssuerKey::rsa(Algorithm::RS256)),
        ("p", IssuerKey::rsa(Algorithm::PS256)),
        ("e", IssuerKey::ec(Algorithm::ES256)),
        ("f", IssuerKey::ec(Algorithm::ES384)),
        ("d", IssuerKey::ed()),
    ];
    let mut set: Vec<Value> = keys.iter().map(|(id, key)| published(id, key)).collect();
    // What others publish beside: no reason to refuse the rest.
    set.push(json!({"kty": "EC", "crv": "secp256k1", "kid": "k", "x": "AA", "y": "AA"}));
    set.push(json!({"kty": "future", "kid": "x"}));
    set.push(json!({"kty": "RSA", "kid": 7}));
    set.push(json!("no key at all"));
    issuer.publish(&set);
    let app = issuer.app().await;
    for (id, key) in &keys {
        let token = key.sign(Some(id), &claims("alice"));
        assert_eq!(by(&app, &token).await, 201, "{id}");
        let of_another = key.sign(Some(if *id == "r" { "p" } else { "r" }), &claims("alice"));
        assert_eq!(by(&app, &of_another).await, 401);
        let of_none = key.sign(None, &claims("alice"));
        assert_eq!(by(&app, &of_none).await, 401);
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_published_key_is_held_to_its_algorithm_and_use() {
    let issuer = Issuer::default();
    let key = IssuerKey::rsa(Algorithm::RS256);
    let mut for_encryption = published("enc", &key);
    for_encryption["use"] = json!("enc");
    let mut with_another = published("hs", &key);
    with_another["alg"] = json!("HS256");
    let secret = b"published, so that it is no secret at all";
    let shared =
        Jwk::from_encoding_key(&EncodingKey::from_secret(secret), Algorithm::HS256).unwrap();
    let mut shared = serde_json::to_value(shared).unwrap();
    shared["kid"] = json!("oct");
    let mut to_sign = published("ops", &key);
    to_sign["key_ops"] = json!(["sign", "encrypt"]);
    issuer.publish(&[
        published("r", &key),
        for_encryption,
        with_another,
        shared,
        to_sign,
    ]);
    let app = issuer.app().await;
    let token = key.sign(Some("r"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
    let mut ps = IssuerKey::rsa(Algorithm::PS256);
    ps.private = key.private.clone();
    let mut tokens = vec![ps.sign(Some("r"), &claims("alice"))];
    for id in ["enc", "hs", "oct", "ops"] {
        tokens.push(key.sign(Some(id), &claims("alice")));
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.into());
        let secret = EncodingKey::from_secret(secret);
        tokens.push(jsonwebtoken::encode(&header, &claims("alice"), &secret).unwrap());
    }
    for token in tokens {
        refused(&app, &token).await;
    }
}

#[tokio::test]
async fn an_endless_set_of_keys_is_not_read() {
    let issuer = Issuer::default();
    let key = IssuerKey::ed();
    let mut set = vec![published("d", &key)];
    set.push(json!("x".repeat(512 * 1024)));
    issuer.publish(&set);
    let app = issuer.app().await;
    let token = key.sign(Some("d"), &claims("alice"));
    let answer = asking(&app).bearer_auth(token).send().await.unwrap();
    is(&problem(answer).await, 503, "issuer-unavailable");
}

/// The operator trusts the URL, not one that it redirects to.
#[tokio::test]
async fn keys_are_not_fetched_from_where_the_issuer_redirects() {
    let key = IssuerKey::ed();
    let set = json!({"keys": [published("d", &key)]});
    let routes = axum::Router::new()
        .route("/elsewhere", get(async || Json(set)))
        .route("/jwks", get(async || Redirect::temporary("/elsewhere")));
    let addr = crate::helpers::spawn(routes).await;
    let token = key.sign(Some("d"), &claims("alice"));
    for (path, expected) in [("elsewhere", 201), ("jwks", 503)] {
        let app = app_trusting(&format!("http://{addr}/{path}"), false).await;
        assert_eq!(by(&app, &token).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_single_key_needs_no_id() {
    let (_, key, app) = Issuer::with_key().await;
    let token = key.sign(None, &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_refused_without_asking_the_issuer_each_time() {
    let (issuer, key, app) = Issuer::with_key().await;
    let flood = (0..200).map(|n| {
        let token = key.sign(Some(&format!("unknown-{n}")), &claims("alice"));
        tokio::spawn(status(asking(&app).bearer_auth(token)))
    });
    let flood: Vec<_> = flood.collect();
    for answer in flood {
        assert_eq!(answer.await.unwrap(), 401);
    }
    let token = key.sign(Some("d"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_never_answered_is_no_fault_of_the_caller() {
    let issuer = Issuer::default();
    let app = issuer.app().await;
    for garbage in [None, Some(json!("x")), Some(json!({"keys": []}))] {
        *issuer.published.lock().unwrap() = garbage;
        let token = IssuerKey::ed().sign(Some("d"), &claims("alice"));
        let response = asking(&app).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(problem(response).await["code"], "issuer-unavailable");
    }
    // A request without a token is refused without asking the issuer.
    unauthorized(asking(&app).send().await.unwrap()).await;
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_needs_it_and_an_old_one_stops_working() {
    let issuer = Issuer::default();
    let [old, new] = [IssuerKey::ed(), IssuerKey::ed()];
    issuer.publish(&[published("old", &old)]);
    let app = issuer.app().await;
    let of_old = old.sign(Some("old"), &claims("alice"));
    let of_new = new.sign(Some("new"), &claims("alice"));
    assert_eq!(by(&app, &of_old).await, 201);
    issuer.publish(&[published("old", &old), published("new", &new)]);
    assert_eq!(by(&app, &of_new).await, 401);
    later(Duration::from_secs(11)).await;
    assert_eq!(by(&app, &of_new).await, 201);
    assert_eq!(issuer.asked(), 2);
    issuer.publish(&[published("new", &new)]);
    later(Duration::from_mins(6)).await;
    // This one is accepted once more, and has the keys fetched in the background.
    assert_eq!(by(&app, &of_old).await, 201);
    eventually("the issuer is asked", async || issuer.asked() >= 3).await;
    let mut status = 201;
    let is_refused = async || {
        status = by(&app, &of_old).await;
        status != 201
    };
    eventually("the old key is refused", is_refused).await;
    assert_eq!(status, 401);
    assert_eq!(by(&app, &of_new).await, 201);
}

/// After a pause, the cached keys do not make a token valid whose key was withdrawn.
#[tokio::test]
async fn a_withdrawn_key_is_refused_after_ten_minutes_and_by_a_function_after_five() {
    for (freezes, minutes) in [(false, 11), (true, 6)] {
        let issuer = Issuer::default();
        let [old, new] = [IssuerKey::ed(), IssuerKey::ed()];
        issuer.publish(&[published("old", &old)]);
        let app = issuer.app_that(freezes).await;
        let token = old.sign(Some("old"), &claims("alice"));
        assert_eq!(by(&app, &token).await, 201);
        issuer.publish(&[published("new", &new)]);
        later(Duration::from_mins(minutes)).await;
        assert_eq!(by(&app, &token).await, 401);
    }
}

/// A token that was verified by the key before must not outlive it.
#[tokio::test]
async fn a_key_that_is_replaced_under_its_id_lets_in_nobody_any_more() {
    let (issuer, old, app) = Issuer::with_key().await;
    let new = IssuerKey::ed();
    let token = old.sign(Some("d"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
    issuer.publish(&[published("d", &new)]);
    later(Duration::from_hours(1)).await;
    assert_eq!(by(&app, &token).await, 401);
    let token = new.sign(Some("d"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
}

#[tokio::test]
async fn cached_keys_are_used_for_a_day_while_the_issuer_is_down_and_no_longer() {
    let (issuer, key, app) = Issuer::with_key().await;
    let token = key.sign(Some("d"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
    issuer.goes_down();
    let unknown = key.sign(Some("new"), &claims("alice"));
    assert_eq!(by(&app, &unknown).await, 401);
    later(Duration::from_hours(23)).await;
    assert_eq!(by(&app, &token).await, 201);
    later(Duration::from_hours(2)).await;
    let response = asking(&app).bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(problem(response).await["code"], "issuer-unavailable");
}

/// Each request would wait for the five seconds that a fetch may take.
#[tokio::test]
async fn an_issuer_that_hangs_holds_up_one_request_and_not_all_of_them() {
    let (issuer, key, app) = Issuer::with_key().await;
    let new = IssuerKey::ed();
    let token = key.sign(Some("d"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
    issuer.hangs.store(true, Ordering::SeqCst);
    later(Duration::from_mins(11)).await;
    assert_eq!(by(&app, &token).await, 201);
    for _ in 0..3 {
        later(Duration::from_secs(10)).await;
        let begin = std::time::Instant::now();
        assert_eq!(by(&app, &token).await, 201);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    assert!(issuer.asked() > 3, "it is asked in the background");
    // A token of a key that nobody knows yet waits for the answer.
    issuer.publish(&[published("d", &key), published("new", &new)]);
    issuer.hangs.store(false, Ordering::SeqCst);
    later(Duration::from_secs(10)).await;
    let token = new.sign(Some("new"), &claims("alice"));
    assert_eq!(by(&app, &token).await, 201);
}
