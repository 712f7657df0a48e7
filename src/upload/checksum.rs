//! The checksum that a client gives for its bytes.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::Invalid;

/// A SHA-256, in the base64 that S3's headers have: 32 bytes, 44 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256Checksum(String);

impl Sha256Checksum {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match BASE64_STANDARD.decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.to_owned())),
            Ok(bytes) => Err(Invalid::new(
                "not-a-checksum",
                format!(
                    "must be the base64 of 32 bytes; it is that of {}",
                    bytes.len()
                ),
            )),
            Err(_) => Err(Invalid::new(
                "not-a-checksum",
                "must be the base64 of 32 bytes, with padding",
            )),
        }
    }

    pub fn as_base64(&self) -> &str {
        &self.0
    }
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
}
