//! All buckets of a service: a default one, and others at the same endpoint with the same
//! credentials.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;

use super::{Bucket, CredentialsCache, PresignError, Settings, client, endpoint};

/// The default bucket, and others by their names.
#[derive(Clone, Debug)]
pub struct Buckets {
    default: Bucket,
    others: BTreeMap<String, Bucket>,
}

impl Buckets {
    /// The bucket of this name; the default one if there is no name.
    pub fn get(&self, name: Option<&str>) -> Option<&Bucket> {
        match name {
            None => Some(&self.default),
            Some(name) => self.others.get(name),
        }
    }

    pub fn default_bucket(&self) -> &Bucket {
        &self.default
    }
}

/// The default bucket alone.
impl From<Bucket> for Buckets {
    fn from(default: Bucket) -> Self {
        Self {
            default,
            others: BTreeMap::new(),
        }
    }
}

/// The variables to look at when [`buckets`] fails.
pub const CANNOT_SIGN: &str = "cannot sign with these settings (AWS_S3_BUCKET_NAME, AWS_REGION, AWS_ENDPOINT_URL_S3, S3_PUBLIC_ENDPOINT_URL, S3_ACCELERATE, S3_SUPPORTS_POST_POLICY, `bucket` of a policy)";

/// The bucket that `settings` name and the `others`, with clients that sign with `credentials`.
///
/// # Errors
///
/// No URL can be signed for one of the buckets, or no form although `needs_forms`.
pub async fn buckets(
    config: &SdkConfig,
    settings: &Settings,
    others: impl IntoIterator<Item = &str>,
    credentials: CredentialsCache,
    needs_forms: bool,
) -> Result<Buckets, PresignError> {
    let path_style = settings.force_path_style;
    let public_endpoint = settings.public_endpoint.as_deref();
    let public_endpoint = public_endpoint.map(endpoint::normalized);
    let endpoints = [
        ("AWS_ENDPOINT_URL_S3", endpoint::configured(config)),
        ("S3_PUBLIC_ENDPOINT_URL", public_endpoint.clone()),
    ];
    let client = client(config, path_style, &credentials);
    let presigner = client.config().to_builder();
    let presigner = match public_endpoint {
        Some(endpoint) => presigner.endpoint_url(endpoint),
        None => presigner.accelerate(settings.accelerate),
    };
    let presigner = Client::from_conf(presigner.build());
    let bucket = async |name: &str| {
        if settings.accelerate && name.contains(['.', ':']) {
            return Err(PresignError(format!(
                "S3 accelerates no access point and no bucket with a dot in its name, such as {name}; unset S3_ACCELERATE, or use another bucket"
            )));
        }
        for (variable, endpoint) in &endpoints {
            let contains = |endpoint| endpoint::contains_bucket(endpoint, name, path_style);
            if endpoint.as_deref().is_some_and(contains) {
                return Err(PresignError(format!(
                    "the endpoint contains the name of the bucket, which would be added once more; remove it from {variable}"
                )));
            }
        }
        let (client, presigner) = (client.clone(), presigner.clone());
        let bucket = Bucket::new(client, presigner, name.to_owned(), credentials.clone()).await?;
        match &bucket.target.scope {
            None if needs_forms => Err(PresignError::no_forms()),
            _ => Ok(bucket),
        }
    };
    let mut all = Buckets::from(bucket(&settings.bucket).await?);
    for name in others {
        let other = bucket(name).await;
        let other = other.map_err(|error| PresignError(format!("bucket {name}: {error}")))?;
        all.others.insert(name.to_owned(), other);
    }
    Ok(all)
}

/// Whether this can be the name of a bucket, or the ARN of an access point.
pub fn is_bucket_name(text: &str) -> bool {
    // `arn:aws:s3:::bucket` names a bucket, but cannot be called.
    let is_arn = text.starts_with("arn:")
        && [":accesspoint", ":outpost"]
            .iter()
            .any(|kind| text.contains(kind));
    let is_name = (3..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    is_arn || is_name
}

/// What [`is_bucket_name`] accepts.
pub const BUCKET_NAME: &str =
    "a bucket's name (3 to 63 letters, digits, `-`, `.`, `_`) or an access point's ARN";
