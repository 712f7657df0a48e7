//! Presigned requests, made by the SDK's presigner or by replaying it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::config;
use aws_sdk_s3::presigning::{self, PresigningConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::object::{Object, with_properties};
use super::replay::Replay;
use super::{Bucket, Error};
use crate::telemetry::causes;

/// The longest life of a signature, [by the protocol](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
pub const MAX_EXPIRES_IN: Duration = Duration::from_hours(7 * 24);

/// The one algorithm that is signed with outside the SDK.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What may stand in a path as it is ([RFC 3986](https://www.rfc-editor.org/rfc/rfc3986#section-2.3)).
pub(super) const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');
/// What may stand in the value of a parameter as it is.
pub(super) const IN_QUERY: &AsciiSet = &IN_PATH.add(b'/');

/// A PUT of one object. Every field is part of the signature.
#[derive(Clone, Debug, Default)]
pub struct Put<'a> {
    pub object: Object<'a>,
    /// The length of the body, to the byte.
    pub size: Option<u64>,
    /// Only if there is no object of this key yet.
    pub if_none_match: bool,
}

impl Put<'_> {
    pub(super) fn content_length(&self) -> Option<i64> {
        self.size
            .map(|size| i64::try_from(size).unwrap_or(i64::MAX))
    }
}

/// What the SDK adds to its requests in a function of AWS Lambda. It does not sign it, and clients have no
/// use for it.
const LAMBDA_TRACE: &str = "x-amzn-trace-id";

/// What there is to presign.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    Put(&'a Put<'a>),
    Part {
        key: &'a str,
        upload_id: &'a str,
        number: u16,
    },
}

impl Request<'_> {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put(put) => put.object.key,
            Self::Part { key, .. } => key,
        }
    }
}

/// With what, and from when on.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) credentials: Arc<Credentials>,
    pub(super) expires_in: Duration,
    /// In whole seconds.
    pub(super) now: SystemTime,
}

/// A request that anyone may send as it is until it ends.
///
/// The URL is a secret for as long as it lives, so [`Debug`](fmt::Debug) leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    pub method: &'static str,
    pub url: String,
    /// The signed headers that the client has to set, in the order of their lower-case names. `host` and
    /// `content-length` are not among them: every HTTP client sets those itself, and browsers let
    /// nobody else do it.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The first moment at which the store refuses the request, in whole seconds.
    pub expires_at: SystemTime,
}

impl PresignedRequest {
    fn read(
        presigned: &presigning::PresignedRequest,
        expires_at: SystemTime,
    ) -> Result<Self, PresignError> {
        let method = match presigned.method() {
            "PUT" => "PUT",
            _ => return Err(PresignError::unusable("it has another method")),
        };
        let mut headers: Vec<_> = presigned
            .headers()
            .filter(|(name, _)| *name != "content-length" && *name != LAMBDA_TRACE)
            .map(|(name, value)| (name.to_owned().into(), value.to_owned()))
            .collect();
        headers.sort_unstable();
        Ok(Self {
            method,
            url: presigned.uri().to_owned(),
            headers,
            expires_at,
        })
    }
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedRequest")
            .field("method", &self.method)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PresignError(String);

impl PresignError {
    pub(super) fn new(error: impl std::error::Error) -> Self {
        Self(causes(&error))
    }

    pub(super) fn unusable(what: &str) -> Self {
        Self(format!("the presigner's URL is not usable: {what}"))
    }
}

/// Signatures know whole seconds alone: rounded down as the presigner does it, so that the end that
/// we report is the end that the store sees.
pub(super) fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

/// When what is signed at `now` ends: with its own life or with the credentials.
pub(super) fn end_of_grant(
    credentials: &Credentials,
    expires_in: Duration,
    now: SystemTime,
) -> SystemTime {
    let end = now + expires_in;
    let of_credentials = credentials.expiry().map(whole_seconds);
    of_credentials.map_or(end, |of_credentials| end.min(of_credentials))
}

impl Signing {
    /// When what is signed ends.
    pub(super) fn expires_at(&self) -> SystemTime {
        end_of_grant(&self.credentials, self.expires_in, self.now)
    }
}

/// How a presigned URL says that it was signed.
pub(super) struct Scope<'a> {
    pub(super) day: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl<'a> Scope<'a> {
    /// Reads the query of a URL that the presigner made.
    pub(super) fn of(query: &'a str) -> Result<Self, PresignError> {
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
        };
        if parameter("X-Amz-Algorithm") != Some(ALGORITHM) {
            return Err(PresignError::unusable("it has another algorithm"));
        }
        let credential = parameter("X-Amz-Credential").unwrap_or_default();
        let mut parts = credential.rsplit("%2F");
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("aws4_request"), Some(service), Some(region), Some(day)) => Ok(Self {
                day,
                region,
                service,
            }),
            _ => Err(PresignError::unusable("no scope")),
        }
    }
}

impl Bucket {
    /// Presigns `put` for `expires_in` from `now`, or for as long as the credentials live.
    pub async fn presign_put(
        &self,
        put: &Put<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        self.presign(Request::Put(put), expires_in, now).await
    }

    /// What [`presign_put`](Self::presign_put) would give, if nobody has to be asked for it.
    pub fn replay_put(
        &self,
        put: &Put<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Option<PresignedRequest> {
        self.replay(Request::Put(put), expires_in, now)
    }

    fn replay(
        &self,
        request: Request<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Option<PresignedRequest> {
        let now = whole_seconds(now);
        let signing = Signing {
            credentials: self.credentials.at_hand(now)?,
            expires_in,
            now,
        };
        self.replay_of(request).presign(request, &signing)
    }

    pub(super) async fn presign(
        &self,
        request: Request<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        match self.replay(request, expires_in, now) {
            Some(presigned) => Ok(presigned),
            // In a box: what the SDK's presigner takes would be a part of every future that may come here.
            None => Box::pin(self.ask_and_sign(request, expires_in, now)).await,
        }
    }

    async fn ask_and_sign(
        &self,
        request: Request<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        let now = whole_seconds(now);
        let signing = Signing {
            credentials: self.credentials.get(now).await?,
            expires_in,
            now,
        };
        self.sign(request, &signing).await
    }

    pub(super) async fn sign(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Result<PresignedRequest, Error> {
        let replay = self.replay_of(request);
        replay.learn(self, request, signing).await;
        match replay.presign(request, signing) {
            Some(presigned) => Ok(presigned),
            None => Ok(self.ask_presigner(request, signing).await?),
        }
    }

    fn replay_of(&self, request: Request<'_>) -> &Replay {
        match request {
            Request::Put(_) => &self.put_replay,
            Request::Part { .. } => &self.part_replay,
        }
    }

    pub(super) async fn ask_presigner(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Result<PresignedRequest, PresignError> {
        let signer =
            config::Builder::new().credentials_provider(Credentials::clone(&signing.credentials));
        let config = PresigningConfig::builder()
            .start_time(signing.now)
            .expires_in(signing.expires_in)
            .build()
            .map_err(PresignError::new)?;
        let presigned = match request {
            Request::Put(put) => {
                let object = &put.object;
                with_properties!(self.presigner.put_object(), object)
                    .bucket(&self.name)
                    .set_content_length(put.content_length())
                    .set_if_none_match(put.if_none_match.then(|| "*".to_owned()))
                    .set_checksum_sha256(object.checksum_sha256.map(str::to_owned))
                    .customize()
                    .config_override(signer)
                    .presigned(config)
                    .await
                    .map_err(PresignError::new)
            }
            Request::Part {
                key,
                upload_id,
                number,
            } => self
                .presigner
                .upload_part()
                .bucket(&self.name)
                .key(key)
                .upload_id(upload_id)
                .part_number(number.into())
                .customize()
                .config_override(signer)
                .presigned(config)
                .await
                .map_err(PresignError::new),
        }?;
        PresignedRequest::read(&presigned, signing.expires_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_be_shown_without_its_url() {
        let request = PresignedRequest {
            method: "PUT",
            url: "https://bucket/secret".into(),
            headers: vec![("name".into(), "value".into())],
            expires_at: UNIX_EPOCH,
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("PUT"), "{shown}");
        assert!(
            !shown.contains("secret") && !shown.contains("value"),
            "{shown}"
        );
    }
}
