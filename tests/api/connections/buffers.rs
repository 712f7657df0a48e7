//! What the kernel keeps of what a connection sends and does not read.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{connect, spawn, unread};
use crate::helpers::eventually;

const LONG_ANSWER: &str = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n";
const LAST_ANSWER: &str = "GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
/// Linux doubles the limit of 128 KiB, and lets the last segment of answers exceed it.
const MOST_SENT: usize = 352 * 1024;
const MOST_RECEIVED: usize = 288 * 1024;

/// A socket of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    is_open: bool,
    /// How many bytes the kernel keeps of what was sent, and of what was received.
    sent: usize,
    received: usize,
}

/// The server's sockets, also those that it has closed.
fn sockets(addr: SocketAddr) -> Vec<Kept> {
    const OPEN: &str = "01";
    const LISTENING: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", addr.port());
    let of_server = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (sent, received) = fields.next()?.split_once(':')?;
        let bytes = |hex| usize::from_str_radix(hex, 16).unwrap();
        (local.ends_with(&port) && state != LISTENING).then(|| Kept {
            is_open: state == OPEN,
            sent: bytes(sent),
            received: bytes(received),
        })
    });
    of_server.collect()
}

/// Reads the next answer, and no byte after it.
async fn read_answer(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split_once("content-length: ").unwrap().1;
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; length]).await.unwrap();
}

/// Sends until the system accepts nothing more, and returns the server's only socket then.
async fn full(addr: SocketAddr, stream: &mut TcpStream, bytes: &str) -> Kept {
    let mut unsent = bytes.as_bytes();
    let mut before = None;
    loop {
        let write = timeout(Duration::from_millis(500), stream.write(unsent)).await;
        let now = sockets(addr)[0];
        match write {
            Ok(sent) => unsent = &unsent[sent.unwrap()..],
            Err(_full) if before == Some(now) => return now,
            Err(_full) => before = Some(now),
        }
        assert!(!unsent.is_empty(), "the system accepted all of it");
    }
}

#[tokio::test]
async fn the_kernel_keeps_little_of_answers_that_are_not_read() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    let mut stream = connect(addr, "").await;
    // Each answer that is read lets the kernel send, and keep, more of the next ones.
    for _ in 0..30 {
        stream.write_all(LONG_ANSWER.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
    }
    let kept = full(addr, &mut stream, &LONG_ANSWER.repeat(200_000)).await;
    assert!((1..MOST_SENT).contains(&kept.sent), "{kept:?}");
}

#[tokio::test]
async fn the_kernel_keeps_little_of_requests_that_are_not_read() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    let mut stream = connect(addr, "").await;
    // Long bodies that are read let the kernel receive, and keep, more.
    let head = "POST /upload/presigned-urls HTTP/1.1\r\nhost: a\r\n\
        content-type: application/json\r\ncontent-length: 2000000\r\n\r\n";
    let long = head.to_owned() + &" ".repeat(2_000_000);
    for _ in 0..10 {
        stream.write_all(long.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
    }
    // As long as nobody reads these answers, nobody reads the requests behind them.
    let requests = LONG_ANSWER.repeat(1000) + &long.repeat(20);
    let kept = full(addr, &mut stream, &requests).await;
    assert!((1..MOST_RECEIVED).contains(&kept.received), "{kept:?}");
}

/// Otherwise a client could fill the memory of the container with any number of such connections.
#[tokio::test]
async fn of_connections_that_make_room_for_others_nothing_is_kept() {
    let (addr, _stop, _server) = spawn(|it| it.max_connections = 2).await;
    let mut clients = Vec::new();
    for number in 1..=6 {
        clients.push(unread(addr, &LONG_ANSWER.repeat(3)).await);
        eventually("the newest two have answers", async || {
            let sockets = sockets(addr);
            let answered = sockets.iter().filter(|it| it.is_open && it.sent > 0);
            answered.count() == number.min(2)
        })
        .await;
        sleep(Duration::from_millis(100)).await;
    }
    let kept = sockets(addr);
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_kept_for_a_short_time_once_its_connection_is_closed() {
    let (addr, _stop, _server) = spawn(|it| it.closed_timeout = Duration::from_millis(500)).await;
    let _client = unread(addr, LAST_ANSWER).await;
    eventually("the server has closed it", async || {
        sockets(addr).iter().any(|it| !it.is_open && it.sent > 0)
    })
    .await;
    eventually("it is gone", async || sockets(addr).is_empty()).await;
}
