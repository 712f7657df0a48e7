//! Reads the text of single elements, in the errors of stores.

use std::borrow::Cow;

/// The text of the first element of this name, as people read it: Garage writes `&apos;` for a
/// quotation mark.
pub(crate) fn text_of(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let unescaped = quick_xml::escape::unescape(text);
    Some(unescaped.map_or_else(|_| text.to_owned(), Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_without_the_escapes_of_xml() {
        let xml = "<Error><Message>Key &apos;a&apos; &lt; &#38;b</Message></Error>";
        assert_eq!(text_of(xml, "Message").unwrap(), "Key 'a' < &b");
        assert_eq!(text_of("<A>5 & 6</A>", "A").unwrap(), "5 & 6");
        assert_eq!(text_of("<A>5", "A"), None);
    }
}
