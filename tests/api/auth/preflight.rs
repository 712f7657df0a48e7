//! Questions of browsers before requests of pages, which have no credentials.

use super::*;
use crate::helpers::preflight;

#[tokio::test]
async fn a_preflight_needs_no_credentials_and_does_not_let_in_other_origins() {
    let settings = built_in();
    let (_, auth) = api_keys([("web", "")], &settings.policies);
    let app = spawn_app_where(settings, |it| {
        it.allowed_origins = AllowedOrigins::Exactly(vec!["https://a.example".parse().unwrap()]);
        it.auth = auth;
    })
    .await;
    let url = format!("{}/upload/presigned-url", app.base);
    let asked = "authorization,x-api-key,content-type";
    let preflight = async |origin: &str| preflight(&url, origin, "POST", asked).await;
    let allowed = preflight("https://a.example").await;
    assert_eq!(allowed.status(), 200);
    let headers = allowed.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    let headers = headers["access-control-allow-headers"].to_str().unwrap();
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
        let allowed = refused.headers().get("access-control-allow-origin");
        assert_eq!(allowed, None, "{origin}");
    }
    // A page may read that it is refused, and why.
    let request = asking(&app).header("origin", "https://a.example");
    let response = request.send().await.unwrap();
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    assert!(headers["vary"].to_str().unwrap().contains("origin"));
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for header in ["x-request-id", "retry-after", "www-authenticate"] {
        assert!(exposed.contains(header), "{exposed}");
    }
    unauthorized(response).await;
}
