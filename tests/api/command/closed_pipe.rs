//! A reader that stops early, as `presignd dev | head -1` does, is no reason to panic.

use std::process::Stdio;

use tempfile::TempDir;

use crate::auth::jwt::JWT;
use crate::process::presignd;

/// A pipe that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn commands_that_print_do_not_panic_when_nobody_reads() {
    for args in [
        &["openapi"] as &[&str],
        &["completions", "bash"],
        &["api-key", "alice"],
        &["ticket"],
    ] {
        let folder = TempDir::new().unwrap();
        let mut command = presignd(args, folder.path());
        command.envs(JWT).stdout(closed_pipe());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        let status = command.stderr(closed_pipe()).status().unwrap();
        assert!(status.success(), "{args:?} without standard error");
    }
    let folder = TempDir::new().unwrap();
    let mut command = presignd(&["check"], folder.path());
    let output = command.stdout(closed_pipe()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("failed"), "{errors}");
}

#[cfg(feature = "dev")]
#[tokio::test]
async fn dev_serves_when_nobody_reads_what_it_prints() {
    use crate::helpers::client;

    let folder = TempDir::new().unwrap();
    let addr = crate::process::free_addr();
    let mut command = presignd(
        &["dev", "--addr", &addr, "--s3-addr", "127.0.0.1:0"],
        folder.path(),
    );
    let mut child = command
        .stdout(closed_pipe())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut answer = None;
    for _ in 0..600 {
        answer = client()
            .get(format!("http://{addr}/healthz"))
            .send()
            .await
            .ok();
        if answer.is_some() || child.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.expect("it does not answer").status(), 200);
}
