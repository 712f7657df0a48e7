//! What becomes of the rest of a request that was answered before all of it had come.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{connect, healthy, spawn};

/// The heads of requests that are refused before their bodies of a million bytes are read, or at the end of their head.
fn refused_early() -> [String; 3] {
    let of =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
    let invalid = "GET / HTTP/1.1\r\n\r\n".to_owned();
    [of("/nowhere"), of("/upload/presigned-url"), invalid]
}

/// Sends a million bytes, which takes several calls of the system; whether all were accepted.
async fn send_a_million(stream: &mut TcpStream) -> bool {
    for _ in 0..10 {
        if stream.write_all(&vec![b' '; 100_000]).await.is_err() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test]
async fn whoever_sends_all_before_it_reads_the_answer_gets_the_answer() {
    let (addr, _stop, _server) = spawn(|_| {}).await;
    for head in refused_early() {
        let mut stream = connect(addr, &head).await;
        stream.readable().await.unwrap(); // The answer is there.
        assert!(send_a_million(&mut stream).await, "{head}");
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{head}{answer}");
    }
}

#[tokio::test]
async fn the_rest_of_a_body_that_nobody_reads_is_received_for_a_while_only() {
    let (addr, _stop, _server) = spawn(|it| it.rest_timeout = Duration::from_millis(100)).await;
    for head in refused_early() {
        let mut stream = connect(addr, &head).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!send_a_million(&mut stream).await, "{head}");
    }
}

#[tokio::test]
async fn a_connection_whose_rest_is_received_makes_room_for_another() {
    let (addr, _stop, _server) = spawn(|it| it.max_connections = 1).await;
    let [head, ..] = refused_early();
    let mut stream = connect(addr, &head).await;
    stream.readable().await.unwrap();
    healthy(addr).await;
    assert!(!send_a_million(&mut stream).await);
}
