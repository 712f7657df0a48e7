//! Whether a file's first bytes contradict its content type. Pure.
//!
//! [`infer`] knows some hundred formats by their signatures, and HTML and XML as browsers
//! [sniff](https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type) them. A file is
//! refused only where its bytes are surely not what its type says: text has no signature, containers
//! such as zip and MP4 hold many types, and of most types nothing is known.

use infer::MatcherType;

use super::{ContentType, Invalid};

/// The number of bytes that are compared.
pub(super) const HEAD_BYTES: usize = 2048;

/// Image types of which every file begins with the signature that `infer` looks for.
const SIGNED: [&str; 5] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/bmp",
];

impl ContentType {
    /// Why the first bytes of a file contradict it.
    pub(super) fn check(&self, head: &[u8]) -> Result<(), Invalid> {
        let essence = self.essence().to_ascii_lowercase();
        let essence = match essence.as_str() {
            "image/jpg" | "image/pjpeg" => "image/jpeg",
            "image/x-png" => "image/png",
            "image/x-bmp" | "image/x-ms-bmp" => "image/bmp",
            other => other,
        };
        let found = markup(head).or_else(|| infer::get(head));
        let is_contradicted = match found {
            _ if SIGNED.contains(&essence) => !infer::is_mime(head, essence),
            Some(found) if found.mime_type() != essence => self.rules_out(essence, &found, head),
            _ => false,
        };
        if !is_contradicted {
            return Ok(());
        }
        let detail = match found {
            Some(found) => {
                let found = found.mime_type();
                format!("is {essence}, but the file begins like {found}")
            }
            None => format!("is {essence}, but the file does not begin like that"),
        };
        Err(Invalid::new("content-mismatch", detail))
    }

    /// Whether no file of this type can begin like one of the detected type.
    fn rules_out(&self, essence: &str, found: &infer::Type, head: &[u8]) -> bool {
        use MatcherType::{App, Audio, Font, Image, Text, Video};
        // `application/octet-stream` contradicts no bytes.
        let is_known = essence != "application/octet-stream" && infer::is_mime_supported(essence);
        let (kind, _) = essence.split_once('/').unwrap_or_default();
        match (kind, found.matcher_type()) {
            // Source code and the like may begin with any text. Plain text may not, because some
            // browsers and mail programs render what it looks like.
            ("text", Text) => essence == "text/plain",
            // Some signatures are two letters, and a text may begin with them, too.
            ("text", _) => head.contains(&0),
            ("image" | "audio" | "video" | "font", Text) => !self.is_active(),
            ("image", other) => other != Image,
            ("audio" | "video", other) => !matches!(other, Audio | Video),
            ("font", other) => other != Font,
            ("application", Text | Image | Audio | Video | Font | App) => is_known,
            _ => false,
        }
    }
}

/// Detects HTML, XML, SVG and scripts, in upper or lower case and after spaces or a byte order
/// mark.
fn markup(head: &[u8]) -> Option<infer::Type> {
    const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
    /// Beginnings that `infer` does not know: SVG without an XML declaration, comments, and
    /// declarations of all kinds.
    const OTHERS: [(&[u8], &[u8]); 4] = [
        (b"<svg", b"<?xml"),
        (b"<?", b"<?xml"),
        (b"<!--", b"<html>"),
        (b"<!doctype", b"<html>"),
    ];

    let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
    // `infer` recognises a tag only before a space or `>`.
    let space = |byte: u8| {
        if byte.is_ascii_whitespace() {
            b' '
        } else {
            byte
        }
    };
    let text: Vec<u8> = head.trim_ascii_start().iter().copied().map(space).collect();
    let begins_with = |tag: &[u8]| {
        let begin = text.get(..tag.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(tag))
    };
    let other = OTHERS.into_iter().find(|(tag, _)| begins_with(tag));
    let found = infer::get(other.map_or(&text, |(_, like)| like));
    found.filter(|found| found.matcher_type() == MatcherType::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0\0\x10JFIF\0";
    const GIF: &[u8] = b"GIF89a\x01\0\x01\0";
    const WEBP: &[u8] = b"RIFF\x24\0\0\0WEBPVP8 ";
    const BMP: &[u8] = b"BM\x46\0\0\0\0\0\0\0";
    const PDF: &[u8] = b"%PDF-1.7\n%\xE2\xE3\xCF\xD3";
    const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0";
    const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0";
    const MP3: &[u8] = b"ID3\x04\0\0\0\0\0\0";
    const MP4: &[u8] = b"\0\0\0\x14ftypisom\0\0\x02\0isom";
    const MOV: &[u8] = b"\0\0\0\x14ftypqt  \0\0\x02\0qt  ";
    const OGG: &[u8] = b"OggS\0\x02\0\0\0\0";
    const NOTHING_KNOWN: &[u8] = b"\x01\x07\x13\x55\0\xFE";

    /// Some program reads each of these as HTML, XML, SVG or a script.
    const MARKUP: [&[u8]; 18] = [
        b"<!DOCTYPE html><title>x</title>",
        b"<!doctype\nhtml>",
        b"<html>",
        b"<HTML\nlang=en>",
        b" \r\n\t<script>alert(1)</script>",
        b"<script\tsrc=x>",
        b"\xEF\xBB\xBF<html>",
        b"\xEF\xBB\xBF \n<svg onload=alert(1)>",
        b"<!-- x --><script>",
        b"<!--x--><script>",
        b"<iframe src=x>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<SVG\nonload=alert(1)>",
        b"<?xml version='1.0'?><svg/>",
        b"<?xml-stylesheet href='x'?>",
        b"<?php system('id');",
        b"#!/bin/sh\nid",
        b"#! /usr/bin/env python3",
    ];

    fn check(content_type: &str, head: &[u8]) -> Result<(), Invalid> {
        ContentType::parse(content_type).unwrap().check(head)
    }

    #[track_caller]
    fn fits(content_type: &str, head: &[u8]) {
        let head_text = head.escape_ascii();
        assert_eq!(check(content_type, head), Ok(()), "{head_text}");
    }

    #[track_caller]
    fn contradicts(content_type: &str, head: &[u8]) {
        let head_text = head.escape_ascii();
        let invalid = check(content_type, head).expect_err(&format!("{content_type}: {head_text}"));
        assert_eq!(invalid.code, "content-mismatch");
    }

    #[test]
    fn files_that_are_what_they_say_are_accepted() {
        for (content_type, head) in [
            ("image/png", PNG),
            ("IMAGE/PNG; x=y", PNG),
            ("image/jpeg", JPEG),
            ("image/jpg", JPEG),
            ("image/pjpeg", JPEG),
            ("image/gif", GIF),
            ("image/webp", WEBP),
            ("image/bmp", BMP),
            ("application/pdf", PDF),
            ("application/zip", ZIP),
            ("audio/mpeg", MP3),
            ("video/mp4", MP4),
            ("video/quicktime", MOV),
        ] {
            fits(content_type, head);
        }
        for markup in MARKUP {
            for content_type in [
                "text/html",
                "image/svg+xml",
                "application/xml",
                "text/javascript",
            ] {
                fits(content_type, markup);
            }
        }
    }

    #[test]
    fn what_is_disguised_as_a_picture_a_film_or_a_document_is_found() {
        for content_type in [
            "image/jpeg",
            "image/png",
            "image/webp",
            "image/x-of-my-own",
            "image/avif",
            "video/mp4",
            "audio/mpeg",
            "font/woff2",
            "application/pdf",
            "application/zip",
        ] {
            for markup in MARKUP {
                contradicts(content_type, markup);
            }
            contradicts(content_type, EXE);
        }
        for head in [
            PDF,
            ZIP,
            MP4,
            GIF,
            NOTHING_KNOWN,
            b"alert(1)",
            b"x = '\x89PNG'",
            b"",
        ] {
            contradicts("image/png", head);
        }
        for head in [PNG, PDF, ZIP] {
            contradicts("video/mp4", head);
            contradicts("audio/x-of-my-own", head);
        }
        for head in [PNG, MP3, MP4] {
            contradicts("application/pdf", head);
        }
        assert_eq!(
            check("image/jpeg", b"<html>").unwrap_err().detail,
            "is image/jpeg, but the file begins like text/html"
        );
        assert_eq!(
            check("image/jpeg", b"x").unwrap_err().detail,
            "is image/jpeg, but the file does not begin like that"
        );
    }

    #[test]
    fn plain_text_is_neither_markup_nor_a_script_nor_binary() {
        for markup in MARKUP {
            contradicts("text/plain", markup);
            contradicts("Text/Plain; charset=utf-8", markup);
        }
        for head in [PNG, JPEG, EXE, ZIP, MP4] {
            contradicts("text/plain", head);
            contradicts("text/csv", head);
        }
    }

    #[test]
    fn text_may_begin_like_another_format_by_chance() {
        let texts: [&[u8]; 14] = [
            b"",
            b"hello",
            b"BMW and others",
            b"MZ is how it begins",
            b"BC: before Christ",
            b"GIFTS",
            b"ID3 tags explained",
            b"%PDF is a signature",
            b"PK\nMZ",
            b"<3",
            b"< html is not a tag",
            b"a <script> in the middle",
            "한글".as_bytes(),
            b"\xFF\xFEh\0i\0", // UTF-16
        ];
        for text in texts {
            for content_type in ["text/plain", "text/csv", "text/markdown"] {
                fits(content_type, text);
            }
        }
        // Markdown holds HTML, and scripts begin with `#!`.
        for content_type in ["text/markdown", "text/x-python", "text/css"] {
            for markup in MARKUP {
                fits(content_type, markup);
            }
        }
    }

    #[test]
    fn unknown_types_are_accepted() {
        for content_type in [
            "application/octet-stream",
            "application/json",
            "application/x-of-my-own",
            "application/x-sh",
            "model/gltf-binary",
            "chemical/x-pdb",
        ] {
            for head in MARKUP.into_iter().chain([PNG, ZIP, EXE, NOTHING_KNOWN]) {
                fits(content_type, head);
            }
        }
        for content_type in [
            "image/heic",
            "image/x-nikon-nef",
            "video/mp2t",
            "audio/aac",
            "font/woff2",
        ] {
            fits(content_type, NOTHING_KNOWN);
        }
    }

    #[test]
    fn containers_hold_many_types() {
        for (content_type, head) in [
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                ZIP,
            ),
            ("application/vnd.oasis.opendocument.text", ZIP),
            ("application/epub+zip", ZIP),
            ("application/java-archive", ZIP),
            ("audio/mp4", MP4),
            ("video/quicktime", MP4),
            ("video/mp4", MOV),
            ("video/ogg", OGG),
            ("audio/ogg", OGG),
            ("video/x-matroska", b"\x1a\x45\xdf\xa3"),
        ] {
            fits(content_type, head);
        }
    }
}
