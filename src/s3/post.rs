//! Presigned POST: an HTML form that the store takes, and the policy document that binds every
//! field of it. The SDK has no such thing, so the document is made here and signed with the SDK's
//! own functions.
//!
//! Sources: [fields of the form](https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html),
//! [the document](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html),
//! [its signature](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-UsingHTTPPOST.html).

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::object::{Object, ObjectCannedAcl, ServerSideEncryption, StorageClass, tagging_xml};
use super::presign::{ALGORITHM, IN_PATH, PresignError, Scope, end_of_grant, whole_seconds};
use super::{Bucket, Error};

/// S3's limit on [all of a form but the file](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
const MAX_FORM_BYTES: usize = 20_000;
/// About what clients put around each field.
const BOUNDARY_BYTES: usize = 120;

/// A form that uploads one object.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    pub object: Object<'a>,
    /// How many bytes the file may have.
    pub size: RangeInclusive<u64>,
}

/// A form that anyone may send, with a file, until it ends.
///
/// Its fields are secrets for as long as they live, so [`Debug`](fmt::Debug) leaves them out.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedPost {
    pub url: String,
    /// Every field but the file, which has to come last. The store takes no other field, and none
    /// of these with another value.
    pub fields: Vec<(String, String)>,
    /// The first moment at which the store refuses the form, in whole seconds.
    pub expires_at: SystemTime,
}

impl fmt::Debug for PresignedPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedPost")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Where a bucket takes forms, and for which region and service they are signed there.
#[derive(Debug)]
pub(super) struct FormTarget {
    url: String,
    region: String,
    service: String,
}

impl Bucket {
    /// Presigns `post` for `expires_in` from `now`, or for as long as the credentials live.
    pub async fn presign_post(
        &self,
        post: &Post<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedPost, Error> {
        let now = whole_seconds(now);
        let target = self.form_target().await?;
        let credentials = self.credentials.get(now).await?;
        let expires_at = end_of_grant(&credentials, expires_in, now);

        let mut fields = object_fields(&post.object);
        fields.push(("bucket".into(), self.name.clone()));
        // 201 makes the store answer with the object's place; otherwise it says nothing.
        fields.push(("success_action_status".into(), "201".into()));
        fields.extend(signing_fields(target, &credentials, now)?);

        let document = policy_document(&fields, &post.size, expires_at)?;
        let policy = BASE64_STANDARD.encode(document);
        let signature = sign(
            &policy,
            credentials.secret_access_key(),
            now,
            &target.region,
            &target.service,
        );
        fields.push(("policy".into(), policy));
        fields.push(("x-amz-signature".into(), signature));
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + BOUNDARY_BYTES)
            .sum();
        if bytes > MAX_FORM_BYTES {
            return Err(Error::FormTooLarge(bytes));
        }
        Ok(PresignedPost {
            url: target.url.clone(),
            fields,
            expires_at,
        })
    }

    /// Where an object is for clients, as far as that can be told without asking the store.
    pub async fn address(&self, key: &str) -> Result<String, Error> {
        let target = self.form_target().await?;
        let bucket = target.url.trim_end_matches('/');
        Ok(format!("{bucket}/{}", utf8_percent_encode(key, IN_PATH)))
    }

    async fn form_target(&self) -> Result<&FormTarget, Error> {
        self.form_target
            .get_or_try_init(|| self.find_form_target())
            .await
    }

    /// Learns from the SDK's presigner where the bucket is: it knows every kind of endpoint.
    async fn find_form_target(&self) -> Result<FormTarget, Error> {
        const KEY: &str = "k";
        let config =
            PresigningConfig::expires_in(Duration::from_mins(1)).map_err(PresignError::new)?;
        let request = self.presigner.put_object().bucket(&self.name).key(KEY);
        let presigned = request.presigned(config).await.map_err(PresignError::new)?;
        let (address, query) = presigned
            .uri()
            .split_once('?')
            .ok_or_else(|| PresignError::unusable("no query"))?;
        let Scope {
            region, service, ..
        } = Scope::of(query)?;
        let url = address
            .strip_suffix(KEY)
            .ok_or_else(|| PresignError::unusable("no key"))?;
        // `https://host/` or `https://host/bucket`
        let has_path = url.matches('/').count() > 3;
        let url = if has_path {
            url.trim_end_matches('/')
        } else {
            url
        };
        Ok(FormTarget {
            url: url.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
        })
    }
}

fn object_fields(object: &Object<'_>) -> Vec<(String, String)> {
    let fields = [
        ("key", Some(object.key)),
        ("content-type", Some(object.content_type)),
        ("content-disposition", object.content_disposition),
        ("cache-control", object.cache_control),
        ("acl", object.acl.as_ref().map(ObjectCannedAcl::as_str)),
        (
            "x-amz-storage-class",
            object.storage_class.as_ref().map(StorageClass::as_str),
        ),
        (
            "x-amz-server-side-encryption",
            object
                .server_side_encryption
                .as_ref()
                .map(ServerSideEncryption::as_str),
        ),
        (
            "x-amz-server-side-encryption-aws-kms-key-id",
            object.kms_key_id,
        ),
        ("x-amz-checksum-sha256", object.checksum_sha256),
    ];
    let mut fields: Vec<(String, String)> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    if !object.tagging.is_empty() {
        fields.push(("tagging".into(), tagging_xml(object.tagging)));
    }
    for (name, value) in object.metadata {
        // Forms carry any text, unlike headers.
        fields.push((format!("x-amz-meta-{name}"), value.clone()));
    }
    fields
}

fn signing_fields(
    target: &FormTarget,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Vec<(String, String)>, PresignError> {
    let FormTarget {
        region, service, ..
    } = target;
    let now = OffsetDateTime::from(now);
    let date = now
        .format(format_description!(
            "[year][month][day]T[hour][minute][second]Z"
        ))
        .map_err(PresignError::new)?;
    let day = &date[..8];
    let key_id = credentials.access_key_id();
    let mut fields = vec![
        ("x-amz-algorithm".into(), ALGORITHM.into()),
        (
            "x-amz-credential".into(),
            format!("{key_id}/{day}/{region}/{service}/aws4_request"),
        ),
        ("x-amz-date".into(), date),
    ];
    if let Some(token) = credentials.session_token() {
        fields.push(("x-amz-security-token".into(), token.into()));
    }
    Ok(fields)
}

/// The document that binds all fields, the bucket's name among them, and the size.
fn policy_document(
    fields: &[(String, String)],
    size: &RangeInclusive<u64>,
    expires_at: SystemTime,
) -> Result<String, PresignError> {
    let expiration = OffsetDateTime::from(expires_at)
        .format(&Rfc3339)
        .map_err(PresignError::new)?;
    let mut conditions = vec![json!(["content-length-range", size.start(), size.end()])];
    for (name, value) in fields {
        conditions.push(Value::Object(
            [(name.clone(), json!(value))].into_iter().collect(),
        ));
    }
    let document = json!({ "expiration": expiration, "conditions": conditions }).to_string();
    // In a policy document a plain `$` may begin a variable and has to be escaped.
    Ok(document.replace('$', "\\u0024"))
}

fn sign(policy: &str, secret: &str, now: SystemTime, region: &str, service: &str) -> String {
    let key = generate_signing_key(secret, now, region, service);
    calculate_signature(key, policy.as_bytes())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_published_example_is_reproduced() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/aws-published.json")).unwrap();
        let example = &vectors["post_policy"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let signature = sign(
            &text(&example["policy_base64"]),
            &text(&vectors["secret_access_key"]),
            datetime!(2015-12-29 00:00 UTC).into(),
            &text(&example["region"]),
            &text(&example["service"]),
        );
        assert_eq!(signature, text(&example["signature"]));
    }

    #[test]
    fn no_value_can_bend_the_document() {
        let hostile = "\"},[\"starts-with\",\"$key\",\"\"],{\"x\":\"\\${filename}";
        let fields = [("key".to_owned(), hostile.to_owned())];
        let end = datetime!(2026-01-01 00:10 UTC).into();
        let document = policy_document(&fields, &(0..=5), end).unwrap();
        assert!(!document.contains('$'));
        let document: Value = serde_json::from_str(&document).unwrap();
        let expected = json!({
            "expiration": "2026-01-01T00:10:00Z",
            "conditions": [["content-length-range", 0, 5], {"key": hostile}],
        });
        assert_eq!(document, expected);
    }
}
