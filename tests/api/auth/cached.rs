//! Tokens that come again, and floods of tokens that do not.

use std::time::Duration;

use presignd::http;
use serde_json::json;

use super::jwt::{by_secret, claims, signed, with_secret};
use super::{POLICIES, by};
use crate::helpers::{App, spawn_app_with_both, with_policies};
use crate::rate_limit::limited;

/// An app that accepts two requests at once, and one more in a long while.
async fn app() -> App {
    let http_settings = http::Settings {
        auth: by_secret(),
        ..limited(2)
    };
    spawn_app_with_both(with_policies(POLICIES), &http_settings).await
}

#[tokio::test]
async fn a_flood_of_invalid_tokens_is_refused_before_it_is_verified_and_known_callers_are_not() {
    let app = app().await;
    let known = signed(&claims("alice"));
    assert_eq!(by(&app, &known).await, 201);
    let mut statuses = Vec::new();
    for n in 0..5 {
        let mut claims = claims("mallory");
        claims["exp"] = json!(n);
        statuses.push(by(&app, &signed(&claims)).await);
    }
    assert_eq!(statuses, [401, 401, 429, 429, 429]);
    // A valid one that was never seen waits as well, for nobody can tell it from the flood.
    assert_eq!(by(&app, &signed(&claims("bob"))).await, 429);
    assert_eq!(by(&app, &known).await, 201);
    assert_eq!(by(&app, &known).await, 429, "her own rate");
}

#[tokio::test]
async fn a_flood_of_valid_tokens_counts_for_its_caller() {
    let app = app().await;
    let mut statuses = Vec::new();
    for n in 0..4 {
        let mut claims = claims("alice");
        claims["jti"] = json!(n);
        statuses.push(by(&app, &signed(&claims)).await);
    }
    assert_eq!(statuses, [201, 201, 429, 429]);
    assert_eq!(by(&app, &signed(&claims("bob"))).await, 201);
}

#[tokio::test]
async fn a_cached_token_lets_in_its_own_caller_alone() {
    let app = with_secret().await;
    let token = signed(&claims("alice"));
    for _ in 0..2 {
        assert_eq!(by(&app, &token).await, 201);
        let (body, _) = token.rsplit_once('.').unwrap();
        for tampered in [&token[..token.len() - 1], &format!("{token}A"), body] {
            assert_eq!(by(&app, tampered).await, 401);
        }
    }
}

#[tokio::test]
async fn a_cached_token_is_refused_once_it_has_expired() {
    let app = with_secret().await;
    let mut claims = claims("alice");
    // Clocks may differ by 30 seconds, of which 4 are left.
    claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 26);
    let token = signed(&claims);
    for _ in 0..2 {
        assert_eq!(by(&app, &token).await, 201);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(by(&app, &token).await, 401);
}
