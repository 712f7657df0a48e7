//! The address of the bucket for clients. At start, the SDK's presigner, which knows every kind of
//! endpoint, signs one request with dummy credentials; the address is read from its URL.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use percent_encoding::utf8_percent_encode;

use super::presign::{IN_PATH, IN_QUERY, PresignError, Presigner, Put, Request, Signing};
use super::samples::{self, PLAIN};
use super::sign::{self, ALGORITHM, SigningKey};

/// Where a bucket is, and how requests to it are signed. Does not depend on credentials, so that
/// they can change while the service runs.
#[derive(Debug)]
pub(super) struct Target {
    /// Everything before the path: `https://bucket.s3.us-east-1.amazonaws.com`.
    pub(super) origin: String,
    /// The value of the header `host`: the authority without the scheme's default port.
    pub(super) host: String,
    /// Everything before the key: `/` or `/bucket/`.
    pub(super) path: String,
    /// Missing when the bucket needs another algorithm than `SigV4`, as multi-Region access points
    /// do.
    pub(super) scope: Option<Scope>,
    /// Whether [`sign::presign`] makes the same URLs as the presigner. Otherwise the presigner
    /// signs.
    pub(super) is_reproduced: bool,
}

/// The region and the service that a `SigV4` signature is valid for.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) region: String,
    pub(super) service: String,
    /// `/us-east-1/s3/aws4_request`: what follows the day in the scope of a signature.
    pub(super) suffix: String,
    /// The same, encoded for a query.
    pub(super) encoded_suffix: String,
}

impl Target {
    /// # Errors
    ///
    /// The presigner cannot sign with its settings, or its URL has an unknown form.
    pub(super) async fn learn(presigner: &Presigner) -> Result<Self, PresignError> {
        let mut put = Put::default();
        put.object.key = PLAIN;
        put.object.content_type = "text/plain";
        let signing = Signing {
            credentials: sample_credentials(None),
            expires_in: Duration::from_secs(1),
            now: UNIX_EPOCH,
        };
        let answer = presigner.presign(Request::Put(&put), &signing).await?;
        let mut target = Self::from_url(&answer.url)?;
        target.is_reproduced = match &target.scope {
            Some(scope) => target.is_proven(scope, presigner).await?,
            None => false,
        };
        if !target.is_reproduced {
            tracing::warn!(
                host = target.host,
                "the SDK's presigner signs every URL, which takes longer: the signature of this bucket is not SigV4, or covers more than expected"
            );
        }
        Ok(target)
    }

    /// Reads a URL of the object [`PLAIN`] that the presigner made.
    fn from_url(url: &str) -> Result<Self, PresignError> {
        let unusable = PresignError::unusable;
        let (address, query) = url.split_once('?').ok_or(unusable("no query"))?;
        let (scheme, rest) = address.split_once("://").ok_or(unusable("no scheme"))?;
        let slash = rest.find('/').ok_or(unusable("no path"))?;
        let (authority, path) = rest.split_at(slash);
        let path = path.strip_suffix(PLAIN).ok_or(unusable("no key"))?;
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            host: authority
                .strip_suffix(default_port)
                .unwrap_or(authority)
                .to_owned(),
            path: path.to_owned(),
            scope: Scope::from_query(query)?,
            is_reproduced: false,
        })
    }

    /// Compares [`sign::presign`] with the presigner on awkward requests, with and without a
    /// session token and at both ends of a day.
    async fn is_proven(&self, scope: &Scope, presigner: &Presigner) -> Result<bool, PresignError> {
        const DAY: u64 = 24 * 60 * 60;
        let midnight = UNIX_EPOCH + Duration::from_secs(20_000 * DAY);
        let moments = [midnight, midnight + Duration::from_secs(DAY - 1)];
        let pairs = samples::pairs();
        let puts = samples::puts(&pairs);
        let requests = puts.iter().map(Request::Put).chain(samples::parts());
        let requests = requests.chain(samples::GETS.iter().map(Request::Get));
        for (index, request) in requests.enumerate() {
            let has_token = index % 2 == 0;
            let signing = Signing {
                credentials: sample_credentials(has_token.then_some("IQo//+=&? token")),
                expires_in: samples::lifetime(index),
                now: moments[index / 2 % 2],
            };
            let key = SigningKey::derive(&signing.credentials, signing.now, scope);
            let ours = sign::presign(self, scope, &key, request, &signing);
            if ours != Some(presigner.presign(request, &signing).await?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the bucket accepts forms: `https://host/` or `https://host/bucket`.
    pub(super) fn form_url(&self) -> String {
        let path = match self.path.as_str() {
            "/" => "/",
            path => path.trim_end_matches('/'),
        };
        format!("{}{path}", self.origin)
    }

    /// The address of an object, without a signature.
    pub(super) fn address(&self, key: &str) -> String {
        let Self { origin, path, .. } = self;
        format!("{origin}{path}{}", utf8_percent_encode(key, IN_PATH))
    }
}

impl Scope {
    /// Reads the query of a URL that the presigner made; `None` if it is not signed with `SigV4`.
    fn from_query(query: &str) -> Result<Option<Self>, PresignError> {
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
        };
        if parameter("X-Amz-Algorithm") != Some(ALGORITHM) {
            return Ok(None);
        }
        let credential = parameter("X-Amz-Credential").unwrap_or_default();
        let credential = percent_encoding::percent_decode_str(credential).decode_utf8_lossy();
        let mut parts = credential.rsplit('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("aws4_request"), Some(service), Some(region)) => {
                let suffix = format!("/{region}/{service}/aws4_request");
                Ok(Some(Self {
                    region: region.to_owned(),
                    service: service.to_owned(),
                    encoded_suffix: utf8_percent_encode(&suffix, IN_QUERY).to_string(),
                    suffix,
                }))
            }
            _ => Err(PresignError::unusable("no scope")),
        }
    }
}

/// Dummy credentials. They do not expire, because the presigner would log that the URL expires with
/// them.
fn sample_credentials(token: Option<&str>) -> Arc<Credentials> {
    let token = token.map(str::to_owned);
    Credentials::new(
        "AKIDEXAMPLE/+",
        "secret",
        token,
        None::<SystemTime>,
        "sample",
    )
    .into()
}
