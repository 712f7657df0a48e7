//! The content type of an upload: a media type that can be signed and sent as a header.

use mediatype::MediaType;

use super::Invalid;

/// A media type as in [RFC 9110 §8.3.1](https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1), kept
/// as it was written: the signature covers these bytes, and the client must send the same ones.
///
/// - Printable ASCII alone, so it cannot end a header or begin another.
/// - No space that signing would fold: none at the ends, no two in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType(String);

impl ContentType {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: String| Invalid::new("not-a-media-type", why);
        if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
            return Err(invalid(format!(
                "must be printable ASCII; it contains U+{:04X}",
                u32::from(c)
            )));
        }
        if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
            return Err(invalid(
                "must not have spaces at its ends or several in a row".into(),
            ));
        }
        let media_type = MediaType::parse(text)
            .map_err(|_| invalid("must be a media type such as `image/jpeg`".into()))?;
        if media_type.ty.as_str().contains('*') || media_type.subty.as_str().contains('*') {
            return Err(invalid(
                "must be one media type, not a range of them".into(),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_kept_as_written() {
        for text in [
            "image/jpeg",
            "image/svg+xml",
            "Text/Plain; Charset=UTF-8",
            "text/plain;charset=utf-8",
            r#"application/x; name="a; b""#,
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ] {
            assert_eq!(ContentType::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        for text in [
            "",
            "image",
            "image/",
            "/jpeg",
            "image/*",
            "*/*",
            "image jpeg",
            "image/jpeg; charset",
            "image/jpeg, image/png",
            " image/jpeg",
            "image/jpeg ",
            "a/b; c=\"d  e\"",
            "image/jpeg\r\nx-amz-acl: public-read",
            "image/jpeg\n",
            "image/jpeg\0",
            "image/jpég",
            "image/jpeg; a=\"é\"",
        ] {
            let error = ContentType::parse(text).expect_err(text);
            assert_eq!(error.code, "not-a-media-type");
        }
    }
}
