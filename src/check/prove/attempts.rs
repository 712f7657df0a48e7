//! The attempts to violate the terms of a grant, and what it means if the store accepts one. To
//! prove another promise, add an attempt here.

use reqwest::{Method, Url};

use crate::check::Line;
use crate::check::marker::Upload;
use crate::check::problem::Problem;

/// The grant that an attempt uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrantKind {
    AsUsual,
    /// Bound to the SHA-256 of the file.
    Checksum,
    /// It has expired.
    Expired,
    /// Of a policy with `overwrite = false`.
    WriteOnce,
    /// For a key that begins with the bucket's name.
    BucketInKey,
    /// For a key with a slash that is percent-encoded, as a file name can have it.
    EncodedSlash,
}

pub(super) struct Attempt {
    pub(super) check: &'static str,
    pub(super) grant: GrantKind,
    /// Whether the grant is first used as intended, so that the attempt is its second use.
    pub(super) is_second: bool,
    /// How the request differs from what was granted.
    pub(super) change: fn(&mut Upload),
    /// What a client can do if the store accepts the attempt.
    consequence: &'static str,
    remedy: &'static str,
    /// Why it is skipped if no policy has such terms.
    pub(super) not_needed: &'static str,
}

impl Attempt {
    /// The line for the store's answer to the attempt.
    pub(super) fn judge<T>(&self, answer: Result<T, Problem>) -> Line {
        match answer {
            Ok(_) => self.failed(),
            Err(problem) if problem.is_refusal() => {
                Line::ok(self.check, format!("refused: {problem}"))
            }
            Err(problem) => problem.unclear(self.check),
        }
    }

    pub(super) fn failed(&self) -> Line {
        let detail = format!("accepted: {}", self.consequence);
        Line::failed(self.check, detail).fix(self.remedy)
    }
}

const USE_FORMS: &str =
    "set S3_FORMS_ONLY=true if the form-… lines are ok, or use another store: see docs/stores.md";
const USE_PUTS: &str = "set S3_SUPPORTS_POST_POLICY=false if the put-… lines are ok, or use another store: see docs/stores.md";
const OTHER_STORE: &str = "use another store, or a newer version of this one: no setting helps";
const VERIFY: &str =
    "use another store; verifying the checksum helps only where the store keeps one (`kept`)";

const PLAIN: Attempt = Attempt {
    check: "",
    grant: GrantKind::AsUsual,
    is_second: false,
    change: |_| {},
    consequence: "",
    remedy: OTHER_STORE,
    not_needed: "",
};

pub(super) const PUTS: &[Attempt] = &[
    Attempt {
        check: "put-longer",
        change: |upload| upload.body.push(b'x'),
        consequence: "files can be larger than their grant says, and than max_size",
        remedy: USE_FORMS,
        ..PLAIN
    },
    Attempt {
        check: "put-shorter",
        change: shorten,
        consequence: "files can be smaller than their grant says",
        remedy: USE_FORMS,
        ..PLAIN
    },
    Attempt {
        check: "put-type",
        change: |upload| set(&mut upload.headers, "content-type", OTHER_TYPE),
        consequence: "any type can be uploaded, also under a policy that allows only images",
        remedy: USE_FORMS,
        ..PLAIN
    },
    Attempt {
        check: "put-checksum",
        grant: GrantKind::Checksum,
        change: other_bytes,
        consequence: "other bytes than those of checksumSha256 are stored, also under require_checksum",
        remedy: VERIFY,
        ..PLAIN
    },
    Attempt {
        check: "put-expired",
        grant: GrantKind::Expired,
        consequence: "a grant can be used for ever, whatever expires_in says",
        ..PLAIN
    },
    Attempt {
        check: "put-as-get",
        is_second: true,
        change: |upload| upload.method = Method::GET,
        consequence: "whoever may upload an object can also read it",
        ..PLAIN
    },
    Attempt {
        check: "put-as-delete",
        is_second: true,
        change: |upload| upload.method = Method::DELETE,
        consequence: "whoever may upload an object can also delete it",
        ..PLAIN
    },
    Attempt {
        check: "put-key",
        change: other_key,
        consequence: "one grant can replace any object of the bucket",
        ..PLAIN
    },
    Attempt {
        check: "put-proxy-path",
        change: |upload| {
            if let Ok(url) = Url::parse(&upload.url) {
                let signed = ("proxy_path".to_owned(), url.path().to_owned());
                upload.headers.push(signed);
            }
            other_key(upload);
        },
        consequence: "one grant can replace any object, and one for a download can read any: the store checks the path of the header `proxy_path`",
        remedy: "have a proxy before the store remove `proxy_path`",
        ..PLAIN
    },
    Attempt {
        check: "put-forwarded-prefix",
        grant: GrantKind::BucketInKey,
        change: move_bucket_to_header,
        consequence: "one grant can write another key or another bucket: the store puts the header `X-Forwarded-Prefix` before the path that it compares with the signature",
        remedy: "have a proxy before the store remove `X-Forwarded-Prefix`, and give the credentials this bucket alone",
        ..PLAIN
    },
    Attempt {
        check: "put-encoded-key",
        grant: GrantKind::EncodedSlash,
        change: |upload| {
            upload.url = upload.url.replacen("%252Fx?", "%2Fx?", 1);
            upload.key = upload.key.replace("%2Fx", "/x");
        },
        consequence: "a file name with `%2F` can open a key with `/` there",
        remedy: "have `{uuid}` in each `key`, so that no other upload can be meant",
        not_needed: "each policy has {uuid} in its key, so no other upload can be meant",
        ..PLAIN
    },
    Attempt {
        check: "put-again",
        grant: GrantKind::WriteOnce,
        is_second: true,
        consequence: "uploads can be replaced under policies with overwrite = false",
        remedy: "keep keys unique with {uuid}, accept only uploads that were verified or committed, or use another store",
        not_needed: "no policy has overwrite = false",
        ..PLAIN
    },
];

pub(super) const FORMS: &[Attempt] = &[
    Attempt {
        check: "form-longer",
        change: |upload| upload.body.push(b'x'),
        consequence: "files can be larger than their form says, and than max_size",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-shorter",
        change: shorten,
        consequence: "files can be smaller than their form says",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-type",
        change: |upload| set(&mut upload.fields, "content-type", OTHER_TYPE),
        consequence: "any type can be uploaded, also under a policy that allows only images",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-checksum",
        grant: GrantKind::Checksum,
        change: other_bytes,
        consequence: "other bytes than those of checksumSha256 are stored, also under require_checksum",
        remedy: "upload with PUT where the checksum matters, or verify it: see docs/stores.md",
        ..PLAIN
    },
    Attempt {
        check: "form-expired",
        grant: GrantKind::Expired,
        consequence: "a form can be used for ever, whatever expires_in says",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-key",
        change: |upload| {
            upload.key.push('x');
            let key = upload.key.clone();
            set(&mut upload.fields, "key", &key);
        },
        consequence: "one form can replace any object of the bucket",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-field",
        change: |upload| set(&mut upload.fields, "x-amz-meta-presignd-extra", "1"),
        consequence: "whoever has a form can add metadata, and perhaps an ACL, to the upload",
        remedy: USE_PUTS,
        ..PLAIN
    },
    Attempt {
        check: "form-signature",
        change: |upload| {
            let signature = "0".repeat(64);
            set(&mut upload.fields, "x-amz-signature", &signature);
        },
        consequence: "anyone can upload anything without a grant",
        remedy: "keep this store away from untrusted networks",
        ..PLAIN
    },
];

/// A form whose HTTP headers say more than its fields.
pub(super) const FORM_HEADERS: Attempt = Attempt {
    check: "form-headers",
    consequence: "HTTP headers of a form count though nothing signs them: its metadata, caching and disposition are whatever the client says, and RustFS unpacks a tar into any keys",
    remedy: "set S3_SUPPORTS_POST_POLICY=false if the put-… lines are ok; or have a proxy before the store remove x-amz-* headers of forms, and verify each upload",
    ..PLAIN
};

/// A form with a field for which MinIO writes other keys.
pub(super) const FORM_FANOUT: Attempt = Attempt {
    check: "form-fanout",
    consequence: "one form can write any object of the bucket, by the field `x-minio-fanout-list`",
    remedy: "give the credentials the actions that docs/deploy.md lists, and not s3:*",
    ..PLAIN
};

/// A part with another upload id than the signed one.
pub(super) const PART_UPLOAD: Attempt = Attempt {
    check: "part-upload",
    consequence: "whoever may send a part can send it to any unfinished upload",
    ..PLAIN
};

pub(super) const PART_NUMBER: Attempt = Attempt {
    check: "part-number",
    consequence: "whoever may send one part can replace the others",
    ..PLAIN
};

pub(super) const COMPLETE_ETAG: Attempt = Attempt {
    check: "complete-etag",
    consequence: "parts that change while an upload is completed are not noticed, so files can be larger than max_size",
    remedy: "verify each upload after its completion, or use another store",
    ..PLAIN
};

const OTHER_TYPE: &str = "application/x-presignd-other";

/// Changes the key of a PUT, and the path of its URL.
fn other_key(upload: &mut Upload) {
    upload.key.push('x');
    upload.url = upload.url.replacen('?', "x?", 1);
}

/// Sends the bucket of the signed path in a header, so that the first part of the key becomes the bucket.
fn move_bucket_to_header(upload: &mut Upload) {
    let (Ok(mut url), Some((bucket, key))) = (Url::parse(&upload.url), upload.key.split_once('/'))
    else {
        return;
    };
    let prefix = format!("/{bucket}");
    if let Some(rest) = url.path().strip_prefix(&prefix).map(str::to_owned) {
        url.set_path(&rest);
        upload.url = url.into();
    }
    upload.key = key.to_owned();
    upload
        .headers
        .push(("x-forwarded-prefix".to_owned(), prefix));
}

fn shorten(upload: &mut Upload) {
    upload.body.pop();
}

/// Replaces the file with other bytes of the same length.
fn other_bytes(upload: &mut Upload) {
    upload.body.fill(b'x');
}

fn set(pairs: &mut Vec<(String, String)>, name: &str, value: &str) {
    match pairs.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => pairs.push((name.to_owned(), value.to_owned())),
    }
}
