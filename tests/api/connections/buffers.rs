//! What the system keeps of what a connection sends and does not read.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::time::Duration;

use presignd::http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{connect, spawn};

const LONG_ANSWER: &str = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n";
/// Linux doubles the limit of 128 KiB, and lets the last segment exceed it.
const MOST: usize = 384 * 1024;

/// How many bytes the system keeps of what the server at `addr` has sent, and of what it has received.
fn kept(addr: SocketAddr) -> (usize, usize) {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (port, connected) = (format!(":{:04X}", addr.port()), "01");
    let mut all = sockets.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (sent, received) = fields.next()?.split_once(':')?;
        let bytes = |hex| usize::from_str_radix(hex, 16).unwrap();
        (local.ends_with(&port) && state == connected).then(|| (bytes(sent), bytes(received)))
    });
    let only = all.next().expect("the server has a connection");
    assert_eq!(all.next(), None);
    only
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

/// Sends until the system accepts nothing more.
async fn send_all_that_fits(stream: &mut TcpStream, bytes: &[u8]) {
    let fill = async { while stream.write(bytes).await.is_ok_and(|sent| sent > 0) {} };
    timeout(Duration::from_secs(1), fill).await.ok();
}

#[tokio::test]
async fn the_system_keeps_little_of_answers_that_are_not_read() {
    let (addr, _stop, _server) = spawn(Limits::default()).await;
    let mut stream = connect(addr, "").await;
    // Each answer that is read lets the system send, and keep, more of the next ones.
    for _ in 0..30 {
        stream.write_all(LONG_ANSWER.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
    }
    send_all_that_fits(&mut stream, LONG_ANSWER.repeat(200).as_bytes()).await;
    let (sent, _) = kept(addr);
    assert!((1..MOST).contains(&sent), "{sent}");
}

#[tokio::test]
async fn the_system_keeps_little_of_requests_that_are_not_read() {
    let (addr, _stop, _server) = spawn(Limits::default()).await;
    let mut stream = connect(addr, "").await;
    // Long bodies that are read let the system receive, and keep, more.
    let head = "POST /upload/presigned-urls HTTP/1.1\r\nhost: a\r\n\
        content-type: application/json\r\ncontent-length: 2000000\r\n\r\n";
    let long = head.to_owned() + &" ".repeat(2_000_000);
    for _ in 0..10 {
        stream.write_all(long.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
    }
    // As long as nobody reads these answers, nobody reads the requests behind them.
    let unread = LONG_ANSWER.repeat(200) + &long.repeat(10);
    send_all_that_fits(&mut stream, unread.as_bytes()).await;
    let (_, received) = kept(addr);
    assert!((1..MOST).contains(&received), "{received}");
}
