//! Tickets: what the claim `upload` of a token narrows, and every way to widen it.

mod sessions;

use reqwest::Response;
use serde_json::{Value, json};

use super::jwt::{by_secret, claims, jwt, shared_key, signed};
use super::names::{hostile, kept_apart};
use super::{by, spawn};
use crate::helpers::{App, Grant, fields, is, problem, with_members, with_policies};

pub(super) const POLICIES: &str = r#"
[policies.default]
max_size = "10 MiB"
require_size = true
allowed_metadata = ["order", "album"]
[policies.avatar]
key = "avatars/{caller}/{uuid}"
content_types = ["image/*"]
max_size = "1 MiB"
metadata = { source = "web" }
[policies.tenant]
key = "tenants/{vars.tenant}/{caller}/{filename}"
overwrite = true
[policies.open]
key = "open/{uuid}"
"#;

pub(crate) async fn app() -> App {
    spawn(with_policies(POLICIES), by_secret()).await
}

/// A token of Alice with this ticket.
pub(crate) fn ticket(upload: Value) -> String {
    ticket_of("alice", upload)
}

fn ticket_of(sub: &str, upload: Value) -> String {
    let mut claims = claims(sub);
    claims["upload"] = upload;
    signed(&claims)
}

async fn post(app: &App, token: &str, path: &str, body: Value) -> Response {
    let request = app.client.post(format!("{}{path}", app.base));
    request.bearer_auth(token).json(&body).send().await.unwrap()
}

async fn put(app: &App, token: &str, body: Value) -> Response {
    post(app, token, "/upload/presigned-url", body).await
}

/// The code of a refusal, or "granted".
async fn outcome(response: Response) -> String {
    if response.status().is_success() {
        return "granted".into();
    }
    problem(response).await["code"].as_str().unwrap().to_owned()
}

fn file(more: &Value) -> Value {
    let file = json!({"filename": "a.png", "contentType": "image/png", "size": 100});
    with_members(file, more)
}

#[tokio::test]
async fn each_member_narrows_and_none_widens() {
    let app = app().await;
    let rows = json!([
        // Without members the policies hold as they are.
        [{}, {}, "granted"],
        [{}, {"policy": "avatar"}, "granted"],
        // The policy is fixed, also for requests that name none.
        [{"policy": "avatar"}, {"policy": "avatar"}, "granted"],
        [{"policy": "avatar"}, {}, "granted"],
        [{"policy": "avatar"}, {"size": 2_000_000}, "file-too-large"],
        [{"policy": "avatar"}, {"policy": "default"}, "policy-not-allowed"],
        [{"policy": "nope"}, {}, "unknown-policy"],
        [{"policy": "nope"}, {"policy": "avatar"}, "policy-not-allowed"],
        // The stricter limit counts.
        [{"max_size": 100}, {}, "granted"],
        [{"max_size": 99}, {}, "file-too-large"],
        [{"max_size": 100}, {"size": null}, "size-required"],
        [{"max_size": 99}, {"policy": "open"}, "file-too-large"],
        [{"max_size": 99}, {"policy": "open", "size": null}, "size-required"],
        [{"max_size": u64::MAX}, {"size": 10_485_761}, "file-too-large"],
        [{"max_size": u64::MAX}, {"policy": "open", "size": null}, "granted"],
        // The type has to be allowed by both.
        [{"content_types": ["image/*"]}, {}, "granted"],
        [{"content_types": ["IMAGE/PNG"]}, {}, "granted"],
        [{"content_types": ["image/jpeg"]}, {}, "type-not-allowed"],
        [{"policy": "avatar", "content_types": ["*/*"]}, {"contentType": "text/html"}, "type-not-allowed"],
        // What a policy does not let clients set, a ticket does not set either.
        [{"metadata": {"order": "42"}}, {}, "granted"],
        [{"metadata": {"order": "42"}}, {"metadata": {"album": "7"}}, "granted"],
        [{"metadata": {"order": "42"}}, {"metadata": {"order": "43"}}, "metadata-not-allowed"],
        [{"metadata": {"other": "42"}}, {}, "metadata-not-allowed"],
        [{"policy": "avatar", "metadata": {"source": "ticket"}}, {}, "metadata-not-allowed"],
        // Variables of no template change nothing.
        [{"vars": {"tenant": "acme"}}, {}, "granted"],
    ]);
    for row in rows.as_array().unwrap() {
        let response = put(&app, &ticket(row[0].clone()), file(&row[1])).await;
        assert_eq!(outcome(response).await, row[2], "{row}");
    }
}

#[tokio::test]
async fn an_invalid_ticket_is_refused_with_its_own_code() {
    let app = app().await;
    for upload in [
        json!(null),
        json!({"max_sise": 5}),
        json!({"vars": {"tenant": ""}}),
    ] {
        let response = put(&app, &ticket(upload.clone()), file(&json!({}))).await;
        assert!(
            response.headers().contains_key("www-authenticate"),
            "{upload} {}",
            response.status()
        );
        let problem = problem(response).await;
        is(&problem, 401, "invalid-ticket");
    }
    // A caller who cannot sign learns nothing about it.
    let forged = ticket(json!({"max_sise": 5}));
    let response = put(&app, &format!("{forged}x"), file(&json!({}))).await;
    assert_eq!(problem(response).await["code"], "unauthorized");
}

#[tokio::test]
async fn the_store_enforces_what_a_ticket_says() {
    let app = app().await;
    let token = ticket(json!({"max_size": 3, "metadata": {"order": "42"}}));
    let response = put(&app, &token, file(&json!({"size": 3}))).await;
    let grant: Grant = response.json().await.unwrap();
    assert_eq!(app.upload(&grant, "four").await.status(), 403);
    let mut other = grant.clone();
    other.headers.insert("x-amz-meta-order".into(), "43".into());
    assert_eq!(app.upload(&other, "abc").await.status(), 403);
    assert_eq!(app.upload(&grant, "abc").await.status(), 200);

    let body = json!({"filename": "a.txt", "contentType": "text/plain", "policy": "open"});
    let unsized_ = problem(put(&app, &token, body).await).await;
    let expected = "size is required by the ticket, which has a `max_size`";
    let detail = unsized_["detail"].as_str().unwrap();
    assert!(detail.contains(expected), "{detail}");

    let body = json!({"filename": "a.txt", "contentType": "text/plain"});
    let form = post(&app, &token, "/upload/presigned-post", body).await;
    let form: Value = form.json().await.unwrap();
    assert_eq!(form["maxSize"], 3);
    assert_eq!(form["fields"]["x-amz-meta-order"], "42");
    let url = format!("{}/s3/params?filename=a.txt&metadata[order]=43", app.base);
    let params = app.client.get(url).bearer_auth(&token).send().await;
    let params: Value = params.unwrap().json().await.unwrap();
    assert_eq!(
        params["fields"]["x-amz-meta-order"], "42",
        "Uppy sends metadata unasked"
    );

    let list = json!({"files": [file(&json!({"size": 3})), file(&json!({"size": 4}))]});
    let list = problem(post(&app, &token, "/upload/presigned-urls", list).await).await;
    assert_eq!(fields(&list), [("/files/1/size", "file-too-large")]);
}

fn for_tenant() -> Value {
    json!({"filename": "a.txt", "contentType": "text/plain", "policy": "tenant"})
}

#[tokio::test]
async fn no_variable_leaves_its_place_or_meets_another() {
    let app = app().await;
    let tenant = |name: &str| ticket(json!({"vars": {"tenant": name}}));
    let ask = async |name: &str| put(&app, &tenant(name), for_tenant()).await;
    let around = ["tenants/", "/alice/a.txt"];
    // Nobody sees what is another tenant's.
    for (key, name) in kept_apart(&app, hostile(), around, ask).await {
        for (name, expected) in [(name.as_str(), "granted"), ("other", "not-uploaded")] {
            let verify = json!({"key": key, "policy": "tenant"});
            let response = post(&app, &tenant(name), "/upload/verify", verify).await;
            assert_eq!(outcome(response).await, expected, "{name:?}: {key}");
        }
    }
}

#[tokio::test]
async fn a_policy_with_a_variable_needs_a_ticket_that_has_it() {
    let app = app().await;
    let without = [
        signed(&claims("alice")),
        ticket(json!({})),
        ticket(json!({"vars": {"team": "acme"}})),
    ];
    for token in &without {
        let form = for_tenant();
        let parts = json!({"filename": "a", "type": "a/b", "metadata": {}, "policy": "tenant"});
        let verify = json!({"key": "tenants/acme/alice/a.txt", "policy": "tenant"});
        for (path, body) in [
            ("/upload/presigned-url", form.clone()),
            ("/upload/presigned-urls", json!({"files": [form.clone()]})),
            ("/upload/presigned-post", form),
            ("/s3/multipart", parts),
            ("/upload/verify", verify),
        ] {
            let problem = problem(post(&app, token, path, body).await).await;
            is(&problem, 403, "var-required");
            assert!(problem["detail"].as_str().unwrap().contains("`tenant`"));
        }
    }
}

#[tokio::test]
async fn a_caller_of_listed_policies_cannot_use_another_one_by_a_ticket() {
    let auth = jwt(shared_key(), Some("policies"));
    let app = spawn(with_policies(POLICIES), auth).await;
    let mut claims = claims("alice");
    claims["policies"] = json!(["avatar"]);
    claims["upload"] = json!({"policy": "default"});
    let token = signed(&claims);
    assert_eq!(by(&app, &token).await, 403);
}
