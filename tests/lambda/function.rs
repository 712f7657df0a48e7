//! The binary as a function, a stand-in of the [interface that Lambda has for
//! it](https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html), and a store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use presignd::dev;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use uuid::Uuid;

use crate::fronts::{Answer, Front, Sent};
use crate::helpers::spawn;
use crate::process::Running;

/// What the function sent for an event: an answer, or that it failed.
type Outcome = Result<Value, Value>;

struct Invocation {
    id: String,
    event: Value,
    outcome: oneshot::Sender<Outcome>,
}

#[derive(Clone)]
struct Runtime {
    events: Arc<AsyncMutex<mpsc::UnboundedReceiver<Invocation>>>,
    under_way: Arc<Mutex<HashMap<String, oneshot::Sender<Outcome>>>>,
}

impl Runtime {
    fn router(self) -> Router {
        let done = |State(runtime): State<Self>, Path(id): Path<String>, body: Bytes| async move {
            runtime.done(&id, Ok(serde_json::from_slice(&body).unwrap()))
        };
        let failed = |State(runtime): State<Self>, Path(id): Path<String>, body: Bytes| async move {
            runtime.done(&id, Err(serde_json::from_slice(&body).unwrap()))
        };
        let base = "/2018-06-01/runtime/invocation";
        Router::new()
            .route(&format!("{base}/next"), get(next))
            .route(&format!("{base}/{{id}}/response"), post(done))
            .route(&format!("{base}/{{id}}/error"), post(failed))
            .with_state(self)
    }

    fn done(&self, id: &str, outcome: Outcome) -> StatusCode {
        match self.under_way.lock().unwrap().remove(id) {
            Some(waiting) => {
                waiting.send(outcome).ok(); // best effort
                StatusCode::ACCEPTED
            }
            None => StatusCode::BAD_REQUEST,
        }
    }
}

/// The next event, whenever there is one.
async fn next(State(runtime): State<Runtime>) -> impl IntoResponse {
    let Some(Invocation { id, event, outcome }) = runtime.events.lock().await.recv().await else {
        // The test is over.
        return std::future::pending().await;
    };
    let mut under_way = runtime.under_way.lock().unwrap();
    under_way.insert(id.clone(), outcome);
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", "4102444800000".to_owned()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:123456789012:function:presignd".to_owned(),
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-67a1b2c3-0123456789abcdef01234567;Sampled=0".to_owned(),
        ),
        (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
    ];
    (axum::response::AppendHeaders(headers), event.to_string())
}

/// A running function, which stops when it is dropped.
pub(crate) struct Function {
    process: Running,
    events: mpsc::UnboundedSender<Invocation>,
    folder: TempDir,
}

impl Function {
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let store = spawn(crate::helpers::store(folder.path())).await;
        let (events, receiver) = mpsc::unbounded_channel();
        let runtime = Runtime {
            events: Arc::new(AsyncMutex::new(receiver)),
            under_way: Arc::default(),
        };
        let runtime_api = spawn(runtime.router()).await;
        let (runtime_api, endpoint) = (runtime_api.to_string(), format!("http://{store}"));
        let own = [
            ("AWS_LAMBDA_RUNTIME_API", runtime_api.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "presignd"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "presignd-dev"),
            ("AWS_SECRET_ACCESS_KEY", "presignd-dev-secret"),
            ("AWS_S3_BUCKET_NAME", dev::BUCKET),
            ("AWS_ENDPOINT_URL_S3", &endpoint),
            ("S3_FORCE_PATH_STYLE", "true"),
            ("AUTH_MODE", "none"),
        ];
        let variables = [&own, variables].concat();
        Self {
            process: Running::start(&["serve"], folder.path(), &variables),
            events,
            folder,
        }
    }

    pub(crate) async fn outcome(&self, event: Value) -> Outcome {
        self.outcome_of(&Uuid::new_v4().to_string(), event).await
    }

    async fn outcome_of(&self, id: &str, event: Value) -> Outcome {
        let (outcome, received) = oneshot::channel();
        let id = id.to_owned();
        let invocation = Invocation { id, event, outcome };
        self.events.send(invocation).ok().unwrap();
        // Only so that a function that died fails its test.
        tokio::time::timeout(Duration::from_mins(1), received)
            .await
            .expect("an outcome")
            .unwrap()
    }

    /// What the client of `front` gets for what it sent.
    pub(crate) async fn ask(&self, front: Front, sent: &Sent) -> Answer {
        self.ask_as(&Uuid::new_v4().to_string(), front, sent).await
    }

    /// The same by an invocation of this id.
    pub(crate) async fn ask_as(&self, id: &str, front: Front, sent: &Sent) -> Answer {
        let outcome = self.outcome_of(id, front.event(sent)).await;
        front.answer(&outcome.unwrap_or_else(|error| panic!("{front:?}: {sent:?}: {error}")))
    }

    /// The bytes of an object in the store.
    pub(crate) fn stored(&self, key: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(dev::BUCKET).join(key)).unwrap()
    }

    /// Ends it as Lambda does: its exit code, and its log.
    pub(crate) async fn stop(self) -> (Option<i32>, String) {
        let stop = tokio::task::spawn_blocking(move || self.process.stop("TERM"));
        let (code, _, log) = stop.await.unwrap();
        (code, log)
    }
}
