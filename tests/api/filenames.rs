//! A filename that is accepted makes the trip to the store and back, without what nobody sees; any
//! other is refused with its reason.

use presignd::upload::Filename;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use reqwest::StatusCode;
use serde_json::{Value, json};

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
        ("a\u{2067}b", "invisible-character"),
        ("\u{200B}", "empty"),
        ("a\u{FFFF}b", "noncharacter"),
    ] {
        let response = app
            .ask(&json!({"filename": name, "contentType": "text/plain"}))
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name:?}");
        let problem = problem(response).await;
        assert_eq!(fields(&problem), [("/filename", code)], "{name:?}");
    }
}

#[tokio::test]
async fn every_route_makes_the_same_name_of_a_name() {
    let app = spawn_app().await;
    let long = format!("{}.pdf", "报".repeat(86));
    let short = format!("{0}...{0}.pdf", "报".repeat(41));
    for (name, expected) in [
        (
            "Scherm\u{AD}afbeelding 2026.png",
            "Schermafbeelding 2026.png",
        ),
        ("\u{200E}IMG-1.jpg", "IMG-1.jpg"),
        (&long, &short),
    ] {
        let file = json!({"filename": name, "contentType": "text/plain"});
        let for_uppy = json!({"filename": name, "type": "text/plain"});
        let params = app.client.get(format!("{}/s3/params", app.base));
        let params = params.query(&[("filename", name), ("type", "text/plain")]);
        let keys: [Value; 5] = [
            app.granted::<Value>("/upload/presigned-url", &file).await["key"].take(),
            app.granted::<Value>("/upload/presigned-urls", &json!({"files": [file]}))
                .await["uploads"][0]["key"]
                .take(),
            app.granted::<Value>("/upload/presigned-post", &file).await["key"].take(),
            app.post("/s3/multipart", &for_uppy)
                .await
                .json::<Value>()
                .await
                .unwrap()["key"]
                .take(),
            params.send().await.unwrap().json::<Value>().await.unwrap()["fields"]["key"].take(),
        ];
        for key in keys {
            let key = key.as_str().unwrap();
            assert_eq!(key.splitn(3, '/').nth(2), Some(expected), "{name:?}");
        }
    }
}

/// The strings of a file in `tests/data`, which names its source.
fn data(text: &str, member: &str) -> Vec<String> {
    let mut data: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(data[member].take()).unwrap()
}

/// Those of `names` that were accepted, changed and refused; the first two made the trip.
async fn trips(app: &App, names: &[String]) -> [usize; 3] {
    let mut counts = [0; 3];
    for name in names {
        let outcome = match Filename::parse(name.as_str()) {
            Ok(filename) if filename.as_str() == name => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        counts[outcome] += 1;
        if outcome == 2 {
            let body = json!({"filename": name, "contentType": "text/plain"});
            let problem = problem(app.ask(&body).await).await;
            assert_eq!(fields(&problem)[0].0, "/filename", "{name:?}");
        } else {
            makes_the_trip(app, name).await;
        }
    }
    counts
}

#[tokio::test]
async fn naughty_strings_make_the_trip_or_are_refused() {
    let app = spawn_app().await;
    let names = data(include_str!("../data/naughty-strings.json"), "strings");
    let [accepted, changed, refused] = trips(&app, &names).await;
    assert_eq!(accepted + changed + refused, 485);
    println!("{accepted} accepted, {changed} changed, {refused} refused");
    assert!(refused < 260, "{refused}");
}

#[tokio::test]
async fn all_emoji_make_the_trip() {
    let app = spawn_app().await;
    let emoji = data(include_str!("../data/emoji.json"), "emoji");
    let names: Vec<String> = emoji.chunks(8).map(|some| some.concat() + ".png").collect();
    assert_eq!(trips(&app, &names).await, [names.len(), 0, 0]);
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
