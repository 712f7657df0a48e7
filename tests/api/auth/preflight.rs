//! Questions of browsers before requests of pages, which have no credentials.

use super::*;

#[tokio::test]
async fn a_preflight_needs_no_credentials_and_does_not_let_in_other_origins() {
    let settings = built_in();
    let (_, entry) = new_api_key("web").unwrap();
    let http_settings = http::Settings {
        allowed_origins: AllowedOrigins::Exactly(vec!["https://a.example".parse().unwrap()]),
        auth: by_keys(ApiKeys::parse(&entry, &settings.policies).unwrap()),
        ..http::Settings::default()
    };
    let app = spawn_app_with_both(settings, &http_settings).await;
    let preflight = async |origin: &str| {
        let url = format!("{}/upload/presigned-url", app.base);
        let request = app
            .client
            .request(Method::OPTIONS, url)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,x-api-key,content-type",
            );
        request.send().await.unwrap()
    };
    let allowed = preflight("https://a.example").await;
    assert_eq!(allowed.status(), StatusCode::OK);
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "https://a.example"
    );
    let headers = allowed.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    for header in ["authorization", "x-api-key", "content-type"] {
        assert!(headers.contains(header), "{headers}");
    }
    for origin in [
        "https://b.example",
        "http://a.example",
        "https://a.example.evil",
        "null",
    ] {
        let refused = preflight(origin).await;
        assert!(
            !refused
                .headers()
                .contains_key("access-control-allow-origin"),
            "{origin}"
        );
    }
    // A page may read that it is refused, and why.
    let response = asking(&app)
        .header("origin", "https://a.example")
        .send()
        .await
        .unwrap();
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    assert!(headers["vary"].to_str().unwrap().contains("origin"));
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for header in ["x-request-id", "retry-after", "www-authenticate"] {
        assert!(exposed.contains(header), "{exposed}");
    }
    unauthorized(response).await;
}
