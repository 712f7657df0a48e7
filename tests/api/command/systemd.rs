//! What systemd learns of a service of `Type=notify`.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{BUCKET, Running, free_addr, presignd};

/// Otherwise `systemctl start` succeeds with a configuration that is wrong.
#[test]
fn systemd_learns_that_a_service_is_ready_when_it_listens_and_not_before() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let addr = free_addr();
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("BIND_ADDR", &addr),
    ];

    let mut wrong = presignd(&["serve"], folder.path());
    let wrong = wrong.envs(BUCKET).envs(variables);
    let output = wrong.env("MAX_CONNECTIONS", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let mut message = [0; 64];
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut message).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    let serve = Running::start(
        &["serve"],
        folder.path(),
        &[&BUCKET[..], &variables].concat(),
    );
    socket.set_nonblocking(false).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(message[..length].trim_ascii_end(), b"READY=1");
    TcpStream::connect(&addr).unwrap();
    let (code, ..) = serve.stop("TERM");
    assert_eq!(code, Some(0));
}
