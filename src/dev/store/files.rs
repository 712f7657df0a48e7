//! How an object is kept as files, and how it is replaced.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use s3s::crypto::{Checksum, Crc64Nvme};
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3Request, S3Result, s3_error};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The member of an object's file of checksums that has the CRC64NVME.
pub(super) const CRC64NVME: &str = "checksum_crc64nvme";

/// The headers `If-Match` and `If-None-Match`.
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Conditions {
    pub(super) fn check(&self, object: &Path, internal: &Path) -> S3Result<()> {
        let is_there = object.is_file();
        if self.if_match.is_some() && !is_there {
            return Err(s3_error!(NoSuchKey));
        }
        let etag = etag_in(internal);
        let matches = |condition: &ETagCondition| match condition {
            ETagCondition::Any => is_there,
            ETagCondition::ETag(expected) => is_there && etag.as_ref() == Some(expected),
        };
        if self.if_match.as_ref().is_none_or(matches)
            && !self.if_none_match.as_ref().is_some_and(matches)
        {
            return Ok(());
        }
        Err(s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold: there is an object under this key already, or another one than `If-Match` names."
        ))
    }
}

/// An object that is being written, outside of all buckets. What was not moved is removed on drop.
pub(super) struct Staged {
    root: PathBuf,
    pub(super) name: String,
}

impl Staged {
    pub(super) const PREFIX: &str = ".staged-";

    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            name: format!("{}{}", Self::PREFIX, Uuid::new_v4()),
        }
    }

    pub(super) fn files(&self) -> [PathBuf; 3] {
        files_of(&self.root, "", &self.name)
    }

    /// Computes the CRC64NVME of the bytes and keeps it, as S3 does where an upload names no
    /// checksum.
    pub(super) async fn add_crc64nvme(&self) -> S3Result<()> {
        let [object, _, internal] = self.files();
        blocking(move || {
            let checksum = crc64nvme(&[object], io::sink())?;
            let mut info: Map<String, Value> = serde_json::from_slice(&fs::read(&internal)?)?;
            info.insert(CRC64NVME.to_owned(), checksum.into());
            fs::write(internal, serde_json::to_vec(&info)?)
        })
        .await
    }
}

/// Copies files to `all`, one after the other, and computes the CRC64NVME of all their bytes, in base64.
pub(super) fn crc64nvme(files: &[PathBuf], mut all: impl io::Write) -> io::Result<String> {
    let mut checksum = Crc64Nvme::new();
    let mut buffer = vec![0; 256 * 1024];
    for file in files {
        let mut file = File::open(file)?;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            checksum.update(&buffer[..count]);
            all.write_all(&buffer[..count])?;
        }
    }
    Ok(BASE64_STANDARD.encode(checksum.finalize()))
}

/// Runs `work` on a thread that may wait for files. tokio's own files wait for such a thread before
/// each piece, which makes gigabytes take several times as long.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> S3Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result
        .map_err(S3Error::internal_error)?
        .map_err(S3Error::internal_error)
}

impl Drop for Staged {
    fn drop(&mut self) {
        for file in self.files() {
            remove_if_there(&file).ok(); // best effort
        }
    }
}

/// Where [`FileSystem`] keeps an object: its bytes, its headers, and its tag and checksums.
pub(super) fn files_of(root: &Path, bucket: &str, key: &str) -> [PathBuf; 3] {
    let [of_bucket, of_key] = [bucket, key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
    let beside = |kind| root.join(format!(".bucket-{of_bucket}.object-{of_key}.{kind}.json"));
    [
        root.join(bucket).join(key),
        beside("metadata"),
        beside("internal"),
    ]
}

/// The entity tag in the last of an object's files.
pub(super) fn etag_in(internal: &Path) -> Option<ETag> {
    let info: Value = serde_json::from_slice(&fs::read(internal).ok()?).ok()?;
    Some(ETag::Strong(info["e_tag"].as_str()?.to_owned()))
}

pub(super) fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The key of a request, which may be longer than the one that its object is kept under. It is an
/// extension of the request.
#[derive(Clone)]
pub(super) struct RequestedKey(pub(super) String);

pub(super) fn requested_key<T>(request: &S3Request<T>) -> String {
    let key = request.extensions.get::<RequestedKey>();
    key.map_or_else(String::new, |key| key.0.clone())
}

/// The key itself if [`FileSystem`] can hold it; otherwise its beginning, a digest of all of it,
/// and its end.
pub(super) fn short_key(key: String) -> String {
    const LONGEST: usize = 128;
    if key.len() <= LONGEST {
        return key;
    }
    let digest = base16ct::lower::encode_string(&Sha256::digest(&key)[..12]);
    let begin = &key[..key.floor_char_boundary(80)];
    let end = &key[key.ceil_char_boundary(key.len() - 16)..];
    format!("{begin}~{digest}{end}")
}

/// Whether Windows has no file or folder of this name, or would take it for something else.
pub(super) fn windows_refuses(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_lowercase();
    let is_port = |kind| {
        let number = stem.strip_prefix(kind);
        number.is_some_and(|n| n.chars().count() == 1 && "0123456789¹²³".contains(n))
    };
    name.contains(|c: char| c.is_ascii_control() || r#"\:*?"<>|"#.contains(c))
        || name.ends_with(['.', ' '])
        || ["con", "prn", "aux", "nul"].contains(&&*stem)
        || ["com", "lpt"].into_iter().any(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_refuses_are_known() {
        for name in [
            r"..\a",
            "a:b",
            "a?",
            "NUL",
            "con.txt",
            "Com1.tar.gz",
            "lpt² .txt",
            "a.",
            "a ",
            "a\tb",
        ] {
            assert!(windows_refuses(name), "{name:?}");
        }
        for name in [
            "a.txt",
            "console",
            "com",
            "com12",
            "ü 漢.txt",
            ".env",
            "a.con",
        ] {
            assert!(!windows_refuses(name), "{name:?}");
        }
    }
}
