//! Filenames: which ones make the trip to S3 and back, and look like what they are. Pure.

use std::borrow::Cow;

use super::Invalid;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, ExtendedPictographic, GeneralCategory,
    GeneralCategoryGroup, GraphemeExtend, JoiningType, NoncharacterCodePoint, VariationSelector,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// A filename that makes the trip to S3 and back byte for byte, and looks like what it is.
///
/// - Normalised to NFC, 1 to 255 bytes of UTF-8 (the limit of common file systems).
/// - One path segment: no `/`, no `\`, not `.` or `..`.
/// - No control characters, no noncharacters (XML cannot carry them, and S3 lists keys in XML).
/// - No invisible characters, save those that a script or an emoji needs to look right: variation
///   selectors after what they vary, and joiners between what they join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filename(String);

impl Filename {
    /// The longest name, in bytes of UTF-8 after normalisation.
    pub const MAX_BYTES: usize = 255;
    /// The longest extension, in bytes.
    pub const MAX_EXTENSION_BYTES: usize = 16;

    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let mut name = name.into();
        if !name.is_ascii() {
            let nfc = ComposingNormalizerBorrowed::new_nfc();
            if let Cow::Owned(normalized) = nfc.normalize(&name) {
                name = normalized;
            }
        }
        match name.as_str() {
            "" => return Err(Invalid::new("empty", "must not be empty")),
            "." | ".." => {
                return Err(Invalid::new("not-a-name", "must not be `.` or `..`"));
            }
            _ => {}
        }
        if name.len() > Self::MAX_BYTES {
            return Err(Invalid::new(
                "too-long",
                format!(
                    "must not be longer than {} bytes of UTF-8; it has {}",
                    Self::MAX_BYTES,
                    name.len()
                ),
            ));
        }
        for (at, c) in name.char_indices().filter(|&(_, c)| !is_plain(c)) {
            check_char(c, &name[..at], &name[at + c.len_utf8()..])?;
        }
        Ok(Self(name))
    }

    /// Like [`parse`](Self::parse), but of a name that is too long the end is kept, and with it the
    /// extension.
    pub fn parse_end(name: &str) -> Result<Self, Invalid> {
        let name = ComposingNormalizerBorrowed::new_nfc().normalize(name);
        let start = name.ceil_char_boundary(name.len().saturating_sub(Self::MAX_BYTES));
        // What was cut off may have been the base of what follows.
        let selectors = CodePointSetData::new::<VariationSelector>();
        let is_baseless = |c| matches!(c, '\u{200C}' | '\u{200D}') || selectors.contains(c);
        let end = &name[start..];
        Self::parse(if start == 0 {
            end
        } else {
            end.trim_start_matches(is_baseless)
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes after the last dot, in lower case, if it looks like an extension: 1 to 16 ASCII
    /// letters and digits.
    pub fn extension(&self) -> Option<Cow<'_, str>> {
        let (stem, extension) = self.0.rsplit_once('.')?;
        let is_extension = !stem.is_empty()
            && (1..=Self::MAX_EXTENSION_BYTES).contains(&extension.len())
            && extension.bytes().all(|b| b.is_ascii_alphanumeric());
        is_extension.then(|| {
            if extension.bytes().any(|b| b.is_ascii_uppercase()) {
                Cow::Owned(extension.to_ascii_lowercase())
            } else {
                Cow::Borrowed(extension)
            }
        })
    }
}

/// Whether a character may be in a name, whatever stands beside it, without a look into Unicode's tables.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && c != '/' && c != '\\'
}

/// Refuses a character that may not be in a name, given what comes before and after it.
pub(super) fn check_char(c: char, before: &str, after: &str) -> Result<(), Invalid> {
    if is_plain(c) {
        return Ok(());
    }
    if c == '/' || c == '\\' {
        return Err(Invalid::new(
            "path-separator",
            format!("must not contain `{c}`"),
        ));
    }
    let refuse = |code, what| {
        let detail = format!("must not contain U+{:04X}, {what}", u32::from(c));
        Err(Invalid::new(code, detail))
    };
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    if category == GeneralCategory::Control {
        return refuse("control-character", "a control character");
    }
    if CodePointSetData::new::<NoncharacterCodePoint>().contains(c) {
        return refuse("noncharacter", "which is not a character");
    }
    let invisible = GeneralCategoryGroup::Format
        .union(GeneralCategoryGroup::LineSeparator)
        .union(GeneralCategoryGroup::ParagraphSeparator)
        .contains(category)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    if invisible && !varies(c, before) && !joins(c, before, after) {
        return refuse("invisible-character", "which is invisible");
    }
    Ok(())
}

/// Whether a variation selector stands after a character that it can vary: no space, no mark and no
/// other invisible one.
fn varies(c: char, before: &str) -> bool {
    CodePointSetData::new::<VariationSelector>().contains(c)
        && before.chars().next_back().is_some_and(|previous| {
            let category = CodePointMapData::<GeneralCategory>::new().get(previous);
            !previous.is_ascii_alphabetic()
                && (GeneralCategoryGroup::Letter
                    .union(GeneralCategoryGroup::Symbol)
                    .union(GeneralCategoryGroup::Number)
                    .union(GeneralCategoryGroup::Punctuation))
                .contains(category)
        })
}

/// Whether a joiner stands where a reader sees its effect: after a virama, between two letters of
/// a cursive script (both as in [RFC 5892, appendix A](https://www.rfc-editor.org/rfc/rfc5892#appendix-A),
/// a little wider), or inside an emoji ([UAX #29, rule GB11](https://www.unicode.org/reports/tr29/#GB11)).
fn joins(c: char, before: &str, after: &str) -> bool {
    const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
    const ZERO_WIDTH_JOINER: char = '\u{200D}';
    if c != ZERO_WIDTH_JOINER && c != ZERO_WIDTH_NON_JOINER {
        return false;
    }
    let (Some(previous), Some(next)) = (before.chars().next_back(), after.chars().next()) else {
        return false;
    };
    let after_virama = CodePointMapData::<CanonicalCombiningClass>::new().get(previous)
        == CanonicalCombiningClass::Virama;
    let cursive = |c: char| {
        c != ZERO_WIDTH_JOINER
            && CodePointMapData::<JoiningType>::new().get(c) != JoiningType::NonJoining
    };
    let in_emoji = || {
        let pictographic = CodePointSetData::new::<ExtendedPictographic>();
        let extends = CodePointSetData::new::<GraphemeExtend>();
        // Skin tones are pictographs that extend the one before them.
        let is_modifier = |c: char| matches!(c, '\u{1F3FB}'..='\u{1F3FF}');
        c == ZERO_WIDTH_JOINER
            && pictographic.contains(next)
            && before
                .chars()
                .rev()
                .find(|&c| !is_modifier(c) && !extends.contains(c))
                .is_some_and(|c| pictographic.contains(c))
    };
    after_virama || (cursive(previous) && cursive(next)) || in_emoji()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn accepted(name: &str) {
        assert_eq!(Filename::parse(name).unwrap().as_str(), name);
    }

    #[track_caller]
    fn refused(name: &str, code: &str) {
        assert_eq!(Filename::parse(name).unwrap_err().code, code, "{name:?}");
    }

    #[test]
    fn names_that_people_use_are_accepted() {
        accepted("example.jpg");
        accepted("보고서 최종.pdf");
        accepted("a+b%20&c#d?e'f\"g;h=i,j:k@l!$*()[]{}<>|^~`.txt");
        accepted("...");
        accepted(".env");
        accepted(" leading and trailing ");
        accepted("नमस्ते.txt");
    }

    #[test]
    fn emoji_are_accepted_with_their_joiners_and_skin_tones() {
        accepted("🎉.png");
        accepted("👨‍👩‍👧‍👦.png");
        accepted("👩🏽‍🚀.png");
        accepted("❤️‍🔥.png");
        accepted("🏳️‍🌈.png");
    }

    #[test]
    fn joiners_are_accepted_where_a_script_needs_them() {
        accepted("می\u{200C}خواهم.pdf"); // Persian
        accepted("ක්\u{200D}ෂ.txt"); // Sinhala, after a virama
    }

    #[test]
    fn a_selector_that_varies_nothing_is_refused() {
        accepted("1️⃣.png");
        accepted("葛\u{E0100}城.txt");
        refused("\u{FE0F}", "invisible-character");
        refused("a\u{FE0F}b.txt", "invisible-character");
        refused("🎉\u{FE0F}\u{FE0F}", "invisible-character");
    }

    #[test]
    fn a_joiner_that_joins_nothing_is_refused() {
        refused("a\u{200D}b", "invisible-character");
        refused("a\u{200C}b", "invisible-character");
        refused("\u{200D}🎉", "invisible-character");
        refused("🎉\u{200D}", "invisible-character");
        refused("م\u{200C}\u{200D}م", "invisible-character");
    }

    #[test]
    fn what_is_not_one_visible_path_segment_is_refused() {
        refused("", "empty");
        refused(".", "not-a-name");
        refused("..", "not-a-name");
        refused("a/b", "path-separator");
        refused("a\\b", "path-separator");
        refused("a\0b", "control-character");
        refused("a\r\nb", "control-character");
        refused("a\u{7F}b", "control-character");
        refused("a\u{85}b", "control-character");
        refused("a\u{FFFE}b", "noncharacter");
        refused("photo\u{202E}gpj.exe", "invisible-character");
        refused("a\u{200B}b", "invisible-character");
        refused("a\u{FEFF}b", "invisible-character");
        refused("a\u{AD}b", "invisible-character");
        refused("a\u{2028}b", "invisible-character");
        refused("a\u{3164}b", "invisible-character");
        refused("a\u{E0041}b", "invisible-character");
    }

    #[test]
    fn a_name_is_normalised_to_nfc() {
        let decomposed = "\u{1112}\u{1161}\u{11AB}.txt";
        assert_eq!(Filename::parse(decomposed).unwrap().as_str(), "한.txt");
    }

    #[test]
    fn the_limit_is_255_bytes_after_normalisation() {
        accepted(&"a".repeat(255));
        refused(&"a".repeat(256), "too-long");
        accepted(&"한".repeat(85));
        refused(&"한".repeat(86), "too-long");
        let decomposed = "\u{1112}\u{1161}\u{11AB}".repeat(85);
        assert_eq!(Filename::parse(&decomposed).unwrap().as_str().len(), 255);
    }

    #[test]
    fn of_a_name_that_is_too_long_the_end_can_be_kept() {
        let end = |name: &str| Filename::parse_end(name).unwrap().0;
        assert_eq!(end("a.txt"), "a.txt");
        assert_eq!(end(&("a".repeat(300) + ".txt")), "a".repeat(251) + ".txt");
        assert_eq!(end(&("한".repeat(100) + ".txt")), "한".repeat(83) + ".txt");
        let family = "👩‍👩‍👧".repeat(30) + ".png";
        assert!(end(&family).ends_with("👩‍👩‍👧.png"));
        assert!(Filename::parse_end(&("a/".repeat(300))).is_err());
    }

    #[test]
    fn an_extension_is_short_and_plain() {
        let extension = |name| {
            let name = Filename::parse(name).unwrap();
            name.extension().map(Cow::into_owned)
        };
        assert_eq!(extension("a.JPG").as_deref(), Some("jpg"));
        assert_eq!(extension("a.tar.gz").as_deref(), Some("gz"));
        for name in ["a", "a.", ".env", "a.b c", "a.한", "a.abcdefghijklmnopq"] {
            assert_eq!(extension(name), None, "{name}");
        }
    }
}
