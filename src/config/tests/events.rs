//! Webhooks and their variables.

use super::{config, faults};

const URL: (&str, &str) = ("WEBHOOK_URL", "https://app.example/hook");
const SECRET: (&str, &str) = ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
const TOKEN: (&str, &str) = ("EVENTS_TOKEN", "0123456789abcdef");

#[test]
fn an_incomplete_webhook_is_refused_and_its_secrets_are_not_repeated() {
    for (variables, says) in [
        (
            &[SECRET][..],
            "WEBHOOK_SECRET is set, but WEBHOOK_URL is not",
        ),
        (&[TOKEN], "EVENTS_TOKEN is set, but WEBHOOK_URL is not"),
        (&[URL, TOKEN], "WEBHOOK_SECRET is not set"),
        (&[URL, SECRET], "EVENTS_TOKEN is not set"),
        (
            &[URL, TOKEN, ("WEBHOOK_SECRET", "my-secret-key")],
            "WEBHOOK_SECRET must be",
        ),
        (
            &[URL, SECRET, ("EVENTS_TOKEN", "my-secret-key")],
            "EVENTS_TOKEN must be",
        ),
        (
            &[URL, SECRET, ("EVENTS_TOKEN", "my-secret-key/and-more")],
            "EVENTS_TOKEN must be",
        ),
        (
            &[SECRET, TOKEN, ("WEBHOOK_URL", "app.example/my-secret-key")],
            "WEBHOOK_URL must be",
        ),
        (
            &[
                SECRET,
                TOKEN,
                ("WEBHOOK_URL", "https://a:my-secret-key@app.example/"),
            ],
            "WEBHOOK_URL must be",
        ),
        (
            &[
                SECRET,
                TOKEN,
                ("WEBHOOK_URL", "https://app.example/#my-secret-key"),
            ],
            "WEBHOOK_URL must be",
        ),
        (
            &[URL, SECRET, TOKEN, ("WEBHOOK_GIVE_UP_AFTER", "1s")],
            "WEBHOOK_GIVE_UP_AFTER must be",
        ),
    ] {
        let faults = faults(variables);
        assert!(
            faults.len() == 1 && faults[0].contains(says),
            "{says}: {faults:?}"
        );
        assert!(!faults[0].contains("my-secret-key"), "{faults:?}");
    }
}

#[test]
fn a_webhook_is_read_and_a_function_needs_no_token() {
    assert!(config(&[]).unwrap().http.events.is_none());
    let events = config(&[URL, SECRET, TOKEN]).unwrap().http.events.unwrap();
    assert_eq!(events.give_up_after.as_secs(), 24 * 3600);
    assert!(events.token.is_some() && !events.webhook.is_unencrypted());
    let in_lambda = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("AUTH_MODE", "none"),
    ];
    let in_lambda = config(&[&[URL, SECRET], &in_lambda[..]].concat());
    assert!(in_lambda.unwrap().http.events.unwrap().token.is_none());
    for (url, expected) in [
        ("http://app.example/", true),
        ("http://127.0.0.1:1/", false),
        ("http://localhost/", false),
        ("http://[::1]/", false),
    ] {
        let config = config(&[("WEBHOOK_URL", url), SECRET, TOKEN]).unwrap();
        assert_eq!(
            config.http.events.unwrap().webhook.is_unencrypted(),
            expected,
            "{url}"
        );
    }
}
