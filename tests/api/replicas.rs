//! Services that share a secret and nothing else do the work of one: no request needs the replica that
//! answered the one before.

use presignd::dev::BUCKET;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{App, client, is, problem, spawn_app};
use crate::process::Running;
use crate::uppy::{FIVE_MIB, create_at};

const SECRET: &str = "the-secret-that-all-of-the-replicas-share";

/// A process of its own, in a folder of its own.
struct Replica {
    base: String,
    process: Running,
    _folder: TempDir,
}

impl Replica {
    /// Of a service on the store of `app`.
    fn start(app: &App, secret: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let variables = [
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "presignd-dev"),
            ("AWS_SECRET_ACCESS_KEY", "presignd-dev-secret"),
            ("AWS_S3_BUCKET_NAME", BUCKET),
            ("AWS_ENDPOINT_URL_S3", app.config.endpoint_url().unwrap()),
            ("S3_FORCE_PATH_STYLE", "true"),
            ("UPLOAD_SESSION_SECRET", secret),
        ];
        let (process, addr) = Running::serve(folder.path(), &variables);
        Self {
            base: format!("http://{addr}"),
            process,
            _folder: folder,
        }
    }
}

fn video() -> Value {
    json!({"filename": "a.mp4", "type": "video/mp4"})
}

#[tokio::test]
async fn an_upload_in_parts_continues_at_any_replica_even_if_the_first_one_is_gone() {
    let app = spawn_app().await;
    let [mut first, second, third] = [(); 3].map(|()| Replica::start(&app, SECRET));
    let upload = create_at(&first.base, video()).await;
    let one = upload.put(1, vec![1; FIVE_MIB]).await;
    let two = upload.at(&second.base).put(2, vec![2; FIVE_MIB]).await;
    // As a machine that goes down: the process has no time for anything.
    first.process.child.kill().unwrap();
    first.process.child.wait().unwrap();
    assert!(
        client().get(&first.base).send().await.is_err(),
        "it is gone"
    );
    let three = upload.at(&third.base).put(3, vec![3; 1000]).await;

    let parts = json!([
        {"PartNumber": 1, "ETag": one, "Size": FIVE_MIB},
        {"PartNumber": 2, "ETag": two, "Size": FIVE_MIB},
        {"PartNumber": 3, "ETag": three, "Size": 1000},
    ]);
    assert_eq!(upload.at(&second.base).list().await, parts);
    // One that was not there when the upload began.
    let fourth = Replica::start(&app, SECRET);
    let completed = upload.at(&fourth.base).complete(parts).await;
    assert_eq!(completed.status(), 200);
    let (bytes, content_type) = app.stored(&upload.key).await.unwrap();
    let expected = [vec![1; FIVE_MIB], vec![2; FIVE_MIB], vec![3; 1000]].concat();
    assert!(bytes == expected, "{} bytes", bytes.len());
    assert_eq!(content_type, "video/mp4");
}

#[tokio::test]
async fn a_service_with_another_secret_knows_no_upload_of_the_others() {
    let app = spawn_app().await;
    let ours = Replica::start(&app, SECRET);
    let other = Replica::start(&app, "a-secret-of-a-service-that-is-another");
    let upload = create_at(&ours.base, video()).await;
    upload.put(1, vec![1; 1000]).await;
    for (call, answer) in upload.at(&other.base).each_call().await {
        println!("{call}");
        is(&problem(answer).await, 404, "no-such-upload");
    }
    assert_eq!(upload.list().await.as_array().unwrap().len(), 1);
}
