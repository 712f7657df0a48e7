//! The variables that the AWS SDK reads. The SDK would report an invalid one late, as a failed
//! request, or not at all.

mod chain;

use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use aws_config::retry::RetryMode;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::FutureExt;

use self::chain::RenewedChain;
use super::env::Reader;
use super::{Env, endpoint};
use crate::s3::DEFAULT_REGION;

/// A region is part of a host's name, whose labels are not longer. The SDK panics at very long ones.
const MAX_REGION_BYTES: usize = 63;

/// The AWS settings of the environment, the profile and the machine.
#[derive(Debug)]
pub struct Aws {
    pub sdk_config: SdkConfig,
    /// Whether nothing named a region, so that [`DEFAULT_REGION`] is assumed.
    pub region_is_assumed: bool,
}

/// Region, endpoint and credentials as the SDK's default chain finds them.
///
/// # Errors
///
/// The SDK cannot use a setting, such as one of a profile, which nothing has checked.
pub async fn load(env: &Env) -> Result<Aws> {
    // The SDK panics in this case.
    let loaded = AssertUnwindSafe(Box::pin(load_or_panic(env))).catch_unwind();
    loaded.await.map_err(|_panic| {
        anyhow!(
            "the AWS settings cannot be used, for the reason in the line with `panicked`; look at the profile, and at the CAs that SSL_CERT_FILE or SSL_CERT_DIR name, or else the package ca-certificates"
        )
    })
}

async fn load_or_panic(env: &Env) -> Aws {
    let mut sdk_config = loader(env).load().await;
    let region = sdk_config.region().cloned();
    let region_is_assumed = region.is_none();
    let region = region.unwrap_or(Region::new(DEFAULT_REGION));
    if region_is_assumed {
        // Loaded again, because some sources of credentials need a region, too.
        sdk_config = loader(env).region(region.clone()).load().await;
    }
    if let Some(chain) = sdk_config.credentials_provider() {
        let chain = RenewedChain::new(env.clone(), region, chain);
        let provider = SharedCredentialsProvider::new(chain);
        let builder = sdk_config.into_builder();
        sdk_config = builder.credentials_provider(provider).build();
    }
    Aws {
        sdk_config,
        region_is_assumed,
    }
}

fn loader(env: &Env) -> ConfigLoader {
    // If the SDK read the environment itself, it would get empty and untrimmed values, and nothing
    // of `.env`. Changing the environment of the process needs unsafe code.
    aws_config::defaults(BehaviorVersion::latest()).env(env.values().into())
}

/// Reports values that can never work.
pub(super) fn check(reader: &mut Reader<'_>) {
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        endpoint(reader, name, super::EXAMPLE_ENDPOINT);
    }
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let length = reader.get(name).map_or(0, str::len);
        if length > MAX_REGION_BYTES {
            // A long value would hide the rest of the message.
            reader.fault(format!(
                "{name} must be a region such as eu-central-1, of at most {MAX_REGION_BYTES} characters; it has {length}"
            ));
            continue;
        }
        reader.read(name, "a region such as eu-central-1", |region| {
            let is_region = region
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            is_region.then_some(())
        });
    }
    reader.parse::<RetryMode>("AWS_RETRY_MODE", "standard or adaptive");
    reader.parse::<NonZeroU32>("AWS_MAX_ATTEMPTS", "a whole number from 1");
    let [id, secret, token] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ];
    for name in [id, secret, token] {
        let is_graphic = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if reader.get(name).is_some_and(|text| !is_graphic(text)) {
            // The value is not repeated, because it is a secret.
            reader.fault(format!(
                "{name} has a space or a character beyond ASCII; set it to the text that the store gave out"
            ));
        }
    }
    for (name, other) in [(id, secret), (secret, id)] {
        if reader.is_set(name) && !reader.is_set(other) {
            reader.fault(format!(
                "{other} is not set, but {name} is; set both, or neither for other sources of credentials"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{config, env, faults, refused};

    #[test]
    fn what_the_sdk_reads_is_trimmed_and_empty_is_unset() {
        let env = env(&[
            ("AWS_REGION", ""),
            ("AWS_ENDPOINT_URL", " "),
            ("AWS_ENDPOINT_URL_S3", ""),
            ("AWS_ROLE_ARN", " arn:aws:iam::1:role/a\n"),
            ("AWS_ACCESS_KEY_ID", "AKID\r"),
            ("AWS_SECRET_ACCESS_KEY", "secret\n"),
            ("AWS_S3_BUCKET_NAME", "bucket\r\n"),
            ("HOME", " /home/me "),
        ]);
        let values = env.values();
        for name in ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
            assert!(!values.contains_key(name), "{name}");
        }
        assert_eq!(values["AWS_ROLE_ARN"], "arn:aws:iam::1:role/a");
        assert_eq!(values["AWS_ACCESS_KEY_ID"], "AKID");
        assert_eq!(values["AWS_SECRET_ACCESS_KEY"], "secret");
        assert_eq!(values["HOME"], " /home/me ");
        assert_eq!(Config::from_env(&env).unwrap().s3.bucket, "bucket");
    }

    #[test]
    fn credentials_that_no_request_can_carry_are_refused_by_name_and_not_repeated() {
        let valid = [
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
        ];
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ] {
            for value in [
                "hid\nden",
                "hid\rden",
                "hid den",
                "\"hidden\"",
                "'hidden'",
                "hidden\u{e9}",
            ] {
                let faults = faults(&[&valid[..], &[(name, value)]].concat());
                assert_eq!(faults.len(), 1, "{name}={value:?}: {faults:?}");
                assert!(
                    faults[0].starts_with(name) && !faults[0].contains("hid"),
                    "{faults:?}"
                );
            }
        }
        let half = faults(&valid[..1]);
        assert!(
            half[0].starts_with("AWS_SECRET_ACCESS_KEY is not set"),
            "{half:?}"
        );
        refused("AWS_ROLE_ARN", &["\"arn:aws:iam::1:role/a\""]);
    }

    #[test]
    fn a_region_that_is_too_long_is_refused_and_not_repeated() {
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            refused(name, &["e u"]);
            assert!(config(&[(name, &"a".repeat(63))]).is_ok());
            let faults = faults(&[(name, &"a".repeat(70_000))]);
            assert_eq!(faults.len(), 1, "{name}");
            assert!(faults[0].starts_with(name) && faults[0].len() < 200);
        }
    }

    #[tokio::test]
    async fn the_sdk_sees_these_values_and_no_others() {
        let env = env(&[
            ("AWS_REGION", " eu-central-1\n"),
            ("AWS_ENDPOINT_URL", ""),
            ("AWS_ENDPOINT_URL_S3", " "),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("HOME", "/no/such/folder"),
        ]);
        let aws = load(&env).await.unwrap();
        assert_eq!(aws.sdk_config.region().unwrap().as_ref(), "eu-central-1");
        assert_eq!(aws.sdk_config.endpoint_url(), None);
        assert!(!aws.region_is_assumed);
    }
}
