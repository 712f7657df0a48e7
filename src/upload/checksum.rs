//! The checksum that a client gives for its bytes.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::Invalid;

/// A checksum of `BYTES` bytes, in the base64 that S3's headers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum<const BYTES: usize>(String);

/// 44 characters.
pub type Sha256Checksum = Checksum<32>;
/// A CRC-64/NVME, which S3 can compute for uploads in parts, too: 12 characters.
pub type Crc64NvmeChecksum = Checksum<8>;
/// Of the header `Content-MD5`: 24 characters.
pub type Md5Checksum = Checksum<16>;

impl<const BYTES: usize> Checksum<BYTES> {
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check(&text, BYTES).map(|()| Self(text))
    }

    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

/// Refuses what is not the base64 of `length` bytes.
fn check(text: &str, length: usize) -> Result<(), Invalid> {
    let is_hex = text.len() == 2 * length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let why = match BASE64_STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == length => return Ok(()),
        _ if is_hex => "; it looks like hexadecimal digits",
        Ok(bytes) => &format!("; it is that of {}", bytes.len()),
        Err(_) if text.contains(['-', '_']) => {
            "; it looks like base64url: write `+` for `-`, and `/` for `_`"
        }
        Err(_) if text.contains(char::is_whitespace) => ", without spaces and line breaks",
        Err(_) => ", with padding",
    };
    let detail = format!("must be the base64 of {length} bytes{why}");
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
    fn what_other_languages_write_is_recognised() {
        for (text, says) in [
            ("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=", "base64url"),
            (
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
                "line breaks",
            ),
            ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "padding"),
        ] {
            let invalid = Sha256Checksum::parse(text).unwrap_err();
            assert!(invalid.detail.contains(says), "{text}: {invalid:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_recognised() {
        for invalid in [
            Sha256Checksum::parse("0f".repeat(32)).unwrap_err(),
            Md5Checksum::parse("0F".repeat(16)).unwrap_err(),
            Crc64NvmeChecksum::parse("12".repeat(8)).unwrap_err(),
        ] {
            let detail = invalid.detail;
            assert!(
                detail.contains("base64") && detail.contains("hexadecimal"),
                "{detail}"
            );
        }
        let other = Sha256Checksum::parse("0g".repeat(32)).unwrap_err();
        assert!(!other.detail.contains("hexadecimal"), "{}", other.detail);
    }

    #[test]
    fn an_md5_has_16_bytes() {
        let text = "1B2M2Y8AsgTpgAmY7PhCfg==";
        assert_eq!(Md5Checksum::parse(text).unwrap().as_base64(), text);
        assert!(Md5Checksum::parse("1B2M2Y8AsgTpgAmY7PhCfg").is_err());
        assert!(Md5Checksum::parse("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").is_err());
    }

    #[test]
    fn a_crc64nvme_has_8_bytes() {
        let text = "rosUhgp5mIg=";
        assert_eq!(Crc64NvmeChecksum::parse(text).unwrap().as_base64(), text);
        assert!(Crc64NvmeChecksum::parse("rosUhgp5mIg").is_err());
        assert!(Crc64NvmeChecksum::parse("1B2M2Y8AsgTpgAmY7PhCfg==").is_err());
    }
}
