//! The content type of an upload: a media type that can be signed and sent as a header.

mod harmless;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::harmless::is_harmless;
use super::Invalid;
use crate::s3;

/// A media type that browsers and policies read alike, kept as it was written: the signature covers
/// these bytes, and the client must send the same ones.
///
/// - Type and subtype are tokens, and none of them is a wildcard. Parameters may be whatever a
///   [browser](https://mimesniff.spec.whatwg.org/#parsing-a-mime-type) ignores or reads:
///   `video/webm;codecs=vp8,opus` is what `MediaRecorder` sends.
/// - Printable ASCII alone, so it cannot end a header or begin another.
/// - No space that signing would fold: none at the ends, no two in a row.
/// - At most 255 characters, as two of the longest names have.
/// - No `/` after a comma: browsers split a header at commas and take the last piece that is a
///   type.
// Only what we sealed is deserialized, so it is not parsed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentType(String);

impl ContentType {
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        check(&text)?;
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
    /// of the host that serves it. This is assumed of every type that is not known to be harmless.
    ///
    /// HTML, XML and scripts have many names, and some types make a browser
    /// [guess](https://mimesniff.spec.whatwg.org/#mime-type-sniffing-algorithm), so a list of
    /// dangerous types is never complete.
    pub fn is_active(&self) -> bool {
        !is_harmless(&self.essence().to_ascii_lowercase())
    }
}

fn check(text: &str) -> Result<(), Invalid> {
    /// The longest name of a type or a subtype
    /// ([RFC 6838](https://www.rfc-editor.org/rfc/rfc6838#section-4.2)).
    const MAX_NAME_BYTES: usize = 127;
    const MAX_BYTES: usize = 2 * MAX_NAME_BYTES + 1;
    let refused = |why: &'static str| Err(Invalid::new("not-a-media-type", why));
    if text.len() > MAX_BYTES {
        let why = format!("must not be longer than {MAX_BYTES} characters");
        return Err(Invalid::new("length", why));
    }
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        let why = format!(
            "must be printable ASCII; it contains U+{:04X}",
            u32::from(c)
        );
        return Err(Invalid::new("not-a-media-type", why));
    }
    if text.starts_with(' ') || text.ends_with(' ') || s3::has_two_spaces(text) {
        return refused("must not have spaces at its ends or several in a row");
    }
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let names = essence.split_once('/');
    let is_name = |name: &str| {
        (1..=MAX_NAME_BYTES).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    if !names.is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype)) {
        return refused("must be a media type such as `image/jpeg`");
    }
    if essence.contains('*') {
        return refused("must be one media type, not a range of them");
    }
    let after_comma = text.split_once(',').map(|(_, rest)| rest);
    if after_comma.is_some_and(|rest| rest.contains('/')) {
        return refused("must be one media type, not a list of them");
    }
    Ok(())
}

/// Some content types: one (`image/png`), those of one kind (`image/*`), or all (`*/*`).
/// Parameters do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ContentTypeRange(String);

impl ContentTypeRange {
    /// # Errors
    ///
    /// What is wrong with the text. It completes a sentence that begins with the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let stem = text.strip_suffix("/*").unwrap_or(text);
        let is_all = text == "*/*";
        let is_kind = stem != text && ContentType::parse(format!("{stem}/x")).is_ok();
        let is_one = ContentType::parse(text).is_ok();
        if text.contains(';') {
            return Err("must not have parameters: only type and subtype are compared".into());
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

impl TryFrom<String> for ContentTypeRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for ContentTypeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After the test cases that the Web Platform Tests have for
    /// [parsing a MIME type](https://mimesniff.spec.whatwg.org/#parsing-a-mime-type): what browsers
    /// read, and whether we accept it. What we refuse is not safe in a signed header.
    #[test]
    fn types_are_accepted_as_leniently_as_browsers_read_them() {
        for (text, essence) in [
            ("text/html;charset=gbk", "text/html"),
            ("TEXT/HTML;CHARSET=GBK", "TEXT/HTML"),
            ("text/html;charset=gbk(", "text/html"),
            ("text/html;x=(;charset=gbk", "text/html"),
            ("text/html;charset=gbk;charset=windows-1255", "text/html"),
            ("text/html;charset=();charset=GBK", "text/html"),
            ("text/html;charset =gbk", "text/html"),
            ("text/html ;charset=gbk", "text/html"),
            ("text/html; charset=gbk", "text/html"),
            ("text/html;charset= gbk", "text/html"),
            ("text/html;charset= \"gbk\"", "text/html"),
            ("text/html;charset='gbk'", "text/html"),
            ("text/html;test;charset=gbk", "text/html"),
            ("text/html;test=;charset=gbk", "text/html"),
            ("text/html;';charset=gbk", "text/html"),
            ("text/html;\";charset=gbk", "text/html"),
            ("text/html ; ; charset=gbk", "text/html"),
            ("text/html;;;;charset=gbk", "text/html"),
            ("text/html;charset=\"gbk\"", "text/html"),
            ("text/html;charset=\"gbk", "text/html"),
            ("text/html;charset=gbk\"", "text/html"),
            ("text/html;charset=\"\\ gbk\"", "text/html"),
            ("text/html;charset=\"gbk\"x", "text/html"),
            ("x/x;\"\";x=x", "x/x"),
            ("text/html;", "text/html"),
            ("x/x;x=\"\"", "x/x"),
            ("!#$%&'+-.^_`|~/x;!#$%&'*+-.^_`|~=x", "!#$%&'+-.^_`|~/x"),
            ("x/x;test", "x/x"),
            ("x/x;test=\"", "x/x"),
            ("x/x;bonus=width=1", "x/x"),
            ("video/webm;codecs=vp8,opus", "video/webm"),
            (
                "video/x-matroska;codecs=avc1.64001F,opus",
                "video/x-matroska",
            ),
            ("audio/amr-wb+", "audio/amr-wb+"),
            ("text/x-c++", "text/x-c++"),
            ("application/x;a=\"b,c\"", "application/x"),
            ("image/jpeg; charset", "image/jpeg"),
            ("image/svg+xml", "image/svg+xml"),
            ("application/x; name=\"a; b\"", "application/x"),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
        ] {
            let content_type = ContentType::parse(text).expect(text);
            assert_eq!(content_type.as_str(), text);
            assert_eq!(content_type.essence(), essence);
        }
        for text in [
            "",
            "/",
            "bogus",
            "bogus/",
            "bogus/ ",
            "bogus/bogus/;",
            "</>",
            "(/)",
            "ÿ/ÿ",
            "/html",
            "text(html",
            "text/(html",
            "text/html(;doesnot=matter",
            "text html/x",
            "text/ html",
            "{/}",
            "\"/\"",
            "?/?",
            "@/@",
            "a,b/c",
            "image/png,text/html",
            "image/png;a=b,text/html",
            "image/png;a=\",text/html",
            "image/png;a='b,text/html",
            "image/png;a=x,b;c=/",
            "image/",
            "image/*",
            "*/*",
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
    fn registered_types_are_accepted_and_the_dangerous_ones_are_active() {
        let data = include_str!("../../tests/data/media-types.json");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let types = data["types"].as_array().unwrap();
        assert_eq!(types.len(), 411);
        for text in types {
            let text = text.as_str().unwrap();
            let is_active = ContentType::parse(text).unwrap().is_active();
            let is_markup = ["xml", "html", "script"].iter().any(|it| text.contains(it))
                && !text.contains("openxmlformats");
            assert!(is_active || !is_markup, "{text}");
        }
    }

    #[test]
    fn ranges_match_whatever_the_case_and_the_parameters_are() {
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
            "application/x-unknown-content-type",
            "unknown/unknown",
            "message/rfc822",
            "text/css",
            "application/x-of-my-own",
            "image/svg",
            "a/b",
        ] {
            assert!(is_active(text), "{text}");
        }
        for text in [
            "image/png",
            "text/plain",
            "application/pdf",
            "application/json",
            "application/octet-stream",
            "image/x-of-my-own",
            "video/webm;codecs=vp8,opus",
            "audio/mpeg",
            "font/woff2",
            "model/gltf-binary",
            "text/csv",
            "application/zip",
            "application/vnd.ms-excel.sheet.macroenabled.12",
            "text/plain; a=\"text/html\"",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ] {
            assert!(!is_active(text), "{text}");
        }
    }
}
