//! The header `Content-Disposition`: whether a browser shows a file or saves it, and under which
//! name. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Filename;

/// What a browser does with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// Shows it.
    Inline,
    /// Saves it.
    #[default]
    Attachment,
}

impl Disposition {
    /// The value of the header, by [RFC 6266](https://www.rfc-editor.org/rfc/rfc6266#section-4.3)
    /// and [RFC 8187](https://www.rfc-editor.org/rfc/rfc8187#section-3.2.1).
    pub(super) fn header(self, filename: Option<&Filename>) -> String {
        /// Everything but RFC 8187's `attr-char`.
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'!')
            .remove(b'#')
            .remove(b'$')
            .remove(b'&')
            .remove(b'+')
            .remove(b'-')
            .remove(b'.')
            .remove(b'^')
            .remove(b'_')
            .remove(b'`')
            .remove(b'|')
            .remove(b'~');
        let kind = match self {
            Self::Inline => "inline",
            Self::Attachment => "attachment",
        };
        match filename {
            None => kind.to_owned(),
            Some(name) => {
                let name = utf8_percent_encode(name.as_str(), ENCODED);
                format!("{kind}; filename*=UTF-8''{name}")
            }
        }
    }
}
