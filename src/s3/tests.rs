//! Our signatures compared with the presigner itself: an SDK client of the test's own, which knows
//! nothing of this crate. Every signed URL must be the presigner's, for all requests, endpoints and
//! times.

mod cases;
mod endpoints;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{
    Builder, ConfigBag, Intercept, ResponseChecksumValidation, RuntimeComponents,
};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::PresigningConfig;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use self::cases::{keys, puts, signings, values};
use super::presign::{Get, Put, Request, Signing};
use aws_config::{BehaviorVersion, Region};

use super::*;

/// A bucket, and how the SDK is to reach it.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: &'static str,
    settings: fn(Builder) -> Builder,
    is_reproduced: bool,
}

const fn place(bucket: &'static str, settings: fn(Builder) -> Builder) -> Place {
    Place {
        bucket,
        settings,
        is_reproduced: true,
    }
}

const AWS: Place = place("bucket", |it| it);
const MULTI_REGION: Place = Place {
    is_reproduced: false,
    ..place(
        "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap",
        |it| it,
    )
};
/// Looks like AWS, but signs one header more for awkward keys.
const MORE_HEADERS: Place = Place {
    is_reproduced: false,
    ..place("bucket", |it| it.interceptor(MoreHeaders))
};
const PLACES: [Place; 19] = [
    AWS,
    MULTI_REGION,
    MORE_HEADERS,
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

/// Makes the SDK sign one more header if a key needs encoding.
#[derive(Debug)]
struct MoreHeaders;

impl Intercept for MoreHeaders {
    fn name(&self) -> &'static str {
        "more headers"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if request.uri().contains('%') {
            request.headers_mut().insert("x-unexpected", "1");
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

    async fn bucket(&self, credentials: &Credentials) -> Bucket {
        let client = Client::from_conf(self.config().build());
        let provider = SharedCredentialsProvider::new(credentials.clone());
        let credentials = CredentialsCache::new(provider, Duration::ZERO);
        Bucket::new(client.clone(), client, self.bucket.to_owned(), credentials)
            .await
            .unwrap()
    }

    /// The URL that the SDK signs.
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
                size,
            } => {
                let part = client.upload_part().bucket(self.bucket).key(key);
                let size = size.map(|size| size.try_into().unwrap_or(i64::MAX));
                let part = part.upload_id(upload_id).part_number(number.into());
                let part = part.set_content_length(size);
                part.presigned(config).await.ok()?
            }
            Request::Get(get) => {
                let validation = ResponseChecksumValidation::WhenRequired;
                let without_checksums = Builder::new().response_checksum_validation(validation);
                let request = client.get_object().bucket(self.bucket).key(get.key);
                request
                    .set_version_id(get.version_id.map(str::to_owned))
                    .response_content_disposition(get.content_disposition)
                    .set_response_content_type(get.content_type.map(str::to_owned))
                    .customize()
                    .config_override(without_checksums)
                    .presigned(config)
                    .await
                    .ok()?
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
                    .set_checksum_crc64_nvme(object.checksum_crc64nvme.map(str::to_owned))
                    .set_content_length(put.size.map(|size| size.try_into().unwrap_or(i64::MAX)));
                request = request.set_content_md5(put.content_md5.map(str::to_owned));
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

    /// Signs with `bucket` and with the SDK, and compares.
    async fn compare(&self, bucket: &Bucket, request: Request<'_>, signing: &Signing) {
        let Signing {
            expires_in, now, ..
        } = *signing;
        let found = bucket.presign(request, expires_in, now).await.ok();
        let found = found.map(|it| (it.url, it.headers));
        let expected = self.expected(request, signing).await;
        assert_eq!(found, expected, "{self:?} {request:?}");
    }
}

/// 20 November 2023, 00:00.
fn midnight() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(472_344)
}

#[tokio::test]
async fn our_own_function_signs_unless_an_endpoint_needs_another_algorithm() {
    for place in PLACES {
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let bucket = place.bucket(&credentials).await;
        assert_eq!(
            bucket.target.is_reproduced, place.is_reproduced,
            "{place:?}"
        );
    }
}

/// A comparison at start says nothing about a property that no sample has.
#[test]
fn the_samples_have_every_property_and_lack_every_property() {
    let pairs = samples::pairs();
    let puts = samples::puts(&pairs);
    let keys: BTreeSet<&str> = puts.iter().map(|put| put.object.key).collect();
    assert_eq!(keys.len(), 2);
    let has = |put: &Put<'_>| {
        let Put {
            object,
            size,
            if_none_match,
            content_md5,
        } = put;
        let mut properties: BTreeSet<_> = object.properties().map(|(name, _)| name).collect();
        let others = [
            ("size", size.is_some()),
            ("if_none_match", *if_none_match),
            ("content_md5", content_md5.is_some()),
            ("tagging", !object.tagging.is_empty()),
            ("metadata", !object.metadata.is_empty()),
        ];
        properties.extend(
            others
                .iter()
                .filter(|(_, is_set)| *is_set)
                .map(|(name, _)| name),
        );
        properties
    };
    assert_eq!(has(&puts[0]).len(), 14);
    for property in has(&puts[0]) {
        let without = puts.iter().filter(|put| !has(put).contains(property));
        let required = property == "content-type";
        assert_eq!(without.count() > 0, !required, "{property}");
    }
}

fn for_each<S: Strategy>(cases: u32, strategy: &S, check: impl AsyncFn(S::Value)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    let check = |case| {
        runtime.block_on(check(case));
        Ok(())
    };
    TestRunner::new(config).run(strategy, check).unwrap();
}

#[test]
fn every_url_of_a_put_is_the_presigners() {
    let cases = (
        select(PLACES.to_vec()),
        signings(),
        prop::collection::vec((puts(), signings()), 1..4),
    );
    for_each(150, &cases, async |(place, with, puts)| {
        let bucket = place.bucket(&with.credentials).await;
        for (put, at) in puts {
            let signing = Signing {
                credentials: Arc::clone(&with.credentials),
                ..at
            };
            put.with(async |put| place.compare(&bucket, Request::Put(put), &signing).await)
                .await;
        }
    });
}

#[test]
fn every_url_of_a_part_is_the_presigners() {
    let cases = (
        select(PLACES.to_vec()),
        keys(),
        values(),
        signings(),
        1..=10_000_u16,
        proptest::option::of(any::<u64>()),
    );
    for_each(
        150,
        &cases,
        async |(place, key, upload_id, signing, number, size)| {
            let bucket = place.bucket(&signing.credentials).await;
            let part = Request::Part {
                key: &key,
                upload_id: &upload_id,
                number,
                size,
            };
            place.compare(&bucket, part, &signing).await;
        },
    );
}

#[test]
fn every_url_of_a_get_is_the_presigners() {
    let option = |values| proptest::option::of(values);
    let cases = (
        select(PLACES.to_vec()),
        (keys(), option(values()), values(), option(values())),
        signings(),
    );
    for_each(150, &cases, async |(place, get, signing)| {
        let (key, version_id, content_disposition, content_type) = &get;
        let bucket = place.bucket(&signing.credentials).await;
        let get = Get {
            key,
            version_id: version_id.as_deref(),
            content_disposition,
            content_type: content_type.as_deref(),
        };
        place.compare(&bucket, Request::Get(&get), &signing).await;
    });
}

/// Credentials and days change while the service runs; a cached signing key must not outlive
/// either.
#[tokio::test]
async fn a_signing_key_is_used_for_its_credentials_and_its_day_only() {
    let first = Credentials::new("A", "secret", None, None, "test");
    let mut bucket = AWS.bucket(&first).await;
    let put = Put {
        object: Object {
            key: "k",
            content_type: "image/jpeg",
            ..Object::default()
        },
        ..Put::default()
    };
    let before = midnight() - Duration::from_secs(1);
    for (secret, times) in [
        ("secret", [before, midnight(), before]),
        ("other", [before, midnight(), before]),
    ] {
        let credentials = Credentials::new("A", secret, None, None, "test");
        let provider = SharedCredentialsProvider::new(credentials.clone());
        bucket.credentials = CredentialsCache::new(provider, Duration::ZERO);
        for now in times {
            let signing = Signing {
                credentials: credentials.clone().into(),
                expires_in: Duration::from_mins(10),
                now,
            };
            AWS.compare(&bucket, Request::Put(&put), &signing).await;
        }
    }
}
