//! Credentials that expire, fail, hang or change, as a `credential_process` gives them to the binary.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use reqwest::Response;
use serde_json::json;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use crate::helpers::{Grant, answer, get, post, problem};
use crate::process::Running;

/// A provider that fails is asked once a second at most.
const A_SECOND: Duration = Duration::from_millis(1100);

/// `presignd serve`, whose profile asks a script for credentials. The script notes each of its runs and does what
/// the test says.
struct Service {
    folder: TempDir,
    base: String,
    _serve: Running,
}

impl Service {
    fn start(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        write_script(folder.path(), script);
        let program = folder.path().join("credentials.sh");
        let profile = format!("[default]\ncredential_process = sh {}\n", program.display());
        // The script needs `sleep` and `cat`.
        let path = std::env::var("PATH").unwrap();
        Self::with_profile(folder, &profile, &[("PATH", &path)])
    }

    /// With this text in the file of profiles.
    fn with_profile(folder: TempDir, profile: &str, more: &[(&str, &str)]) -> Self {
        let config = folder.path().join("config");
        std::fs::write(&config, profile).unwrap();
        let variables = [
            ("AWS_S3_BUCKET_NAME", "my-bucket"),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ];
        let (serve, addr) = Running::serve(folder.path(), &[&variables, more].concat());
        Self {
            folder,
            base: format!("http://{addr}"),
            _serve: serve,
        }
    }

    /// From now on the process does this.
    fn now_does(&self, script: &str) {
        write_script(self.folder.path(), script);
    }

    fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.folder.path().join("runs"));
        runs.unwrap_or_default().lines().count()
    }

    async fn ask(&self) -> Response {
        let file = json!({"filename": "a.txt", "contentType": "text/plain"});
        post(&self.base, "/upload/presigned-url", &file).await
    }

    async fn grant(&self) -> Grant {
        answer(201, self.ask().await).await
    }

    async fn is_unavailable(&self) {
        Self::says_unavailable(self.ask().await).await;
    }

    async fn says_unavailable(response: Response) {
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "5");
        let problem = problem(response).await;
        assert_eq!(problem["code"], "credentials-unavailable");
        assert!(!problem.to_string().contains("hidden cause"), "{problem}");
    }
}

/// In one step: it may be read at any time.
fn write_script(folder: &Path, script: &str) {
    let runs: PathBuf = folder.join("runs");
    let script = format!("echo run >> {}\n{script}\n", runs.display());
    let new = folder.join("new.sh");
    std::fs::write(&new, script).unwrap();
    std::fs::rename(new, folder.join("credentials.sh")).unwrap();
}

/// A script that gives credentials with this id and this end.
fn gives(id: &str, end: SystemTime) -> String {
    let end = OffsetDateTime::from(end).format(&Rfc3339).unwrap();
    let credentials = json!({
        "Version": 1,
        "AccessKeyId": id,
        "SecretAccessKey": "secret",
        "SessionToken": "token",
        "Expiration": end,
    });
    format!("echo '{credentials}'")
}

/// This many seconds from now, without fractions.
fn in_seconds(seconds: u64) -> SystemTime {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now + seconds)
}

fn end_of(grant: &Grant) -> SystemTime {
    OffsetDateTime::parse(&grant.expires_at, &Rfc3339)
        .unwrap()
        .into()
}

#[tokio::test]
async fn a_grant_expires_with_its_credentials_and_the_process_does_not_run_each_time() {
    let end = in_seconds(60);
    let service = Service::start(&gives("AKIASHORT", end));
    for _ in 0..20 {
        let grant = service.grant().await;
        assert_eq!(end_of(&grant), end, "{}", grant.expires_at);
    }
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn a_process_that_fails_is_503_until_it_works_again() {
    let service = Service::start("echo 'hidden cause' >&2; exit 1");
    service.is_unavailable().await;
    service.now_does("echo 'hidden cause'");
    sleep(A_SECOND).await;
    service.is_unavailable().await;
    service.now_does(&gives(
        "AKIAEXPIRED",
        in_seconds(0) - Duration::from_mins(1),
    ));
    sleep(A_SECOND).await;
    service.is_unavailable().await;
    service.now_does(&gives("AKIAGOOD", in_seconds(3600)));
    sleep(A_SECOND).await;
    let grant = service.grant().await;
    assert!(grant.url.contains("AKIAGOOD"), "{}", grant.url);
}

#[tokio::test]
async fn every_kind_of_grant_is_503_without_credentials() {
    let service = Service::start("echo 'hidden cause' >&2; exit 1");
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let base = &service.base;
    let query = "filename=a.txt&type=text%2Fplain";
    let of_uppy = json!({"filename": "a.txt", "type": "text/plain"});
    for answer in [
        post(base, "/upload/presigned-post", &file).await,
        get(base, &format!("/s3/params?{query}")).await,
        post(base, "/upload/presigned-urls", &json!({"files": [file]})).await,
        post(base, "/s3/multipart", &of_uppy).await,
    ] {
        Service::says_unavailable(answer).await;
    }
}

#[tokio::test]
async fn a_profile_that_is_missing_at_start_is_used_once_it_is_there() {
    let late = [("AWS_REGION", "eu-central-1"), ("AWS_PROFILE", "late")];
    let service = Service::with_profile(TempDir::new().unwrap(), "[default]\n", &late);
    service.is_unavailable().await;
    service.is_unavailable().await;
    let keys = "aws_access_key_id = AKIALATE\naws_secret_access_key = secret\n";
    let config = service.folder.path().join("config");
    std::fs::write(config, format!("[profile late]\n{keys}")).unwrap();
    sleep(A_SECOND).await;
    let grant = service.grant().await;
    assert!(grant.url.contains("AKIALATE"), "{}", grant.url);
}

#[tokio::test]
async fn a_token_file_that_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token"),
    ];
    let (mut serve, _) = Running::serve(folder.path(), &variables);
    let log = serve.logged_until("there are no credentials");
    assert!(log.contains("/no/such/token"), "{log}");
}
