//! Characters: which ones a name may have, and which of the invisible ones change what a reader
//! sees.

use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, ExtendedPictographic, GeneralCategory,
    GeneralCategoryGroup, GraphemeExtend, JoiningType, NoncharacterCodePoint, VariationSelector,
};
use icu_properties::{CodePointMapData, CodePointSetData};

use crate::upload::Invalid;

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';
const BLACK_FLAG: char = '\u{1F3F4}';
const CANCEL_TAG: char = '\u{E007F}';

/// Whether a character may be in a name whatever its neighbours are. This needs no Unicode tables.
pub(super) fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && c != '/' && c != '\\'
}

/// Refuses a text that a name could not contain unchanged.
pub(in crate::upload) fn check_text(text: &str) -> Result<(), Invalid> {
    for (at, c) in text.char_indices() {
        if !is_visible(c, &text[..at], &text[at + c.len_utf8()..])? {
            return Err(refused(c, "invisible-character", "which is invisible"));
        }
    }
    Ok(())
}

fn refused(c: char, code: &'static str, what: &str) -> Invalid {
    let detail = format!("must not contain U+{:04X}, {what}", u32::from(c));
    Invalid::new(code, detail)
}

/// Whether a reader sees this character or what it does to its neighbours.
///
/// # Errors
///
/// If no name may have the character.
pub(super) fn is_visible(c: char, before: &str, after: &str) -> Result<bool, Invalid> {
    if is_plain(c) {
        return Ok(true);
    }
    if c == '/' || c == '\\' {
        let detail = format!("must not contain `{c}`");
        return Err(Invalid::new("path-separator", detail));
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    if category == GeneralCategory::Control {
        return Err(refused(c, "control-character", "a control character"));
    }
    if CodePointSetData::new::<NoncharacterCodePoint>().contains(c) {
        return Err(refused(c, "noncharacter", "which is not a character"));
    }
    // Embeddings, overrides and isolates make `gpj.exe` look like `exe.jpg`.
    if matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}') {
        let what = "which is invisible and reorders or breaks the text around it";
        return Err(refused(c, "invisible-character", what));
    }
    let is_invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || matches!(c, '\u{FFF9}'..='\u{FFFB}');
    let (previous, next) = (before.chars().next_back(), after.chars().next());
    Ok(!is_invisible
        || varies(c, previous)
        || joins(c, before, previous, next)
        || tags(c, before, after)
        || fills(c, previous, next)
        || (c == '\u{180E}'
            && [previous, next]
                .iter()
                .all(|it| it.is_some_and(is_mongolian))))
}

/// Whether `next` belongs to the character, as a reader sees it, that ends `before`.
pub(super) fn continues(before: &str, next: char) -> bool {
    let Some(previous) = before.chars().next_back() else {
        return false;
    };
    let extends = CodePointSetData::new::<GraphemeExtend>();
    let is_flag = |c: char| matches!(c, '\u{1F1E6}'..='\u{1F1FF}');
    let flags = before.chars().rev().take_while(|&c| is_flag(c)).count();
    extends.contains(next)
        || matches!(next, '\u{1F3FB}'..='\u{1F3FF}' | '\u{E0020}'..=CANCEL_TAG)
        || GeneralCategoryGroup::Mark.contains(CodePointMapData::<GeneralCategory>::new().get(next))
        || matches!(next, ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER)
        || matches!(previous, ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER)
        || is_virama(previous)
        || (is_flag(next) && flags % 2 == 1)
}

/// Whether a variation selector stands after a character that it can vary: not after a space, a
/// mark or an invisible character.
fn varies(c: char, previous: Option<char>) -> bool {
    CodePointSetData::new::<VariationSelector>().contains(c)
        && previous.is_some_and(|previous| {
            let category = CodePointMapData::<GeneralCategory>::new().get(previous);
            !previous.is_ascii_alphabetic()
                && (GeneralCategoryGroup::Letter
                    .union(GeneralCategoryGroup::Symbol)
                    .union(GeneralCategoryGroup::Number)
                    .union(GeneralCategoryGroup::Punctuation))
                .contains(category)
        })
}

/// Whether a joiner stands where a reader sees its effect:
///
/// - beside a virama, or between two characters of an Indic script;
/// - after a letter of a cursive script, unless it ends the name or stands before a letter that
///   does not join (both wider than
///   [RFC 5892, appendix A](https://www.rfc-editor.org/rfc/rfc5892#appendix-A), which knows only
///   letters: Persian has them before spaces, digits and brackets, too);
/// - inside an emoji ([UAX #29, rule GB11](https://www.unicode.org/reports/tr29/#GB11)).
fn joins(c: char, before: &str, previous: Option<char>, next: Option<char>) -> bool {
    if c != ZERO_WIDTH_JOINER && c != ZERO_WIDTH_NON_JOINER {
        return false;
    }
    let (Some(previous), Some(next)) = (previous, next) else {
        return false;
    };
    let is_indic = |c: char| matches!(c, '\u{900}'..='\u{DFF}');
    let joining = |c: char| CodePointMapData::<JoiningType>::new().get(c);
    let is_cursive = |c: char| c != ZERO_WIDTH_JOINER && joining(c) != JoiningType::NonJoining;
    let is_letter = |c: char| {
        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        GeneralCategoryGroup::Letter.contains(category)
    };
    let is_ignored = |c: char| CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
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
    is_virama(previous)
        || (is_virama(next) && is_letter(previous))
        || (is_indic(previous) && is_indic(next))
        || (is_cursive(previous) && !is_ignored(next) && (is_cursive(next) || !is_letter(next)))
        || in_emoji()
}

fn is_virama(c: char) -> bool {
    let class = CodePointMapData::<CanonicalCombiningClass>::new().get(c);
    class == CanonicalCombiningClass::Virama
}

/// Whether a tag is part of the flag of England, Scotland or Wales, which are all that
/// [fonts have](https://www.unicode.org/reports/tr51/#valid-emoji-tag-sequences).
fn tags(c: char, before: &str, after: &str) -> bool {
    /// After the black flag: the tags of `gbeng`, `gbsct` or `gbwls`, and the one that ends them.
    const FLAGS: [&str; 3] = [
        "\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
        "\u{E0067}\u{E0062}\u{E0077}\u{E006C}\u{E0073}\u{E007F}",
    ];
    const LENGTH: usize = 6;
    if !matches!(c, '\u{E0020}'..=CANCEL_TAG) {
        return false;
    }
    let mut last = before.char_indices().rev().take(LENGTH);
    let Some((flag, _)) = last.find(|(_, c)| *c == BLACK_FLAG) else {
        return false;
    };
    let tags = before[flag..].chars().skip(1).chain([c]);
    let tags: String = tags.chain(after.chars()).take(LENGTH).collect();
    FLAGS.contains(&tags.as_str())
}

/// Whether a filler stands for a missing letter of an old Korean syllable.
fn fills(c: char, previous: Option<char>, next: Option<char>) -> bool {
    let is_jamo = |c: Option<char>| {
        c.is_some_and(|c| matches!(c, '\u{1100}'..='\u{115E}' | '\u{1161}'..='\u{11FF}' | '\u{A960}'..='\u{A97C}' | '\u{D7B0}'..='\u{D7FB}'))
    };
    match c {
        '\u{115F}' => is_jamo(next),
        '\u{1160}' => is_jamo(previous),
        _ => false,
    }
}

fn is_mongolian(c: char) -> bool {
    c != '\u{180E}' && matches!(c, '\u{1800}'..='\u{18AF}')
}
