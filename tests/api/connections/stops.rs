//! What happens to connections when the service stops, or has no file descriptor for another one.

use std::time::Duration;

use presignd::http::{self, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{BODY, HALF_A_HEAD, HEAD, REQUEST, connect, listen, rest, spawn};
use crate::helpers::{built_in, service};
use crate::process::{BUCKET, Running, free_addr};

/// How to serve when the service has to stop immediately.
fn stopped() -> Server {
    let server = Server::default();
    server.stop.cancel();
    server
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_or_half_sent_and_answers_requests_in_progress() {
    let drain = Duration::from_mins(1);
    let (addr, stop, server) = spawn(|it| it.drain_timeout = drain).await;
    let silent = connect(addr, "").await;
    let half = connect(addr, HALF_A_HEAD).await;
    let mut under_way = connect(addr, HEAD).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stop);
    // Longer than a stop waits for first heads.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!server.is_finished(), "it did not wait for the answer");
    assert!(
        TcpStream::connect(addr).await.is_err(),
        "new connections are taken"
    );
    under_way.write_all(BODY.as_bytes()).await.unwrap();
    let answer = rest(under_way).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(rest(silent).await, "");
    assert_eq!(rest(half).await, "");
    // Not after the time that a client has for its head.
    tokio::time::timeout(Duration::from_secs(10), server)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn all_who_are_connected_when_the_service_stops_are_answered() {
    let config = crate::helpers::sdk_config("127.0.0.1:1".parse().unwrap());
    let uploads = service(&config, "bucket", true, built_in()).await;
    let router = http::router(uploads, &http::Settings::default());
    let (addr, listener) = listen();
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(connect(addr, REQUEST).await);
    }
    // It stops before it has looked at any of them.
    http::serve(listener, router, stopped()).await;
    for client in clients {
        assert!(rest(client).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn requests_that_are_there_at_a_stop_are_answered_however_long_they_take() {
    const CLIENTS: usize = 500;
    // All of them take twice as long as a stop waits for requests on idle connections.
    let busy = || async { std::thread::sleep(Duration::from_millis(2)) };
    let router = axum::Router::new().route("/healthz", axum::routing::get(busy));
    let (addr, listener) = listen();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(addr, REQUEST).await);
    }
    http::serve(listener, router, stopped()).await;
    for client in clients {
        assert!(rest(client).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn idle_connections_make_room_where_no_file_descriptor_is_free() {
    let (folder, addr) = (TempDir::new().unwrap(), free_addr());
    let mut command = std::process::Command::new("sh");
    let script = "ulimit -n 64 && exec \"$0\" serve";
    command.args(["-c", script, env!("CARGO_BIN_EXE_presignd")]);
    command.env_clear().current_dir(folder.path()).envs(BUCKET);
    command.env("BIND_ADDR", &addr);
    let mut serve = Running::run(&mut command);
    serve.logged_until("listening");
    let mut idle = Vec::new();
    for number in 0..70 {
        let mut stream = connect(&addr, REQUEST).await;
        let answer = timeout(Duration::from_secs(10), stream.read(&mut [0; 1024])).await;
        assert!(answer.is_ok_and(|read| read.unwrap() > 0), "{number}");
        idle.push(stream);
    }
}
