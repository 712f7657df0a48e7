//! What one connection may take, and what many may.

mod buffers;
mod rest;
mod stops;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use presignd::http::{self, Limits, Server};
use presignd::telemetry::Metrics;
use presignd::upload::UploadService;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::helpers::{built_in, client, service};

/// The service with limits that `limit` changes, and what stops it and waits for its end.
async fn spawn(limit: impl FnOnce(&mut Limits)) -> (SocketAddr, DropGuard, JoinHandle<()>) {
    let mut limits = Limits::default();
    limit(&mut limits);
    let config = crate::helpers::sdk_config("127.0.0.1:1".parse().unwrap());
    let uploads = service(&config, "bucket", true, built_in()).await;
    serve(uploads, limits, Metrics::default()).await
}

/// Serves this one, and returns the same as `spawn`.
pub(crate) async fn serve(
    uploads: Arc<UploadService>,
    limits: Limits,
    metrics: Metrics,
) -> (SocketAddr, DropGuard, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let settings = http::Settings {
        stop: stop.clone(),
        ..http::Settings::default()
    };
    let server = Server {
        limits,
        stop: stop.clone(),
        metrics,
    };
    let (addr, listener) = listen();
    let router = http::router(uploads, &settings);
    let server = tokio::spawn(http::serve(listener, router, server));
    (addr, stop.drop_guard(), server)
}

/// A port with room for many clients that nobody has accepted yet.
fn listen() -> (SocketAddr, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    (listener.local_addr().unwrap(), listener)
}

pub(crate) async fn connect(addr: impl ToSocketAddrs, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// A client that sends, reads nothing, and lets its system receive little.
async fn unread(addr: SocketAddr, bytes: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the service closes the connection.
pub(crate) async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// The status of the next answer.
pub(crate) async fn status_of(stream: &mut TcpStream) -> u16 {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    let (version, status) = answer.split_at(9);
    assert!(version.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    str::from_utf8(status).unwrap().parse().unwrap()
}

async fn healthy(addr: SocketAddr) {
    let response = client().get(format!("http://{addr}/healthz")).send().await;
    assert!(response.unwrap().status().is_success());
}

const HALF_A_HEAD: &str = "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-";
/// A request whose body has yet to come.
const HEAD: &str = "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\n\
    content-type: application/json\r\ncontent-length: 36\r\n\r\n";
const BODY: &str = r#"{"filename":"a","contentType":"a/b"}"#;
const REQUEST: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
const LAST_REQUEST: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_thousand_half_open_connections_are_cut_off_and_disturb_no_one() {
    let (addr, _stop, _server) = spawn(|it| it.head_timeout = SHORT).await;
    let mut half_open = Vec::new();
    for _ in 0..1000 {
        half_open.push(connect(addr, HALF_A_HEAD).await);
    }
    healthy(addr).await;
    for stream in half_open {
        assert_eq!(rest(stream).await, "");
    }
    healthy(addr).await;
}

#[tokio::test]
async fn a_head_that_drips_in_is_cut_off() {
    let (addr, _stop, _server) = spawn(|it| it.head_timeout = SHORT).await;
    let mut stream = connect(addr, "GET /healthz HTTP/1.1\r\n").await;
    // One byte at a time: each keeps the connection busy, none ends the head.
    let mut closed = false;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        closed = stream.write_all(b"x").await.is_err();
        if closed {
            break;
        }
    }
    assert!(closed, "six seconds of dripping were taken");
    // Also after a request that was quick.
    let mut stream = connect(addr, REQUEST).await;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    stream.write_all(HALF_A_HEAD.as_bytes()).await.unwrap();
    assert!(!rest(stream).await.contains("HTTP/1.1"));
}

#[tokio::test]
async fn a_connection_that_stays_silent_is_closed_sooner_than_one_that_was_used() {
    let (addr, _stop, _server) = spawn(|it| it.silent_timeout = Duration::from_millis(300)).await;
    let silent = connect(addr, "").await;
    let mut used = connect(addr, REQUEST).await;
    let closed = tokio::time::timeout(Duration::from_secs(5), rest(silent)).await;
    assert_eq!(closed.unwrap(), "");
    used.write_all(LAST_REQUEST.as_bytes()).await.unwrap();
    let answers = rest(used).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out() {
    let (addr, _stop, _server) = spawn(|it| it.max_connections = 50).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect(addr, "").await);
    }
    let answer = tokio::time::timeout(
        Duration::from_secs(5),
        rest(connect(addr, LAST_REQUEST).await),
    );
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_connection_that_is_idle_longest_makes_room_for_another() {
    let (addr, _stop, _server) = spawn(|it| it.max_connections = 2).await;
    let mut first = connect(addr, REQUEST).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = connect(addr, REQUEST).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Now the second one is idle for longer.
    first.write_all(REQUEST.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = rest(connect(addr, LAST_REQUEST).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(rest(second).await.matches("HTTP/1.1 200").count(), 1);
    first.write_all(LAST_REQUEST.as_bytes()).await.unwrap();
    assert_eq!(rest(first).await.matches("HTTP/1.1 200").count(), 3);
}

#[tokio::test]
async fn a_connection_with_a_request_in_progress_makes_no_room_before_its_answer() {
    let (addr, _stop, _server) = spawn(|it| it.max_connections = 1).await;
    let mut busy = connect(addr, HEAD).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = tokio::spawn(rest(connect(addr, LAST_REQUEST).await));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    busy.write_all(BODY.as_bytes()).await.unwrap();
    assert!(rest(busy).await.starts_with("HTTP/1.1 201"));
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_says_that_the_connection_closes() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    for (head, closes) in [
        (
            "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
            true,
        ),
        (
            "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\n",
            true,
        ),
        (
            "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        ("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n", false),
        (
            "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
            false,
        ),
    ] {
        let mut stream = connect(addr, head).await;
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert_eq!(
            answer.contains("connection: close"),
            closes,
            "{head}{answer}"
        );
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    let huge = "x".repeat(Limits::default().max_head_bytes);
    let many = "x: y\r\n".repeat(101);
    for head in [
        format!("GET /healthz HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {huge}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        format!("GET /healthz?{huge} HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The answer may come before all is sent.
        let _refused = stream.write_all(head.as_bytes()).await;
        let answer = rest(stream).await;
        let status = answer.split(' ').nth(1);
        assert!(matches!(status, Some("431" | "414")), "{answer}");
    }
    healthy(addr).await;
}

#[tokio::test]
async fn a_head_that_http_forbids_is_refused() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        (
            "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (
            "POST /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (
            "POST /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
            404,
        ),
    ] {
        let mut stream = connect(addr, head).await;
        assert_eq!(status_of(&mut stream).await, status, "{head}");
    }
}

#[tokio::test]
async fn only_http_1_is_spoken() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    for hello in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01",
        "\0\0\0\0\r\n\r\n",
    ] {
        let answer = rest(connect(addr, hello).await).await;
        assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    }
    healthy(addr).await;
}

#[cfg(target_os = "linux")] // other systems have no such timeout
#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let (addr, _stop, _server) = spawn(|it| it.unread_timeout = Duration::from_millis(500)).await;
    // More than the kernel's buffers hold.
    let requests = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: a\r\n\r\n".repeat(40);
    let stream = unread(addr, &requests).await;
    // Twice its time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answers = tokio::time::timeout(Duration::from_secs(20), rest(stream));
    let answers = answers.await.expect("the connection was closed");
    assert!(answers.matches("HTTP/1.1 200").count() < 40);
}

#[tokio::test]
async fn a_long_body_is_not_read_for_an_upload_that_is_not_there() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    let head = "POST /s3/multipart/bogus/complete?key=a HTTP/1.1\r\nhost: a\r\n\
        content-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    let mut stream = connect(addr, head).await;
    // Far less than a body may take.
    let status = tokio::time::timeout(Duration::from_secs(10), status_of(&mut stream));
    assert_eq!(status.await.unwrap(), 404);
}

/// How many of `clients` have an answer at the moment when the last request is being answered.
async fn answered_before_the_last(clients: usize) -> usize {
    let (addr, listener) = listen();
    let count = Arc::new(AtomicUsize::new(0));
    let (last, mut is_last) = tokio::sync::mpsc::unbounded_channel();
    let route = axum::routing::get(move || {
        let (count, last) = (Arc::clone(&count), last.clone());
        async move {
            if count.fetch_add(1, Ordering::SeqCst) + 1 == clients {
                last.send(()).unwrap();
                // What was sent before this has arrived now.
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    let router = axum::Router::new().route("/healthz", route);
    let mut streams = Vec::new();
    for _ in 0..clients {
        streams.push(connect(addr, REQUEST).await);
    }
    let server = tokio::spawn(http::serve(listener, router, Server::default()));
    is_last.recv().await.unwrap();
    let answered = streams.iter().filter(|stream| {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        matches!(SockRef::from(stream).peek(&mut byte), Ok(1))
    });
    let answered = answered.count();
    server.abort();
    answered
}

#[tokio::test]
async fn many_clients_get_their_answers_in_a_row() {
    let first = answered_before_the_last(20).await;
    // On a busy machine the requests may arrive one by one.
    assert!(first == 0 || answered_before_the_last(20).await == 0);
}

#[tokio::test]
async fn of_a_few_clients_none_waits_for_the_others() {
    assert!(answered_before_the_last(10).await > 0);
}
