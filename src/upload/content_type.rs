//! The content type of an upload: a media type that can be signed and sent as a header.

use std::fmt;

use mediatype::MediaType;

use super::Invalid;
use crate::s3;

/// A media type as in [RFC 9110 §8.3.1](https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1), kept
/// as it was written: the signature covers these bytes, and the client must send the same ones.
///
/// - Printable ASCII alone, so it cannot end a header or begin another.
/// - No space that signing would fold: none at the ends, no two in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType(String);

impl ContentType {
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if !is_plain(&text) {
            check(&text)?;
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Type and subtype, without parameters. Case does not count.
    pub(super) fn essence(&self) -> &str {
        let essence = self.0.split(';').next().unwrap_or_default();
        essence.trim_end()
    }

    /// Whether a browser that opens an upload of this type may run scripts of it, with the rights
    /// of the host that serves it.
    ///
    /// HTML, XML, SVG and scripts, under their
    /// [aliases](https://mimesniff.spec.whatwg.org/#javascript-mime-type), and the types that make
    /// a browser [guess](https://mimesniff.spec.whatwg.org/#mime-type-sniffing-algorithm).
    pub fn is_active(&self) -> bool {
        let essence = self.essence().to_ascii_lowercase();
        let (_, subtype) = essence.split_once('/').unwrap_or_default();
        subtype.ends_with("+xml")
            || subtype.contains("html")
            || subtype.contains("javascript")
            || subtype.contains("ecmascript")
            || matches!(
                essence.as_str(),
                "text/xml"
                    | "application/xml"
                    | "text/xsl"
                    | "application/xml-dtd"
                    | "application/xml-external-parsed-entity"
                    | "text/xml-external-parsed-entity"
                    | "text/jscript"
                    | "text/livescript"
                    | "text/vbscript"
                    | "multipart/x-mixed-replace"
                    | "multipart/related"
                    | "message/rfc822"
                    | "unknown/unknown"
                    | "application/unknown"
            )
    }
}

fn check(text: &str) -> Result<(), Invalid> {
    let invalid = |why: String| Invalid::new("not-a-media-type", why);
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(invalid(format!(
            "must be printable ASCII; it contains U+{:04X}",
            u32::from(c)
        )));
    }
    if text.starts_with(' ') || text.ends_with(' ') || s3::has_two_spaces(text) {
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
    Ok(())
}

/// Whether it is seen at a glance that [`check`] has nothing against a text, as of nearly all: a type and a
/// subtype of letters, digits, `-` and `.` alone.
fn is_plain(text: &str) -> bool {
    let is_name = |name: &[u8]| {
        name.first().is_some_and(u8::is_ascii_alphanumeric)
            && name.len() <= 127
            && name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    let text = text.as_bytes();
    let slash = text.iter().position(|b| *b == b'/');
    slash.is_some_and(|slash| is_name(&text[..slash]) && is_name(&text[slash + 1..]))
}

/// Some content types: one (`image/png`), those of one kind (`image/*`), or all (`*/*`).
/// Parameters do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentTypeRange(String);

impl ContentTypeRange {
    /// # Errors
    ///
    /// Says what is wrong with the text, in words that follow on it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let stem = text.strip_suffix("/*").unwrap_or(text);
        let is_all = text == "*/*";
        let is_kind = stem != text && ContentType::parse(format!("{stem}/x")).is_ok();
        let is_one = ContentType::parse(text).is_ok();
        if text.contains(';') {
            return Err("must not have parameters: they do not count".into());
        }
        if is_all || is_kind || is_one {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("must be a media type such as `image/png`, or `image/*`, or `*/*`".into())
        }
    }

    pub(super) fn contains(&self, content_type: &ContentType) -> bool {
        let essence = content_type.essence();
        match self.0.strip_suffix("/*") {
            Some("*") => true,
            Some(kind) => {
                let kind_of_it = essence.split('/').next().unwrap_or_default();
                kind_of_it.eq_ignore_ascii_case(kind)
            }
            None => essence.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl fmt::Display for ContentTypeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn what_is_seen_at_a_glance_is_a_media_type_at_a_closer_look(
            text in "[a-zA-Z0-9.+/*-]{0,8}|[a-z0-9.+-]{1,130}/[a-zA-Z0-9.+-]{1,130}"
        ) {
            if is_plain(&text) {
                prop_assert_eq!(check(&text), Ok(()));
            }
        }
    }

    #[test]
    fn most_media_types_are_seen_at_a_glance() {
        let long = format!("a/{}", "b".repeat(127));
        for text in [
            "image/jpeg",
            "text/plain",
            "application/vnd.ms-excel",
            &long,
        ] {
            assert!(is_plain(text), "{text}");
        }
        for text in [
            "", "image", "image/", "/jpeg", "image/*", "a/b/c", "a/b; c=d", "a/.b", "a /b",
        ] {
            assert!(!is_plain(text), "{text}");
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

    #[test]
    fn ranges_hold_what_they_name_whatever_its_case_and_parameters() {
        let holds = |range: &str, text: &str| {
            let range = ContentTypeRange::parse(range).unwrap();
            range.contains(&ContentType::parse(text).unwrap())
        };
        assert!(holds("*/*", "a/b"));
        assert!(holds("image/*", "image/png"));
        assert!(holds("image/*", "IMAGE/svg+xml"));
        assert!(holds("Image/PNG", "image/png"));
        assert!(holds("text/plain", "text/plain ; charset=utf-8"));
        assert!(!holds("image/*", "imagex/png"));
        assert!(!holds("image/*", "text/image"));
        assert!(!holds("image/png", "image/png2"));
        assert!(!holds("image/png", "image/x; a=\"image/png\""));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "", "*", "image", "image/", "*/png", "image/p*", "a/b;c=d", "a/*;c=d", " a/b", "**/*",
        ] {
            assert!(ContentTypeRange::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn active_types_are_known_by_all_their_names() {
        let is_active = |text: &str| ContentType::parse(text).unwrap().is_active();
        for text in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "text/html ;x=y",
            "application/xhtml+xml",
            "image/svg+xml",
            "Image/SVG+XML;charset=utf-8",
            "text/xml",
            "application/xml",
            "application/rss+xml",
            "application/mathml+xml",
            "text/xsl",
            "text/javascript",
            "application/javascript",
            "application/x-javascript",
            "text/javascript1.5",
            "application/ecmascript",
            "text/x-ecmascript",
            "text/jscript",
            "text/livescript",
            "multipart/x-mixed-replace; boundary=a",
            "application/unknown",
            "unknown/unknown",
        ] {
            assert!(is_active(text), "{text}");
        }
        for text in [
            "image/png",
            "text/plain",
            "application/pdf",
            "application/json",
            "application/octet-stream",
            "text/plain; a=\"text/html\"",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ] {
            assert!(!is_active(text), "{text}");
        }
    }
}
