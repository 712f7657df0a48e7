//! The checksum that a client gives for its bytes.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::Invalid;

/// A SHA-256, in the base64 that S3's headers have: 32 bytes, 44 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256Checksum(String);

impl Sha256Checksum {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        check(text, 32).map(|()| Self(text.to_owned()))
    }

    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

/// An MD5, in the base64 of the header `Content-MD5`: 16 bytes, 24 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Md5Checksum(String);

impl Md5Checksum {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        check(text, 16).map(|()| Self(text.to_owned()))
    }

    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

/// Refuses what is not the base64 of `length` bytes.
fn check(text: &str, length: usize) -> Result<(), Invalid> {
    let detail = match BASE64_STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == length => return Ok(()),
        Ok(bytes) => format!(
            "must be the base64 of {length} bytes; it is that of {}",
            bytes.len()
        ),
        Err(_) => format!("must be the base64 of {length} bytes, with padding"),
    };
    Err(Invalid::new("not-a-checksum", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_the_padded_base64_of_32_bytes() {
        let text = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(Sha256Checksum::parse(text).unwrap().as_base64(), text);
        for text in [
            "",
            "AAAA",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        ] {
            assert!(Sha256Checksum::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_md5_has_16_bytes() {
        let text = "1B2M2Y8AsgTpgAmY7PhCfg==";
        assert_eq!(Md5Checksum::parse(text).unwrap().as_base64(), text);
        assert!(Md5Checksum::parse("1B2M2Y8AsgTpgAmY7PhCfg").is_err());
        assert!(Md5Checksum::parse("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").is_err());
    }
}
