//! The notifications of the embedded store: an event for each new object. It stays in a folder
//! until the service has acknowledged it, so that no event is lost while the service or the
//! application is down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::kept;
use crate::http::events::{Settings, Token};
use crate::webhook::{Secrets, Webhook};

/// The files of this module, in the data folder.
const QUEUE_FOLDER: &str = ".events";
const SECRET_FILE: &str = ".webhook-secret";
const TIMEOUT: Duration = Duration::from_mins(2);
/// How many events are sent at the same time.
const IN_FLIGHT: usize = 8;
/// The pause before events that failed are sent again.
const PAUSE: Duration = Duration::from_secs(1);
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// Sends the store's events to the service, if there is a webhook.
#[derive(Debug)]
pub struct Notifier(Option<Sender>);

#[derive(Debug)]
struct Sender {
    queue: Queue,
    token: String,
    /// What `dev` prints of the webhook.
    banner: String,
}

/// The events that have not been acknowledged, each in a file whose name begins with its time.
#[derive(Clone, Debug)]
struct Queue {
    folder: PathBuf,
    is_new: Arc<Notify>,
}

impl Notifier {
    /// Sends webhooks to `webhook`, or else as `settings` say. A token for the store is generated
    /// if the settings have none.
    ///
    /// # Errors
    ///
    /// The data folder cannot be used.
    pub fn open(
        data_dir: &Path,
        webhook: Option<Url>,
        settings: &mut Option<Settings>,
    ) -> Result<Self> {
        let mut banner = String::new();
        if let Some(url) = webhook {
            let secret = kept(&data_dir.join(SECRET_FILE), || {
                Secrets::generate().map_err(io::Error::other)
            })?;
            banner = format!("Webhooks go to {url}, signed with {secret}\n\n");
            let secrets = Secrets::parse(&secret);
            let secrets = secrets.map_err(|rule| anyhow!("{SECRET_FILE} {rule}"))?;
            *settings = Some(Settings {
                token: None,
                webhook: Webhook::new(url, secrets)?,
                give_up_after: GIVE_UP_AFTER,
            });
        }
        let Some(settings) = settings else {
            return Ok(Self(None));
        };
        let own = || Token::parse(&Uuid::new_v4().simple().to_string()).ok();
        settings.token = settings.token.take().or_else(own);
        let token = settings.token.as_ref().map(Token::as_str);
        let token = token.unwrap_or_default().to_owned();
        let folder = data_dir.join(QUEUE_FOLDER);
        fs::create_dir_all(&folder).context("cannot keep events")?;
        let queue = Queue {
            folder,
            is_new: Arc::default(),
        };
        Ok(Self(Some(Sender {
            queue,
            token,
            banner,
        })))
    }

    pub fn banner(&self) -> &str {
        self.0.as_ref().map_or("", |sender| &sender.banner)
    }

    /// The store with a layer that keeps an event for each new object.
    pub fn watching(&self, store: Router) -> Router {
        match &self.0 {
            Some(sender) => store.layer(from_fn_with_state(sender.queue.clone(), watch)),
            None => store,
        }
    }

    /// Sends events to the service at `addr` until it stops.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be built.
    pub async fn run(self, addr: SocketAddr, stop: &CancellationToken) -> Result<()> {
        let Some(Sender { queue, token, .. }) = self.0 else {
            return Ok(());
        };
        let client = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let url = format!("http://{addr}/events/s3");
        let send = async |body: String| {
            let request = client.post(&url).bearer_auth(&token).body(body);
            let answer = request.send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        };
        let forever = async {
            loop {
                if queue.send_all(&send).await {
                    queue.is_new.notified().await;
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        stop.run_until_cancelled(forever).await;
        Ok(())
    }
}

impl Queue {
    fn push(&self, object: (&str, &str), name: &str) -> io::Result<()> {
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = Uuid::new_v4();
        let file = format!("{:020}-{id}", since.as_nanos());
        // The file is renamed when it is complete: a crash must not leave half of an event.
        let staged = self.folder.join(format!("{file}.new"));
        fs::write(&staged, event(object, name, now).to_string())?;
        fs::rename(staged, self.folder.join(format!("{file}.json")))?;
        self.is_new.notify_one();
        Ok(())
    }

    /// Sends each event once, in their order. Returns whether all of them are acknowledged.
    async fn send_all(&self, send: &impl AsyncFn(String) -> bool) -> bool {
        let warn = |error: &io::Error| tracing::warn!(%error, "events of the store cannot be read or removed");
        let Ok(files) = self.files().inspect_err(warn) else {
            return false;
        };
        let results = stream::iter(files).map(async |file| {
            let Ok(body) = fs::read_to_string(&file).inspect_err(warn) else {
                return false;
            };
            send(body).await && fs::remove_file(&file).inspect_err(warn).is_ok()
        });
        results
            .buffer_unordered(IN_FLIGHT)
            .fold(true, async |all, is_sent| all && is_sent)
            .await
    }

    /// The files of all events, in the order of the events.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?.path();
            if file.extension().is_some_and(|it| it == "json") {
                files.push(file);
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// An event in S3's format.
fn event((bucket, key): (&str, &str), name: &str, at: SystemTime) -> Value {
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "presignd:s3",
        "eventTime": humantime::format_rfc3339_millis(at).to_string(),
        "eventName": format!("ObjectCreated:{name}"),
        "s3": {
            "bucket": {"name": bucket},
            "object": {"key": utf8_percent_encode(key, NON_ALPHANUMERIC).to_string()},
        },
    }]})
}

/// Keeps an event for each object that the store creates, before the client gets its answer.
async fn watch(State(queue): State<Queue>, request: Request, next: Next) -> Response {
    let name = event_name(request.method(), request.uri());
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let Some(name) = name.filter(|_| response.status().is_success()) else {
        return response;
    };
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok()?.parse().ok());
    let location = location.map(|location: Uri| location.path().to_owned());
    let path = if name == "Post" { location } else { Some(path) };
    let Some((bucket, key)) = path.as_deref().and_then(object_in) else {
        return response;
    };
    match queue.push((&bucket, &key), name) {
        Ok(()) => response,
        Err(error) => {
            tracing::error!(%error, "an event cannot be kept");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// S3's name for the event of such a request, if it can create an object.
fn event_name(method: &Method, uri: &Uri) -> Option<&'static str> {
    let query = uri.query().unwrap_or_default();
    let names = || {
        query
            .split('&')
            .map(|pair| pair.split('=').next().unwrap_or_default())
    };
    let is_of_upload = names().any(|name| name == "uploadId");
    // Other parameters address a part of an object or a bucket, such as its tags.
    let is_of_object =
        names().all(|name| name.is_empty() || name == "x-id" || name.starts_with("X-Amz-"));
    match *method {
        Method::PUT if is_of_object && object_in(uri.path()).is_some() => Some("Put"),
        Method::POST if is_of_upload => Some("CompleteMultipartUpload"),
        Method::POST if is_of_object && object_in(uri.path()).is_none() => Some("Post"),
        _ => None,
    }
}

/// The bucket and the key in the path of an object.
fn object_in(path: &str) -> Option<(String, String)> {
    let (bucket, key) = path.strip_prefix('/')?.split_once('/')?;
    let key = percent_decode_str(key).decode_utf8().ok()?;
    (!key.is_empty()).then(|| (bucket.to_owned(), key.into_owned()))
}
