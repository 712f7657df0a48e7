//! The signature of a URL:
//! [SigV4 in the query](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
//! A pure function of target, credentials, request and time. It writes the same URL as the SDK's
//! presigner, in a twentieth of the time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::sign::v4::generate_signing_key;
use base16ct::lower::{encode_str, encode_string};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::utf8_percent_encode;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::object::{header_value, tagging_header};
use super::presign::{IN_PATH, IN_QUERY, MAX_EXPIRES_IN, PresignedRequest, Request, Signing};
use super::target::{Scope, Target};

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A moment as signatures write it: `20260101T123456Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp([u8; 16]);

impl Timestamp {
    pub(super) fn new(moment: SystemTime) -> Self {
        let moment = OffsetDateTime::from(moment);
        let mut text = *b"00000000T000000Z";
        let mut put = |at: usize, number: u16| {
            text[at] += u8::try_from(number / 10 % 10).unwrap_or_default();
            text[at + 1] += u8::try_from(number % 10).unwrap_or_default();
        };
        let year = u16::try_from(moment.year()).unwrap_or_default();
        put(0, year / 100);
        put(2, year % 100);
        put(4, u8::from(moment.month()).into());
        put(6, moment.day().into());
        put(9, moment.hour().into());
        put(11, moment.minute().into());
        put(13, moment.second().into());
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default() // It is ASCII.
    }

    pub(super) fn day(&self) -> &str {
        &self.as_str()[..8]
    }
}

/// The key for one set of credentials on one day (UTC).
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    pub(super) fn derive(credentials: &Credentials, now: SystemTime, scope: &Scope) -> Self {
        let secret = credentials.secret_access_key();
        let key = generate_signing_key(secret, now, &scope.region, &scope.service);
        Self(Hmac::new_from_slice(key.as_ref()).expect("HMAC accepts keys of any length"))
    }

    /// The signature of these parts, concatenated, in hexadecimal.
    pub(super) fn sign<const N: usize>(&self, parts: [&str; N]) -> String {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part.as_bytes());
        }
        encode_string(&mac.finalize().into_bytes())
    }
}

/// The key that was derived last: a grant then needs one HMAC instead of five.
#[derive(Clone, Default)]
pub(super) struct SigningKeyCache(Arc<RwLock<Option<CachedKey>>>);

struct CachedKey {
    credentials: Arc<Credentials>,
    /// Days since 1970.
    day: u64,
    key: SigningKey,
}

impl SigningKeyCache {
    pub(super) fn get(&self, signing: &Signing, scope: &Scope) -> SigningKey {
        let (credentials, now) = (&signing.credentials, signing.now);
        let day = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        let cached = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = &*cached
            && cached.day == day
            && Arc::ptr_eq(&cached.credentials, credentials)
        {
            return cached.key.clone();
        }
        drop(cached);
        let key = SigningKey::derive(credentials, now, scope);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(CachedKey {
            credentials: Arc::clone(credentials),
            day,
            key: key.clone(),
        });
        key
    }
}

debug_name!(SigningKeyCache);

/// Signs `request`. `None` if the SDK would refuse it or change a signed value; then the presigner
/// has to decide.
pub(super) fn presign(
    target: &Target,
    scope: &Scope,
    key: &SigningKey,
    request: Request<'_>,
    signing: &Signing,
) -> Option<PresignedRequest> {
    let is_blank = |text: &str| text.trim().is_empty();
    if is_blank(request.key())
        || matches!(request, Request::Part { upload_id, .. } if is_blank(upload_id))
        || signing.expires_in > MAX_EXPIRES_IN
    {
        return None;
    }
    let headers = headers(request, &target.host)?;
    let credentials = &signing.credentials;
    let now = Timestamp::new(signing.now);
    let token = credentials.session_token();

    // The canonical request, in one buffer. The URL has the same parameters in another order.
    let mut text = String::with_capacity(1024 + token.map_or(0, str::len));
    let (method, operation) = match request {
        Request::Put(_) => ("PUT", "x-id=PutObject"),
        Request::Get(_) => ("GET", "x-id=GetObject"),
        Request::Part { .. } => ("PUT", "x-id=UploadPart"),
    };
    text.extend([method, "\n"]);
    let path = appended(&mut text, |text| {
        text.push_str(&target.path);
        text.extend(utf8_percent_encode(request.key(), IN_PATH));
    });
    text.push('\n');
    let first = appended(&mut text, |text| {
        text.extend(["X-Amz-Algorithm=", ALGORITHM, "&X-Amz-Credential="]);
        text.extend(utf8_percent_encode(credentials.access_key_id(), IN_QUERY));
        text.extend(["%2F", now.day(), &scope.encoded_suffix]);
        text.extend(["&X-Amz-Date=", now.as_str(), "&X-Amz-Expires="]);
        write!(text, "{}", signing.expires_in.as_secs()).ok(); // Infallible.
    });
    let token = token.map(|token| {
        appended(&mut text, |text| {
            text.push_str("&X-Amz-Security-Token=");
            text.extend(utf8_percent_encode(token, IN_QUERY));
        })
    });
    let signed_headers = appended(&mut text, |text| {
        text.push_str("&X-Amz-SignedHeaders=");
        push_names(text, &headers, "%3B");
    });
    text.push('&');
    let own = appended(&mut text, |text| push_own_parameters(text, request));
    text.extend([operation, "\n"]);
    for (name, value) in &headers {
        text.extend([name, ":", value, "\n"]);
    }
    text.push('\n');
    push_names(&mut text, &headers, ";");
    text.push_str("\nUNSIGNED-PAYLOAD");

    let mut hash = [0; 64];
    let hash = encode_str(&Sha256::digest(&text), &mut hash).ok()?;
    let signature = key.sign([
        ALGORITHM,
        "\n",
        now.as_str(),
        "\n",
        now.day(),
        &scope.suffix,
        "\n",
        hash,
    ]);

    let mut url = String::with_capacity(target.origin.len() + text.len() + 100);
    url.extend([&*target.origin, &text[path], "?", operation, "&"]);
    url.extend([&text[own], &text[first], &text[signed_headers]]);
    url.extend(["&X-Amz-Signature=", &signature]);
    if let Some(token) = token {
        url.push_str(&text[token]);
    }
    Some(PresignedRequest {
        method,
        url,
        headers: headers
            .into_iter()
            .filter(|(name, _)| name != "host" && name != "content-length")
            .map(|(name, value)| (name, value.into_owned()))
            .collect(),
        fields: BTreeMap::new(),
        expires_at: signing.expires_at(),
    })
}

/// Adds the parameters that requests of this kind have besides those of the signature, in the order
/// of their names, each with an `&` behind it.
fn push_own_parameters(text: &mut String, request: Request<'_>) {
    let mut push = |name: &str, value: &str| {
        text.push_str(name);
        text.extend(utf8_percent_encode(value, IN_QUERY));
        text.push('&');
    };
    match request {
        Request::Put(_) => {}
        Request::Get(get) => {
            push("response-content-disposition=", get.content_disposition);
            if let Some(content_type) = get.content_type {
                push("response-content-type=", content_type);
            }
            if let Some(version_id) = get.version_id {
                push("versionId=", version_id);
            }
        }
        Request::Part {
            upload_id, number, ..
        } => {
            push("partNumber=", &number.to_string());
            push("uploadId=", upload_id);
        }
    }
}

/// The range of the text that `append` adds.
fn appended(text: &mut String, append: impl FnOnce(&mut String)) -> std::ops::Range<usize> {
    let begin = text.len();
    append(text);
    begin..text.len()
}

type Headers<'a> = Vec<(Cow<'static, str>, Cow<'a, str>)>;

fn push_names(text: &mut String, headers: &Headers<'_>, separator: &str) {
    for (index, (name, _)) in headers.iter().enumerate() {
        if index > 0 {
            text.push_str(separator);
        }
        text.push_str(name);
    }
}

/// All signed headers in the order of their names; `None` if signing could change or refuse one.
fn headers<'a>(request: Request<'a>, host: &'a str) -> Option<Headers<'a>> {
    let size = request.content_length().map(|length| length.to_string());
    let mut headers = Headers::with_capacity(8);
    headers.push(("host".into(), host.into()));
    headers.extend(size.map(|size| ("content-length".into(), size.into())));
    if let Request::Put(put) = request {
        let properties = put.object.properties();
        headers.extend(properties.map(|(name, value)| (name.into(), value.into())));
        headers.extend(
            put.content_md5
                .map(|md5| ("content-md5".into(), md5.into())),
        );
        if put.if_none_match {
            headers.push(("if-none-match".into(), "*".into()));
        }
        if !put.object.tagging.is_empty() {
            headers.push((
                "x-amz-tagging".into(),
                tagging_header(put.object.tagging).into(),
            ));
        }
        for (name, value) in put.object.metadata {
            if !is_plain_name(name) {
                return None;
            }
            headers.push((format!("x-amz-meta-{name}").into(), header_value(value)));
        }
    }
    headers.sort_unstable();
    let are_unique = headers.is_sorted_by(|(a, _), (b, _)| a < b);
    let are_plain = headers.iter().all(|(_, value)| is_plain_value(value));
    (are_unique && are_plain).then_some(headers)
}

fn is_plain_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// Whether a value is signed as it is. Signing removes spaces at the ends, replaces several in a
/// row by one, and may leave out an empty value.
fn is_plain_value(value: &str) -> bool {
    let mut before = b' ';
    value.bytes().all(|b| {
        let two_spaces = before == b' ' && b == b' ';
        before = b;
        matches!(b, b' '..=b'~') && !two_spaces
    }) && before != b' '
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_published_example_of_a_post_policy_is_reproduced() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/aws-published.json")).unwrap();
        let example = &vectors["post_policy"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let credentials = Credentials::new("", text(&vectors["secret_access_key"]), None, None, "");
        let scope = Scope {
            region: text(&example["region"]),
            service: text(&example["service"]),
            suffix: String::new(),
            encoded_suffix: String::new(),
        };
        let now = datetime!(2015-12-29 00:00 UTC).into();
        let signature =
            SigningKey::derive(&credentials, now, &scope).sign([&text(&example["policy_base64"])]);
        assert_eq!(signature, text(&example["signature"]));
    }
}
