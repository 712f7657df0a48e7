//! A filename that is accepted makes the trip to the store and back; any other is refused with its
//! reason.

use presignd::upload::Filename;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use reqwest::StatusCode;
use serde_json::json;

use crate::helpers::{App, fields, problem, spawn_app};

/// Uploads under `name` and finds it again under the very same key.
async fn makes_the_trip(app: &App, name: &str) {
    let grant = app.grant(name, "text/plain").await;
    let filename = grant.key.splitn(3, '/').nth(2).unwrap();
    let normalised = Filename::parse(name).unwrap();
    assert_eq!(filename, normalised.as_str(), "of {name:?}");
    let response = app.upload(&grant, name.to_owned()).await;
    assert_eq!(response.status(), StatusCode::OK, "{name:?}");
    let (body, _) = app.stored(&grant.key).await.expect(name);
    assert_eq!(body, name.as_bytes(), "of {name:?}");
}

#[tokio::test]
async fn awkward_names_make_the_trip() {
    let app = spawn_app().await;
    let longest = ["a".repeat(255), "한".repeat(85), "🎉".repeat(63) + "abc"];
    for name in [
        "보고서 최종.pdf",
        "👨‍👩‍👧‍👦 ❤️‍🔥.png",
        "a+b c%20d%2Fe&f=g#h?i",
        "it's \"quoted\" `so`.txt",
        "...",
        "~!@$^*()_-[]{};:,<>|.txt",
        "%",
        "+",
        " ",
        "a  b",
        "é.txt",
        "e\u{301}.txt",
        "مرحبا.txt",
    ]
    .into_iter()
    .chain(longest.iter().map(String::as_str))
    {
        makes_the_trip(&app, name).await;
    }
}

#[tokio::test]
async fn names_that_could_not_make_the_trip_are_refused_with_the_reason() {
    let app = spawn_app().await;
    for (name, code) in [
        ("", "empty"),
        (".", "not-a-name"),
        ("..", "not-a-name"),
        ("a/b", "path-separator"),
        ("../../etc/passwd", "path-separator"),
        ("a\\b", "path-separator"),
        ("a\0b", "control-character"),
        ("a\nb", "control-character"),
        ("a\u{202E}b", "invisible-character"),
        ("a\u{200B}b", "invisible-character"),
        ("a\u{FFFF}b", "noncharacter"),
        (&"a".repeat(256), "too-long"),
        (&"한".repeat(86), "too-long"),
    ] {
        let response = app
            .ask(&json!({"filename": name, "contentType": "text/plain"}))
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name:?}");
        let problem = problem(response).await;
        assert_eq!(fields(&problem), [("/filename", code)], "{name:?}");
    }
}

/// Names of characters from all of Unicode, and more often of those that break things.
fn names() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        any::<char>(),
        proptest::char::range(' ', '~'),
        proptest::sample::select(
            "%+ &#?=\"'`~*()[]{}<>|;:,.@$!^\u{7f}\u{a0}\u{ad}ßﬁ\u{FEFF}"
                .chars()
                .collect::<Vec<_>>()
        ),
        proptest::char::range('가', '힣'),
        proptest::char::range('\u{1F300}', '\u{1FAFF}'),
        proptest::char::range('\u{300}', '\u{36F}'),
    ];
    proptest::collection::vec(character, 0..90).prop_map(|chars| chars.into_iter().collect())
}

#[test]
fn any_name_makes_the_trip_or_is_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(spawn_app());
    let made_the_trip = std::cell::Cell::new(0);
    let result = TestRunner::new(ProptestConfig {
        cases: 400,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    })
    .run(&names(), |name| {
        runtime.block_on(async {
            if Filename::parse(&name).is_ok() {
                made_the_trip.set(made_the_trip.get() + 1);
                makes_the_trip(&app, &name).await;
            } else {
                let body = json!({"filename": name, "contentType": "text/plain"});
                let response = app.ask(&body).await;
                assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name:?}");
                let problem = problem(response).await;
                assert_eq!(fields(&problem)[0].0, "/filename");
            }
        });
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, name)) => panic!("{name:?}: {why}"),
        Err(error) => panic!("{error}"),
    }
    assert!(made_the_trip.get() > 50, "only {}", made_the_trip.get());
}
