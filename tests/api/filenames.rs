//! A filename that is accepted makes the trip to the store and back, without what nobody sees; any
//! other is refused with its reason.

use presignd::upload::Filename;
use reqwest::Url;
use serde_json::{Value, json};

use crate::helpers::{App, fields, problem, spawn_app};

/// Uploads under `name` and finds it again under the very same key.
async fn makes_the_trip(app: &App, name: &str) {
    let grant = app.grant(name, "text/plain").await;
    let filename = grant.key.splitn(3, '/').nth(2).unwrap();
    let normalised = Filename::parse(name).unwrap();
    assert_eq!(filename, normalised.as_str(), "of {name:?}");
    let url = Url::parse(&grant.url).unwrap();
    assert_eq!(url.as_str(), grant.url, "the URL is already normal");
    let response = app.upload(&grant, name.to_owned()).await;
    assert_eq!(response.status(), 200, "{name:?}");
    let (body, _) = app.stored(&grant.key).await.expect(name);
    assert_eq!(body, name.as_bytes(), "of {name:?}");
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
            app.accepted::<Value>("/s3/multipart", &for_uppy).await["key"].take(),
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
async fn awkward_names_make_the_trip() {
    let longest = ["a".repeat(255), "한".repeat(85), "🎉".repeat(63) + "abc"];
    let names = [
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
    ];
    let names: Vec<String> = names.map(Into::into).into_iter().chain(longest).collect();
    assert_eq!(trips(&spawn_app().await, &names).await, [15, 1, 0]);
}

#[tokio::test]
async fn naughty_strings_make_the_trip_or_are_refused() {
    let app = spawn_app().await;
    let names = data(include_str!("../data/naughty-strings.json"), "strings");
    assert_eq!(trips(&app, &names).await, [223, 7, 255]);
}

#[tokio::test]
async fn all_emoji_make_the_trip() {
    let app = spawn_app().await;
    let emoji = data(include_str!("../data/emoji.json"), "emoji");
    let names: Vec<String> = emoji.chunks(8).map(|some| some.concat() + ".png").collect();
    assert_eq!(trips(&app, &names).await, [names.len(), 0, 0]);
}
