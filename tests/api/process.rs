//! The binary as a process of its own, as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// What `serve` needs at least.
pub(crate) const BUCKET: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_S3_BUCKET_NAME", "my-bucket"),
];

/// The command, in a folder of its own and with nothing of this environment but what it needs.
pub(crate) fn presignd(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_presignd"));
    command.args(args).current_dir(folder).env_clear();
    // Without this the SDK looks for a machine of EC2.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// The address of a port that is free at this moment.
pub(crate) fn free_addr() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    port.local_addr().unwrap().to_string()
}

pub(crate) fn run(args: &[&str], variables: &[(&str, &str)]) -> (Output, String) {
    let folder = TempDir::new().unwrap();
    let mut command = presignd(args, folder.path());
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output, errors)
}

#[track_caller]
pub(crate) fn one_line_and_exit_1(output: &Output, says: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in says {
        assert!(errors.contains(part), "{part:?} is not in: {errors}");
    }
}

/// A running `presignd`, which stops when it is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) stderr: BufReader<ChildStderr>,
    /// What `dev` prints before it can be used.
    pub(crate) banner: String,
}

impl Running {
    /// `dev` on free ports, and the address of its service.
    pub(crate) fn dev(folder: &Path, variables: &[(&str, &str)]) -> (Self, String) {
        let args = ["dev", "--addr", "127.0.0.1:0", "--s3-addr", "127.0.0.1:0"];
        let mut dev = Self::start(&args, folder, variables);
        dev.banner = dev.printed_until("-T hello.txt");
        let base = base(&dev.banner);
        (dev, base)
    }

    pub(crate) fn start(args: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::run(presignd(args, folder).envs(variables.iter().copied()))
    }

    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
            banner: String::new(),
        }
    }

    /// `serve` on a free port, and its address.
    pub(crate) fn serve(folder: &Path, variables: &[(&str, &str)]) -> (Self, String) {
        let mut variables = variables.to_vec();
        variables.push(("BIND_ADDR", "127.0.0.1:0"));
        let mut serve = Self::start(&["serve"], folder, &variables);
        let mut first_line = String::new();
        serve.stderr.read_line(&mut first_line).unwrap();
        let line: Value = serde_json::from_str(&first_line).expect(&first_line);
        assert_eq!(line["message"], "listening");
        let is_set = |name| variables.iter().any(|(other, _)| *other == name);
        assert_eq!(line["auth"] == "none", !is_set("AUTH_MODE"), "{line}");
        let is_default = line["policies"] == "default";
        assert_eq!(is_default, !is_set("UPLOAD_POLICIES_FILE"), "{line}");
        let addr = line["addr"].as_str().unwrap().to_owned();
        (serve, addr)
    }

    /// Reads standard output up to and including the first line that contains `last`.
    pub(crate) fn printed_until(&mut self, last: &str) -> String {
        let _limit = self.limited();
        let mut text = String::new();
        loop {
            let before = text.len();
            self.stdout.read_line(&mut text).unwrap();
            assert_ne!(text.len(), before, "ended before {last:?}: {text}");
            if text[before..].contains(last) {
                return text;
            }
        }
    }

    /// Reads the log up to and including the first line that contains `last`.
    pub(crate) fn logged_until(&mut self, last: &str) -> String {
        let _limit = self.limited();
        let mut log = String::new();
        while !log.contains(last) {
            assert_ne!(self.stderr.read_line(&mut log).unwrap(), 0, "{log}");
        }
        log
    }

    /// Kills the process unless the result is dropped within a minute, so that nobody waits for its output for
    /// ever.
    fn limited(&self) -> Sender<()> {
        let (sender, dropped) = channel();
        let id = self.child.id();
        thread::spawn(move || {
            if dropped.recv_timeout(Duration::from_mins(1)) == Err(RecvTimeoutError::Timeout) {
                kill(id, "KILL");
            }
        });
        sender
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    /// Sends a signal and waits: the exit code, and what came to stdout and stderr.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, String, String) {
        self.signal(signal);
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

fn kill(id: u32, signal: &str) {
    // The shell's own `kill`: a program of that name is not on every machine.
    let kill = format!("kill -s {signal} {id}");
    let kill = Command::new("sh").args(["-c", &kill]).status();
    assert!(kill.unwrap().success());
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok(); // best effort
    }
}

/// The lines of a log in JSON.
pub(crate) fn log_lines(log: &str) -> Vec<Value> {
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Those that each request leaves when it is answered.
pub(crate) fn request_lines(log: &str) -> Vec<Value> {
    let mut lines = log_lines(log);
    lines.retain(|line| line["message"] == "request");
    lines
}

/// The address of the service in what `dev` prints.
pub(crate) fn base(banner: &str) -> String {
    let (_, rest) = banner.split_once("service   ").unwrap();
    let (url, _) = rest.split_once("/upload/presigned-url").unwrap();
    url.to_owned()
}
