//! The variables of the bucket and of the store's endpoints.

use super::env::Reader;
use super::{DEV_HINT, EXAMPLE_ENDPOINT, endpoint};
use crate::s3;

const PATH_STYLE: &str = "S3_FORCE_PATH_STYLE";
const PUBLIC_ENDPOINT: &str = "S3_PUBLIC_ENDPOINT_URL";
const ACCELERATE: &str = "S3_ACCELERATE";
const DUAL_STACK: &str = "AWS_USE_DUALSTACK_ENDPOINT";
const FIPS: &str = "AWS_USE_FIPS_ENDPOINT";
const BOOLEAN: &str = "true or false";

pub(super) fn s3(reader: &mut Reader<'_>) -> Option<s3::Settings> {
    let name = "AWS_S3_BUCKET_NAME";
    let why = format!("set it to the name of the bucket to upload to{DEV_HINT}");
    reader.required(name, &why);
    let bucket = reader.read(name, s3::BUCKET_NAME, |bucket| {
        s3::is_bucket_name(bucket).then(|| bucket.to_owned())
    });
    let [force_path_style, accelerate, dual_stack, fips] =
        [PATH_STYLE, ACCELERATE, DUAL_STACK, FIPS]
            .map(|name| reader.parse(name, BOOLEAN).unwrap_or(false));
    let public_endpoint = endpoint(reader, PUBLIC_ENDPOINT, EXAMPLE_ENDPOINT);
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", PUBLIC_ENDPOINT];
    let endpoint = endpoints.into_iter().find(|name| reader.is_set(name));
    for (chosen, is_set) in [
        (ACCELERATE, accelerate),
        (DUAL_STACK, dual_stack),
        (FIPS, fips),
    ] {
        if let Some(endpoint) = endpoint
            && is_set
        {
            reader.fault(format!(
                "{chosen} is true, but {endpoint} names an endpoint, and only AWS's own have this; unset one of them"
            ));
        }
    }
    for (other, is_set) in [(PATH_STYLE, force_path_style), (FIPS, fips)] {
        if accelerate && is_set {
            reader.fault(format!(
                "{ACCELERATE} and {other} are both true, which S3 has no endpoint for; unset one of them"
            ));
        }
    }
    Some(s3::Settings {
        bucket: bucket?,
        force_path_style,
        public_endpoint,
        accelerate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config, faults, refused};

    #[test]
    fn aws_has_other_endpoints_that_exclude_some_settings() {
        let endpoint = "https://store.example";
        for (name, others) in [
            (
                ACCELERATE,
                &[
                    ("AWS_ENDPOINT_URL_S3", endpoint),
                    ("AWS_ENDPOINT_URL", endpoint),
                    (PUBLIC_ENDPOINT, endpoint),
                    (PATH_STYLE, "true"),
                    (FIPS, "true"),
                ][..],
            ),
            (
                DUAL_STACK,
                &[
                    ("AWS_ENDPOINT_URL_S3", endpoint),
                    (PUBLIC_ENDPOINT, endpoint),
                ],
            ),
            (
                FIPS,
                &[
                    ("AWS_ENDPOINT_URL_S3", endpoint),
                    (PUBLIC_ENDPOINT, endpoint),
                ],
            ),
        ] {
            refused(name, &["yes", "1"]);
            config(&[(name, "true")]).unwrap();
            for other in others {
                config(&[(name, "false"), *other]).unwrap();
                let faults = faults(&[(name, "true"), *other]);
                let [fault] = &faults[..] else {
                    panic!("{name}, {}: {faults:?}", other.0);
                };
                let is_named = fault.contains(name) && fault.contains(other.0);
                assert!(is_named && fault.ends_with("unset one of them"), "{fault}");
            }
        }
        let both = config(&[(ACCELERATE, "true"), (DUAL_STACK, "true")]).unwrap();
        assert!(both.s3.accelerate);
    }
}
