//! Replays compared with the presigner itself: an SDK client of the test's own, which knows nothing
//! of this crate.

mod properties;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, ConfigBag, Intercept, Region, RuntimeComponents,
};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::PresigningConfig;
use serde_json::Value;
use time::macros::datetime;

use super::*;
use crate::s3::CredentialsCache;
use crate::telemetry::Written;

/// A bucket, and how the SDK is to reach it.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: &'static str,
    settings: fn(Builder) -> Builder,
    is_replayed: bool,
}

const fn place(bucket: &'static str, settings: fn(Builder) -> Builder) -> Place {
    Place {
        bucket,
        settings,
        is_replayed: true,
    }
}

const AWS: Place = place("bucket", |it| it);
const MULTI_REGION: Place = Place {
    is_replayed: false,
    ..place(
        "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap",
        |it| it,
    )
};
/// Read like AWS, and not reproduced with awkward keys.
const UNHEARD_OF: Place = Place {
    is_replayed: false,
    ..place("bucket", |it| it.interceptor(UnheardOf))
};
const PLACES: [Place; 19] = [
    AWS,
    MULTI_REGION,
    UNHEARD_OF,
    place("bucket", |it| it.force_path_style(true)),
    place("b.u.c-ket", |it| it),
    place("bucket", |it| it.use_dual_stack(true)),
    place("bucket", |it| it.use_fips(true)),
    place("bucket", |it| it.use_fips(true).use_dual_stack(true)),
    place("bucket", |it| it.accelerate(true)),
    place("bucket", |it| it.accelerate(true).use_dual_stack(true)),
    place("bucket", |it| it.region(Region::new("cn-north-1"))),
    place("bucket", |it| {
        it.endpoint_url("http://localhost:9000")
            .force_path_style(true)
    }),
    place("bucket", |it| it.endpoint_url("http://store.example:80")),
    place("bucket", |it| it.endpoint_url("https://store.example:443/")),
    place("bucket", |it| {
        it.endpoint_url("https://store.example:8443/s3/")
            .force_path_style(true)
    }),
    place("bucket", |it| {
        it.endpoint_url("http://[::1]:9000").force_path_style(true)
    }),
    place("bucket--usw2-az1--x-s3", |it| it),
    place(
        "arn:aws:s3:us-west-2:123456789012:accesspoint/point",
        |it| it,
    ),
    place(
        "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/point",
        |it| it,
    ),
];

/// Counts how often the presigner is asked.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicU64>);

impl Intercept for Asked {
    fn name(&self) -> &'static str {
        "asked"
    }

    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Has the SDK sign a header of which nothing else knows, where a key is encoded.
#[derive(Debug)]
struct UnheardOf;

impl Intercept for UnheardOf {
    fn name(&self) -> &'static str {
        "unheard of"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if request.uri().contains('%') {
            request.headers_mut().insert("x-unheard-of", "1");
        }
        Ok(())
    }
}

impl Place {
    fn config(&self) -> Builder {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .disable_s3_express_session_auth(true);
        (self.settings)(config)
    }

    fn bucket(&self) -> (Bucket, Asked) {
        let asked = Asked::default();
        let client = Client::from_conf(self.config().interceptor(asked.clone()).build());
        let made_up = Credentials::new("never", "used", None, None, "test");
        let provider = SharedCredentialsProvider::new(made_up);
        let credentials = CredentialsCache::new(provider, Duration::ZERO);
        (
            Bucket::new(client, self.bucket.to_owned(), credentials),
            asked,
        )
    }

    /// What the SDK says.
    async fn expected(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Option<(String, Vec<(Cow<'static, str>, String)>)> {
        let credentials = Credentials::clone(&signing.credentials);
        let client = Client::from_conf(self.config().credentials_provider(credentials).build());
        let config = PresigningConfig::builder()
            .start_time(signing.now)
            .expires_in(signing.expires_in)
            .build()
            .ok()?;
        let presigned = match request {
            Request::Part {
                key,
                upload_id,
                number,
            } => {
                let part = client.upload_part().bucket(self.bucket).key(key);
                let part = part.upload_id(upload_id).part_number(number.into());
                part.presigned(config).await.ok()?
            }
            Request::Put(put) => {
                let object = &put.object;
                let mut request = client
                    .put_object()
                    .bucket(self.bucket)
                    .key(object.key)
                    .content_type(object.content_type)
                    .set_content_disposition(object.content_disposition.map(str::to_owned))
                    .set_cache_control(object.cache_control.map(str::to_owned))
                    .set_storage_class(object.storage_class.clone())
                    .set_server_side_encryption(object.server_side_encryption.clone())
                    .set_ssekms_key_id(object.kms_key_id.map(str::to_owned))
                    .set_acl(object.acl.clone())
                    .set_checksum_sha256(object.checksum_sha256.map(str::to_owned))
                    .set_content_length(put.size.map(|size| size.try_into().unwrap_or(i64::MAX)));
                if put.if_none_match {
                    request = request.if_none_match("*");
                }
                if !object.tagging.is_empty() {
                    let tags = object
                        .tagging
                        .iter()
                        .map(|(name, value)| format!("{name}={value}"));
                    request = request.tagging(tags.collect::<Vec<_>>().join("&"));
                }
                for (name, value) in object.metadata {
                    request = request.metadata(name, crate::s3::header_value(value));
                }
                request.presigned(config).await.ok()?
            }
        };
        let headers = presigned
            .headers()
            .filter(|(name, _)| *name != "content-length");
        let mut headers: Vec<_> = headers
            .map(|(name, value)| (name.to_owned().into(), value.to_owned()))
            .collect();
        headers.sort();
        Some((presigned.uri().to_owned(), headers))
    }

    /// Asks `bucket` and the SDK, and gives what both say.
    async fn compare(
        &self,
        bucket: &Bucket,
        request: Request<'_>,
        signing: &Signing,
    ) -> Option<String> {
        let found = bucket.sign(request, signing).await.ok();
        let found = found.map(|it| (it.url, it.headers));
        let expected = self.expected(request, signing).await;
        assert_eq!(found, expected, "{request:?}");
        found.map(|(url, _)| url)
    }
}

/// 20 November 2023, 00:00.
const MIDNIGHT: Duration = Duration::from_hours(472_344);

fn signing(name: &str, token: Option<&str>, now: SystemTime) -> Signing {
    Signing {
        credentials: Credentials::new(
            name,
            format!("secret of {name}"),
            token.map(str::to_owned),
            None,
            "test",
        )
        .into(),
        expires_in: Duration::from_mins(10),
        now,
    }
}

fn midnight() -> SystemTime {
    UNIX_EPOCH + MIDNIGHT
}

fn plain_put(key: &str) -> Put<'_> {
    Put {
        object: Object {
            key,
            content_type: "image/jpeg",
            ..Object::default()
        },
        ..Put::default()
    }
}

/// Without this, a replay that never happens would be proven equal.
#[tokio::test]
async fn everywhere_that_it_is_reproduced_the_presigner_is_asked_only_to_learn() {
    for place in PLACES {
        let (bucket, asked) = place.bucket();
        let put = plain_put("a b/c");
        let part = Request::Part {
            key: "a b/c",
            upload_id: "id",
            number: 7,
        };
        let signing = signing("AKID", Some("token"), midnight());
        for request in [Request::Put(&put), part] {
            bucket.sign(request, &signing).await.unwrap();
            let to_learn = asked.0.load(Ordering::SeqCst);
            for _ in 0..10 {
                place.compare(&bucket, request, &signing).await.unwrap();
            }
            let since = asked.0.load(Ordering::SeqCst) - to_learn;
            assert_eq!(since, if place.is_replayed { 0 } else { 10 }, "{place:?}");
        }
    }
}

#[tokio::test]
async fn each_day_and_each_set_of_credentials_is_learned_anew() {
    let (bucket, asked) = AWS.bucket();
    let put = plain_put("k");
    let (today, yesterday) = (midnight(), midnight() - Duration::from_secs(1));
    let mut asked_before = 0;
    for (name, token, now, is_new) in [
        ("A", None, yesterday, true),
        ("A", None, today, true),
        ("A", None, today + Duration::from_secs(DAY - 1), false),
        ("A", None, yesterday, true),
        ("B", None, yesterday, true),
        ("B", Some("1"), yesterday, true),
        ("B", Some("2"), yesterday, true),
        (
            "B",
            Some("2"),
            yesterday - Duration::from_secs(DAY - 1),
            false,
        ),
    ] {
        let signing = signing(name, token, now);
        let url = AWS
            .compare(&bucket, Request::Put(&put), &signing)
            .await
            .unwrap();
        assert!(url.contains(&format!("Credential={name}%2F2023")), "{url}");
        let asked_now = asked.0.load(Ordering::SeqCst);
        assert_eq!(asked_now > asked_before, is_new, "{name} {token:?}");
        asked_before = asked_now;
    }
}

/// The end belongs to the credentials: the same ones with another end are others.
#[tokio::test]
async fn a_replay_ends_when_its_credentials_end() {
    let (bucket, _) = AWS.bucket();
    let put = plain_put("k");
    for end in [300, 900, 60] {
        let mut signing = signing("A", None, midnight());
        *Arc::make_mut(&mut signing.credentials).expiry_mut() =
            Some(midnight() + Duration::from_secs(end));
        for _ in 0..2 {
            let presigned = bucket.sign(Request::Put(&put), &signing).await.unwrap();
            let expected = midnight() + Duration::from_secs(end.min(600));
            assert_eq!(presigned.expires_at, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_a_change_one_learns_and_nobody_waits() {
    let (bucket, asked) = AWS.bucket();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let bucket = bucket.clone();
        let signing = signing("A", None, midnight());
        all.spawn(async move { bucket.sign(Request::Put(&plain_put("k")), &signing).await });
    }
    let urls: Vec<_> = all
        .join_all()
        .await
        .into_iter()
        .map(|it| it.unwrap().url)
        .collect();
    assert!(urls.iter().all(|url| *url == urls[0]));
    let to_learn = super::puts(&[]).len() as u64;
    let asked = asked.0.load(Ordering::SeqCst);
    assert!((to_learn..to_learn + 100).contains(&asked), "{asked}");

    let (bucket, asked) = AWS.bucket();
    let _learning = bucket.put_replay.learning.lock().await;
    let signing = signing("A", None, midnight());
    bucket
        .sign(Request::Put(&plain_put("k")), &signing)
        .await
        .unwrap();
    assert_eq!(asked.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn where_nothing_can_be_replayed_the_log_says_so_once() {
    let lines = Written::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || written.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (bucket, _) = MULTI_REGION.bucket();
    let put = plain_put("k");
    for day in 0..3 {
        for _ in 0..3 {
            let now = midnight() + Duration::from_secs(DAY * day);
            bucket
                .sign(Request::Put(&put), &signing("A", None, now))
                .await
                .unwrap();
        }
    }
    let lines = lines.text();
    assert_eq!(lines.matches("the slow way").count(), 1, "{lines}");
    assert!(lines.contains("another algorithm"), "{lines}");
}

/// What a proof does not try it does not prove.
#[test]
fn a_replay_has_to_prove_itself_with_every_property() {
    let pairs = [("a".to_owned(), "b".to_owned())];
    let puts = puts(&pairs);
    let keys: BTreeSet<&str> = puts.iter().map(|put| put.object.key).collect();
    assert_eq!(keys, BTreeSet::from([PLAIN, AWKWARD, UNTIDY]));
    let has = |put: &Put<'_>| {
        let Put {
            object,
            size,
            if_none_match,
        } = put;
        let Object {
            key: _,
            content_type,
            content_disposition,
            cache_control,
            storage_class,
            server_side_encryption,
            kms_key_id,
            acl,
            tagging,
            metadata,
            checksum_sha256,
        } = object;
        assert!(!content_type.is_empty());
        [
            ("size", size.is_some()),
            ("if_none_match", *if_none_match),
            ("content_disposition", content_disposition.is_some()),
            ("cache_control", cache_control.is_some()),
            ("storage_class", storage_class.is_some()),
            ("server_side_encryption", server_side_encryption.is_some()),
            ("kms_key_id", kms_key_id.is_some()),
            ("acl", acl.is_some()),
            ("tagging", !tagging.is_empty()),
            ("metadata", !metadata.is_empty()),
            ("checksum_sha256", checksum_sha256.is_some()),
        ]
    };
    for (property, _) in has(&puts[0]) {
        let with = puts
            .iter()
            .filter(|put| has(put).contains(&(property, true)));
        let with = with.count();
        assert!((1..puts.len()).contains(&with), "{property}: {with}");
    }
}

#[test]
fn a_replay_of_the_published_example_is_the_published_example() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/aws-published.json")).unwrap();
    let signature = vectors["presigned_get"]["signature"].as_str().unwrap();
    let url = format!(
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
        &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature={signature}"
    );
    let published = PresignedRequest {
        method: "GET",
        url,
        headers: Vec::new(),
        expires_at: datetime!(2013-05-25 00:00 UTC).into(),
    };
    let secret = vectors["secret_access_key"].as_str().unwrap();
    let signing = Signing {
        credentials: Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, None, None, "test").into(),
        expires_in: Duration::from_hours(24),
        now: datetime!(2013-05-24 00:00 UTC).into(),
    };
    let mut unsigned = published.clone();
    unsigned.url = unsigned.url.replace(signature, "");
    let shape = Shape::read("test.txt", &unsigned, &signing).unwrap();
    // The published request has no header but `host`, as a part has.
    let request = Request::Part {
        key: "test.txt",
        upload_id: "-",
        number: 0,
    };
    assert_eq!(shape.presign(request, &signing), Some(published));
}
