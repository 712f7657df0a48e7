//! Whatever a store reports: the notification is acknowledged or refused with a documented answer. 503 means that
//! an application would have been notified, if there were one.
//!
//! The input is the body.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use axum::http::StatusCode;
use libfuzzer_sys::fuzz_target;
use presignd::http;
use presignd::http::events::{Settings, Token};
use presignd::webhook::{Secrets, Webhook};
use presignd_fuzz::{Place, bucket, problem, service};
use serde::de::IgnoredAny;

const ROUTE: &str = "/events/s3/{token}";
const URI: &str = "/events/s3/token-of-the-store";

static ROUTER: LazyLock<axum::Router> = LazyLock::new(|| {
    let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let url = "http://127.0.0.1:1/".parse().expect("an address");
    let settings = http::Settings {
        events: Some(Settings {
            token: Some(Token::parse("token-of-the-store").expect("a token")),
            webhook: Webhook::new(url, secrets).expect("a client"),
            give_up_after: Duration::from_secs(3600),
        }),
        ..http::Settings::default()
    };
    let service = service(bucket(Place::Local, None), "[policies.default]");
    problem::router_with(service, &settings)
});

fuzz_target!(|body: &[u8]| {
    let status = problem::post(&ROUTER, ROUTE, URI, body);
    match status {
        StatusCode::OK => {
            let members: BTreeMap<String, IgnoredAny> =
                serde_json::from_slice(body).expect("an object");
            let mut names = ["Records", "source", "Event"].into_iter();
            assert!(names.any(|name| members.contains_key(name)));
        }
        StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE => {}
        status => panic!("{status}"),
    }
});
