//! Whatever is signed, wherever, whenever and with whichever credentials: the URL and the headers are those of the
//! SDK's own presigner, byte for byte.
//!
//! Each line of the input sets something of what is signed next, until `put` or `part NUMBER ID` signs it. One bucket
//! signs all of it, so that what it has learned from one line may be wrong for the next.

#![no_main]

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Region};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use presignd::s3::{
    Bucket, CredentialsCache, Object, ObjectCannedAcl, Put, ServerSideEncryption, StorageClass,
    header_value,
};
use presignd_fuzz::{block_on, lines, midnight};

/// More would take too long.
const MAX_SIGNATURES: usize = 6;

const PLACES: [(&str, fn(Builder) -> Builder); 10] = [
    ("bucket", |it| it),
    ("bucket", |it| it.force_path_style(true)),
    ("b.u.c-ket", |it| it),
    ("bucket", |it| it.use_dual_stack(true)),
    ("bucket", |it| it.region(Region::new("cn-north-1"))),
    ("bucket", |it| {
        it.endpoint_url("http://localhost:9000")
            .force_path_style(true)
    }),
    ("bucket", |it| {
        it.endpoint_url("https://store.example:8443/s3/")
            .force_path_style(true)
    }),
    ("bucket--usw2-az1--x-s3", |it| it),
    (
        "arn:aws:s3:us-west-2:123456789012:accesspoint/point",
        |it| it,
    ),
    (
        "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap",
        |it| it,
    ),
];

static CLIENTS: LazyLock<Vec<(&str, Client)>> = LazyLock::new(|| {
    let client = |(bucket, settings): (_, fn(Builder) -> Builder)| {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .disable_s3_express_session_auth(true);
        (bucket, Client::from_conf(settings(config).build()))
    };
    PLACES.map(client).into()
});

/// The credentials that the provider has at the moment.
#[derive(Clone, Debug)]
struct Current(Arc<Mutex<Credentials>>);

impl ProvideCredentials for Current {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = self.0.lock().expect("credentials").clone();
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

/// What is signed next.
#[derive(Clone, Debug, Default)]
struct Next<'a> {
    key: &'a str,
    content_type: &'a str,
    content_disposition: Option<&'a str>,
    cache_control: Option<&'a str>,
    storage_class: Option<StorageClass>,
    server_side_encryption: Option<ServerSideEncryption>,
    kms_key_id: Option<&'a str>,
    acl: Option<ObjectCannedAcl>,
    tagging: Vec<(String, String)>,
    metadata: Vec<(String, String)>,
    checksum_sha256: Option<&'a str>,
    size: Option<u64>,
    once: bool,
    /// In milliseconds from midnight.
    at: i64,
    life: Duration,
}

impl<'a> Next<'a> {
    fn set(&mut self, word: &str, value: &'a str) {
        let pair = || {
            let (name, value) = value.split_once(' ')?;
            Some((name.to_owned(), value.to_owned()))
        };
        match word {
            "key" => self.key = value,
            "type" => self.content_type = value,
            "disposition" => self.content_disposition = Some(value),
            "cache" => self.cache_control = Some(value),
            "class" => self.storage_class = Some(value.into()),
            "encryption" => self.server_side_encryption = Some(value.into()),
            "kms" => self.kms_key_id = Some(value),
            "acl" => self.acl = Some(value.into()),
            "tag" => self.tagging.extend(pair()),
            "meta" => {
                // Of names that differ in their case alone the SDK has no order of its own.
                let is_new = |(name, _): &(String, String)| {
                    let mut names = self.metadata.iter().map(|(name, _)| name.to_lowercase());
                    names.all(|it| it != name.to_lowercase())
                };
                if let Some(pair) = pair().filter(is_new) {
                    self.metadata.push(pair);
                }
            }
            "sum" => self.checksum_sha256 = Some(value),
            "size" => self.size = value.parse().ok(),
            "once" => self.once = true,
            "at" => self.at = value.parse::<i32>().unwrap_or_default().into(),
            "day" => {
                self.at = value
                    .parse::<i16>()
                    .map_or(0, |days| i64::from(days) * 86_400_000)
            }
            "life" => {
                self.life = Duration::from_secs(value.parse::<u32>().unwrap_or_default().into())
            }
            "clear" => {
                *self = Self {
                    at: self.at,
                    life: self.life,
                    ..Self::default()
                }
            }
            _ => {}
        }
    }

    fn now(&self) -> SystemTime {
        let from_midnight = Duration::from_millis(self.at.unsigned_abs());
        if self.at < 0 {
            midnight() - from_midnight
        } else {
            midnight() + from_midnight
        }
    }

    fn put(&self) -> Put<'_> {
        Put {
            object: Object {
                key: self.key,
                content_type: self.content_type,
                content_disposition: self.content_disposition,
                cache_control: self.cache_control,
                storage_class: self.storage_class.clone(),
                server_side_encryption: self.server_side_encryption.clone(),
                kms_key_id: self.kms_key_id,
                acl: self.acl.clone(),
                tagging: &self.tagging,
                metadata: &self.metadata,
                checksum_sha256: self.checksum_sha256,
            },
            size: self.size,
            if_none_match: self.once,
        }
    }

    fn config(&self) -> Option<PresigningConfig> {
        let config = PresigningConfig::builder()
            .start_time(self.now())
            .expires_in(self.life);
        config.build().ok()
    }

    /// What the SDK makes of a PUT.
    async fn expected_put(
        &self,
        client: &Client,
        bucket: &str,
        credentials: &Credentials,
    ) -> Option<PresignedRequest> {
        let mut request = client
            .put_object()
            .bucket(bucket)
            .key(self.key)
            .content_type(self.content_type)
            .set_content_disposition(self.content_disposition.map(str::to_owned))
            .set_cache_control(self.cache_control.map(str::to_owned))
            .set_storage_class(self.storage_class.clone())
            .set_server_side_encryption(self.server_side_encryption.clone())
            .set_ssekms_key_id(self.kms_key_id.map(str::to_owned))
            .set_acl(self.acl.clone())
            .set_checksum_sha256(self.checksum_sha256.map(str::to_owned))
            .set_content_length(self.size.map(|size| size.try_into().unwrap_or(i64::MAX)))
            .set_if_none_match(self.once.then(|| "*".to_owned()));
        if !self.tagging.is_empty() {
            let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
            let tags = self.tagging.iter();
            let tags = tags.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
            request = request.tagging(tags.collect::<Vec<_>>().join("&"));
        }
        for (name, value) in &self.metadata {
            request = request.metadata(name, header_value(value));
        }
        let signer = Builder::new().credentials_provider(credentials.clone());
        let request = request.customize().config_override(signer);
        request.presigned(self.config()?).await.ok()
    }

    async fn expected_part(
        &self,
        client: &Client,
        bucket: &str,
        credentials: &Credentials,
        (number, upload_id): (u16, &str),
    ) -> Option<PresignedRequest> {
        let signer = Builder::new().credentials_provider(credentials.clone());
        let request = client
            .upload_part()
            .bucket(bucket)
            .key(self.key)
            .upload_id(upload_id)
            .part_number(number.into())
            .customize()
            .config_override(signer);
        request.presigned(self.config()?).await.ok()
    }
}

/// `NAME END TOKEN`: the end is in seconds from midnight.
fn credentials(text: &str) -> Credentials {
    let mut words = text.splitn(3, ' ');
    let name = words.next().unwrap_or_default();
    let end = words
        .next()
        .and_then(|end| end.parse::<u32>().ok())
        .unwrap_or(u32::MAX);
    let end = midnight() + Duration::from_secs(end.into());
    let token = words.next().map(str::to_owned);
    Credentials::new(name, format!("secret of {name}"), token, Some(end), "fuzz")
}

fuzz_target!(|input: &str| {
    let place = lines(input).find(|(word, _)| *word == "place");
    let place = place
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0);
    let Some((name, client)) = CLIENTS.get::<usize>(place) else {
        return;
    };
    let current = Current(Arc::new(Mutex::new(credentials("AKID"))));
    let cache = CredentialsCache::new(
        SharedCredentialsProvider::new(current.clone()),
        Duration::ZERO,
    );
    let bucket = Bucket::new(client.clone(), (*name).to_owned(), cache);
    let mut next = Next {
        life: Duration::from_secs(600),
        content_type: "a/b",
        ..Next::default()
    };
    let mut kept: Option<Credentials> = None;
    let mut signatures = 0;
    for (word, value) in lines(input) {
        if word == "who" {
            *current.0.lock().expect("credentials") = credentials(value);
            continue;
        }
        let part = (word == "part").then(|| value.split_once(' ').unwrap_or((value, "")));
        if word != "put" && part.is_none() {
            next.set(word, value);
            continue;
        }
        signatures += 1;
        if signatures > MAX_SIGNATURES {
            return;
        }
        let now = next.now();
        let is_valid = |it: &Credentials| it.expiry().is_some_and(|end| end > now);
        let valid = kept.clone().filter(is_valid);
        let valid =
            valid.or_else(|| Some(current.0.lock().expect("credentials").clone()).filter(is_valid));
        if valid.is_some() {
            kept.clone_from(&valid);
        }
        let part = part.map(|(number, id)| (number.parse().unwrap_or(1), id));
        block_on(compare(&bucket, client, name, &next, part, valid.as_ref()));
    }
});

async fn compare(
    bucket: &Bucket,
    client: &Client,
    name: &str,
    next: &Next<'_>,
    part: Option<(u16, &str)>,
    credentials: Option<&Credentials>,
) {
    let now = next.now();
    let found = match part {
        None => bucket.presign_put(&next.put(), next.life, now).await,
        Some((number, id)) => {
            bucket
                .presign_part(next.key, id, number, next.life, now)
                .await
        }
    };
    let expected = match (credentials, part) {
        (None, _) => None,
        (Some(credentials), None) => next.expected_put(client, name, credentials).await,
        (Some(credentials), Some(part)) => {
            next.expected_part(client, name, credentials, part).await
        }
    };
    let (found, expected) = match (found, expected) {
        (Ok(found), Some(expected)) => (found, expected),
        (Err(_), None) => return,
        (found, expected) => panic!("{found:?}, but {expected:?}: {next:?} {part:?}"),
    };
    assert_eq!(found.method, expected.method());
    assert_eq!(found.url, expected.uri(), "{next:?} {part:?}");
    let headers: Vec<_> = found
        .headers
        .iter()
        .map(|(a, b)| (a.as_ref(), b.as_str()))
        .collect();
    let mut expected: Vec<_> = expected
        .headers()
        .filter(|(name, _)| *name != "content-length")
        .collect();
    expected.sort_unstable();
    assert_eq!(headers, expected, "{next:?} {part:?}");

    let seconds = now.duration_since(UNIX_EPOCH).expect("a moment").as_secs();
    let end = UNIX_EPOCH + Duration::from_secs(seconds) + next.life;
    let end_of_credentials = credentials.and_then(Credentials::expiry);
    assert_eq!(
        Some(found.expires_at),
        end_of_credentials.map(|it| it.min(end))
    );
}
