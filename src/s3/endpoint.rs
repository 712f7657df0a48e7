//! Normalises the endpoint of a store, which operators write in several forms.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

/// The endpoint that the SDK's client for S3 would use, in a form that it understands. A client by
/// itself would append the bucket to a path without a slash in between: `/storage/v1/s3my-bucket`.
pub(super) fn configured(config: &SdkConfig) -> Option<String> {
    let from_chain = || {
        let key = ServiceConfigKey::builder()
            .service_id("S3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build()
            .ok()?;
        config.service_config()?.load_config(key)
    };
    let is_set_in_code = config.get_origin("endpoint_url").is_client_config();
    let service_endpoint = if is_set_in_code { None } else { from_chain() };
    let endpoint = service_endpoint.or_else(|| config.endpoint_url().map(str::to_owned));
    endpoint.as_deref().map(normalized)
}

/// Removes empty segments from the path, and ends it with a slash.
pub(super) fn normalized(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return endpoint.to_owned();
    };
    let segments: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    let slash = if segments.len() > 1 { "/" } else { "" };
    format!("{scheme}://{}{slash}", segments.join("/"))
}

/// Whether requests would name the bucket twice.
pub(super) fn contains_bucket(endpoint: &str, bucket: &str, path_style: bool) -> bool {
    let (_, rest) = endpoint.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let in_host = authority
        .strip_prefix(bucket)
        .is_some_and(|rest| rest.starts_with('.'));
    let in_path = path.trim_end_matches('/').rsplit('/').next() == Some(bucket);
    in_path || (in_host && !path_style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_contains_the_bucket_is_found() {
        for (endpoint, path_style, expected) in [
            ("https://h/storage/v1/bucket", true, true),
            ("https://h/bucket/", false, true),
            ("https://bucket.h", false, true),
            ("https://bucket.h:9000/", false, true),
            // A store may have the name of its bucket, as in a network of containers.
            ("http://bucket:9000", true, false),
            ("http://bucket.default.svc:9000", true, false),
            ("https://h/bucket/s3", true, false),
            ("https://h", false, false),
        ] {
            let found = contains_bucket(&normalized(endpoint), "bucket", path_style);
            assert_eq!(found, expected, "{endpoint} {path_style}");
        }
    }
}
