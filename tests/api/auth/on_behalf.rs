//! Both ways to authenticate at once, and back ends that call on behalf of their users.

use presignd::http;
use presignd::http::auth::{ApiKeys, Auth, new_api_key};
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::jwt::{by_secret, claims, signed};
use super::names::{hostile, kept_apart};
use super::{
    POLICIES, api_keys, asking, asking_for_mine, back_end, by, by_keys, spawn, status,
    with_api_keys,
};
use crate::helpers::{App, Grant, answer, is, problem, spawn_app_with_both, with_policies};
use crate::rate_limit::limited;
use crate::uppy::sign::element;

/// An app that accepts tokens and the key of `back-end`, and that key.
pub(super) async fn with_both(policies: &str) -> (App, String) {
    let settings = with_policies(policies);
    let ([key], auth) = api_keys([("back-end", "")], &settings.policies);
    let auth = Auth {
        jwt: by_secret().jwt,
        ..auth
    };
    (spawn(settings, auth).await, key)
}

#[tokio::test]
async fn with_both_ways_either_works_and_the_refusal_names_both() {
    let (app, key) = with_both(POLICIES).await;
    let token = signed(&claims("alice"));
    for request in [
        asking(&app).bearer_auth(&token),
        asking(&app).bearer_auth(&key),
        asking(&app).header("authorization", format!("BEARER {key}")),
        asking(&app).header("x-api-key", &key),
    ] {
        assert_eq!(status(request).await, 201);
    }
    for request in [
        asking(&app),
        asking(&app).bearer_auth(format!("{token}x")),
        asking(&app).bearer_auth(format!("{key}x")),
        // A token is not a key, and two credentials may differ.
        asking(&app).header("x-api-key", &token),
        asking(&app).header("x-api-key", &key).bearer_auth(&token),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=\"presignd\", ApiKey realm=\"presignd\""
        );
    }
    let document = app.document().await;
    assert_eq!(
        document["paths"]["/upload/presigned-url"]["post"]["security"],
        json!([{"bearer": []}, {"apiKey": []}])
    );
}

#[tokio::test]
async fn a_back_end_with_the_flag_uploads_and_verifies_as_its_user() {
    let flag = "on_behalf = true\npolicies = ['mine']";
    let (app, keys) = with_api_keys([("web", flag), ("user-17", "")]).await;
    let request = asking_for_mine(&app).bearer_auth(&keys[0]);
    let response = request.header("x-on-behalf-of", "user-17").send().await;
    let grant: Grant = response.unwrap().json().await.unwrap();
    assert_eq!(grant.key, "files/user-17/a.txt");
    assert_eq!(app.upload(&grant, "x").await.status(), 200);
    let verify = |key: &str| {
        let body = json!({"key": grant.key, "policy": "mine"});
        let request = app.client.post(format!("{}/upload/verify", app.base));
        request.json(&body).bearer_auth(key)
    };
    let as_user = verify(&keys[0]).header("x-on-behalf-of", "user-17");
    assert_eq!(status(as_user).await, 200);
    assert_eq!(status(verify(&keys[1])).await, 200);
    // For itself it has a place of its own, and it keeps to its own policies.
    assert_eq!(status(verify(&keys[0])).await, 404);
    let default = asking(&app).bearer_auth(&keys[0]);
    let default = default.header("x-on-behalf-of", "user-17");
    assert_eq!(status(default).await, 403);
}

#[tokio::test]
async fn only_a_key_with_the_flag_may_call_on_behalf_of_others() {
    let (app, key) = with_both(POLICIES).await;
    for credentials in [&key, &signed(&claims("alice"))] {
        let request = asking(&app).bearer_auth(credentials);
        let request = request.header("x-on-behalf-of", "user-17");
        let problem = problem(request.send().await.unwrap()).await;
        is(&problem, 403, "on-behalf-not-allowed");
    }
    // Who is not known learns nothing else.
    let request = asking(&app).header("x-on-behalf-of", "user-17");
    assert_eq!(status(request).await, 401);
}

#[tokio::test]
async fn no_name_that_a_back_end_gives_leads_outside_of_its_own_place() {
    let (app, keys) = with_api_keys([("acme", "on_behalf = true")]).await;
    let with = |names: &[&[u8]]| {
        let mut request = asking_for_mine(&app).bearer_auth(&keys[0]);
        for name in names {
            request = request.header("x-on-behalf-of", *name);
        }
        request
    };
    // What a header cannot carry, or not as it is.
    let mut names = hostile();
    names.retain(|name| HeaderValue::from_bytes(name.as_bytes()).is_ok() && name.trim() == name);
    let ask = async |name: &str| with(&[name.as_bytes()]).send().await.unwrap();
    kept_apart(&app, names, ["files/", "/a.txt"], ask).await;
    for names in [
        &[b"".as_slice()][..],
        &[b" "],
        &[b"a", b"b"],
        &[b"a", b"a"],
        &[b"\xff"],
    ] {
        let response = with(names).send().await.unwrap();
        assert_eq!(response.status(), 400, "{names:?}");
    }
}

/// Otherwise a back end could call as often as it has users.
#[tokio::test]
async fn calls_that_were_sealed_on_behalf_of_users_count_for_the_key() {
    let settings = with_policies(POLICIES);
    let (key, auth) = back_end(&settings.policies);
    let http_settings = http::Settings { auth, ..limited(8) };
    let app = spawn_app_with_both(settings, &http_settings).await;
    let signed = async |user: &str, body: &Value| -> Value {
        let request = app.client.post(format!("{}/s3/sign", app.base));
        let request = request.bearer_auth(&key).header("x-on-behalf-of", user);
        answer(200, request.json(body).send().await.unwrap()).await
    };
    let begin = json!({"method": "POST", "key": "a.txt", "contentType": "a/b"});
    let post = async |signed: &Value| {
        let request = app.client.post(signed["url"].as_str().unwrap());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (alice, bob) = (signed("alice", &begin).await, signed("bob", &begin).await);
    let carol = signed("carol", &begin).await;
    let (code, text) = post(&alice).await;
    assert_eq!(code, 200, "{text}");
    let id = element(&text, "UploadId");
    let abort = json!({"method": "DELETE", "key": "a.txt", "uploadId": id});
    let abort = signed("alice", &abort).await;
    let request = app.client.delete(abort["url"].as_str().unwrap());
    assert_eq!(status(request).await, 204);
    assert_eq!(post(&bob).await.0, 200);
    assert_eq!(post(&bob).await.0, 200);
    assert_eq!(post(&carol).await.0, 429);
}

#[tokio::test]
async fn a_key_among_ten_thousand_is_found() {
    let settings = with_policies(POLICIES);
    let (key, entry) = new_api_key("web").unwrap();
    let others = (0..10_000).map(|n| format!("[[keys]]\nname = 'k{n}'\nsha256 = '{n:064x}'\n"));
    let file: String = others.chain([entry]).collect();
    let keys = ApiKeys::parse(&file, &settings.policies).unwrap();
    let app = spawn(settings, by_keys(keys)).await;
    assert_eq!(by(&app, &key).await, 201);
}

#[tokio::test]
async fn a_token_whose_sub_is_the_name_of_an_api_key_is_refused() {
    let settings = with_policies(POLICIES);
    let keys = |name| {
        let (_, entry) = new_api_key(name).unwrap();
        ApiKeys::parse(&entry, &settings.policies).unwrap()
    };
    let in_force = keys("back-end");
    let auth = Auth {
        api_keys: Some(in_force.clone()),
        ..by_secret()
    };
    let app = spawn(settings.clone(), auth).await;
    let [back_end, alice] = ["back-end", "alice"].map(|name| signed(&claims(name)));
    assert_eq!(by(&app, &back_end).await, 401);
    assert_eq!(by(&app, &alice).await, 201);
    // Also one that was verified before the key came into force.
    in_force.replace(&keys("alice"));
    assert_eq!(by(&app, &alice).await, 401);
    assert_eq!(by(&app, &back_end).await, 201);
}
