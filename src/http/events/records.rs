//! Reads notifications of stores: the [records of
//! S3](https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html) as AWS, MinIO,
//! RustFS and Ceph send them, and [events of
//! EventBridge](https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html). Pure.

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The most events that a notification may have. Stores send one, or a few.
const MAX_EVENTS: usize = 1000;

/// One event of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Created(Created),
    /// Whatever else can happen to an object.
    Other,
}

/// An object was created.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Created {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) at: SystemTime,
}

/// What a store sends: records, an event of EventBridge, or the test event of S3. Stores send more members than
/// these.
// Lists are not parsed here, because their elements may be many and large.
#[derive(Deserialize, ToSchema)]
#[schema(as = EventNotification)]
pub(super) struct Notification<'a> {
    /// At most 1,000.
    #[serde(borrow, rename = "Records")]
    #[schema(value_type = Option<Vec<Record>>, max_items = 1000)]
    records: Option<Vec<&'a RawValue>>,
    /// `s3:TestEvent`, which S3 sends when notifications are configured.
    #[serde(rename = "Event")]
    event: Option<String>,
    /// `Object Created`, by EventBridge. Events of other types are ignored.
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    /// `aws.s3`, by EventBridge.
    source: Option<String>,
    /// When EventBridge's event was (RFC 3339).
    time: Option<String>,
    /// Names the bucket and the key, as they are, by EventBridge.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    detail: Option<&'a RawValue>,
}

/// An event, as AWS, MinIO, RustFS and Ceph report it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventRecord)]
struct Record {
    /// `ceph:s3` means that the key is not URL-encoded.
    #[schema(example = "aws:s3")]
    event_source: Option<String>,
    /// Only those that begin with `ObjectCreated:` or `s3:ObjectCreated:` matter.
    #[schema(example = "ObjectCreated:Put")]
    event_name: String,
    /// Required of a new object (RFC 3339).
    #[schema(example = "2026-01-01T00:01:00Z")]
    event_time: Option<String>,
    /// Required of a new object.
    s3: Option<Entity>,
}

/// Where an object is.
#[derive(Deserialize, ToSchema)]
#[schema(as = EventEntity)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = EventBucket)]
struct Bucket {
    #[schema(example = "uploads")]
    name: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = EventObject)]
struct Object {
    #[schema(example = "uploads%2F5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e%2Fexample.jpg")]
    key: String,
}

/// The events of a notification; none for the test that S3 sends when notifications are configured.
///
/// # Errors
///
/// What is wrong with the body. The text completes a sentence that begins with "the body".
pub(super) fn parse(body: &[u8]) -> Result<Vec<Event>, &'static str> {
    let notification: Notification = serde_json::from_slice(body)
        .map_err(|_| "is not a JSON object with the members of a notification")?;
    if let Some(records) = &notification.records {
        if records.len() > MAX_EVENTS {
            return Err("has more than 1000 records");
        }
        return records.iter().map(|record| from_record(record)).collect();
    }
    match (&notification.source, &notification.event) {
        (Some(source), _) if source == "aws.s3" => Ok(vec![from_event_bridge(&notification)?]),
        (_, Some(event)) if event == "s3:TestEvent" => Ok(Vec::new()),
        _ => Err("has neither `Records` nor the `source` of an event from S3"),
    }
}

fn from_record(record: &RawValue) -> Result<Event, &'static str> {
    let record: Record = serde_json::from_str(record.get())
        .map_err(|_| "has a record without `eventName`, or with an `s3` that names no object")?;
    if !is_creation(&record.event_name) {
        return Ok(Event::Other);
    }
    let Entity { bucket, object } = record.s3.ok_or("has a record without `s3`")?;
    // All other stores encode the key.
    let key = if record.event_source.as_deref() == Some("ceph:s3") {
        object.key
    } else {
        decoded(&object.key)?
    };
    Ok(Event::Created(Created {
        bucket: bucket.name,
        key,
        at: time_of(record.event_time.as_deref())?,
    }))
}

/// Whether an event of this name reports a new object. Some stores use the same prefix for changes
/// to the tags, the retention or the ACL of an object.
fn is_creation(name: &str) -> bool {
    const CHANGES: [&str; 4] = ["Tagging", "Retention", "LegalHold", "Acl"];
    let name = name.strip_prefix("s3:").unwrap_or(name);
    name.starts_with("ObjectCreated:") && !CHANGES.iter().any(|change| name.ends_with(change))
}

fn from_event_bridge(notification: &Notification<'_>) -> Result<Event, &'static str> {
    if notification.detail_type.as_deref() != Some("Object Created") {
        return Ok(Event::Other);
    }
    let detail = notification.detail.ok_or("has no `detail`")?;
    let Entity { bucket, object } =
        serde_json::from_str(detail.get()).map_err(|_| "has a `detail` that names no object")?;
    Ok(Event::Created(Created {
        bucket: bucket.name,
        key: object.key,
        at: time_of(notification.time.as_deref())?,
    }))
}

/// A key that is encoded like a form's field: a `+` stands for a space.
fn decoded(key: &str) -> Result<String, &'static str> {
    let key = key.replace('+', " ");
    let key = percent_decode_str(&key).decode_utf8();
    key.map(Into::into)
        .map_err(|_| "has a key that is not UTF-8")
}

/// The time of an event. It is required, because it decides when to give up on the event.
fn time_of(text: Option<&str>) -> Result<SystemTime, &'static str> {
    let time = text.and_then(|text| humantime::parse_rfc3339(text).ok());
    time.ok_or("has an event without its time in UTC")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys(body: &Value) -> Result<Vec<Option<String>>, &'static str> {
        let events = parse(body.to_string().as_bytes())?;
        let keys = events.into_iter().map(|event| match event {
            Event::Created(created) => Some(created.key),
            Event::Other => None,
        });
        Ok(keys.collect())
    }

    fn record(source: &str, name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1",
            "eventSource": source,
            "eventTime": "2026-01-02T03:04:05.678Z",
            "eventName": name,
            "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": "5", "sequencer": "0"}},
        })
    }

    #[test]
    fn keys_are_decoded_as_their_stores_encode_them() {
        for (source, name, key, expected) in [
            (
                "aws:s3",
                "ObjectCreated:Put",
                "a/b+c%2Bd%25.txt",
                "a/b c+d%.txt",
            ),
            (
                "minio:s3",
                "s3:ObjectCreated:Put",
                "a%2F%F0%9F%8E%89",
                "a/🎉",
            ),
            (
                "rustfs:s3",
                "s3:ObjectCreated:Post",
                "a%2F%ED%95%9C",
                "a/한",
            ),
            (
                "ceph:s3",
                "ObjectCreated:CompleteMultipartUpload",
                "a+b%25 한",
                "a+b%25 한",
            ),
        ] {
            let body = json!({"Records": [record(source, name, key)]});
            assert_eq!(keys(&body), Ok(vec![Some(expected.to_owned())]), "{source}");
        }
        let event = json!({
            "version": "0", "source": "aws.s3", "detail-type": "Object Created",
            "time": "2026-01-02T03:04:05Z",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b%25 한", "version-id": "1"}},
        });
        assert_eq!(keys(&event), Ok(vec![Some("a+b%25 한".to_owned())]));
        let broken = json!({"Records": [record("aws:s3", "ObjectCreated:Put", "%ff")]});
        assert!(keys(&broken).is_err());
    }

    #[test]
    fn events_that_create_no_object_are_others() {
        for name in [
            "s3:ObjectRemoved:Delete",
            "ObjectCreated",
            "ObjectTagging:Put",
            "s3:ObjectCreated:PutTagging",
            "s3:ObjectCreated:DeleteTagging",
            "s3:ObjectCreated:PutRetention",
            "s3:ObjectCreated:PutLegalHold",
            "s3:ObjectCreated:PutAcl",
        ] {
            let body = json!({"Records": [record("minio:s3", name, "%ff")]});
            assert_eq!(keys(&body), Ok(vec![None]), "{name}");
        }
        let removed = json!({"source": "aws.s3", "detail-type": "Object Deleted"});
        assert_eq!(keys(&removed), Ok(vec![None]));
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"});
        assert_eq!(keys(&test), Ok(vec![]));
    }

    #[test]
    fn the_time_of_an_event_is_read() {
        let body = json!({"Records": [record("aws:s3", "ObjectCreated:Put", "a")]});
        let events = parse(body.to_string().as_bytes()).unwrap();
        let [Event::Created(created)] = &events[..] else {
            panic!("{events:?}");
        };
        let expected = time::macros::datetime!(2026-01-02 03:04:05.678 UTC);
        assert_eq!(created.at, SystemTime::from(expected));
        assert_eq!(created.bucket, "b");
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        let mut untimed = record("aws:s3", "ObjectCreated:Put", "a");
        untimed["eventTime"] = Value::Null;
        let mut unnamed = record("aws:s3", "ObjectCreated:Put", "a");
        unnamed["s3"]["object"] = json!({});
        for body in [
            json!({}),
            json!([]),
            json!("Records"),
            json!({"Records": {}}),
            json!({"Records": [{}]}),
            json!({"Records": [7]}),
            json!({"Records": [untimed]}),
            json!({"Records": [unnamed]}),
            json!({"Records": vec![record("aws:s3", "ObjectCreated:Put", "a"); 1001]}),
            json!({"source": "aws.ec2", "detail-type": "Object Created"}),
            json!({"source": "aws.s3", "detail-type": "Object Created"}),
            json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}),
            json!({"Event": "s3:OtherEvent"}),
        ] {
            assert!(keys(&body).is_err(), "{body}");
        }
        let deep = format!("{{\"Records\": [{}", "[".repeat(100_000));
        for body in ["", "{", "\u{feff}{}", &deep] {
            assert!(parse(body.as_bytes()).is_err());
        }
        assert!(parse(b"{\"Records\": [\"\xff\"]}").is_err());
    }
}
