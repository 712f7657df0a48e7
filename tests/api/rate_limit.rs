//! How often one may call.

use std::num::NonZeroU32;

use presignd::http::{self, Rate};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::auth::{api_keys, asking, back_end};
use crate::helpers::{built_in, problem, spawn_app_with_both, with_policies};

/// `burst` requests at once, and then no more for as long as a test runs.
pub(crate) fn limited(burst: u32) -> http::Settings {
    http::Settings {
        rate: Some(Rate {
            per_second: 0.001,
            burst: NonZeroU32::new(burst).unwrap(),
        }),
        ..http::Settings::default()
    }
}

/// The statuses of this many of these requests.
async fn statuses(count: usize, request: impl Fn() -> RequestBuilder) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(request().send().await.unwrap().status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn too_many_requests_get_429_and_the_time_to_wait() {
    let app = spawn_app_with_both(built_in(), &limited(2)).await;
    assert_eq!(statuses(2, || asking(&app)).await, [201, 201]);
    let response = asking(&app).send().await.unwrap();
    assert_eq!(response.status(), 429);
    let seconds: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((900..=1001).contains(&seconds), "{seconds}");
    assert_eq!(problem(response).await["code"], "rate-limited");
    // All that costs something is counted together, and what is for all is not counted.
    let params = || app.client.get(format!("{}/s3/params?filename=a", app.base));
    assert_eq!(statuses(1, params).await, [429]);
    let healthz = || app.client.get(format!("{}/healthz", app.base));
    assert_eq!(statuses(5, healthz).await, [200; 5]);
}

#[tokio::test]
async fn a_long_list_of_keys_counts_as_several_requests() {
    let keys: Vec<String> = (0..100).map(|n| format!("foreign/{n}")).collect();
    let list = json!({"keys": keys});
    // The store is asked about each of these, too.
    let inline = json!({"keys": keys, "disposition": "inline"});
    for (route, body, status) in [
        ("/upload/verify", &list, 200),
        ("/upload/commit", &list, 200),
        ("/download/presigned-url", &inline, 201),
    ] {
        let policies = with_policies("[policies.default]\ndownload = true");
        let app = spawn_app_with_both(policies, &limited(12)).await;
        let ask = || app.client.post(format!("{}{route}", app.base)).json(body);
        assert_eq!(statuses(2, ask).await, [status, 429], "{route}");
    }
}

/// Otherwise whoever waits as long as the answer says would be refused again, for ever.
#[tokio::test]
async fn a_request_never_counts_as_more_than_a_burst() {
    let keys: Vec<String> = (0..100).map(|n| format!("foreign/{n}")).collect();
    // Each of these files is looked for in the store, and then its upload in parts begins there.
    let files: Vec<_> = (0..6)
        .map(|n| json!({"name": format!("{n}.mp4"), "type": "video/mp4", "size": 40_000_000}))
        .collect();
    for burst in [1, 10] {
        for (route, body) in [
            ("/upload/verify", json!({"keys": keys})),
            ("/better-upload", json!({"files": files})),
        ] {
            let policies = "[policies.default]\nkey = \"{caller}/{filename}\"\noverwrite = false";
            let app = spawn_app_with_both(with_policies(policies), &limited(burst)).await;
            let ask = || app.client.post(format!("{}{route}", app.base)).json(&body);
            assert_eq!(
                statuses(2, ask).await,
                [200, 429],
                "{route}, a burst of {burst}"
            );
        }
    }
}

/// Otherwise a back end could send as many long lists as it has users.
#[tokio::test]
async fn the_long_lists_of_all_users_of_a_key_count_for_the_key() {
    let settings = built_in();
    let (key, auth) = back_end(&settings.policies);
    let http_settings = http::Settings {
        auth,
        ..limited(12)
    };
    let app = spawn_app_with_both(settings, &http_settings).await;
    let keys: Vec<String> = (0..100).map(|n| format!("foreign/{n}")).collect();
    for (user, status) in [("alice", 200), ("bob", 429)] {
        let verify = || {
            let request = app.client.post(format!("{}/upload/verify", app.base));
            let request = request.bearer_auth(&key).header("x-on-behalf-of", user);
            request.json(&json!({"keys": keys}))
        };
        assert_eq!(statuses(1, verify).await, [status], "{user}");
    }
}

/// Whoever guesses tokens of sealed calls is nobody whom a key or a token names.
#[tokio::test]
async fn invalid_sealed_calls_count_for_the_address() {
    let app = spawn_app_with_both(built_in(), &limited(2)).await;
    let guess = || app.client.get(format!("{}/s3/upload/guessed", app.base));
    assert_eq!(statuses(3, guess).await, [404, 404, 429]);
}

#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let app = spawn_app_with_both(built_in(), &limited(2)).await;
    let from = |client: &str| asking(&app).header("x-forwarded-for", client);
    let spoofed = [
        from("198.51.100.1"),
        from("198.51.100.2"),
        from("198.51.100.3"),
        asking(&app).header("forwarded", "for=198.51.100.4"),
        asking(&app).header("x-real-ip", "198.51.100.5"),
    ];
    let mut statuses_of_spoofed = Vec::new();
    for request in spoofed {
        statuses_of_spoofed.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses_of_spoofed, [201, 201, 429, 429, 429]);

    let behind_proxy = http::Settings {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..limited(2)
    };
    let app = spawn_app_with_both(built_in(), &behind_proxy).await;
    for (client, expected) in [
        ("198.51.100.1", &[201, 201, 429][..]),
        ("198.51.100.2", &[201]),
        // What the client invented is to the left of what the proxy saw.
        ("203.0.113.9, 198.51.100.1", &[429]),
        ("2001:db8::1", &[201, 201, 429]),
        ("2001:db8::ffff:ffff:ffff:ffff", &[429]),
        ("2001:db8:0:1::1", &[201]),
    ] {
        let from = || asking(&app).header("x-forwarded-for", client);
        let found = statuses(expected.len(), from).await;
        assert_eq!(found, expected, "{client}");
    }
}

#[tokio::test]
async fn known_callers_count_by_name_and_guessing_counts_by_address() {
    let settings = built_in();
    let entries = [("alice", ""), ("alice", ""), ("bob", "")];
    let ([alice, alice_too, bob], auth) = api_keys(entries, &settings.policies);
    let http_settings = http::Settings { auth, ..limited(2) };
    let app = spawn_app_with_both(settings, &http_settings).await;
    let by = async |count, key: &str| statuses(count, || asking(&app).bearer_auth(key)).await;
    assert_eq!(by(4, "guess").await, [401, 401, 429, 429]);
    // From the same address, and still accepted.
    assert_eq!(by(2, &alice).await, [201, 201]);
    assert_eq!(by(1, &alice_too).await, [429]);
    assert_eq!(by(2, &bob).await, [201, 201]);
}
