//! Clients learn why the store refuses a file, whatever they send and whenever they read.

use std::time::Duration;

use reqwest::multipart::{Form, Part};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::refusal;
use crate::connections::connect;
use crate::helpers::{Grant, asking_at, client, spawn_app};
use crate::presigned_post::PostGrant;
use crate::process::Running;

#[tokio::test]
async fn a_form_with_a_mistake_of_its_client_says_which() {
    let app = spawn_app().await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain"});
    let grant: PostGrant = app.granted("/upload/presigned-post", &body).await;
    let form = |file: &'static str, is_first: bool| {
        let fields = grant.fields.clone().into_iter();
        let with = |form: Form| fields.fold(form, |form, (name, value)| form.text(name, value));
        let file = |form: Form| form.part(file, Part::text("x").file_name("a.txt"));
        let form = if is_first {
            with(file(Form::new()))
        } else {
            file(with(Form::new()))
        };
        app.client.post(&grant.url).multipart(form)
    };
    for (request, expected) in [
        (form("file", true), "come after the file"),
        (form("upload", false), "the field `file`"),
        (
            app.client
                .post(&grant.url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body("key=a"),
            "multipart/form-data",
        ),
    ] {
        let (status, code, message) = refusal(request.send().await.unwrap()).await;
        assert!(status >= 400, "{expected}");
        assert!(message.contains(expected), "{code}: {message}");
    }
}

#[tokio::test]
async fn the_log_says_for_how_long_an_expired_url_was_valid() {
    let folder = TempDir::new().unwrap();
    let (dev, base) = Running::dev(folder.path(), &[("UPLOAD_URL_EXPIRES_IN", "1")]);
    let grant: Grant = asking_at(&base).send().await.unwrap().json().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(grant.send(&client(), "x").await.status(), 403);
    let (_, _, log) = dev.stop("INT");
    assert!(log.contains("valid for 1 seconds from 20"), "{log}");
}

#[tokio::test]
async fn a_client_that_first_sends_the_whole_file_learns_why_it_is_refused() {
    /// More than the kernel keeps for a connection.
    const BYTES: usize = 8_000_000;
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let address = app.config.endpoint_url().unwrap().replace("http://", "");
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/html\r\ncontent-length: {BYTES}\r\n\r\n",
        grant.url.split_once(&address).unwrap().1
    );
    for expect in ["", "expect: 100-continue\r\n"] {
        let head = head.replace("content-length", &format!("{expect}content-length"));
        let mut stream = connect(&address, &head).await;
        // Nobody is asked for a file that is refused by its head alone.
        if expect.is_empty() {
            stream.write_all(&vec![0; BYTES]).await.unwrap();
        }
        assert!(answer(&mut stream).await.contains("SignatureDoesNotMatch"));
    }

    let body = json!({"filename": "a.txt", "contentType": "text/plain", "size": 3});
    let form: PostGrant = app.granted("/upload/presigned-post", &body).await;
    let body = form.bytes("b", &vec![b'x'; BYTES]);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: multipart/form-data; boundary=b\r\n\
        expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        form.url.split_once(&address).unwrap().1,
        body.len()
    );
    let mut stream = connect(&address, &head).await;
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body).await.unwrap();
    assert!(answer(&mut stream).await.contains("EntityTooLarge"));
}

/// The answer of the store, up to the end of its error.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"</Error>") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    String::from_utf8(answer).unwrap()
}
