//! Events that are no requests: what S3 reports to the function itself, through a queue, or through
//! `EventBridge`. A failure makes Lambda, or the queue, send the event again.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::http::events::{Events, NotReceived};

/// How many messages of a batch are worked on at the same time.
const IN_FLIGHT: usize = 16;

/// The members that distinguish the kinds of events.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind<'a> {
    #[serde(borrow)]
    request_context: Option<&'a RawValue>,
    #[serde(borrow, rename = "Records")]
    records: Option<Vec<&'a RawValue>>,
}

/// A message of a queue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    event_source: String,
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// Whether it is a request, of whichever front.
pub(super) fn is_request(event: &RawValue) -> bool {
    let kind = serde_json::from_str::<Kind>(event.get());
    kind.is_ok_and(|kind| kind.request_context.is_some())
}

/// Notifies the application of an event. The answer lists the messages that a queue has to send again;
/// only a queue reads it. `request_id` is that of the invocation.
///
/// # Errors
///
/// The event has to be sent again, or is not one of S3.
pub(super) async fn receive(
    events: &Arc<Events>,
    request_id: &str,
    event: &RawValue,
) -> Result<Value> {
    let answer = |failed: Vec<Value>| json!({ "batchItemFailures": failed });
    if let Some(messages) = messages(event) {
        let failed = stream::iter(messages).map(async |message| {
            let received = events.receive(request_id, message.body.as_bytes()).await;
            if let Err(NotReceived::Invalid(why)) = &received {
                tracing::error!(request_id, message_id = message.id, "the event {why}");
            }
            received
                .is_err()
                .then(|| json!({ "itemIdentifier": message.id }))
        });
        let failed = failed.buffer_unordered(IN_FLIGHT);
        let failed = failed.filter_map(async |failed| failed).collect();
        return Ok(answer(failed.await));
    }
    match events.receive(request_id, event.get().as_bytes()).await {
        Ok(()) => Ok(answer(Vec::new())),
        Err(NotReceived::Invalid(why)) => bail!("the event {why}"),
        Err(NotReceived::NotDelivered) => {
            bail!("the event was not delivered and must be sent again")
        }
    }
}

/// The messages of a queue, if the event is a batch of them.
fn messages(event: &RawValue) -> Option<Vec<Message>> {
    let kind: Kind = serde_json::from_str(event.get()).ok()?;
    let messages = kind.records?.into_iter();
    let messages: Vec<Message> = messages
        .map(|message| serde_json::from_str(message.get()).ok())
        .collect::<Option<_>>()?;
    let is_queue = |message: &Message| message.event_source == "aws:sqs";
    (!messages.is_empty() && messages.iter().all(is_queue)).then_some(messages)
}
