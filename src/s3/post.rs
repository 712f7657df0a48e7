//! Presigned POST: an HTML form that the store accepts, and the policy document that binds every
//! field of it. The SDK cannot make one, so the document is written here, and signed for the same
//! [target] and with the same key as URLs.
//!
//! [target]: super::target::Target
//!
//! Sources: [fields of the form](https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html),
//! [the document](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html),
//! [its signature](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-UsingHTTPPOST.html).

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::object::{ACL, Object, tagging_xml};
use super::presign::{PresignError, PresignedRequest, Signing, whole_seconds};
use super::sign::{ALGORITHM, Timestamp};
use super::target::Scope;
use super::{Bucket, Error};

/// S3's limit on [all of a form but the file](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
const MAX_FORM_BYTES: usize = 20_000;
/// Roughly what a client adds around each field.
const BOUNDARY_BYTES: usize = 120;

/// A form that uploads one object.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    pub object: Object<'a>,
    /// The permitted sizes of the file, in bytes.
    pub size: RangeInclusive<u64>,
}

impl Bucket {
    /// Presigns `post` for `expires_in` from `now`, or for as long as the credentials are valid.
    pub async fn presign_post(
        &self,
        post: &Post<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        let signing = Signing {
            credentials: self.credentials.get(now).await?,
            expires_in,
            now: whole_seconds(now),
        };
        let Some(scope) = &self.target.scope else {
            return Err(PresignError::no_forms().into());
        };
        let key = self.signing_key.get(&signing, scope);

        let mut fields = object_fields(&post.object);
        fields.push(("bucket".into(), self.name.clone()));
        // 201 makes the store answer with the object's address; otherwise the answer is empty.
        fields.push(("success_action_status".into(), "201".into()));
        fields.extend(signing_fields(&signing, scope));

        let document = policy_document(&fields, &post.size, signing.expires_at());
        let policy = BASE64_STANDARD.encode(document);
        let signature = key.sign([&policy]);
        fields.push(("policy".into(), policy));
        fields.push(("x-amz-signature".into(), signature));
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + BOUNDARY_BYTES)
            .sum();
        if bytes > MAX_FORM_BYTES {
            return Err(Error::FormTooLarge(bytes));
        }
        Ok(PresignedRequest {
            method: "POST",
            url: self.target.form_url(),
            headers: Vec::new(),
            fields: fields.into_iter().collect(),
            expires_at: signing.expires_at(),
        })
    }

    /// The address of an object for clients, as far as it is known without asking the store.
    pub fn address(&self, key: &str) -> String {
        self.target.address(key)
    }
}

fn object_fields(object: &Object<'_>) -> Vec<(String, String)> {
    let mut fields = vec![("key".to_owned(), object.key.to_owned())];
    fields.extend(object.properties().map(|(name, value)| {
        let name = if name == ACL { "acl" } else { name };
        (name.to_owned(), value.to_owned())
    }));
    if !object.tagging.is_empty() {
        fields.push(("tagging".into(), tagging_xml(object.tagging)));
    }
    for (name, value) in object.metadata {
        // Forms carry any text, unlike headers.
        fields.push((format!("x-amz-meta-{name}"), value.clone()));
    }
    fields
}

fn signing_fields(signing: &Signing, scope: &Scope) -> Vec<(String, String)> {
    let now = Timestamp::new(signing.now);
    let (key_id, day) = (signing.credentials.access_key_id(), now.day());
    let mut fields = vec![
        ("x-amz-algorithm".into(), ALGORITHM.into()),
        (
            "x-amz-credential".into(),
            format!("{key_id}/{day}{}", scope.suffix),
        ),
        ("x-amz-date".into(), now.as_str().to_owned()),
    ];
    if let Some(token) = signing.credentials.session_token() {
        fields.push(("x-amz-security-token".into(), token.into()));
    }
    fields
}

/// The document that binds all fields, the bucket's name among them, and the size.
fn policy_document(
    fields: &[(String, String)],
    size: &RangeInclusive<u64>,
    expires_at: SystemTime,
) -> String {
    let expiration = humantime::format_rfc3339_seconds(expires_at).to_string();
    let mut conditions = vec![json!(["content-length-range", size.start(), size.end()])];
    for (name, value) in fields {
        conditions.push(Value::Object(
            [(name.clone(), json!(value))].into_iter().collect(),
        ));
    }
    let document = json!({ "expiration": expiration, "conditions": conditions }).to_string();
    // In a policy document a plain `$` may begin a variable and has to be escaped.
    document.replace('$', "\\u0024")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn no_value_can_change_the_document() {
        let hostile = "\"},[\"starts-with\",\"$key\",\"\"],{\"x\":\"\\${filename}";
        let fields = [("key".to_owned(), hostile.to_owned())];
        let end = datetime!(2026-01-01 00:10 UTC).into();
        let document = policy_document(&fields, &(0..=5), end);
        assert!(!document.contains('$'));
        let document: Value = serde_json::from_str(&document).unwrap();
        let expected = json!({
            "expiration": "2026-01-01T00:10:00Z",
            "conditions": [["content-length-range", 0, 5], {"key": hostile}],
        });
        assert_eq!(document, expected);
    }
}
