//! What one caller may hold at the same time, so that others are answered.

mod metadata;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use futures_util::future::join_all;
use presignd::dev;
use presignd::http;
use presignd::upload::UploadService;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::auth::back_end;
use crate::connections::connect;
use crate::helpers::{
    built_in, client, eventually, is, problem, service, spawn, spawn_app, spawn_app_with_both,
    with_policies,
};
use crate::rate_limit::limited;
use crate::stand_in::{StandIn, object};
use crate::uppy::create_at;

#[tokio::test]
async fn a_batch_of_parts_counts_as_several_requests() {
    let app = spawn_app_with_both(built_in(), &limited(12)).await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    let batch = async |count: u32| {
        let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
        let numbers = numbers.join(",");
        let numbers = [("partNumbers", numbers.as_str())];
        let answer = upload.call(Method::GET, "batch", &numbers, None).await;
        answer.status().as_u16()
    };
    // With the one that created the upload, 12 requests: 1 for up to 20 parts, 10 for 200.
    assert_eq!(batch(20).await, 200);
    assert_eq!(batch(200).await, 200);
    assert_eq!(batch(1).await, 429);
}

#[tokio::test]
async fn a_caller_waits_for_uploads_with_64_requests_at_most() {
    let app = spawn_app().await;
    let ask = |n| {
        let route = if n % 2 == 0 { "verify" } else { "commit" };
        let body = json!({"key": format!("uploads/{}/a", Uuid::new_v4()), "wait": 2});
        let url = format!("{}/upload/{route}", app.base);
        app.client.post(url).json(&body).send()
    };
    let answers = join_all((0..70).map(ask)).await;
    let mut refused = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status() == 404 {
            continue;
        }
        assert!(answer.headers().contains_key("retry-after"));
        is(&problem(answer).await, 429, "too-many-waiting");
        refused += 1;
    }
    assert_eq!(refused, 6);
}

/// An app to which a test is a proxy: the header [`FROM`] says where a request comes from.
async fn spawn_behind_proxy(uploads: Arc<UploadService>) -> SocketAddr {
    let settings = http::Settings {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..http::Settings::default()
    };
    spawn(http::router(uploads, &settings)).await
}

const FROM: &str = "x-forwarded-for";

/// A list of files whose body is long.
fn long_list() -> Value {
    let name = "n".repeat(200);
    let file = json!({"filename": name, "contentType": "text/plain"});
    let list = json!({"files": vec![file; 500]});
    assert!(list.to_string().len() > 64 * 1024);
    list
}

/// Begins to send a body of 2 MiB, and stops after `bytes` of it.
async fn stalled(addr: SocketAddr, from: &str, bytes: usize) -> TcpStream {
    let head = format!(
        "POST /upload/presigned-urls HTTP/1.1\r\nhost: localhost\r\n{FROM}: {from}\r\n\
         content-type: application/json\r\ncontent-length: 2097152\r\n\r\n"
    );
    let mut stream = connect(addr, &head).await;
    stream.write_all(&vec![b' '; bytes]).await.unwrap();
    stream
}

/// Sends a long list, which must not be delayed.
async fn is_granted_soon(addr: SocketAddr, from: &str) {
    let url = format!("http://{addr}/upload/presigned-urls");
    let begin = Instant::now();
    let request = client().post(url).header(FROM, from).json(&long_list());
    let status = request.send().await.unwrap().status();
    let took = begin.elapsed();
    assert_eq!(status, 201, "after {took:?}");
    // Whatever waits for those who stall gets 429 after 10 seconds.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn bodies_of_which_little_arrives_delay_no_list() {
    let app = spawn_app().await;
    let addr = spawn_behind_proxy(app.uploads).await;
    let mut slow = Vec::new();
    for n in 0..64 {
        slow.push(stalled(addr, "198.51.100.1", 1).await);
        slow.push(stalled(addr, &format!("192.0.2.{n}"), 65_537).await);
    }
    is_granted_soon(addr, "198.51.100.1").await;
}

#[tokio::test]
async fn long_bodies_that_stall_make_room_for_others_within_seconds() {
    let app = spawn_app().await;
    let addr = spawn_behind_proxy(app.uploads).await;
    // Two of one caller have all of its room.
    let mut slow = vec![
        stalled(addr, "198.51.100.1", 65_537).await,
        stalled(addr, "198.51.100.1", 65_537).await,
    ];
    is_granted_soon(addr, "198.51.100.1").await;
    // Sixteen that are almost complete have the room of all.
    for n in 0..17 {
        slow.push(stalled(addr, &format!("192.0.2.{n}"), 2 * 1024 * 1024 - 10).await);
    }
    is_granted_soon(addr, "198.51.100.2").await;
    let mut answer = [0; 12];
    slow[0].read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

/// Waits until the store was asked 16 times, which is not more than it may be.
async fn gets_16_calls(store: &StandIn) {
    let mut asked = 0;
    let are_all = async || {
        asked += store.asked();
        asked >= 16
    };
    eventually("the store gets 16 calls", are_all).await;
    assert_eq!(asked, 16);
}

#[tokio::test]
async fn a_network_that_verifies_much_keeps_nobody_else_waiting() {
    let release = Arc::new(Semaphore::new(0));
    let released = Arc::clone(&release);
    let store = StandIn::answering(move |request: Request| {
        let released = Arc::clone(&released);
        async move {
            if request.uri().path().ends_with("slow") {
                released.acquire().await.unwrap().forget();
            }
            object(&[])
        }
    })
    .await;
    let policies = with_policies("[policies.default]\npending = true");
    let uploads = service(&store.config(), dev::BUCKET, true, policies).await;
    let addr = spawn_behind_proxy(uploads).await;
    let ask = |path, from: &'static str, keys: Value| {
        let request = client().post(format!("http://{addr}/upload/{path}"));
        request.header(FROM, from).json(&keys).send()
    };
    let verify = |from, keys| ask("verify", from, keys);
    let key = |name| format!("uploads/{}/{name}", Uuid::new_v4());
    let slow: Vec<String> = (0..100).map(|_| key("slow")).collect();
    let flood = tokio::spawn(verify("198.51.100.1", json!({"keys": slow})));
    gets_16_calls(&store).await;
    // None of the calls before this one has been answered.
    let other = verify("198.51.100.2", json!({"key": key("fast")})).await;
    assert_eq!(other.unwrap().status(), 200);
    assert_eq!(store.asked(), 1);
    // A commit that waits for the other calls of its network does not hold the object.
    let both = json!({"key": key("fast")});
    let waiting = tokio::spawn(ask("commit", "198.51.100.1", both.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let other = ask("commit", "198.51.100.2", both);
    let other = tokio::time::timeout(Duration::from_secs(10), other).await;
    assert_ne!(other.expect("it waits").unwrap().status(), 429);
    waiting.abort();
    release.add_permits(100);
    assert_eq!(flood.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn commits_of_one_upload_that_wait_for_each_other_keep_nothing_from_others() {
    let store = StandIn::answering(async |request: Request| {
        if request.uri().path().ends_with("slow") {
            std::future::pending::<()>().await;
        }
        object(&[])
    })
    .await;
    let base = store.service("[policies.default]\npending = true").await;
    let ask = |path: &str, key: &str| {
        let request = client().post(format!("{base}/upload/{path}"));
        request.json(&json!({"key": key})).send()
    };
    let slow = format!("uploads/{}/slow", Uuid::new_v4());
    let commits = join_all((0..20).map(|_| ask("commit", &slow)));
    let commits = tokio::spawn(commits);
    eventually("the store is asked", async || store.asked() > 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.asked(), 0, "one commit is in progress");
    let fast = ask("verify", &format!("uploads/{}/fast", Uuid::new_v4()));
    let fast = tokio::time::timeout(Duration::from_secs(5), fast);
    assert_eq!(fast.await.unwrap().unwrap().status(), 200);
    commits.abort();
}

/// Each call to the store takes a file descriptor of the service.
#[tokio::test]
async fn a_network_has_few_calls_to_the_store_at_a_time_whatever_it_asks_for() {
    const POLICIES: &str = "[policies.default]\ndownload = true\ndelete = true";
    let app = spawn_app().await;
    let upload = create_at(&app.base, json!({"filename": "a"})).await;
    let abort = format!("/s3/multipart/{}?key={}", upload.id, upload.key);
    let key = format!("uploads/{}/a", Uuid::new_v4());
    for (method, path, body) in [
        (Method::POST, "/s3/multipart", json!({"filename": "a"})),
        (Method::DELETE, &abort, json!({})),
        (Method::POST, "/upload/delete", json!({"key": key})),
        (
            Method::POST,
            "/download/presigned-url",
            json!({"key": key, "disposition": "inline"}),
        ),
    ] {
        let store = StandIn::answering(async |_: Request| std::future::pending().await).await;
        let settings = with_policies(POLICIES);
        let uploads = service(&store.config(), dev::BUCKET, true, settings).await;
        let addr = spawn_behind_proxy(uploads).await;
        let calls = (0..100).map(|_| {
            let request = client().request(method.clone(), format!("http://{addr}{path}"));
            let request = request.header(FROM, "198.51.100.1");
            request.json(&body).send()
        });
        let calls = tokio::spawn(join_all(calls));
        gets_16_calls(&store).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(store.asked(), 0, "{method} {path}");
        calls.abort();
    }
}

#[tokio::test]
async fn a_user_of_an_api_key_leaves_room_for_the_others() {
    let settings = built_in();
    let (key, auth) = back_end(&settings.policies);
    let app = crate::auth::spawn(settings, auth).await;
    let verify = |user: &'static str| {
        let body = json!({"key": format!("uploads/{}/a", Uuid::new_v4()), "wait": 3});
        let request = app.client.post(format!("{}/upload/verify", app.base));
        let request = request.bearer_auth(&key).header("x-on-behalf-of", user);
        let request = request.json(&body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let alice = join_all((0..70).map(|_| verify("alice")));
    let bob = join_all((0..60).map(|_| verify("bob")));
    let (alice, bob) = tokio::join!(alice, bob);
    assert_eq!(alice.iter().filter(|status| **status == 429).count(), 6);
    assert!(bob.iter().all(|status| *status == 404), "{bob:?}");
}

#[tokio::test]
async fn when_there_are_too_many_lists_to_verify_some_are_answered_and_the_others_are_refused() {
    let store = StandIn::answering(async |_: Request| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        object(&[])
    })
    .await;
    let uploads = service(&store.config(), dev::BUCKET, true, built_in()).await;
    let addr = spawn_behind_proxy(uploads).await;
    // Together, they need longer than any key may wait.
    let verify = |n| {
        let key = |_| format!("uploads/{}/a", Uuid::new_v4());
        let keys: Vec<String> = (0..100).map(key).collect();
        let request = client().post(format!("http://{addr}/upload/verify"));
        let request = request.header(FROM, format!("192.0.2.{n}"));
        request.json(&json!({"keys": keys})).send()
    };
    let answers = join_all((0..40).map(verify)).await;
    let mut verified = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status() == 200 {
            verified += 1;
            continue;
        }
        assert!(answer.headers().contains_key("retry-after"));
        is(&problem(answer).await, 429, "too-much-at-once");
    }
    // Twelve where the processor is fast enough.
    assert!((4..36).contains(&verified), "{verified}");
}

/// Sends a list several times, and reads nothing. The kernel holds the first answers.
async fn unread(addr: SocketAddr, from: &str) -> OwnedReadHalf {
    let body = long_list().to_string();
    let length = body.len();
    let request = |connection| {
        format!(
            "POST /upload/presigned-urls HTTP/1.1\r\nhost: localhost\r\n{FROM}: {from}\r\nconnection: {connection}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let mut requests = vec![request("keep-alive"); UNREAD - 1];
    requests.push(request("close"));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let (read, mut write) = socket.connect(addr).await.unwrap().into_split();
    // The service reads no request before it has sent the answer to the one before.
    tokio::spawn(async move {
        write.write_all(requests.concat().as_bytes()).await.ok(); // it may be closed
        write.forget();
    });
    read
}

const UNREAD: usize = 10;

/// How many answers come until the service closes the connection.
async fn answers(mut read: OwnedReadHalf) -> usize {
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes).await.ok(); // it may be reset
    let text = String::from_utf8_lossy(&bytes);
    text.matches("HTTP/1.1 201").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_long_answers_makes_room_for_the_next_ones() {
    let app = spawn_app().await;
    let addr = spawn_behind_proxy(app.uploads).await;
    let status = async |from: &str| {
        let request = client().post(format!("http://{addr}/upload/presigned-urls"));
        let request = request.header(FROM, from).json(&long_list());
        let response = request.send().await.unwrap();
        let status = response.status();
        response.bytes().await.unwrap();
        status
    };
    let other = unread(addr, "198.51.100.2").await;
    let mut slow = Vec::new();
    while status("198.51.100.1").await == 201 {
        assert!(
            slow.len() < 100,
            "the caller has all the room that it wants"
        );
        slow.push(unread(addr, "198.51.100.1").await);
    }
    let has_room = async {
        while status("198.51.100.1").await != 201 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let has_room = tokio::time::timeout(Duration::from_secs(40), has_room);
    has_room
        .await
        .expect("whoever does not read keeps its room");
    let read = join_all(slow.into_iter().map(answers)).await;
    assert!(read.iter().any(|answers| *answers < UNREAD), "{read:?}");
    // This one took nothing from others.
    assert_eq!(answers(other).await, UNREAD);
}
