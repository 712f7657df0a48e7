//! Parts are replaced, joined and completed as S3 does it.

use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{ChecksumMode, CompletedMultipartUpload, CompletedPart};
use axum::body::Bytes;
use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::{StreamExt, stream};
use presignd::dev::BUCKET;
use reqwest::Body;

use super::refused;
use crate::helpers::{App, spawn_app};

const KEY: &str = "a.bin";

impl App {
    /// What the store keeps of uploads in parts that are under way.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.data()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".upload")).collect()
    }
}

/// An upload in parts, straight at the store.
pub(super) struct Upload<'a> {
    app: &'a App,
    key: &'a str,
    id: String,
}

impl<'a> Upload<'a> {
    async fn create(app: &'a App) -> Self {
        Self::create_at(app, KEY, None).await
    }

    pub(super) async fn create_at(app: &'a App, key: &'a str, tags: Option<&str>) -> Self {
        let create = app.store.create_multipart_upload().bucket(BUCKET).key(key);
        let created = create.set_tagging(tags.map(str::to_owned)).send().await;
        let created = created.unwrap();
        assert_eq!(created.key(), Some(key));
        let id = created.upload_id.unwrap();
        Self { app, key, id }
    }

    /// A presigned request that sends a part.
    pub(super) async fn part(&self, number: i32) -> reqwest::RequestBuilder {
        let part = self.app.store.upload_part().bucket(BUCKET).key(self.key);
        let hour = PresigningConfig::expires_in(Duration::from_hours(1)).unwrap();
        let part = part.upload_id(&self.id).part_number(number).presigned(hour);
        self.app.client.put(part.await.unwrap().uri())
    }

    /// Completes it with part 1 alone.
    pub(super) async fn complete(
        &self,
        etag: &str,
    ) -> Result<CompleteMultipartUploadOutput, String> {
        let part = CompletedPart::builder().part_number(1).e_tag(etag).build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let complete = self.app.store.complete_multipart_upload();
        let complete = complete.bucket(BUCKET).key(self.key).upload_id(&self.id);
        let completed = complete.multipart_upload(parts).send().await;
        completed.map_err(|error| error.code().unwrap().to_owned())
    }
}

pub(super) async fn etag_of(sent: reqwest::RequestBuilder) -> String {
    let response = sent.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.headers()["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_part_with_a_wrong_digest_is_refused_and_replaces_nothing() {
    let app = spawn_app().await;
    let upload = Upload::create(&app).await;
    let etag = etag_of(upload.part(1).await.body("right")).await;
    let md5 = BASE64_STANDARD.encode([0; 16]);
    let wrong = upload.part(1).await.header("content-md5", md5);
    let wrong = wrong.body("wrong").send().await.unwrap();
    refused(wrong, 400, "BadDigest").await;
    for invalid in ["", "AAAA", "no base64 at all"] {
        let part = upload.part(1).await.header("content-md5", invalid);
        let part = part.body("wrong").send().await.unwrap();
        refused(part, 400, "InvalidDigest").await;
    }
    upload.complete(&etag).await.unwrap();
    let (stored, _) = app.stored(KEY).await.unwrap();
    assert_eq!(stored, b"right");
}

#[tokio::test]
async fn of_two_attempts_at_a_part_the_one_that_arrives_last_counts() {
    let app = spawn_app().await;
    let upload = Upload::create(&app).await;
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from("slow "))]);
    let end = stream::once(async {
        finished.await.ok();
        Ok(Bytes::from("part"))
    });
    let slow = upload.part(1).await.header("content-length", 9);
    let slow = slow.body(Body::wrap_stream(begin.chain(end)));
    let slow = tokio::spawn(etag_of(slow));
    let fast = etag_of(upload.part(1).await.body("fast part")).await;
    finish.send(()).unwrap();
    let slow = slow.await.unwrap();
    assert_ne!(slow, fast);

    assert_eq!(upload.complete(&fast).await.unwrap_err(), "InvalidPart");
    upload.complete(&slow).await.unwrap();
    let (stored, _) = app.stored(KEY).await.unwrap();
    assert_eq!(stored, b"slow part");
}

#[tokio::test]
async fn completing_again_gives_the_same_answer() {
    let app = spawn_app().await;
    let upload = Upload::create(&app).await;
    let etag = etag_of(upload.part(1).await.body("part")).await;
    let first = upload.complete(&etag).await.unwrap();
    let again = upload.complete(&etag).await.unwrap();
    assert_eq!(again.e_tag, first.e_tag);

    let late = upload.part(1).await.body("late").send().await.unwrap();
    refused(late, 404, "NoSuchUpload").await;
    let other = Upload {
        app: &app,
        key: KEY,
        id: "8d3b1f5e-0000-4000-8000-000000000000".into(),
    };
    assert_eq!(other.complete(&etag).await.unwrap_err(), "NoSuchUpload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_arrives_while_an_upload_is_completed_or_aborted_leaves_nothing() {
    let app = spawn_app().await;
    for round in 0..40 {
        let upload = Upload::create(&app).await;
        let etag = etag_of(upload.part(1).await.body("part")).await;
        assert_ne!(app.unfinished(), Vec::<String>::new());
        let late = (2..18).map(async |number| {
            let part = upload.part(number).await.body("late");
            tokio::time::sleep(Duration::from_micros(
                700 * u64::from(number.unsigned_abs()),
            ))
            .await;
            part.send().await
        });
        let late = futures_util::future::join_all(late);
        let end = async {
            if round % 2 == 0 {
                upload.complete(&etag).await.unwrap();
            } else {
                let abort = app.store.abort_multipart_upload().bucket(BUCKET).key(KEY);
                abort.upload_id(&upload.id).send().await.unwrap();
            }
        };
        for answer in tokio::join!(late, end).0 {
            let status = answer.unwrap().status();
            assert!(status == 200 || status == 404, "{status}");
        }
        assert_eq!(app.unfinished(), Vec::<String>::new(), "round {round}");
    }
}

#[tokio::test]
async fn if_match_needs_an_object() {
    let app = spawn_app().await;
    let put = app.store.put_object().bucket(BUCKET).key(KEY);
    let error = put.if_match("*").send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchKey"));
}

#[tokio::test]
async fn checksums_are_for_those_who_ask_for_them() {
    let app = spawn_app().await;
    let put = app.store.put_object().bucket(BUCKET).key(KEY);
    put.body(Bytes::from("x").into()).send().await.unwrap();
    let head = app.store.head_object().bucket(BUCKET).key(KEY);
    let without = head.clone().send().await.unwrap();
    let with = head.checksum_mode(ChecksumMode::Enabled).send().await;
    assert_eq!(without.checksum_crc32(), None);
    assert!(with.unwrap().checksum_crc32().is_some());
}

/// The store keeps such a key under a shorter name.
#[tokio::test]
async fn the_answers_about_an_upload_name_the_key_of_the_request() {
    let app = spawn_app().await;
    let key = format!("{}/한 a.bin", "k".repeat(150));
    let upload = Upload::create_at(&app, &key, None).await;
    let etag = etag_of(upload.part(1).await.body("part")).await;
    let list = app.store.list_parts().bucket(BUCKET).key(&key);
    let list = list.upload_id(&upload.id).send().await.unwrap();
    assert_eq!(list.key(), Some(key.as_str()));
    let completed = upload.complete(&etag).await.unwrap();
    assert_eq!(completed.key(), Some(key.as_str()));
    let location: reqwest::Url = completed.location().unwrap().parse().unwrap();
    let path = percent_encoding::percent_decode_str(location.path());
    assert_eq!(path.decode_utf8().unwrap(), format!("/{BUCKET}/{key}"));
}
