//! presignd's own address, in URLs that lead back to it.

use serde_json::{Value, json};

use crate::helpers::{App, built_in, client, spawn_app_where};

const FORWARDED: [(&str, &str); 2] = [
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "uploads.example.com"),
];

async fn app(trusted_proxy: Option<&str>, public_url: Option<&str>) -> App {
    let trusted = trusted_proxy.map(|network| network.parse().unwrap());
    spawn_app_where(built_in(), |it| {
        it.trusted_proxies = trusted.into_iter().collect();
        it.public_url = public_url.map(str::to_owned);
    })
    .await
}

/// The addresses in the answers of both routes that give such URLs.
async fn addresses(app: &App, headers: &[(&str, &str)]) -> Vec<String> {
    let file = json!({"name": "a", "size": 1, "type": ""});
    let mut found = Vec::new();
    for (path, body, pointers) in [
        (
            "/s3/sign",
            json!({"method": "POST", "key": "a"}),
            &["/url"][..],
        ),
        (
            "/better-upload",
            json!({"files": [file]}),
            &[
                "/multipart/files/0/completeSignedUrl",
                "/multipart/files/0/abortSignedUrl",
            ],
        ),
    ] {
        let mut request = client().post(format!("{}{path}", app.base)).json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        for pointer in pointers {
            let url = answer.pointer(pointer).unwrap().as_str().unwrap();
            found.push(url.split_once("/s3/upload/").unwrap().0.to_owned());
        }
    }
    found
}

#[tokio::test]
async fn behind_a_trusted_proxy_urls_lead_to_the_address_that_it_forwards() {
    let app = app(Some("127.0.0.0/8"), None).await;
    assert_eq!(
        addresses(&app, &FORWARDED).await,
        ["https://uploads.example.com"; 3]
    );
    // A proxy that forwards the scheme alone keeps the host.
    let host = app.base.strip_prefix("http://").unwrap();
    let https = format!("https://{host}");
    assert_eq!(addresses(&app, &FORWARDED[..1]).await, [&*https; 3]);
    let plain = ("x-forwarded-proto", "http");
    assert_eq!(addresses(&app, &[plain]).await, [&*app.base; 3]);
    // What a client sends comes before what the proxy adds, in one line or in two.
    let name = "x-forwarded-host";
    for twice in [
        &[(name, "evil.example, uploads.example.com")][..],
        &[(name, "evil.example"), (name, "uploads.example.com")],
    ] {
        let uploads = "http://uploads.example.com";
        assert_eq!(addresses(&app, twice).await, [uploads; 3]);
    }
}

#[tokio::test]
async fn nobody_else_changes_the_address_of_urls_that_lead_back() {
    for proxy in [None, Some("10.0.0.0/8")] {
        let app = app(proxy, None).await;
        assert_eq!(addresses(&app, &FORWARDED).await, [&*app.base; 3]);
    }
    let configured = "https://configured.example.com/base";
    for public_url in [configured, &format!("{configured}/")] {
        let app = app(Some("127.0.0.0/8"), Some(public_url)).await;
        assert_eq!(addresses(&app, &FORWARDED).await, [configured; 3]);
    }
}
