//! Files that Uppy 4 and 5, and clients of Shrine, send with one PUT, because no form can be used.

use presignd::upload::Settings;
use serde_json::{Value, json};

use super::sign::send;
use crate::helpers::{
    App, answer, fields, problem, spawn_app_with, spawn_app_with_policies, spawn_app_without_forms,
    with_policies,
};

async fn params(app: &App, query: &str) -> Value {
    answer(200, app.get(&format!("/s3/params?{query}")).await).await
}

#[tokio::test]
async fn a_store_without_forms_gets_a_put() {
    let app = spawn_app_without_forms("[policies.default]\nallowed_metadata = ['album']").await;
    let query = "filename=a%20b.jpg&type=image/jpeg&metadata[album]=7&metadata[name]=x";
    let answer = params(&app, query).await;
    assert_eq!(answer["method"], "PUT");
    assert_eq!(answer["fields"], json!({}));
    assert_eq!(answer["expires"], 600);
    assert_eq!(
        answer["headers"],
        json!({"content-type": "image/jpeg", "x-amz-meta-album": "7"})
    );
    assert_eq!(send(&answer, None, "the bytes".into()).await.status(), 200);
    let stored = app.stored(answer["key"].as_str().unwrap()).await.unwrap();
    assert_eq!(stored, (b"the bytes".to_vec(), "image/jpeg".to_owned()));
}

#[tokio::test]
async fn a_put_keeps_a_policy_that_forbids_overwriting() {
    let app = spawn_app_with_policies(
        "[policies.default]
        [policies.once]
        key = 'once/{filename}'
        overwrite = false",
    )
    .await;
    let first = params(&app, "filename=a.txt&type=text/plain&policy=once").await;
    assert_eq!(first["headers"]["if-none-match"], "*");
    assert_eq!(send(&first, None, "first".into()).await.status(), 200);
    let second = send(&first, None, "second".into()).await;
    assert_eq!(second.status(), 412);
    let form = params(&app, "filename=a.txt&type=text/plain").await;
    assert_eq!(form["method"], "POST");
}

#[tokio::test]
async fn a_size_binds_the_put_and_the_form() {
    for supports_post in [false, true] {
        let settings = Settings {
            supports_post,
            ..with_policies("[policies.default]\nmax_size = '5 B'")
        };
        let app = spawn_app_with(settings).await;
        let refused = problem(app.get("/s3/params?filename=a&size=6").await).await;
        assert_eq!(fields(&refused), [("/size", "file-too-large")]);
        for size in ["-1", "x", "1.5", "18446744073709551616"] {
            let invalid = problem(app.get(&format!("/s3/params?filename=a&size={size}")).await);
            assert_eq!(
                fields(&invalid.await),
                [("/size", "out-of-range")],
                "{size}"
            );
        }
        assert!(params(&app, "filename=a&size=5").await["url"].is_string());
    }
    let app = spawn_app_without_forms("[policies.default]\nmax_size = '5 B'").await;
    let answer = params(&app, "filename=a&size=5").await;
    assert_eq!(send(&answer, None, "123456".into()).await.status(), 403);
    assert_eq!(send(&answer, None, "12345".into()).await.status(), 200);
    // Without a size a PUT has no limit.
    let refused = problem(app.get("/s3/params?filename=a").await).await;
    assert_eq!(fields(&refused), [("/size", "size-required")]);
}

#[tokio::test]
async fn a_file_that_no_form_can_carry_gets_a_put() {
    let app = spawn_app_with_policies("[policies.default]\nallowed_metadata = ['*']").await;
    // A store would replace this in a form.
    let name = "a%24%7Bfilename%7D.txt";
    let answer = params(&app, &format!("filename={name}&type=text/plain")).await;
    assert_eq!(answer["method"], "PUT");
    assert_eq!(send(&answer, None, "the bytes".into()).await.status(), 200);
    let key = answer["key"].as_str().unwrap();
    assert!(key.ends_with("/a${filename}.txt"), "{key}");
    assert!(app.stored(key).await.is_some());

    // A PUT needs the size, which this call of Uppy's does not have. So the reason is the name.
    let limited = spawn_app_with_policies("[policies.default]\nmax_size = '5 MiB'").await;
    let refused = limited.get(&format!("/s3/params?filename={name}")).await;
    assert_eq!(fields(&problem(refused).await), [("/filename", "reserved")]);
}
