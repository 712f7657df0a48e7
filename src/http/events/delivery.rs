//! Turns an event of the store into a webhook: finds the upload, notifies the application, and
//! decides whether the store has to send the event again. It stores nothing: events wait in the
//! store's own queue.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::message::{Kind, Message};
use super::records::{self, Created, Event};
use crate::error_chain::causes;
use crate::http;
use crate::telemetry::Metrics;
use crate::upload::{Arrival, UploadService};
use crate::webhook::{DeliveryError, Webhook};

/// How many events are processed at the same time, in all notifications together.
const IN_FLIGHT: usize = 16;
/// How long one notification may take, with all of its events.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The pauses between the attempts to read an object that is missing. If the last attempt fails, too, the
/// store has to send the event again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// After this time an object that is missing has been deleted, by the clock of the store.
const DELETED_AFTER: Duration = Duration::from_mins(2);
/// How long an event has to have failed in this process before it is given up, however old it is. It may
/// be old because presignd did not run, or because this machine's clock is wrong. In an ordered queue each
/// event that is given up delays the others for this time.
const LAST_TRIES: Duration = Duration::from_mins(15);
/// How long an event may wait for an earlier attempt of it to end, and then for its turn. After both waits, and in
/// [`TIMEOUT`], enough time is left for an attempt: otherwise none would end, and none would be given up.
const WAIT: Duration = Duration::from_secs(12);
/// How long a last try may take of an event that was given up. Stores wait for 5 seconds at least.
const LAST_TRY: Duration = Duration::from_secs(3);
/// How many events are remembered until they are acknowledged. Others are tried for longer, or sent again.
const REMEMBERED: usize = 4096;
/// No bucket and key together are longer.
const LONGEST: usize = 255 + 1024;
/// How many events of all notifications may wait for their turn or for an answer.
const WAITING: usize = 16 * 1024;

/// Notifies the application of events.
pub(crate) struct Events {
    uploads: Arc<UploadService>,
    webhook: Webhook,
    give_up_after: Duration,
    /// The events that were not acknowledged yet. One that comes again waits until the attempt before it has ended.
    known: Cache<Created, Arc<Mutex<Known>>>,
    in_flight: Semaphore,
    waiting: Arc<Semaphore>,
    metrics: Metrics,
}

/// What is known of an event that was not acknowledged yet.
#[derive(Debug, Default)]
struct Known {
    first_failure: Option<Instant>,
    /// The id of the webhook that the application has accepted.
    accepted: Option<String>,
    is_given_up: bool,
}

/// Why a notification was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReceived {
    /// The body is not a notification. The text completes a sentence that begins with "the body".
    Invalid(&'static str),
    /// Not all of its events reached the application; the store has to send it again.
    NotDelivered,
}

/// The outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The application knows that an upload has arrived.
    Arrived,
    /// The application knows that an object violates its policy.
    Refused,
    /// It does not report a new object.
    Ignored,
    OtherBucket,
    UnknownKey,
    /// The object was deleted before it could be verified.
    Deleted,
    /// The object was replaced before it could be verified. The store reports the other one, too.
    Replaced,
    /// The application or the store failed; the store sends the event again.
    Failed,
    /// The object cannot be read yet; the store sends the event again.
    NotReadable,
    /// It failed for so long that the store need not send it again.
    Lost,
    /// The application has accepted it already, or it was given up already, but it was not acknowledged.
    Repeated,
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
            Self::Replaced => "replaced",
            Self::Failed => "failed",
            Self::NotReadable => "not-readable",
            Self::Lost => "lost",
            Self::Repeated => "repeated",
        }
    }
}

impl Events {
    /// `None` if no webhook is configured.
    pub(crate) fn from_settings(
        uploads: &Arc<UploadService>,
        settings: &http::Settings,
    ) -> Option<Self> {
        let events = settings.events.as_ref()?;
        Some(Self {
            uploads: Arc::clone(uploads),
            webhook: events.webhook.clone(),
            give_up_after: events.give_up_after,
            known: Cache::new(REMEMBERED),
            in_flight: Semaphore::new(IN_FLIGHT),
            waiting: Arc::new(Semaphore::new(WAITING)),
            metrics: settings.metrics.clone(),
        })
    }

    /// Notifies the application of each event in a notification of the store. `request_id` is the one that the
    /// notification came with.
    ///
    /// This goes on if the store hangs up. Some stores wait for 5 seconds only: what the application has accepted is
    /// remembered, so that the same notification needs less time when it comes again.
    ///
    /// # Errors
    ///
    /// The body is no notification, or has an event that has to be sent again.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        request_id: &str,
        body: &[u8],
    ) -> Result<(), NotReceived> {
        let events = records::parse(body).map_err(NotReceived::Invalid)?;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_many_owned(count) else {
            tracing::warn!(
                request_id,
                "too many events wait for the application; the store has to send this notification again"
            );
            return Err(NotReceived::NotDelivered);
        };
        let (this, request_id) = (Arc::clone(self), request_id.to_owned());
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let result = this.report_all(&request_id, &events).await;
            if sender.send(result).is_ok() && result.is_ok() {
                for event in &events {
                    if let Event::Created(created) = event {
                        this.known.remove(created);
                    }
                }
            }
            drop(waiting);
        });
        // It fails only if the task has panicked.
        receiver.await.unwrap_or(Err(NotReceived::NotDelivered))
    }

    async fn report_all(&self, request_id: &str, events: &[Event]) -> Result<(), NotReceived> {
        let all = stream::iter(0..events.len())
            .map(|index| self.report(request_id, &events[index]))
            .buffer_unordered(IN_FLIGHT)
            .collect::<Vec<Outcome>>();
        let Ok(outcomes) = timeout(TIMEOUT, all).await else {
            tracing::warn!(
                request_id,
                "a notification took longer than {TIMEOUT:?}; the store has to send it again"
            );
            return Err(NotReceived::NotDelivered);
        };
        if outcomes.contains(&Outcome::Failed) || outcomes.contains(&Outcome::NotReadable) {
            return Err(NotReceived::NotDelivered);
        }
        log_unreported(request_id, &outcomes);
        Ok(())
    }

    async fn report(&self, request_id: &str, event: &Event) -> Outcome {
        let outcome = match event {
            // It would be remembered at any length.
            Event::Created(it) if it.bucket.len() + it.key.len() > LONGEST => Outcome::UnknownKey,
            Event::Created(created) => self.report_object(request_id, created).await,
            Event::Other => Outcome::Ignored,
        };
        self.metrics.event(outcome.name());
        outcome
    }

    /// Tries again to read a missing object after each of [`PAUSES`], in which other events have their turns: who
    /// deletes uploads at once must not delay the events of others.
    async fn report_object(&self, request_id: &str, created: &Created) -> Outcome {
        let unknown = || Ok::<_, Infallible>(Arc::default());
        let Ok(known) = self.known.get_or_insert_with(created, unknown);
        let Ok(mut known) = timeout(WAIT, known.lock()).await else {
            return busy(request_id);
        };
        if known.is_given_up {
            let last_try = self.report_readable(request_id, created, &mut known);
            return match timeout(LAST_TRY, last_try).await {
                Ok(outcome) if outcome != Outcome::NotReadable => outcome,
                _ => Outcome::Repeated,
            };
        }
        for pause in PAUSES {
            let outcome = self.report_readable(request_id, created, &mut known).await;
            if outcome != Outcome::NotReadable {
                return outcome;
            }
            sleep(pause).await;
        }
        let outcome = self.report_readable(request_id, created, &mut known).await;
        if outcome == Outcome::NotReadable {
            tracing::warn!(
                request_id,
                bucket = created.bucket,
                age_in_seconds = self.age(created).as_secs(),
                "the object of an event cannot be read yet; the store has to send the event again"
            );
        }
        outcome
    }

    /// The age of an event by the later of this machine's clock and that of the store, as far as this is known.
    fn age(&self, created: &Created) -> Duration {
        let now = SystemTime::now().max(self.uploads.time_at_store());
        now.duration_since(created.at).unwrap_or_default()
    }

    async fn report_readable(
        &self,
        request_id: &str,
        created: &Created,
        known: &mut Known,
    ) -> Outcome {
        let Ok(_turn) = timeout(WAIT, self.in_flight.acquire()).await else {
            return busy(request_id);
        };
        let Created { bucket, key, .. } = created;
        let arrival = match self.uploads.arrival(bucket, key).await {
            Ok(arrival) => arrival,
            Err(error) => return self.failed(request_id, created, known, &causes(&error), None),
        };
        let arrived = match arrival {
            Arrival::OtherBucket => return Outcome::OtherBucket,
            Arrival::UnknownKey => return Outcome::UnknownKey,
            Arrival::Replaced => return Outcome::Replaced,
            Arrival::Missing if known.accepted.is_some() => return Outcome::Repeated,
            Arrival::Missing if self.age(created) < DELETED_AFTER => return Outcome::NotReadable,
            Arrival::Missing => return self.missing(request_id, created, known).await,
            Arrival::Arrived(arrived) => arrived,
        };
        let message = Message::new(created, &arrived);
        let id = message.id();
        if known.accepted.as_ref() == Some(&id) {
            return Outcome::Repeated;
        }
        let outcome = match message.kind {
            Kind::Arrived => Outcome::Arrived,
            Kind::Refused => Outcome::Refused,
        };
        // A struct of texts and numbers always becomes JSON.
        let body = serde_json::to_string(&message).unwrap_or_default();
        let begin = Instant::now();
        let sent = self.webhook.send(&id, body, SystemTime::now()).await;
        let result = sent.as_ref().map_or_else(DeliveryError::kind, |()| "ok");
        self.metrics.webhook(result, begin.elapsed());
        match sent {
            Ok(()) => {
                known.accepted = Some(id);
                outcome
            }
            Err(error) => {
                let webhook = Some((&*id, &*arrived.policy));
                self.failed(request_id, created, known, &error.to_string(), webhook)
            }
        }
    }

    /// The outcome of an event that seems to be old, and whose object a HEAD request did not find. A proxy may have
    /// given that answer, so the store itself is asked.
    async fn missing(&self, request_id: &str, created: &Created, known: &mut Known) -> Outcome {
        let Created { bucket, key, .. } = created;
        let now_there = match self.uploads.confirm_missing(bucket, key).await {
            Ok(now_there) => now_there.unwrap_or_else(SystemTime::now),
            Err(error) => return self.failed(request_id, created, known, &causes(&error), None),
        };
        let age_there = now_there.duration_since(created.at).unwrap_or_default();
        if age_there < DELETED_AFTER && !self.note_failure(created, known) {
            return Outcome::NotReadable;
        }
        Outcome::Deleted
    }

    /// Notes that an event has failed. Returns whether it need not come again.
    fn note_failure(&self, created: &Created, known: &mut Known) -> bool {
        let first_failure = known.first_failure.get_or_insert_with(Instant::now);
        self.age(created) >= self.give_up_after
            && first_failure.elapsed() >= LAST_TRIES.min(self.give_up_after)
    }

    /// Logs no key, because that may contain the name of a file. `webhook` is the id and the policy
    /// of a webhook that could not be sent.
    fn failed(
        &self,
        request_id: &str,
        created: &Created,
        known: &mut Known,
        error: &str,
        webhook: Option<(&str, &str)>,
    ) -> Outcome {
        if known.is_given_up {
            return Outcome::Repeated;
        }
        let (id, policy) = webhook.unzip();
        let bucket = &*created.bucket;
        let age_in_seconds = self.age(created).as_secs();
        if !self.note_failure(created, known) {
            tracing::warn!(
                request_id,
                error,
                webhook_id = id,
                policy,
                bucket,
                age_in_seconds,
                "an event could not be delivered; the store has to send it again"
            );
            return Outcome::Failed;
        }
        known.is_given_up = true;
        tracing::error!(
            request_id,
            error,
            webhook_id = id,
            policy,
            bucket,
            age_in_seconds,
            "an event is LOST: it could not be delivered, is older than WEBHOOK_GIVE_UP_AFTER, and is acknowledged so that the store sends those after it"
        );
        Outcome::Lost
    }
}

fn busy(request_id: &str) -> Outcome {
    tracing::warn!(
        request_id,
        "an event waits for earlier attempts, as the application or the store is slow; the store has to send it again"
    );
    Outcome::Failed
}

/// Logs how many uploads may be lost to the application. It is one line for all events of a notification,
/// and has no keys, because these may contain names of files.
fn log_unreported(request_id: &str, outcomes: &[Outcome]) {
    let kinds = [
        Outcome::Deleted,
        Outcome::Replaced,
        Outcome::UnknownKey,
        Outcome::OtherBucket,
    ];
    let [deleted, replaced, unknown_key, other_bucket] =
        kinds.map(|kind| outcomes.iter().filter(|outcome| **outcome == kind).count());
    if deleted + replaced + unknown_key + other_bucket > 0 {
        tracing::info!(
            request_id,
            deleted,
            replaced,
            unknown_key,
            other_bucket,
            "events of new objects were acknowledged without a webhook"
        );
    }
}
