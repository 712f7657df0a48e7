//! `presignd dev`: an S3 store on a folder of this machine, which checks signatures and is as
//! strict as S3, and a log that says what happens. It knows no policies.

mod form;
mod grants;
mod log;
mod notify;
mod store;
mod strict;

use std::fmt::Write;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use axum::error_handling::HandleError;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use sha2::{Digest, Sha256};
use tower_http::cors::{AllowHeaders, CorsLayer};
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use self::grants::Grants;
pub use self::notify::Notifier;
use self::store::Store;
use crate::http::{AllowedOrigins, HttpService};
use crate::telemetry::{self, LogFormat};
use crate::upload::{Receipts, SessionKey};

pub const BUCKET: &str = "uploads";
/// The file with the key of receipts, in the data folder.
const RECEIPT_KEY_FILE: &str = ".receipt-key.pem";
/// The bytes before the 32 bytes of an Ed25519 key in
/// [PKCS#8](https://www.rfc-editor.org/rfc/rfc8410#section-7).
const PKCS8_OF_ED25519: [u8; 16] =
    *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const ACCESS_KEY_ID: &str = "presignd-dev";
const REGION: &str = "us-east-1";
/// The file with the secret key, in the data folder.
const SECRET_FILE: &str = ".secret-key";

/// The embedded store, and what the service needs to use it.
pub struct Dev {
    data_dir: PathBuf,
    secret_key: String,
    /// The names of all buckets.
    buckets: Vec<String>,
    grants: Grants,
}

debug_name!(Dev);

impl Dev {
    /// Opens the store on the folder `data_dir`, which is created if it does not exist. Without
    /// `secret_key`, a random one is generated and kept in the folder, because web pages could know
    /// a fixed one.
    ///
    /// # Errors
    ///
    /// The folder cannot be used, or has a symbolic link: who made the folder could lead the store to any
    /// file. The folder itself may be a link.
    pub fn open(data_dir: &Path, secret_key: Option<String>) -> Result<Self> {
        let cannot_use = || format!("cannot keep uploads in {}", data_dir.display());
        fs::create_dir_all(data_dir).with_context(cannot_use)?;
        for entry in fs::read_dir(data_dir).with_context(cannot_use)? {
            let path = entry.with_context(cannot_use)?.path();
            ensure!(
                !path.is_symlink(),
                "{} is a symbolic link, and this store follows none; remove it, or choose another folder with --data-dir",
                path.display()
            );
        }
        fs::create_dir_all(data_dir.join(BUCKET)).with_context(cannot_use)?;
        let secret_key = match secret_key {
            Some(secret_key) => secret_key,
            None => kept(&data_dir.join(SECRET_FILE), || {
                Ok([(); 2]
                    .map(|()| Uuid::new_v4().simple().to_string())
                    .concat())
            })
            .with_context(cannot_use)?,
        };
        ensure!(
            secret_key.len() >= 8 && secret_key.bytes().all(|byte| byte.is_ascii_graphic()),
            "the secret key of the store must be at least 8 printable ASCII characters without spaces; --secret-key or {} sets it",
            data_dir.join(SECRET_FILE).display()
        );
        Ok(Self {
            data_dir: data_dir.to_owned(),
            secret_key,
            buckets: vec![BUCKET.to_owned()],
            grants: Grants::default(),
        })
    }

    /// Creates buckets besides [`BUCKET`], if they do not exist.
    pub fn add_buckets<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        for name in names {
            ensure!(
                !name.contains(['/', ':']),
                "buckets are folders here, and `{name}` cannot be the name of one; name another bucket in the policies"
            );
            fs::create_dir_all(self.data_dir.join(name))
                .with_context(|| format!("cannot create the bucket {name}"))?;
            self.buckets.push(name.to_owned());
        }
        Ok(())
    }

    /// The store, for pages of these origins.
    pub fn store(&self, origins: &AllowedOrigins) -> Result<Router> {
        let cannot_use = || format!("cannot keep uploads in {}", self.data_dir.display());
        let probe = self.data_dir.join(".writable");
        fs::write(&probe, "").with_context(cannot_use)?;
        fs::remove_file(&probe).with_context(cannot_use)?;
        let files = FileSystem::new(&self.data_dir)
            .map_err(|error| anyhow::anyhow!("{error:?}"))
            .with_context(cannot_use)?;
        let store = Store::new(&self.data_dir, files, &self.buckets).with_context(cannot_use)?;
        let mut service = S3ServiceBuilder::new(store);
        service.set_auth(SimpleAuth::from_single(
            ACCESS_KEY_ID,
            self.secret_key.as_str(),
        ));
        let service = HandleError::new(service.build(), |error| async move {
            tracing::error!(?error, "the embedded store failed");
            StatusCode::INTERNAL_SERVER_ERROR
        });
        Ok(Router::new()
            .fallback_service(service)
            .layer(from_fn_with_state(self.grants.clone(), strict::guard))
            .layer(cors(origins))
            .layer(from_fn(strict::log_refused_preflight)))
    }

    /// The service with a log for people. The store gets to know its grants, to explain refusals.
    pub fn watched(&self, service: impl HttpService) -> Router {
        log::logged(service, self.grants.clone())
    }

    /// The SDK's configuration for the store, which listens on `addr`.
    pub fn sdk_config(&self, addr: SocketAddr) -> SdkConfig {
        let secret_key = self.secret_key.as_str();
        let credentials = Credentials::new(ACCESS_KEY_ID, secret_key, None, None, "dev");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(format!("http://{addr}"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build()
    }

    /// The key that seals multipart sessions. It stays the same as long as the secret key, so that
    /// uploads can go on after a restart.
    pub fn session_key(&self) -> SessionKey {
        let digest = Sha256::digest(format!("sessions of presignd dev: {}", self.secret_key));
        SessionKey::new(&digest)
    }

    /// Signs receipts, with a key that is generated and kept in the folder.
    pub fn receipts(&self) -> Result<Receipts> {
        let file = self.data_dir.join(RECEIPT_KEY_FILE);
        let pem = kept(&file, || {
            let mut key = PKCS8_OF_ED25519.to_vec();
            key.resize(PKCS8_OF_ED25519.len() + 32, 0);
            getrandom::fill(&mut key[PKCS8_OF_ED25519.len()..])?;
            let key = BASE64_STANDARD.encode(key);
            Ok(format!(
                "-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"
            ))
        });
        let pem = pem.with_context(|| format!("cannot keep a key in {}", file.display()))?;
        Receipts::parse(&pem).map_err(|rule| anyhow!("{} {rule}", file.display()))
    }

    /// What `presignd dev` prints when it is up: addresses, keys and an upload to try. `header`
    /// authenticates requests, if they need a credential.
    pub fn banner(
        &self,
        addr: SocketAddr,
        s3_addr: SocketAddr,
        header: Option<&str>,
        policies: &[String],
    ) -> Result<String> {
        let folder = absolute(&self.data_dir)?.join(BUCKET);
        let folder = folder.display();
        let secret_key = &self.secret_key;
        let plural = if self.buckets.len() > 1 { "s" } else { "" };
        let buckets = self.buckets.join(", ");
        let header = header.map_or_else(String::new, |header| format!("-H '{header}' \\\n    "));
        let mut text = String::new();
        write!(
            text,
            r"presignd is up. Ctrl-C stops it; the uploads stay.

  page      http://{addr}/
  service   http://{addr}/upload/presigned-url
  docs      http://{addr}/docs
  S3 store  http://{s3_addr}, bucket{plural} {buckets}, region {REGION}
            access key {ACCESS_KEY_ID}, secret {secret_key}
  uploads   {folder}

"
        )?;
        if !policies.iter().any(|name| name == "default") {
            let policies = policies.join(", ");
            writeln!(
                text,
                "There is no policy `default`, so each request names one: {policies}. The page does so.\n"
            )?;
            return Ok(text);
        }
        write!(
            text,
            r#"Try it in another terminal: ask for a URL, then send a file to it.

  echo 'Hello, S3!' > hello.txt

  URL=$(curl -sS --fail-with-body http://{addr}/upload/presigned-url \
    {header}-H 'content-type: application/json' \
    -d '{{"filename":"hello.txt","contentType":"text/plain"}}' |
    sed 's/.*"url":"\([^"]*\)".*/\1/')

  curl -sS --fail-with-body -T hello.txt -H 'content-type: text/plain' "$URL"

"#
        )?;
        Ok(text)
    }
}

/// The secret in this file. A missing file is created with one that `generate` makes.
fn kept(file: &Path, generate: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        secret => {
            #[cfg(unix)]
            if fs::metadata(file)?.mode() & 0o077 != 0 {
                tracing::warn!(
                    "others may know the secret in {}, because its permissions are not 600; delete the file if you did not create it, and a new one is generated",
                    file.display()
                );
            }
            return Ok(secret?.trim().to_owned());
        }
    }
    let secret = generate()?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut new = options.open(file)?;
    if let Err(error) = new.write_all(secret.as_bytes()) {
        // The next start must not read a part of it.
        fs::remove_file(file).ok(); // best effort
        return Err(error);
    }
    Ok(secret)
}

/// The settings of the log. By default it is for people, and has dev's own lines instead of those
/// of the middleware and of `s3s`. In JSON it is the log of `presignd serve`, which names no file.
pub fn telemetry(mut settings: telemetry::Settings) -> telemetry::Settings {
    let format = settings.format.unwrap_or(LogFormat::Pretty);
    settings.format = Some(format);
    settings.filter = match format {
        LogFormat::Pretty => settings.filter.with_targets([
            ("presignd::http::middleware", LevelFilter::WARN),
            ("s3s::service", LevelFilter::OFF),
        ]),
        LogFormat::Json => settings
            .filter
            .with_target("presignd::dev::log", LevelFilter::OFF),
    };
    settings
}

/// The CORS headers that browsers need to upload to the store.
fn cors(origins: &AllowedOrigins) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins.allow_origin())
        .allow_methods([Method::PUT, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::ETAG, header::LOCATION])
        .max_age(Duration::from_hours(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_cannot_be_generated_leaves_no_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SECRET_FILE);
        assert!(kept(&file, || Err(io::Error::other("no randomness"))).is_err());
        assert_eq!(kept(&file, || Ok("secret".into())).unwrap(), "secret");
        assert_eq!(kept(&file, || Ok("other".into())).unwrap(), "secret");
    }
}
