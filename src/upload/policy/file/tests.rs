use super::*;

const TEN_MINUTES: Duration = Duration::from_mins(10);

fn policy(fields: &str) -> Result<Policies, String> {
    let text = format!("[policies.default]\n{fields}");
    Policies::parse(&text, TEN_MINUTES)
}

#[test]
fn the_example_file_is_read() {
    let text = include_str!("../../../../policies.example.toml");
    let policies = Policies::parse(text, TEN_MINUTES).unwrap();
    assert!(policies.contains("default"));
    assert!(policies.0.len() > 2);
}

#[test]
fn the_example_file_shows_every_field() {
    let text = include_str!("../../../../policies.example.toml");
    let error = policy("nothing = 1").unwrap_err();
    let (_, fields) = error.split_once("expected one of ").unwrap();
    for field in fields.split(", ").map(|field| field.trim_matches('`')) {
        let shows = text.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line.strip_prefix(field)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        assert!(shows, "{field}");
    }
}

#[test]
fn what_no_store_can_enforce_is_refused_with_policy_field_and_reason() {
    for (fields, place, reason) in [
        ("key = 'a/{filename}'", "key", "overwrite"),
        ("key = '{uuid}/{nope}'", "key", "{nope}"),
        ("key = 7", "key", "must be text in quotes"),
        (
            "content_types = 'image/*'",
            "content_types",
            "must be a list, such as [\"image/*\"]",
        ),
        (
            "content_types = [7]",
            "content_types[0]",
            "must be text in quotes",
        ),
        (
            "allowed_metadata = '*'",
            "allowed_metadata",
            "must be a list",
        ),
        ("sniff = 'true'", "sniff", "must be true or false"),
        ("tagging = 'a'", "tagging", "must be a table"),
        ("content_types = []", "content_types", "empty"),
        (
            "content_types = ['image/png', 'image']",
            "content_types[1]",
            "media type",
        ),
        (
            "content_types = ['text/plain; charset=utf-8']",
            "content_types[0]",
            "parameters",
        ),
        ("max_size = '49 TiB'", "max_size", "5 GiB"),
        ("max_size = '0'", "max_size", "0"),
        ("max_size = 'big'", "max_size", "big"),
        ("max_size = '-5 MiB'", "max_size", "-5 MiB"),
        (
            "max_size = 5242880",
            "max_size",
            "must be text with a unit, such as \"5 MiB\"",
        ),
        (
            "expires_in = 600",
            "expires_in",
            "must be text with a unit, such as \"10m\"",
        ),
        (
            "max_size = '5 MiB'\nrequire_size = false",
            "require_size",
            "max_size",
        ),
        ("expires_in = '8d'", "expires_in", "7 days"),
        (
            "download = true\ndownload_expires_in = '8d'",
            "download_expires_in",
            "7 days",
        ),
        (
            "download_expires_in = '5m'",
            "download_expires_in",
            "download = true",
        ),
        ("expires_in = '0s'", "expires_in", "7 days"),
        ("expires_in = '1500ms'", "expires_in", "whole seconds"),
        ("expires_in = '10'", "expires_in", "duration"),
        ("active_content = 'maybe'", "active_content", "attachment"),
        ("storage_class = 'COLD'", "storage_class", "STANDARD"),
        (
            "server_side_encryption = 'rot13'",
            "server_side_encryption",
            "AES256",
        ),
        ("kms_key_id = 'x'", "kms_key_id", "aws:kms"),
        (
            "server_side_encryption = 'AES256'\nkms_key_id = 'x'",
            "kms_key_id",
            "aws:kms",
        ),
        ("acl = 'everyone'", "acl", "public-read"),
        (
            "cache_control = \"a\\nb\"",
            "cache_control",
            "control character",
        ),
        ("cache_control = 'é'", "cache_control", "ASCII"),
        ("cache_control = 'a  b'", "cache_control", "several spaces"),
        (
            &format!("cache_control = '{}'", "x".repeat(2049)),
            "cache_control",
            "2048 bytes",
        ),
        ("cache_control = '${filename}'", "cache_control", "form"),
        (
            "server_side_encryption = 'aws:kms'\nkms_key_id = 'a${filename}'",
            "kms_key_id",
            "form",
        ),
        ("metadata = { a = 'x${filename}' }", "metadata.a", "form"),
        ("tagging = { 'a&b' = 'c' }", "tagging", "a&b"),
        ("tagging = { 'aws:x' = 'c' }", "tagging", "aws:x"),
        (
            &format!("tagging = {{ a = '{}' }}", "x".repeat(257)),
            "tagging",
            "up to 256",
        ),
        ("metadata = { 'A' = 'b' }", "metadata.A", "lower-case"),
        ("metadata = { a = '' }", "metadata.a", "empty"),
        (
            "metadata = { a = '=?utf-8?q?=0D=0A?=' }",
            "metadata.a",
            "encoded word",
        ),
        ("allowed_metadata = ['A']", "allowed_metadata", "`A`"),
        (
            "allowed_metadata = ['scal-a']",
            "allowed_metadata",
            "stores act",
        ),
        (
            "metadata = { a-snowball = 'a' }",
            "metadata.a-snowball",
            "stores act",
        ),
        (
            "metadata = { a = 'b' }\nallowed_metadata = ['a']",
            "allowed_metadata",
            "itself",
        ),
        ("overwite = true", "overwite", "unknown field"),
    ] {
        let error = policy(fields).expect_err(fields);
        let place = format!("policies.default.{place} ");
        assert!(error.starts_with(&place), "{fields}: {error}");
        assert!(error.contains(reason), "{fields}: {error}");
        assert!(!error.contains('\n'), "{fields}: {error}");
    }
}

#[test]
fn a_policy_can_allow_what_s3_accepts_in_parts() {
    let largest = "max_size = '53687091200000 B'";
    let policies = policy(largest).unwrap();
    let default = policies
        .terms(None, &crate::upload::Caller::anonymous())
        .unwrap();
    assert_eq!(default.max_size(), 53_687_091_200_000);
    policy("max_size = '53687091200001 B'").unwrap_err();
}

#[test]
fn whatever_the_names_a_refusal_is_one_line() {
    for text in [
        "[policies.\"a\\nb\"]\nkey = '{'",
        "[policies.a]\n\"x\\ry\" = 1",
        "[policies.a]\nmetadata = { \"x\\u0085y\" = '1' }",
        "[policies.a]\nacl = \"\\u001b[2J\"",
    ] {
        let error = Policies::parse(text, TEN_MINUTES).unwrap_err();
        assert!(error.starts_with("policies.a"), "{error:?}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    for (text, line) in [
        ("[policies.a]\nkey = ", "line 2"),
        ("x = 1", "line 1"),
        ("", "line 1"),
    ] {
        let error = Policies::parse(text, TEN_MINUTES).unwrap_err();
        assert!(error.starts_with(line) && !error.contains('\n'), "{error}");
    }
    let error = Policies::parse("[policies]", TEN_MINUTES).unwrap_err();
    assert!(error.contains("at least one"), "{error}");
}

#[test]
fn the_tag_of_pending_uploads_has_a_reserved_name_and_counts_among_the_ten() {
    let tags = |count: usize| {
        let tags: Vec<String> = (0..count).map(|i| format!("t{i} = ''")).collect();
        format!("tagging = {{ {} }}", tags.join(", "))
    };
    let reserved = policy("tagging = { presignd = 'x' }").unwrap_err();
    assert!(reserved.contains("reserved"), "{reserved}");
    for (fields, is_ok) in [
        (tags(10), true),
        (tags(11), false),
        (format!("pending = true\n{}", tags(9)), true),
        (format!("pending = true\n{}", tags(10)), false),
    ] {
        assert_eq!(policy(&fields).is_ok(), is_ok, "{fields}");
    }
    assert!(policy(&tags(11)).unwrap_err().contains("10 tags"));
}
