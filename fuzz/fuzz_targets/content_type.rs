//! Whatever type a client sends: an accepted type is a valid header, browsers and policies read it as the same
//! type, and no browser runs it where that is not allowed.
//!
//! The input is the type.

#![no_main]

use std::sync::LazyLock;

use axum::http::HeaderValue;
use libfuzzer_sys::fuzz_target;
use presignd::upload::{Caller, ContentType, Error, Filename, UploadService};
use presignd_fuzz::{Place, ask, block_on, bucket, file, service};

static SERVICE: LazyLock<UploadService> = LazyLock::new(|| {
    let policies = "
        [policies.rejecting]
        active_content = 'reject'
        [policies.attaching]
        [policies.images]
        content_types = ['image/*']
        active_content = 'allow'
        [policies.plain]
        content_types = ['text/plain']
        active_content = 'allow'
    ";
    service(bucket(Place::Aws, None), policies)
});

fuzz_target!(|text: &str| {
    let Ok(content_type) = ContentType::parse(text) else {
        return;
    };
    assert_eq!(content_type.as_str(), text);
    let header = HeaderValue::from_str(text).expect("a header");
    assert_eq!(header.to_str().expect("ASCII").trim(), text);

    let essence = essence(text).unwrap_or_else(|| panic!("no type to a browser: {text}"));
    let runs = runs(&essence);
    assert!(content_type.is_active() || !runs, "{text}");
    let is_active = content_type.is_active();

    let ask = |policy| {
        let name = Filename::parse("a").expect("a name");
        let file = file(name, content_type.clone(), policy);
        match block_on(SERVICE.presign_put(ask(&Caller::anonymous(), &file))) {
            Ok(grant) => Some(grant.request.headers),
            Err(Error::Refused(_)) => None,
            Err(error) => panic!("{error}: {text}"),
        }
    };
    assert_eq!(ask("rejecting").is_none(), is_active, "{text}");
    assert_eq!(
        ask("images").is_some(),
        essence.starts_with("image/"),
        "{text}"
    );
    assert_eq!(ask("plain").is_some(), essence == "text/plain", "{text}");
    let headers = ask("attaching").expect("a grant");
    let value = |name| {
        headers
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("content-type"), Some(text));
    assert_eq!(value("content-disposition").is_some(), is_active, "{text}");
});

/// The type that a browser reads from the header, by <https://fetch.spec.whatwg.org/#concept-header-extract-mime-type>:
/// the last of the types that are valid.
fn essence(header: &str) -> Option<String> {
    let types = split(header)
        .into_iter()
        .filter_map(|text| one_essence(&text));
    types.filter(|essence| essence != "*/*").last()
}

/// Splits at commas that are not in quotes: <https://fetch.spec.whatwg.org/#header-value-get-decode-and-split>.
fn split(header: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in header.chars() {
        if c == ',' && !is_quoted {
            values.push(String::new());
            continue;
        }
        if c == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        values.last_mut().expect("a value").push(c);
    }
    values
}

/// <https://mimesniff.spec.whatwg.org/#parsing-a-mime-type>
fn one_essence(text: &str) -> Option<String> {
    let is_space = |c| matches!(c, '\t' | '\n' | '\r' | ' ');
    let (kind, rest) = text.trim_matches(is_space).split_once('/')?;
    let subtype = rest.split(';').next()?.trim_end_matches(is_space);
    let is_token = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty()
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    (is_token(kind) && is_token(subtype)).then(|| format!("{kind}/{subtype}").to_ascii_lowercase())
}

/// Whether a browser runs scripts of a document of this type, or runs it as a script:
/// <https://html.spec.whatwg.org/#navigate-html>, <https://mimesniff.spec.whatwg.org/#javascript-mime-type>.
fn runs(essence: &str) -> bool {
    let (kind, subtype) = essence.split_once('/').expect("a type");
    let is_script = matches!(kind, "text" | "application")
        && matches!(
            subtype,
            "ecmascript" | "javascript" | "x-ecmascript" | "x-javascript"
        );
    let is_old_script = matches!(
        essence,
        "text/javascript1.0"
            | "text/javascript1.1"
            | "text/javascript1.2"
            | "text/javascript1.3"
            | "text/javascript1.4"
            | "text/javascript1.5"
            | "text/jscript"
            | "text/livescript"
    );
    let is_document = matches!(
        essence,
        "text/html" | "text/xml" | "application/xml" | "multipart/x-mixed-replace"
    );
    is_script || is_old_script || is_document || subtype.ends_with("+xml")
}
