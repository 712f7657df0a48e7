//! Whatever the name of a file with active content is: its header is one line of ASCII, makes a download, and
//! contains the name.
//!
//! The input is the name.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use presignd::upload::{Caller, ContentType, Filename, UploadService};
use presignd_fuzz::{Place, ask, block_on, bucket, file, service};

static SERVICE: LazyLock<UploadService> =
    LazyLock::new(|| service(bucket(Place::Aws, None), "[policies.default]"));

fuzz_target!(|name: &str| {
    if let Ok(filename) = Filename::parse(name) {
        let again = Filename::parse(filename.as_str()).expect("a name");
        assert_eq!(again, filename);
        check(filename);
    }
});

fn check(filename: Filename) {
    let content_type = ContentType::parse("text/html").expect("a type");
    let file = file(filename, content_type, "default");
    let grant = block_on(SERVICE.presign_put(ask(&Caller::anonymous(), &file)));
    let headers = grant.expect("a grant").request.headers;
    let (_, header) = headers
        .iter()
        .find(|(name, _)| name == "content-disposition")
        .expect("a disposition");
    assert!(
        header.bytes().all(|b| (b' '..=b'~').contains(&b)),
        "{header}"
    );
    assert_eq!(
        attachment(header).as_deref(),
        Some(file.filename.as_str()),
        "{header}"
    );
}

/// The name in a header that makes an attachment, by RFC 6266 §4.1 and RFC 8187 §3.2.1.
fn attachment(header: &str) -> Option<String> {
    let (kind, parameter) = header.split_once(';')?;
    let (name, value) = parameter.trim_start_matches(' ').split_once('=')?;
    if !kind.eq_ignore_ascii_case("attachment") || !name.eq_ignore_ascii_case("filename*") {
        return None;
    }
    let (charset, value) = value.split_once('\'')?;
    let (_language, value) = value.split_once('\'')?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let byte = digit()? * 16 + digit()?;
                bytes.push(u8::try_from(byte).ok()?);
            }
            _ if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) => {
                bytes.push(byte)
            }
            _ => return None,
        }
    }
    charset
        .eq_ignore_ascii_case("utf-8")
        .then(|| String::from_utf8(bytes).ok())?
}
