//! A presigned URL taken apart: what is the same in all of them, and where the rest goes.

use std::borrow::Cow;
use std::fmt::Write;

use aws_sigv4::sign::v4::generate_signing_key;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::utf8_percent_encode;
use sha2::{Digest, Sha256};

use super::{DAY, since_epoch};
use crate::s3::object::{
    Object, ObjectCannedAcl, ServerSideEncryption, StorageClass, header_value, tagging_header,
};
use crate::s3::presign::{
    ALGORITHM, IN_PATH, IN_QUERY, MAX_EXPIRES_IN, PresignError, PresignedRequest, Put, Request,
    Scope, Signing,
};

/// What all answers of the presigner have in common, of one kind of request, one set of credentials
/// and one day.
pub(super) struct Shape {
    method: &'static str,
    /// All before the path: `https://bucket.s3.us-east-1.amazonaws.com`.
    origin: String,
    /// The value of the header `host`.
    host: String,
    /// All before the key: `/`, or `/bucket/`.
    path: String,
    /// The URL's query.
    query: Vec<Piece>,
    /// The query as it is signed: sorted, and without the signature.
    signed_query: Vec<Piece>,
    /// `20260101T000000Z`
    midnight: [u8; 16],
    /// `20260101/us-east-1/s3/aws4_request`
    scope: String,
    /// As far as it can be hashed before there is something to sign.
    signing_key: Hmac<Sha256>,
}

/// A part of a query.
#[derive(Clone, Debug)]
enum Piece {
    /// The same each time.
    Text(String),
    Date,
    ExpiresIn,
    SignedHeaders,
    PartNumber,
    UploadId,
    Signature,
}

/// What goes into the pieces of one query.
struct Values<'a> {
    request: &'a Request<'a>,
    date: &'a str,
    expires_in: &'a str,
    headers: &'a Headers<'a>,
    signature: &'a str,
}

impl Shape {
    /// Takes apart what the presigner answered to a request for `key`.
    pub(super) fn read(
        key: &str,
        answer: &PresignedRequest,
        signing: &Signing,
    ) -> Result<Self, PresignError> {
        let unusable = PresignError::unusable;
        let (address, query) = answer.url.split_once('?').ok_or(unusable("no query"))?;
        let scope = Scope::of(query)?;
        let (scheme, rest) = address.split_once("://").ok_or(unusable("no scheme"))?;
        let slash = rest.find('/').ok_or(unusable("no path"))?;
        let (authority, path) = rest.split_at(slash);
        let path = path
            .strip_suffix(&utf8_percent_encode(key, IN_PATH).to_string())
            .ok_or(unusable("no key"))?;
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(authority);

        let mut parameters: Vec<&str> = query.split('&').collect();
        let in_url = pieces(&parameters);
        parameters.retain(|parameter| !matches!(piece(parameter), Some(Piece::Signature)));
        parameters.sort_unstable_by_key(|parameter| parameter.split_once('='));
        let key = generate_signing_key(
            signing.credentials.secret_access_key(),
            signing.now,
            scope.region,
            scope.service,
        );
        Ok(Self {
            method: answer.method,
            origin: format!("{scheme}://{authority}"),
            host: host.to_owned(),
            path: path.to_owned(),
            query: in_url,
            signed_query: pieces(&parameters),
            midnight: format!("{}T000000Z", scope.day)
                .into_bytes()
                .try_into()
                .map_err(|_| unusable("no day"))?,
            scope: format!(
                "{}/{}/{}/aws4_request",
                scope.day, scope.region, scope.service
            ),
            signing_key: Hmac::new_from_slice(key.as_ref()).map_err(PresignError::new)?,
        })
    }

    /// What the presigner would answer on the day and with the credentials of this shape. `None` if that
    /// is not known for certain.
    pub(super) fn presign(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Option<PresignedRequest> {
        // What the presigner may refuse.
        let is_blank = |text: &str| text.trim().is_empty();
        if is_blank(request.key())
            || matches!(request, Request::Part { upload_id, .. } if is_blank(upload_id))
            || signing.expires_in > MAX_EXPIRES_IN
        {
            return None;
        }
        let headers = headers(request, &self.host)?;
        let date = self.date(signing);
        let date = str::from_utf8(&date).ok()?;
        let mut values = Values {
            request: &request,
            date,
            expires_in: &signing.expires_in.as_secs().to_string(),
            headers: &headers,
            signature: "",
        };

        let mut signed = String::with_capacity(1024);
        signed.push_str(self.method);
        signed.push('\n');
        let path_begin = signed.len();
        signed.push_str(&self.path);
        signed.extend(utf8_percent_encode(request.key(), IN_PATH));
        let path = path_begin..signed.len();
        signed.push('\n');
        values.fill(&self.signed_query, &mut signed);
        signed.push('\n');
        for (name, value) in &headers {
            for part in [name, ":", value, "\n"] {
                signed.push_str(part);
            }
        }
        signed.push('\n');
        push_names(&mut signed, &headers, ";");
        signed.push_str("\nUNSIGNED-PAYLOAD");
        let (mut hash, mut signature) = ([0; 64], [0; 64]);
        let hash = base16ct::lower::encode_str(&Sha256::digest(&signed), &mut hash).ok()?;
        // The string to sign.
        let mut mac = self.signing_key.clone();
        for part in [ALGORITHM, "\n", date, "\n", &self.scope, "\n", hash] {
            mac.update(part.as_bytes());
        }
        let mac = mac.finalize().into_bytes();

        values.signature = base16ct::lower::encode_str(&mac, &mut signature).ok()?;
        let mut url = String::with_capacity(1024);
        for part in [&self.origin, &signed[path], "?"] {
            url.push_str(part);
        }
        values.fill(&self.query, &mut url);
        Some(PresignedRequest {
            method: self.method,
            url,
            headers: headers
                .into_iter()
                .filter(|(name, _)| name != "host" && name != "content-length")
                .map(|(name, value)| (name, value.into_owned()))
                .collect(),
            expires_at: signing.expires_at(),
        })
    }

    /// `20260101T123456Z`
    fn date(&self, signing: &Signing) -> [u8; 16] {
        let seconds = since_epoch(signing.now) % DAY;
        let mut date = self.midnight;
        for (at, number) in [
            (9, seconds / 3600),
            (11, seconds / 60 % 60),
            (13, seconds % 60),
        ] {
            for (at, digit) in [(at, number / 10), (at + 1, number % 10)] {
                date[at] += u8::try_from(digit).unwrap_or_default();
            }
        }
        date
    }
}

/// The place of a parameter whose value differs from one request to the next.
fn piece(parameter: &str) -> Option<Piece> {
    let (name, _) = parameter.split_once('=')?;
    match name {
        "X-Amz-Date" => Some(Piece::Date),
        "X-Amz-Expires" => Some(Piece::ExpiresIn),
        "X-Amz-SignedHeaders" => Some(Piece::SignedHeaders),
        "X-Amz-Signature" => Some(Piece::Signature),
        "partNumber" => Some(Piece::PartNumber),
        "uploadId" => Some(Piece::UploadId),
        _ => None,
    }
}

fn pieces(parameters: &[&str]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    for parameter in parameters {
        if !(pieces.is_empty() && text.is_empty()) {
            text.push('&');
        }
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        match piece(parameter) {
            None => text.push_str(parameter),
            Some(piece) => {
                text.push_str(name);
                text.push('=');
                pieces.extend([Piece::Text(std::mem::take(&mut text)), piece]);
            }
        }
    }
    pieces.push(Piece::Text(text));
    pieces
}

impl Values<'_> {
    fn fill(&self, pieces: &[Piece], out: &mut String) {
        for piece in pieces {
            match (piece, self.request) {
                (Piece::Text(text), _) => out.push_str(text),
                (Piece::Date, _) => out.push_str(self.date),
                (Piece::ExpiresIn, _) => out.push_str(self.expires_in),
                (Piece::SignedHeaders, _) => push_names(out, self.headers, "%3B"),
                (Piece::Signature, _) => out.push_str(self.signature),
                (Piece::PartNumber, Request::Part { number, .. }) => {
                    let _infallible = write!(out, "{number}");
                }
                (Piece::UploadId, Request::Part { upload_id, .. }) => {
                    out.extend(utf8_percent_encode(upload_id, IN_QUERY));
                }
                // There is none, and so the result proves wrong.
                (Piece::PartNumber | Piece::UploadId, Request::Put(_)) => {}
            }
        }
    }
}

fn push_names(out: &mut String, headers: &Headers<'_>, separator: &str) {
    for (index, (name, _)) in headers.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(name);
    }
}

type Headers<'a> = Vec<(Cow<'static, str>, Cow<'a, str>)>;

/// All signed headers, sorted; `None` if signing could change or refuse one.
fn headers<'a>(request: Request<'a>, host: &'a str) -> Option<Headers<'a>> {
    let Request::Put(put) = request else {
        return Some(vec![("host".into(), host.into())]);
    };
    let Put {
        object,
        size: _,
        if_none_match,
    } = put;
    let Object {
        key: _,
        content_type,
        content_disposition,
        cache_control,
        storage_class,
        server_side_encryption,
        kms_key_id,
        acl,
        tagging,
        metadata,
        checksum_sha256,
    } = object;

    let text = |value: Option<&'a str>| value.map(Cow::Borrowed);
    let size = put.content_length().map(|length| length.to_string().into());
    let tagging = (!tagging.is_empty()).then(|| tagging_header(tagging).into());
    let before_metadata = [
        ("cache-control", text(*cache_control)),
        ("content-disposition", text(*content_disposition)),
        ("content-length", size),
        ("content-type", text(Some(content_type))),
        ("host", text(Some(host))),
        ("if-none-match", text(if_none_match.then_some("*"))),
        ("x-amz-acl", text(acl.as_ref().map(ObjectCannedAcl::as_str))),
        ("x-amz-checksum-sha256", text(*checksum_sha256)),
    ];
    let after_metadata = [
        (
            "x-amz-server-side-encryption",
            text(
                server_side_encryption
                    .as_ref()
                    .map(ServerSideEncryption::as_str),
            ),
        ),
        (
            "x-amz-server-side-encryption-aws-kms-key-id",
            text(*kms_key_id),
        ),
        (
            "x-amz-storage-class",
            text(storage_class.as_ref().map(StorageClass::as_str)),
        ),
        ("x-amz-tagging", tagging),
    ];
    // In lists and not one by one: code that is not there need not be fetched for each request.
    let mut headers = Headers::with_capacity(8 + metadata.len());
    let given = |(name, value): (&'static str, Option<_>)| value.map(|value| (name.into(), value));
    headers.extend(before_metadata.into_iter().filter_map(given));
    headers.extend(metadata.iter().map(|(name, value)| {
        let name = format!("x-amz-meta-{name}");
        (name.into(), header_value(value))
    }));
    headers.extend(after_metadata.into_iter().filter_map(given));

    let is_sorted = headers.is_sorted_by(|(a, _), (b, _)| a < b);
    // The other names are ours.
    let are_plain = metadata.iter().all(|(name, _)| is_plain_name(name))
        && headers.iter().all(|(_, value)| is_plain_value(value));
    (is_sorted && are_plain).then_some(headers)
}

fn is_plain_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// Whether a value is signed as it is: spaces at its ends and several in a row would be folded, the empty one
/// could be left out.
fn is_plain_value(value: &str) -> bool {
    let mut before = b' ';
    value.bytes().all(|b| {
        let two_spaces = before == b' ' && b == b' ';
        before = b;
        matches!(b, b' '..=b'~') && !two_spaces
    }) && before != b' '
}
