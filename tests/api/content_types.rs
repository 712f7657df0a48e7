//! A content type that is accepted makes the trip to the store and back as it was written; any other
//! is refused with its reason.

use serde_json::{Value, json};

use crate::helpers::{App, client, fields, problem, spawn_app};

async fn makes_the_trip(app: &App, content_type: &str) {
    let grant = app.grant("a.bin", content_type).await;
    let response = app.upload(&grant, "x").await;
    assert_eq!(response.status(), 200, "{content_type}");
    let (_, stored) = app.stored(&grant.key).await.expect(content_type);
    assert_eq!(stored, content_type);

    let verified = app.post("/upload/verify", &json!({"key": grant.key})).await;
    assert_eq!(verified.status(), 200, "{content_type}");
}

#[tokio::test]
async fn registered_types_make_the_trip() {
    let app = spawn_app().await;
    let data: Value = serde_json::from_str(include_str!("../data/media-types.json")).unwrap();
    let types = data["types"].as_array().unwrap();
    assert_eq!(types.len(), 411);
    for content_type in types {
        makes_the_trip(&app, content_type.as_str().unwrap()).await;
    }
}

/// Each visible character in each place where [browsers](https://mimesniff.spec.whatwg.org/#parsing-a-mime-type)
/// read one, and a few that browsers send.
#[tokio::test]
async fn awkward_types_make_the_trip_or_are_refused() {
    let app = spawn_app().await;
    let mut types: Vec<String> = [
        "video/webm;codecs=vp8,opus",
        "audio/amr-wb+",
        "text/x-c++",
        "TEXT/HTML;CHARSET=GBK",
        "text/html ; ; charset=gbk",
        "text/html;charset=\"\\g\\b\\k",
        "text/plain; charset=utf-8",
        "Text/Plain;Charset=\"UTF-8\"",
        "application/vnd.api+json; profile=\"https://a.example/b?c=d&e\"",
    ]
    .map(Into::into)
    .into();
    for c in '\0'..='\u{FF}' {
        types.push(format!("{c}/x"));
        types.push(format!("x/x;{c}=x;bonus=x"));
        types.push(format!("x/x;x=\"{c}\";bonus=x"));
    }
    let mut refused = 0;
    for content_type in &types {
        let body = json!({"filename": "a.bin", "contentType": content_type});
        let response = app.ask(&body).await;
        if response.status() == 201 {
            makes_the_trip(&app, content_type).await;
            continue;
        }
        let problem = problem(response).await;
        let expected = [("/contentType", "not-a-media-type")];
        assert_eq!(fields(&problem), expected, "{content_type:?}");
        refused += 1;
    }
    // Outside of printable ASCII 3 × 161 are refused; inside, 19 that no name may have.
    assert_eq!(refused, 3 * 161 + 19);
}

#[tokio::test]
async fn a_type_of_255_characters_is_the_longest_on_every_route() {
    let app = spawn_app().await;
    let of_length = |length: usize| {
        let begin = "image/png;a=";
        format!("{begin}{}", "x".repeat(length - begin.len()))
    };
    let calls = async |content_type: &str| {
        let better_upload = json!({
            "route": "default",
            "files": [{"name": "a", "size": 1, "type": content_type}],
        });
        let of_sign = json!({"method": "PUT", "key": "a", "contentType": content_type});
        // Uppy sends a type with the call that begins an upload.
        let begin = json!({"method": "POST", "key": "a"});
        let begin: Value = app.post("/s3/sign", &begin).await.json().await.unwrap();
        let begin = client().post(begin["url"].as_str().unwrap());
        let begin = begin.header("content-type", content_type);
        let body = json!({"filename": "a", "contentType": content_type});
        let of_uppy = json!({"filename": "a", "type": content_type});
        let params = format!("/s3/params?filename=a&type={content_type}");
        [
            (
                "/contentType",
                app.post("/upload/presigned-url", &body).await,
            ),
            ("/type", app.get(&params).await),
            ("/type", app.post("/s3/multipart", &of_uppy).await),
            ("/contentType", app.post("/s3/sign", &of_sign).await),
            (
                "/files/0/type",
                app.post("/better-upload", &better_upload).await,
            ),
            ("", begin.send().await.unwrap()),
        ]
    };
    for (_, answer) in calls(&of_length(255)).await {
        let (status, url) = (answer.status(), answer.url().clone());
        assert!(status.is_success(), "{url}: {status}");
    }
    for (field, answer) in calls(&of_length(256)).await {
        assert_eq!(answer.status(), 400, "{field}");
        if field.is_empty() {
            let xml = answer.text().await.unwrap();
            assert!(xml.contains("contentType must not be longer"), "{xml}");
        } else {
            assert_eq!(fields(&problem(answer).await), [(field, "length")]);
        }
    }
}
