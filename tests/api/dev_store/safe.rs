//! No web page, key or symbolic link reaches what is not an upload.

use std::os::unix::fs::{PermissionsExt, symlink};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use presignd::dev::{BUCKET, Dev};
use presignd::http::AllowedOrigins;
use tempfile::TempDir;

use super::refused;
use crate::helpers::{client, preflight, spawn, spawn_app};
use crate::process::Running;

/// The status of the answer that the SDK calls an error.
fn status_of<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().unwrap().status().as_u16()
}

#[tokio::test]
async fn no_key_leads_out_of_the_bucket() {
    let app = spawn_app().await;
    std::fs::write(app.data().join("secret.txt"), "secret").unwrap();
    std::fs::create_dir(app.data().join("notes")).unwrap();
    std::fs::write(app.data().join("notes/a.txt"), "secret").unwrap();
    for key in [
        "..",
        ".",
        "../secret.txt",
        "../notes/a.txt",
        "a/../../secret.txt",
        "./a",
        "a/./b",
        "a//b",
        "/a",
        "a/",
        "a\0b",
        "a/..",
        "%2e%2e/secret.txt\0",
    ] {
        let put = app.store.put_object().bucket(BUCKET).key(key);
        let put = put.body(b"x".to_vec().into()).send().await;
        let status = status_of(&put.unwrap_err());
        assert!(matches!(status, 400 | 403), "{key:?}: {status}");
        let get = app.store.get_object().bucket(BUCKET).key(key).send().await;
        let status = status_of(&get.unwrap_err());
        assert!(matches!(status, 400 | 403 | 404), "{key:?}: {status}");
    }
    for bucket in ["notes", "nobucket", ".git", "uploads2"] {
        let put = app.store.put_object().bucket(bucket).key("a.txt").send();
        let status = status_of(&put.await.unwrap_err());
        assert!(matches!(status, 400 | 404), "{bucket}: {status}");
        let get = app.store.get_object().bucket(bucket).key("a.txt").send();
        assert!(get.await.is_err(), "{bucket}");
    }
    for file in ["secret.txt", "notes/a.txt"] {
        let bytes = std::fs::read(app.data().join(file)).unwrap();
        assert_eq!(bytes, b"secret", "{file}");
    }
}

#[tokio::test]
async fn symbolic_links_are_not_followed() {
    let app = spawn_app().await;
    let outside = TempDir::new().unwrap();
    std::fs::write(outside.path().join("a.txt"), "secret").unwrap();
    let bucket = app.data().join(BUCKET);
    symlink(outside.path(), bucket.join("folder")).unwrap();
    symlink(outside.path().join("a.txt"), bucket.join("file.txt")).unwrap();
    symlink(outside.path().join("new.txt"), bucket.join("new.txt")).unwrap();
    for key in ["folder/a.txt", "folder/b.txt", "file.txt", "new.txt"] {
        let object = || app.store.get_object().bucket(BUCKET).key(key);
        let error = object().send().await.unwrap_err();
        assert_eq!(status_of(&error), 403, "{key}");
        let put = app.store.put_object().bucket(BUCKET).key(key);
        let put = put.body(b"x".to_vec().into()).send().await;
        assert!(put.is_err(), "{key}");
        let delete = app.store.delete_object().bucket(BUCKET).key(key);
        assert!(delete.send().await.is_err(), "{key}");
    }
    let list = app.store.list_objects_v2().bucket(BUCKET).send();
    let list = list.await.unwrap();
    assert_eq!(list.contents().len(), 0, "{list:?}");
    assert_eq!(
        std::fs::read(outside.path().join("a.txt")).unwrap(),
        b"secret"
    );
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// Anyone can put such a folder into a repository.
#[test]
fn a_data_folder_with_a_symbolic_link_is_refused() {
    for name in ["uploads", ".secret-key", ".writable"] {
        let [data, outside] = [(); 2].map(|()| TempDir::new().unwrap());
        let file = outside.path().join("file");
        std::fs::write(&file, "long-enough").unwrap();
        let target = if name == "uploads" {
            outside.path()
        } else {
            &file
        };
        symlink(target, data.path().join(name)).unwrap();
        let error = Dev::open(data.path(), None).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("symbolic link"),
            "{error}"
        );
    }
}

/// git keeps no other permissions than these.
#[test]
fn dev_warns_of_a_secret_that_others_can_read() {
    for (mode, warns) in [(0o600, false), (0o644, true)] {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join(".presignd");
        std::fs::create_dir(&data).unwrap();
        let file = data.join(".secret-key");
        std::fs::write(&file, "long-enough").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let (dev, _) = Running::dev(folder.path(), &[]);
        let (_, _, log) = dev.stop("TERM");
        assert_eq!(log.contains("others may know the secret"), warns, "{log}");
    }
}

#[tokio::test]
async fn keys_that_exclude_each_other_as_files_are_refused_with_the_reason() {
    let app = spawn_app().await;
    let put = async |key: &str| {
        let put = app.store.put_object().bucket(BUCKET).key(key);
        put.body(b"x".to_vec().into()).send().await
    };
    put("a").await.unwrap();
    put("b/c").await.unwrap();
    for key in ["a/b", "a/b/c", "b"] {
        let error = put(key).await.unwrap_err();
        assert_eq!(status_of(&error), 400, "{key}");
        let message = error.message().unwrap();
        assert!(message.contains("exclude each other"), "{message}");
        let create = app.store.create_multipart_upload().bucket(BUCKET).key(key);
        let error = create.send().await.unwrap_err();
        assert_eq!(status_of(&error), 400, "{key}");
    }
    let get = app.store.get_object().bucket(BUCKET).key("b").send().await;
    assert_eq!(get.unwrap_err().code(), Some("NoSuchKey"));
}

#[tokio::test]
async fn the_store_answers_no_rebound_name() {
    let app = spawn_app().await;
    let url = app.config.endpoint_url().unwrap();
    for (host, expected) in [
        ("rebound.evil.example", "names another host"),
        ("127.0.0.1.evil.example", "names another host"),
        ("10.0.0.1", "names another host"),
        ("", "names another host"),
        ("localhost:9000", "not signed"),
        ("app.localhost", "not signed"),
        ("127.0.0.2:80", "not signed"),
        ("[::1]:9000", "not signed"),
    ] {
        let get = client()
            .get(format!("{url}/{BUCKET}/a"))
            .header("host", host);
        let response = get.send().await.unwrap();
        let message = refused(response, 403, "AccessDenied").await;
        assert!(message.contains(expected), "{host}: {message}");
    }
}

#[tokio::test]
async fn pages_of_this_machine_alone_may_send_to_the_store_unless_others_are_named() {
    let data = TempDir::new().unwrap();
    let dev = Dev::open(data.path(), None).unwrap();
    let named = AllowedOrigins::Exactly(vec!["https://app.example".parse().unwrap()]);
    let by_default = spawn(dev.store(&AllowedOrigins::Loopback).unwrap()).await;
    let by_name = spawn(dev.store(&named).unwrap()).await;
    let allowed = async |addr, origin: &str| {
        let url = format!("http://{addr}/{BUCKET}/a");
        let response = preflight(&url, origin, "PUT", "content-type,x-amz-meta-a").await;
        let methods = response.headers()["access-control-allow-methods"].clone();
        assert_eq!(methods, "PUT,POST");
        response
            .headers()
            .contains_key("access-control-allow-origin")
    };
    for origin in [
        "http://localhost:5173",
        "http://127.0.0.1:3000",
        "https://app.localhost",
    ] {
        assert!(allowed(by_default, origin).await, "{origin}");
        assert!(!allowed(by_name, origin).await, "{origin}");
    }
    for origin in [
        "https://evil.example",
        "http://localhost.evil.example",
        "null",
    ] {
        assert!(!allowed(by_default, origin).await, "{origin}");
    }
    assert!(allowed(by_name, "https://app.example").await);
}

#[test]
fn the_secret_key_is_random_kept_and_readable_by_its_owner_alone() {
    let secret = |data: &TempDir, given: Option<&str>| {
        let dev = Dev::open(data.path(), given.map(Into::into))?;
        let addr = "127.0.0.1:9000".parse().unwrap();
        let banner = dev.banner(addr, addr, None, &[])?;
        let (_, rest) = banner.split_once(", secret ").unwrap();
        anyhow::Ok(rest.lines().next().unwrap().to_owned())
    };
    let [one, other] = [(); 2].map(|()| TempDir::new().unwrap());
    let first = secret(&one, None).unwrap();
    assert!(first.len() >= 40, "{first}");
    assert_eq!(secret(&one, None).unwrap(), first);
    assert_ne!(secret(&other, None).unwrap(), first);
    assert_eq!(
        secret(&one, Some("chosen-secret")).unwrap(),
        "chosen-secret"
    );
    assert_eq!(secret(&one, None).unwrap(), first);
    let file = std::fs::metadata(one.path().join(".secret-key")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    for bad in ["", "short", "with a space", "ünprintable"] {
        let error = secret(&one, Some(bad)).unwrap_err().to_string();
        assert!(error.contains("--secret-key"), "{error}");
    }
}
