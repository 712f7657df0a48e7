//! Text in JSON, for what is written so often that a look at each byte counts.

/// Appends what stands between the quotes of a string of JSON.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    // Without a way out of the loop, which so goes over many bytes at once.
    let is_plain = |b: u8| b >= b' ' && b != b'"' && b != b'\\';
    if text.bytes().fold(true, |all, b| all & is_plain(b)) {
        out.push_str(text);
    } else if let Ok(quoted) = serde_json::to_string(text) {
        out.push_str(&quoted[1..quoted.len() - 1]);
    }
}
