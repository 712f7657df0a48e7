//! From an event of the store to a webhook: finds the upload, tells the application, and says whether the
//! store has to send the event again. It keeps nothing: the store's own queue is the memory.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::records::{self, Created, Event};
use crate::error_chain::causes;
use crate::http;
use crate::http::problem::{FieldError, Problem, catalogue};
use crate::http::uploads::rfc3339;
use crate::telemetry::Metrics;
use crate::upload::{Arrival, Arrived, Caller, Metadata, UploadService, Verification};
use crate::webhook::{DeliveryError, Webhook};

/// How many events are worked on at the same time, in all notifications together.
const IN_FLIGHT: usize = 16;
/// How long one notification may take, with all of its events.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long to wait for an object that cannot be read yet. Then the store sends the event again.
const READABLE_WITHIN: Duration = Duration::from_secs(3);
/// After this time an object that is missing has been deleted.
const DELETED_AFTER: Duration = Duration::from_mins(2);

/// Tells the application of events.
pub(crate) struct Events {
    uploads: Arc<UploadService>,
    webhook: Webhook,
    give_up_after: Duration,
    in_flight: Semaphore,
    metrics: Metrics,
}

/// Why a notification was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReceived {
    /// It is none. What is wrong with it completes a sentence about the body.
    Invalid(&'static str),
    /// Not all of its events reached the application; the store has to send it again.
    NotDelivered,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The application knows that an upload has arrived.
    Arrived,
    /// The application knows that an object violates its policy.
    Refused,
    /// It is about something else than a new object.
    Ignored,
    OtherBucket,
    UnknownKey,
    /// The object was deleted before it could be verified.
    Deleted,
    /// The application or the store failed; the event comes again.
    Failed,
    /// The object cannot be read yet; the event comes again.
    NotReadable,
    /// It failed for so long that it does not come again.
    Lost,
}

impl Outcome {
    /// For metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Refused => "refused",
            Self::Ignored => "ignored",
            Self::OtherBucket => "other-bucket",
            Self::UnknownKey => "unknown-key",
            Self::Deleted => "deleted",
            Self::Failed => "failed",
            Self::NotReadable => "not-readable",
            Self::Lost => "lost",
        }
    }

    fn is_final(self) -> bool {
        !matches!(self, Self::Failed | Self::NotReadable)
    }
}

/// A message to the application.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the object was created.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    bucket: &'a str,
    key: &'a str,
    size: u64,
    content_type: &'a str,
    etag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    last_modified: String,
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    metadata: &'a Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl Events {
    /// `None` if nobody is to be told.
    pub(crate) fn from_settings(
        uploads: &Arc<UploadService>,
        settings: &http::Settings,
    ) -> Option<Self> {
        let events = settings.events.as_ref()?;
        Some(Self {
            uploads: Arc::clone(uploads),
            webhook: events.webhook.clone(),
            give_up_after: events.give_up_after,
            in_flight: Semaphore::new(IN_FLIGHT),
            metrics: settings.metrics.clone(),
        })
    }

    /// Tells the application of each event of a notification.
    ///
    /// # Errors
    ///
    /// The body is no notification, or has an event that has to be sent again.
    pub(crate) async fn receive(&self, body: &[u8]) -> Result<(), NotReceived> {
        let events = records::parse(body).map_err(NotReceived::Invalid)?;
        let all = stream::iter(events)
            .map(|event| self.tell(event))
            .buffer_unordered(IN_FLIGHT)
            .fold(true, async |all, outcome| all && outcome.is_final());
        match timeout(TIMEOUT, all).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotReceived::NotDelivered),
            Err(_elapsed) => {
                tracing::warn!("a notification took longer than {TIMEOUT:?}; it has to come again");
                Err(NotReceived::NotDelivered)
            }
        }
    }

    async fn tell(&self, event: Event) -> Outcome {
        let outcome = match event {
            Event::Created(created) => {
                // It fails only once the semaphore is closed, which nobody does.
                let _turn = self.in_flight.acquire().await.ok();
                self.tell_of(&created).await
            }
            Event::Other => Outcome::Ignored,
        };
        self.metrics.event(outcome.name());
        outcome
    }

    async fn tell_of(&self, created: &Created) -> Outcome {
        let now = SystemTime::now();
        // An event may come from a clock that is ahead.
        let age = now.duration_since(created.at).unwrap_or_default();
        let may_come = age < DELETED_AFTER;
        let wait = if may_come {
            READABLE_WITHIN
        } else {
            Duration::ZERO
        };
        let Created { bucket, key, .. } = created;
        let arrival = match self.uploads.arrival(bucket, key, wait, now).await {
            Ok(arrival) => arrival,
            Err(error) => {
                let error = causes(&error);
                return self.failed(
                    age,
                    &Failed {
                        error,
                        id: None,
                        policy: None,
                    },
                );
            }
        };
        let arrived = match arrival {
            Arrival::OtherBucket => return Outcome::OtherBucket,
            Arrival::UnknownKey => return Outcome::UnknownKey,
            Arrival::Missing if may_come => return Outcome::NotReadable,
            Arrival::Missing => return Outcome::Deleted,
            Arrival::Arrived(arrived) => arrived,
        };
        let id = message_id(created, &arrived);
        let (body, outcome) = message(created, &arrived);
        let begin = Instant::now();
        let sent = self.webhook.send(&id, body, SystemTime::now()).await;
        let result = sent.as_ref().map_or_else(DeliveryError::kind, |()| "ok");
        self.metrics.webhook(result, begin.elapsed());
        match sent {
            Ok(()) => outcome,
            Err(error) => self.failed(
                age,
                &Failed {
                    error: error.to_string(),
                    id: Some(&id),
                    policy: Some(&arrived.policy),
                },
            ),
        }
    }

    /// The log has no key: it may hold the name of a file.
    fn failed(&self, age: Duration, failed: &Failed<'_>) -> Outcome {
        let Failed { error, id, policy } = failed;
        let age_in_seconds = age.as_secs();
        if age < self.give_up_after {
            tracing::warn!(
                error,
                webhook_id = id,
                policy,
                age_in_seconds,
                "an event could not be delivered; the store has to send it again"
            );
            return Outcome::Failed;
        }
        tracing::error!(
            error,
            webhook_id = id,
            policy,
            age_in_seconds,
            "an event is LOST: it could not be delivered within WEBHOOK_GIVE_UP_AFTER, and is acknowledged so that the store sends those after it"
        );
        Outcome::Lost
    }
}

/// What is known of an event that could not be delivered.
struct Failed<'a> {
    error: String,
    id: Option<&'a str>,
    policy: Option<&'a str>,
}

/// The same for each message about one version of an object, whichever event it is of.
fn message_id(created: &Created, arrived: &Arrived) -> String {
    let Arrived { object, .. } = arrived;
    // Two uploads within a second differ in what they store, if they differ at all.
    let version = (
        &created.bucket,
        &created.key,
        &object.version_id,
        &object.etag,
        rfc3339(object.last_modified),
        &object.content_type,
        &object.metadata,
    );
    // A tuple of texts always becomes JSON.
    let version = serde_json::to_vec(&version).unwrap_or_default();
    let hash = Sha256::digest(version);
    format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash[..24]))
}

/// The message, and what it means for the event when it is delivered.
fn message(created: &Created, arrived: &Arrived) -> (String, Outcome) {
    let Arrived {
        policy,
        caller,
        object,
        verification,
    } = arrived;
    let refusals = match verification {
        Verification::Uploaded(_) | Verification::NotUploaded | Verification::Replaced => &[],
        Verification::Mismatch(refusals) => &refusals[..],
        Verification::ContentMismatch(refusal) => std::slice::from_ref(refusal),
    };
    let (kind, outcome) = match verification {
        Verification::Uploaded(_) => ("upload.arrived", Outcome::Arrived),
        _ => ("upload.refused", Outcome::Refused),
    };
    let receipt = match verification {
        Verification::Uploaded(upload) => upload.receipt.as_deref(),
        _ => None,
    };
    let message = Message {
        kind,
        timestamp: rfc3339(created.at),
        data: Data {
            bucket: &created.bucket,
            key: &created.key,
            size: object.size,
            content_type: object.content_type.as_deref().unwrap_or_default(),
            etag: &object.etag,
            version_id: object.version_id.as_deref(),
            last_modified: rfc3339(object.last_modified),
            policy,
            caller: caller.as_ref().map(Caller::segment),
            metadata: &object.metadata,
            receipt,
            errors: Problem::for_differences(&catalogue::MISMATCH, refusals).errors,
        },
    };
    // A struct of texts and numbers always becomes JSON.
    let message = serde_json::to_string(&message).unwrap_or_default();
    (message, outcome)
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
