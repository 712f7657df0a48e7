//! Filenames: which ones survive the trip to S3 and back, and look like what they are.

mod characters;

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde::{Deserialize, Serialize};

pub(super) use self::characters::check_text;
use self::characters::{continues, is_plain, is_visible};
use super::Invalid;

/// A filename that survives the trip to S3 and back byte for byte, and looks like what it is.
///
/// - Normalised to NFC, 1 to 255 bytes of UTF-8 (the limit of common file systems). Longer names
///   lose the middle of their stem.
/// - One path segment: no `/`, no `\`, not `.` or `..`.
/// - No control characters, no noncharacters (XML cannot carry them, and S3 lists keys in XML), and
///   nothing that reorders the characters around it.
/// - No invisible characters but those that a script or an emoji needs to look right. Others, which
///   operating systems and chat programs put into names and which their owner cannot see, are
///   removed.
// Only what we sealed is deserialized, so it is not parsed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filename(String);

impl Filename {
    /// The longest name, in bytes of UTF-8 after normalisation.
    pub const MAX_BYTES: usize = 255;
    /// The longest name that is shortened, in bytes: far more than a file system allows. Cleaning
    /// looks at the characters around each character, so its time grows with the square of the
    /// length.
    pub const MAX_RAW_BYTES: usize = 4096;
    /// The longest extension, in bytes.
    pub const MAX_EXTENSION_BYTES: usize = 16;

    /// # Errors
    ///
    /// If the name has a character that no name may have, nothing visible, or far too many bytes.
    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        if name.len() > Self::MAX_RAW_BYTES {
            let detail = format!("must not be longer than {} bytes", Self::MAX_RAW_BYTES);
            return Err(Invalid::new("too-long", detail));
        }
        let name = if name.bytes().all(|byte| is_plain(byte.into())) {
            name
        } else {
            clean(name)?
        };
        let name = if name.len() > Self::MAX_BYTES {
            // A joiner may have lost what it joined.
            clean(shorten(&name))?
        } else {
            name
        };
        match name.as_str() {
            "" => Err(Invalid::new("empty", "must not be empty")),
            "." | ".." => Err(Invalid::new("not-a-name", "must not be `.` or `..`")),
            _ => Ok(Self(name)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes after the last dot, in lower case, if it looks like an extension: 1 to 16 ASCII
    /// letters and digits.
    pub fn extension(&self) -> Option<Cow<'_, str>> {
        let extension = &self.0[stem(&self.0).len()..].strip_prefix('.')?;
        Some(if extension.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(extension.to_ascii_lowercase())
        } else {
            Cow::Borrowed(extension)
        })
    }
}

/// The name without its extension and the dot before it.
fn stem(name: &str) -> &str {
    let Some((stem, extension)) = name.rsplit_once('.') else {
        return name;
    };
    let is_extension = !stem.is_empty()
        && (1..=Filename::MAX_EXTENSION_BYTES).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_extension { stem } else { name }
}

/// The name in NFC, without invisible characters.
fn clean(mut name: String) -> Result<String, Invalid> {
    /// Names that people have need three at most.
    const MAX_PASSES: usize = 8;
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    for _ in 0..MAX_PASSES {
        if let Cow::Owned(normalized) = nfc.normalize(&name) {
            name = normalized;
        }
        let mut clean = String::with_capacity(name.len());
        for (at, c) in name.char_indices() {
            // The text before the character is clean already: no joiner depends on what is removed.
            if is_visible(c, &clean, &name[at + c.len_utf8()..])? {
                clean.push(c);
            }
        }
        if clean == name {
            return Ok(name);
        }
        // New neighbours may compose, or no longer need the joiner between them.
        name = clean;
    }
    let detail = "has too many invisible characters; remove them";
    Err(Invalid::new("invisible-character", detail))
}

/// The name, shortened in the middle of its stem to the longest length. It is cut between two
/// characters as readers see them.
fn shorten(name: &str) -> String {
    const GAP: &str = "...";
    let stem = stem(name);
    let extension = &name[stem.len()..];
    let room = Filename::MAX_BYTES - GAP.len() - extension.len();
    let is_inside = |at: usize| {
        let (before, after) = stem.split_at(at);
        after
            .chars()
            .next()
            .is_some_and(|next| continues(before, next))
    };
    let mut head = stem.floor_char_boundary(room / 2);
    while is_inside(head) {
        head = stem.floor_char_boundary(head - 1);
    }
    let mut tail = stem.ceil_char_boundary(stem.len() - room / 2);
    while is_inside(tail) {
        tail = stem.ceil_char_boundary(tail + 1);
    }
    format!("{}{GAP}{}{extension}", &stem[..head], &stem[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn accepted(name: &str) {
        assert_eq!(Filename::parse(name).unwrap().as_str(), name);
    }

    #[track_caller]
    fn changed(name: &str, expected: &str) {
        assert_eq!(
            Filename::parse(name).unwrap().as_str(),
            expected,
            "{name:?}"
        );
    }

    #[track_caller]
    fn refused(name: &str, code: &str) {
        assert_eq!(Filename::parse(name).unwrap_err().code, code, "{name:?}");
    }

    #[test]
    fn no_name_takes_long_to_clean() {
        let begin = std::time::Instant::now();
        for unit in ["\u{E0067}", "\u{1F3F4}\u{E0067}", "👩\u{200D}", "\u{1F1E6}"] {
            let longest = unit.repeat(Filename::MAX_RAW_BYTES / unit.len());
            Filename::parse(longest).ok(); // Some of them have nothing visible.
            let invalid = Filename::parse(unit.repeat(500_000)).unwrap_err();
            assert_eq!(invalid.code, "too-long");
        }
        // Each of these separators would be visible beside the next one.
        let separators = "\u{180E}".repeat((Filename::MAX_RAW_BYTES - 4) / 3);
        for _ in 0..100 {
            changed(&format!("\u{1820}{separators}x"), "\u{1820}x");
        }
        // As often as a list of files can have it.
        let flag = format!(
            "\u{1F3F4}{}",
            "\u{E0067}".repeat(Filename::MAX_RAW_BYTES / 4 - 1)
        );
        for _ in 0..500 {
            changed(&flag, "\u{1F3F4}");
        }
        // Cleaning takes milliseconds, and would take hours without the limit.
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
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
    fn emoji_are_accepted_with_their_joiners_skin_tones_and_tags() {
        accepted("🎉.png");
        accepted("👨‍👩‍👧‍👦.png");
        accepted("👩🏽‍🚀.png");
        accepted("❤️‍🔥.png");
        accepted("🏳️‍🌈.png");
        accepted("1️⃣.png");
        for code in ["gbeng", "gbsct", "gbwls"] {
            let tags = code
                .chars()
                .map(|c| char::from_u32(u32::from(c) + 0xE0000).unwrap());
            let flag: String = ['\u{1F3F4}']
                .into_iter()
                .chain(tags)
                .chain(['\u{E007F}'])
                .collect();
            accepted(&format!("{flag}{flag}.png"));
            changed(&flag[..flag.len() - 4], "\u{1F3F4}");
            refused(&flag[4..], "empty");
        }
    }

    #[test]
    fn joiners_are_kept_where_a_script_needs_them() {
        for name in [
            "می\u{200C}خواهم.pdf",               // Persian
            "کتاب\u{200C} ها.pdf",               // before a space,
            "صفحه\u{200C}۱۲.pdf",                // a digit
            "نامه\u{200C}(۲).pdf",               // and a bracket
            "۱۴۰۲ ه\u{200D}.ش.pdf",              // the year of the Hijra
            "ක්\u{200D}ෂ.txt",                    // Sinhala, after a virama
            "\u{9B0}\u{200D}\u{9CD}\u{9AF}.txt", // Bengali RA + ZWJ + virama
            "\u{CB0}\u{200D}\u{CCD}\u{C95}.txt", // Kannada RA + ZWJ + virama
            "\u{1820}\u{180E}\u{1821}.txt",      // Mongolian vowel separator
            "\u{182A}\u{180B}.txt",              // Mongolian variation selector
            "葛\u{E0100}城.txt",
            "\u{115F}\u{1161}.txt", // an old Korean syllable without an initial
        ] {
            accepted(name);
        }
    }

    #[test]
    fn visible_format_characters_are_kept() {
        for c in [
            '\u{600}',
            '\u{605}',
            '\u{6DD}',
            '\u{70F}',
            '\u{890}',
            '\u{8E2}',
            '\u{110BD}',
        ] {
            accepted(&format!("a{c}1.txt"));
        }
    }

    #[test]
    fn what_nobody_sees_is_removed() {
        changed("Scherm\u{AD}afbeelding.png", "Schermafbeelding.png");
        changed("\u{200E}WhatsApp\u{200F} Image.jpg", "WhatsApp Image.jpg");
        changed("\u{FEFF}a.csv", "a.csv");
        changed("ភាសា\u{200B}ខ្មែរ.pdf", "ភាសាខ្មែរ.pdf");
        changed(
            "a\u{2060}b\u{34F}c\u{61C}d\u{180E}e\u{2063}f.txt",
            "abcdef.txt",
        );
        changed("a\u{200D}b\u{200C}c", "abc");
        changed("a\u{FE0F}b.txt", "ab.txt");
        changed("🎉\u{FE0F}\u{FE0F}\u{200D}", "🎉\u{FE0F}");
        changed("م\u{200C}\u{200D}م", "م\u{200D}م");
        changed("a\u{3164}b", "ab");
        changed("a\u{E0041}\u{E0042}b", "ab");
        changed("e\u{AD}\u{301}.txt", "é.txt");
        for nothing in ["\u{AD}", "\u{FEFF}\u{200B}", "\u{FE0F}", "\u{200D}"] {
            refused(nothing, "empty");
        }
        refused("\u{AD}.\u{200B}.", "not-a-name");
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
        for c in "\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}".chars()
        {
            refused(&format!("photo{c}gpj.exe"), "invisible-character");
        }
        refused("a\u{2028}b", "invisible-character");
        refused(
            &("a".repeat(300) + "/" + &"b".repeat(300)),
            "path-separator",
        );
    }

    #[test]
    fn a_name_is_normalised_to_nfc() {
        changed("\u{1112}\u{1161}\u{11AB}.txt", "한.txt");
    }

    #[test]
    fn a_name_that_is_too_long_loses_the_middle_of_its_stem() {
        accepted(&"a".repeat(255));
        accepted(&"한".repeat(85));
        let decomposed = "\u{1112}\u{1161}\u{11AB}".repeat(85);
        changed(&decomposed, &"한".repeat(85));
        changed(
            &format!("{}{}.txt", "a".repeat(200), "b".repeat(200)),
            &format!("{}...{}.txt", "a".repeat(124), "b".repeat(124)),
        );
        changed(
            &format!("{}.pdf", "报".repeat(86)),
            &format!("{}...{}.pdf", "报".repeat(41), "报".repeat(41)),
        );
        let long = "x".repeat(300);
        changed(
            &format!("a.{long}"),
            &format!("a.{}...{}", "x".repeat(124), "x".repeat(126)),
        );
        // Nothing that a reader sees as one is cut in two.
        for cluster in [
            "👩‍👩‍👧‍👦",
            "e\u{301}\u{302}",
            "🇰🇷",
            "👍🏽",
            "ක්\u{200D}ෂ",
            "क्ष",
            "1️⃣",
        ] {
            let nfc = Filename::parse(cluster).unwrap();
            // Wherever the limit falls.
            for offset in 0..8 {
                let name = format!("{}{}.png", "_".repeat(offset), cluster.repeat(100));
                let name = Filename::parse(name).unwrap();
                let name = name.as_str().replace("...", "").replace(".png", "");
                assert_eq!(name[offset..].replace(nfc.as_str(), ""), "", "{cluster}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_that_was_accepted_is_accepted_as_it_is(
            name in "(\\PC|[a\u{AD}\u{200B}-\u{200F}\u{301}\u{FE0F}م\u{9B0}\u{9CD}🎉.\u{E0067}]){1,90}",
        ) {
            if let Ok(once) = Filename::parse(name) {
                prop_assert!(once.as_str().len() <= Filename::MAX_BYTES);
                prop_assert_eq!(Filename::parse(once.as_str()).unwrap(), once);
            }
        }
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
