//! Keys and policies that are read again while the service runs.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use presignd::http::auth::new_api_key;
use reqwest::StatusCode;
use serde_json::json;

use crate::auth::jwt::{IssuerKey, JWT, claims};
use crate::helpers::{asking_at, eventually, get};
use crate::process::{Running, free_addr, log_lines};

const POLICIES: (&str, &str) = ("UPLOAD_POLICIES_FILE", "policies.toml");

/// `dev` with the address of its service, and that of its metrics.
fn dev_of(folder: &Path, variables: &[(&str, &str)]) -> (Running, String, String) {
    let metrics_addr = free_addr();
    let own = [("METRICS_ADDR", &*metrics_addr), ("LOG_FORMAT", "json")];
    let (dev, base) = Running::dev(folder, &[&own, variables].concat());
    (dev, base, format!("http://{metrics_addr}/metrics"))
}

/// Reads the files again, and waits until the service has counted this many reloads of this outcome.
async fn reload(dev: &Running, metrics: &str, outcome: &str, count: usize) -> String {
    dev.signal("HUP");
    let expected = format!("presignd_reloads_total{{outcome=\"{outcome}\"}} {count}");
    let mut text = String::new();
    let is_counted = async || {
        text = get(metrics, "").await.text().await.unwrap();
        text.contains(&expected)
    };
    eventually(&expected, is_counted).await;
    text
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn a_reload_changes_keys_and_policies_and_a_fault_leaves_both_as_they_were() {
    const OLD: &str = "[policies.default]\nkey = 'old/{uuid}'\n";
    const NEW: &str = "[policies.default]\nkey = 'new/{uuid}'\n[policies.more]\n";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [(old, old_entry), (new, new_entry)] = ["a", "b"].map(|name| new_api_key(name).unwrap());
    write(folder, "keys.toml", &old_entry);
    write(folder, "policies.toml", OLD);
    let variables = [
        ("AUTH_MODE", "api-key"),
        ("API_KEYS_FILE", "keys.toml"),
        POLICIES,
    ];
    let (dev, base, metrics) = dev_of(folder, &variables);
    let ask = async |key: &str, policy: &str| {
        let body = json!({"filename": "a", "contentType": "a/b", "policy": policy});
        let request = asking_at(&base).bearer_auth(key).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: serde_json::Value = response.json().await.unwrap();
        let key = answer["key"].as_str().unwrap_or_default();
        (status, key.split('/').next().unwrap_or_default().to_owned())
    };
    let granted = |folder: &str| (StatusCode::CREATED, folder.to_owned());
    assert_eq!(ask(&old, "default").await, granted("old"));

    // Each of these is a fault for a start, so it is one for a reload.
    let faults = [
        ("[[keys]]\nname = 'x'\n", NEW),
        (new_entry.as_str(), "[policies.default]\nkey = '{'\n"),
        (&format!("{new_entry}policies = ['nope']\n"), NEW),
        (
            &new_entry,
            "[policies.default]\nkey = '{vars.tenant}/{uuid}'\n",
        ),
    ];
    for (index, (keys, policies)) in faults.into_iter().enumerate() {
        write(folder, "keys.toml", keys);
        write(folder, "policies.toml", policies);
        reload(&dev, &metrics, "failed", index + 1).await;
        assert_eq!(ask(&old, "default").await, granted("old"));
        assert_eq!(ask(&new, "default").await.0, 401);
    }

    write(folder, "keys.toml", &new_entry);
    write(folder, "policies.toml", NEW);
    let text = reload(&dev, &metrics, "ok", 1).await;
    assert!(
        text.contains("presignd_configuration_loaded_timestamp_seconds "),
        "{text}"
    );
    assert_eq!(ask(&new, "default").await, granted("new"));
    assert_eq!(ask(&new, "more").await.0, 201);
    assert_eq!(ask(&old, "default").await.0, 401);

    let (code, _, log) = dev.stop("TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("policies.default.key"), "{log}");
    assert!(log.contains("policies has `nope`"), "{log}");
    for secret in [&old, &new] {
        assert!(!log.contains(secret.as_str()), "{log}");
    }
}

#[tokio::test]
async fn a_reload_replaces_the_key_of_an_issuer_and_a_fault_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [old, new] = [(); 2].map(|()| IssuerKey::ec(Algorithm::ES256));
    write(folder, "issuer.pem", &old.pem());
    let variables = [&JWT[..3], &[("JWT_PUBLIC_KEY_FILE", "issuer.pem")]].concat();
    let (dev, base, metrics) = dev_of(folder, &variables);
    let [old_token, new_token] = [&old, &new].map(|key| key.sign(None, &claims("alice")));
    let ask = async |token: &str| {
        let response = asking_at(&base).bearer_auth(token).send().await;
        response.unwrap().status().as_u16()
    };
    assert_eq!([ask(&old_token).await, ask(&new_token).await], [201, 401]);
    write(folder, "issuer.pem", "no key");
    reload(&dev, &metrics, "failed", 1).await;
    assert_eq!([ask(&old_token).await, ask(&new_token).await], [201, 401]);
    // The old token was accepted before; that is not remembered.
    write(folder, "issuer.pem", &new.pem());
    reload(&dev, &metrics, "ok", 1).await;
    assert_eq!([ask(&old_token).await, ask(&new_token).await], [401, 201]);
    // Both are in the file while an issuer changes from one to the other.
    write(folder, "issuer.pem", &(new.pem() + &old.pem()));
    reload(&dev, &metrics, "ok", 2).await;
    assert_eq!([ask(&old_token).await, ask(&new_token).await], [201, 201]);
    write(folder, "issuer.pem", &new.pem());
    reload(&dev, &metrics, "ok", 3).await;
    assert_eq!([ask(&old_token).await, ask(&new_token).await], [401, 201]);

    let (code, _, log) = dev.stop("TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("JWT_PUBLIC_KEY_FILE: issuer.pem"), "{log}");
}

#[tokio::test]
async fn a_reload_says_which_policies_lose_sight_of_their_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let old = "
        [policies.default]
        [policies.gone]
        key = 'gone/{uuid}'
        [policies.moved]
        key = 'before/{uuid}'
        [policies.stored]
        key = 'stored/{uuid}'
        bucket = 'media'
    ";
    write(folder, "policies.toml", old);
    let (dev, _, metrics) = dev_of(folder, &[POLICIES]);
    let new = "
        [policies.default]
        max_size = '1 MiB'
        [policies.moved]
        key = 'after/{uuid}'
        [policies.stored]
        key = 'stored/{uuid}'
    ";
    write(folder, "policies.toml", new);
    reload(&dev, &metrics, "ok", 1).await;
    reload(&dev, &metrics, "ok", 2).await;
    let with_same_keys = format!("{new}[policies.same]\n");
    write(folder, "policies.toml", &with_same_keys);
    reload(&dev, &metrics, "ok", 3).await;
    let (_, _, log) = dev.stop("TERM");
    let same = "the policies default and same can make the same keys";
    assert!(log.contains(same), "{log}");
    let lines = log_lines(&log);
    let warned = lines.iter().filter(|line| line["level"] == "WARN");
    let warned = warned.map(|line| line["message"].as_str().unwrap());
    let warned = warned.filter_map(|text| text.split_once(": its earlier uploads"));
    let warned: Vec<&str> = warned.map(|(what, _)| what).collect();
    assert_eq!(
        warned,
        [
            "the policy gone was removed",
            "the policy moved has another `key`",
            "the policy stored has another `bucket`",
        ],
        "{log}"
    );
}

#[test]
fn a_hangup_before_the_service_listens_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    // The SDK asks it for a region, and waits for an answer.
    let machine = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", machine.local_addr().unwrap());
    let variables = [
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint),
        ("BIND_ADDR", "127.0.0.1:0"),
    ];
    let mut serve = Running::start(&["serve"], folder.path(), &variables);
    let (sender, accepted) = mpsc::channel();
    std::thread::spawn(move || sender.send((machine.accept().unwrap(), machine)));
    let waits = accepted.recv_timeout(Duration::from_secs(30));
    let waits = waits.expect("it asks for a region");
    serve.signal("HUP");
    drop(waits);
    serve.logged_until("policies were read again");
}

#[tokio::test]
async fn a_file_that_blocks_a_reload_is_a_fault_and_holds_up_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "policies.toml", "[policies.default]\n");
    let (mut dev, _, metrics) = dev_of(folder, &[POLICIES]);
    std::fs::remove_file(folder.join("policies.toml")).unwrap();
    let fifo = folder.join("policies.toml");
    let made = Command::new("mkfifo").arg(fifo).status();
    assert!(made.unwrap().success());
    dev.signal("HUP");
    dev.logged_until("could not be read within");
    let metrics = get(&metrics, "").await.text().await.unwrap();
    let counted = "presignd_reloads_total{outcome=\"failed\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    let begin = Instant::now();
    let (code, ..) = dev.stop("TERM");
    assert_eq!(code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10));
}
