//! Who may call, and what each caller may do.

mod cached;
mod in_path;
pub(crate) mod jwks;
pub(crate) mod jwt;
mod names;
mod on_behalf;
mod preflight;
mod refusals;
mod several_keys;
pub(crate) mod tickets;

use std::collections::BTreeSet;

use presignd::http::auth::{ApiKeys, Auth, new_api_key};
use presignd::http::{self, AllowedOrigins};
use presignd::upload::{self, Policies};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::helpers::{
    App, Grant, built_in, fields, is, problem, spawn_app_where, spawn_app_with_both, with_policies,
};
use crate::uppy::create_by;

/// Two policies; the keys of the second tell whose they are.
const POLICIES: &str = r#"
[policies.default]
[policies.mine]
key = "files/{caller}/{filename}"
overwrite = true
"#;

/// An app and the keys of its callers.
async fn with_api_keys<const N: usize>(entries: [(&str, &str); N]) -> (App, [String; N]) {
    let settings = with_policies(POLICIES);
    let (keys, auth) = api_keys(entries, &settings.policies);
    (spawn(settings, auth).await, keys)
}

/// New keys of callers, and the way to authenticate with them. An entry is a name, and what else a file of keys says
/// of its key.
pub(crate) fn api_keys<const N: usize>(
    entries: [(&str, &str); N],
    policies: &Policies,
) -> ([String; N], Auth) {
    let mut file = String::new();
    let keys = entries.map(|(name, more)| {
        let (key, entry) = new_api_key(name).unwrap();
        file.extend([entry.as_str(), more, "\n"]);
        key
    });
    (keys, by_keys(ApiKeys::parse(&file, policies).unwrap()))
}

pub(crate) async fn spawn(settings: upload::Settings, auth: Auth) -> App {
    spawn_app_where(settings, |it| it.auth = auth).await
}

/// For a file.
pub(crate) fn asking(app: &App) -> RequestBuilder {
    let url = format!("{}/upload/presigned-url", app.base);
    let body = json!({"filename": "a.txt", "contentType": "text/plain"});
    app.client.post(url).json(&body)
}

/// For a file at a place of the caller's own.
fn asking_for_mine(app: &App) -> RequestBuilder {
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "policy": "mine"});
    asking(app).json(&body)
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// What a caller with this token or key gets.
async fn by(app: &App, token: &str) -> u16 {
    status(asking(app).bearer_auth(token)).await.as_u16()
}

/// The answer to a caller who is refused: the same for every reason, so that nobody learns from it.
async fn unauthorized(response: Response) -> Value {
    assert_eq!(response.status(), 401);
    let challenge = &response.headers()["www-authenticate"];
    assert_eq!(challenge, "Bearer realm=\"presignd\"");
    let mut problem = problem(response).await;
    problem.as_object_mut().unwrap().remove("requestId");
    problem
}

/// The answer to a caller with this token or key, who is refused.
async fn refused(app: &App, token: &str) -> Value {
    unauthorized(asking(app).bearer_auth(token).send().await.unwrap()).await
}

/// The key of a back end that may call on behalf of its users, and the way to authenticate with it.
pub(crate) fn back_end(policies: &Policies) -> (String, Auth) {
    let ([key], auth) = api_keys([("back-end", "on_behalf = true")], policies);
    (key, auth)
}

/// Callers have these keys.
pub(crate) fn by_keys(keys: ApiKeys) -> Auth {
    Auth {
        api_keys: Some(keys),
        ..Auth::default()
    }
}

#[tokio::test]
async fn without_a_valid_key_every_caller_gets_the_same_answer() {
    let (app, [key]) = with_api_keys([("web", "")]).await;
    let key = &key;
    let (foreign, _) = new_api_key("web").unwrap();
    let requests = [
        asking(&app),
        asking(&app).bearer_auth(&foreign),
        asking(&app).bearer_auth(""),
        asking(&app).bearer_auth(&key[..key.len() - 1]),
        asking(&app).bearer_auth(format!("{key}x")),
        asking(&app).header("authorization", key),
        asking(&app).header("authorization", format!("Basic {key}")),
        asking(&app).basic_auth("web", Some(key)),
        asking(&app).header("x-api-key", b"\xff\xfe".as_slice()),
        asking(&app).header("x-api-key", "x".repeat(20_000)),
        // Of two that may differ neither counts.
        asking(&app).bearer_auth(key).header("x-api-key", key),
        asking(&app).bearer_auth(key).bearer_auth(key),
        asking(&app)
            .header("x-api-key", key)
            .header("x-api-key", &foreign),
        // A key has no place in a URL: those end up in logs.
        asking(&app).query(&[("api_key", key), ("access_token", key), ("x-api-key", key)]),
    ];
    let mut answers = BTreeSet::new();
    for request in requests {
        let problem = unauthorized(request.send().await.unwrap()).await;
        answers.insert(problem.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn every_route_but_those_for_all_asks_who_is_calling() {
    let (app, _) = with_api_keys([("web", "")]).await;
    let document = app.document().await;
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let url = format!("{}{}", app.base, path.replace(['{', '}'], ""));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let response = app.client.request(method, url).send().await.unwrap();
            if operation["tags"][0] == "operations" || path == "/.well-known/jwks.json" {
                assert_eq!(response.status(), 200, "{path}");
                // None is needed, and the document says so.
                assert_eq!(operation["security"], json!([]), "{path}");
            } else {
                unauthorized(response).await;
                let security = json!([{"bearer": []}, {"apiKey": []}]);
                assert_eq!(operation["security"], security, "{path}");
                let user = json!({"$ref": "#/components/parameters/onBehalfOf"});
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(parameters.contains(&user), "{path}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 9, "{asked}");
    assert_eq!(app.get("/docs/").await.status(), 200);
    assert_eq!(app.get("/nope").await.status(), 404);
}

#[tokio::test]
async fn a_caller_may_use_the_listed_policies_alone() {
    let entries = [("web", "policies = ['mine']"), ("all", "")];
    let (app, [web, all]) = with_api_keys(entries).await;
    let ask = async |key: &str, path: &str, body: &Value| {
        let request = app.client.post(format!("{}{path}", app.base));
        request.bearer_auth(key).json(body).send().await.unwrap()
    };
    let put = async |key: &str, file: &Value| ask(key, "/upload/presigned-url", file).await;
    let file = json!({"filename": "a", "contentType": "a/b"});
    let under = |policy: &str| json!({"filename": "a", "contentType": "a/b", "policy": policy});
    assert_eq!(put(&web, &under("mine")).await.status(), 201);
    let verify = json!({"key": "files/web/a"});
    for answer in [
        put(&web, &file).await,
        put(&web, &under("default")).await,
        put(&web, &under("no-such-policy")).await,
        ask(&web, "/upload/verify", &verify).await,
    ] {
        let problem = problem(answer).await;
        is(&problem, 403, "policy-not-allowed");
        assert_eq!(fields(&problem), [("/policy", "policy-not-allowed")]);
    }
    assert_eq!(put(&all, &file).await.status(), 201);
    assert_eq!(put(&all, &under("no-such-policy")).await.status(), 422);

    let list = json!({"files": [under("mine"), file]});
    let problem = problem(ask(&web, "/upload/presigned-urls", &list).await).await;
    is(&problem, 403, "policy-not-allowed");
    let expected = [("/files/1/policy", "policy-not-allowed")];
    assert_eq!(fields(&problem), expected);

    let url = format!("{}/s3/params?filename=a&policy=default", app.base);
    assert_eq!(status(app.client.get(url).bearer_auth(&web)).await, 403);
}

#[tokio::test]
async fn each_caller_writes_to_a_place_of_its_own() {
    let (app, keys) = with_api_keys([("alice", ""), ("bob", ""), ("../alice", "")]).await;
    let mut places = BTreeSet::new();
    for key in &keys {
        let response = asking_for_mine(&app).bearer_auth(key).send().await;
        let grant: Grant = response.unwrap().json().await.unwrap();
        assert_eq!(app.upload(&grant, "x").await.status(), 200);
        assert!(app.stored(&grant.key).await.is_some());
        places.insert(grant.key);
    }
    let expected = [
        "files/=2E.=2Falice/a.txt",
        "files/alice/a.txt",
        "files/bob/a.txt",
    ];
    assert!(places.iter().eq(expected), "{places:?}");
}

#[tokio::test]
async fn an_upload_in_parts_belongs_to_who_began_it() {
    let entries = [("alice", ""), ("bob", ""), ("alice", "policies = []")];
    let (app, [alice, bob, alice_without_policies]) = with_api_keys(entries).await;
    let body = json!({"filename": "a.bin", "type": "a/b", "metadata": {}});
    let upload = create_by(&app.base, &alice, body).await;
    for who in [&bob, &alice_without_policies] {
        for (call, answer) in upload.by(who).each_call().await {
            let problem = problem(answer).await;
            assert_eq!(problem["code"], "no-such-upload", "{call}");
            assert_eq!(problem["message"], problem["detail"], "Uppy shows it");
        }
    }
    let part = upload.call(Method::GET, "1", &[], None).await;
    assert_eq!(part.status(), 200);
}

#[tokio::test]
async fn what_is_secret_says_nothing_in_debug_output() {
    let app = spawn_app_with_both(built_in(), &http::Settings::default()).await;
    let anyone = upload::Caller::anonymous();
    let file = crate::helpers::file("a.txt", "text/plain");
    let asked = upload::GrantRequest::new(&anyone, &file, std::time::SystemTime::now());
    let put = app.uploads.presign_put(asked).await.unwrap();
    let post = app.uploads.presign_post(asked).await.unwrap();
    let parts = app.uploads.create_multipart(asked).await.unwrap();
    let (key, entry) = new_api_key("web").unwrap();
    let keys = ApiKeys::parse(&entry, &built_in().policies).unwrap();
    let secret = "a secret of more than thirty-two bytes";
    let of_issuer = presignd::http::auth::JwtKey::from_secret(secret.as_bytes()).unwrap();
    let hash = entry.split('"').nth(3).unwrap();
    let said = format!(
        "{put:?} {post:?} {parts:?} {keys:?} {of_issuer:?} {:?} {:?} {:?}",
        upload::SessionKey::new(secret.as_bytes()),
        app.uploads,
        by_keys(keys.clone()),
    );
    let (_, signature) = put.request.url.split_once("X-Amz-Signature=").unwrap();
    let bytes = format!("{:?}", secret.as_bytes());
    let fields = post.request.fields;
    for secret in [
        signature,
        &fields["policy"],
        &fields["x-amz-signature"],
        &parts.token,
        &key,
        hash,
        secret,
        bytes.trim_matches(['[', ']']),
        "presignd-dev-secret",
    ] {
        assert!(!said.contains(secret), "{secret:?} is in {said}");
    }
}
