//! Names that others choose and that become parts of keys.

use std::collections::BTreeMap;

use reqwest::Response;

use crate::helpers::{App, Grant};

/// Names that look like a path, a template, an encoding or another name.
pub(super) fn hostile() -> Vec<String> {
    let names = [
        "acme",
        "Acme",
        "../acme",
        "..",
        ".",
        "/",
        "//",
        "a/b",
        "/acme",
        "acme/",
        "a\\b",
        "a,b",
        "%2e%2e%2f",
        "..%2facme",
        "a\0b",
        "\0",
        "a\nb",
        "\u{7f}",
        "\u{202e}emca",
        "\u{2066}x\u{2069}",
        "\u{200b}",
        "é",
        "e\u{301}",
        "аcme",  // with a Cyrillic а
        "ａcme", // with a full-width a
        "ﬁ",
        "fi",
        " ",
        "acme ",
        "=2E",
        "{uuid}",
        "{vars.tenant}",
        "${filename}",
        "?x=1",
        "#",
        "=anonymous",
        "=sha256-",
        "🎉",
        &"x".repeat(2000),
        &"x".repeat(2001),
    ];
    names.map(str::to_owned).into()
}

/// Uploads a file under the grant for each name, and gives the keys with their names. Between `before` and
/// `after`, each key has one segment, which no other name has.
pub(super) async fn kept_apart(
    app: &App,
    names: Vec<String>,
    [before, after]: [&str; 2],
    ask: impl AsyncFn(&str) -> Response,
) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for name in names {
        let response = ask(&name).await;
        assert_eq!(response.status(), 201, "{name:?}");
        let grant: Grant = response.json().await.unwrap();
        let key = grant.key.clone();
        let uploaded = app.upload(&grant, name.clone()).await;
        assert_eq!(uploaded.status(), 200, "{name:?}");
        let (bytes, _) = app.stored(&key).await.expect(&name);
        assert_eq!(bytes, name.as_bytes());
        let segment = key
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after));
        let segment = segment.unwrap_or_else(|| panic!("{name:?} writes to {key}"));
        let is_one = !matches!(segment, "" | "." | "..") && !segment.contains('/');
        assert!(is_one && segment.is_ascii(), "{name:?} writes to {key}");
        assert!(segment.len() <= 128, "{name:?} writes to {key}");
        let other = keys.insert(key, name);
        assert_eq!(other, None, "two names share a place: {keys:?}");
    }
    keys
}
