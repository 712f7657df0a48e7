//! Metadata that is refused must not take room while its request waits.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::helpers::{problem, spawn_app};

/// What waits for the store keeps its memory, so it must not be more than what an upload can have.
#[tokio::test]
async fn uploads_with_more_metadata_than_objects_have_wait_for_nothing() {
    let app = spawn_app().await;
    let key = format!("uploads/{}/a", Uuid::new_v4());
    let mut keys = vec![key];
    keys.resize(10, "y".repeat(100_000));
    let waiting = json!({"keys": keys, "wait": 5});
    let url = format!("{}/upload/verify", app.base);
    let waiting = join_all((0..2).map(|_| app.client.post(&url).json(&waiting).send()));
    let metadata: Map<String, Value> = (0..5000).map(|n| (format!("n{n}"), 1.into())).collect();
    let file = |n| json!({"name": format!("{n}"), "size": 1, "type": ""});
    let files: Vec<Value> = (0..100).map(file).collect();
    let requests = [
        (
            "/better-upload",
            json!({"files": files, "metadata": metadata}),
        ),
        (
            "/s3/multipart",
            json!({"filename": "a", "size": 6, "partSize": 5 << 20, "metadata": metadata}),
        ),
    ];
    let refused = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (path, body) in requests {
            let begin = Instant::now();
            let problem = problem(app.post(path, &body).await).await;
            assert_eq!(
                problem["errors"][0]["code"], "metadata-too-large",
                "{path}: {problem}"
            );
            assert!(begin.elapsed() < Duration::from_secs(2), "{path} waited");
        }
    };
    let (verified, ()) = tokio::join!(waiting, refused);
    assert!(
        verified
            .iter()
            .all(|answer| answer.as_ref().unwrap().status() == 200)
    );
}
