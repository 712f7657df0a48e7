//! Connections that are counted, and that a stop loses nothing of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use presignd::http::{self, Limits};
use presignd::telemetry::Metrics;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{has, metrics};
use crate::auth::jwt::JWT;
use crate::connections::{connect, rest, serve};
use crate::helpers::{built_in, client, eventually, service_counting, spawn, spawn_app};
use crate::process::{BUCKET, Running, free_addr};

#[tokio::test]
async fn open_connections_are_counted_beside_their_limit() {
    let settings = http::Settings::default();
    let config = crate::helpers::sdk_config("127.0.0.1:1".parse().unwrap());
    let uploads = service_counting(&config, "bucket", true, built_in(), &settings.metrics).await;
    let (addr, _stop, _server) = serve(
        Arc::clone(&uploads),
        Limits::default(),
        settings.metrics.clone(),
    )
    .await;
    let own = spawn(http::metrics_router(uploads, &settings)).await;
    let url = format!("http://{own}/metrics");
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        ask(&mut stream, "/healthz").await.unwrap();
        streams.push(stream);
    }
    let text = metrics(&url).await;
    has(&text, "presignd_open_connections 3");
    has(&text, "presignd_max_connections 16384");
    // Nothing was signed yet, so there are no cached credentials.
    has(&text, "presignd_credentials_life_seconds 0.0");
    // What is not HTTP/1.1 leaves no request that could be counted.
    let proxied = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for bytes in [proxied, "\u{16}\u{3}\u{1}", "PRI * HTTP/2.0\r\n\r\n"] {
        rest(connect(addr, bytes).await).await;
    }
    has(&metrics(&url).await, "presignd_unreadable_requests_total 3");
    drop(streams);
    let none = "presignd_open_connections 0";
    eventually(none, async || metrics(&url).await.contains(none)).await;
}

/// Nobody who reaches this listener alone can use up the memory of the service.
#[tokio::test]
async fn the_listener_of_the_metrics_keeps_few_connections_and_answers_new_ones() {
    let (folder, metrics_addr) = (TempDir::new().unwrap(), free_addr());
    let variables = [&BUCKET[..], &[("METRICS_ADDR", &metrics_addr)]].concat();
    let (_serve, _) = Running::serve(folder.path(), &variables);
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(&metrics_addr).await.unwrap());
    }
    let mut last = TcpStream::connect(&metrics_addr).await.unwrap();
    ask(&mut last, "/healthz").await.unwrap();
    // Far sooner than a silent connection is closed by itself.
    let closed = timeout(Duration::from_secs(5), silent[0].read_u8()).await;
    assert!(closed.is_ok_and(|read| read.is_err()));
}

/// It asks for no credentials, so a page must not reach it by a name of its own, whoever may call the service.
#[tokio::test]
async fn the_listener_of_the_metrics_answers_no_page_where_it_is_local() {
    let (folder, metrics_addr) = (TempDir::new().unwrap(), free_addr());
    let own = [("METRICS_ADDR", &*metrics_addr)];
    let (_serve, _) = Running::serve(folder.path(), &[&BUCKET[..], &JWT, &own].concat());
    for (host, status) in [("127.0.0.1", 200), ("rebound.evil.example", 403)] {
        let request = client().get(format!("http://{metrics_addr}/metrics"));
        let answer = request.header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
}

/// Sends one request on an open connection: its status, and whether the connection will be closed.
/// `None` if it was closed without an answer.
async fn ask(stream: &mut TcpStream, path: &str) -> Option<(u16, bool)> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let (_, length) = head.split_once("content-length: ")?;
            let length: usize = length.lines().next()?.parse().ok()?;
            if body.len() >= length {
                let status = head.split(' ').nth(1)?.parse().ok()?;
                return Some((status, head.contains("connection: close")));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_under_load_goes_unanswered_when_the_service_stops() {
    let app = spawn_app().await;
    let (addr, stop, server) = serve(
        Arc::clone(&app.uploads),
        Limits::default(),
        Metrics::default(),
    )
    .await;
    let answered = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (answered, lost) = (Arc::clone(&answered), Arc::clone(&lost));
            tokio::spawn(async move {
                // As clients do: the connection is used until the service says that it will close it.
                while let Ok(mut stream) = TcpStream::connect(addr).await {
                    loop {
                        let answer = ask(&mut stream, "/s3/params?filename=a&type=a/b").await;
                        let Some((200, is_last)) = answer else {
                            lost.fetch_add(1, Ordering::SeqCst);
                            break;
                        };
                        answered.fetch_add(1, Ordering::SeqCst);
                        if is_last {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    let is_loaded = async || answered.load(Ordering::SeqCst) >= 500;
    eventually("500 requests are answered", is_loaded).await;
    drop(stop);
    server.await.unwrap();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    assert!(answered.load(Ordering::SeqCst) >= 500);
}

#[tokio::test]
async fn a_service_that_stops_is_not_ready() {
    let app = spawn_app().await;
    let (addr, stop, server) = serve(
        Arc::clone(&app.uploads),
        Limits::default(),
        Metrics::default(),
    )
    .await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    assert_eq!(ask(&mut stream, "/readyz").await, Some((200, false)));
    drop(stop);
    let is_closed = async || TcpStream::connect(addr).await.is_err();
    eventually("no more connections are accepted", is_closed).await;
    assert_eq!(ask(&mut stream, "/readyz").await, Some((503, true)));
    server.await.unwrap();
}
