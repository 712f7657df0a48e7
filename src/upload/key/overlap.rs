//! Whether two templates can make the same key. Pure.

use super::{KeyTemplate, Part};
use crate::upload::caller::is_segment;

/// What the keys of a template have between two `/`.
///
/// No placeholder has a `/`, so two keys are the same if all their segments are.
#[derive(Default)]
struct Segment {
    atoms: Vec<Atom>,
    /// Whether it is a caller or a variable.
    is_value: bool,
}

/// A part of a segment: one character of a class, or any number of them.
#[derive(Clone, Copy)]
enum Atom {
    One(Class),
    Many(Class),
}

#[derive(Clone, Copy)]
enum Class {
    Exactly(char),
    Digit,
    Hexadecimal,
    /// What extensions have.
    LowerAlphanumeric,
    /// What callers and variables have.
    OfValue,
    Any,
}

impl KeyTemplate {
    /// Whether both can make the same key, for any callers with any variables.
    ///
    /// A template that has the same placeholder twice counts as if its values could differ.
    pub(in crate::upload) fn overlaps(&self, other: &Self) -> bool {
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .any(|(extension, other_extension)| {
                let segments = self.segments(extension);
                let others = other.segments(other_extension);
                segments.len() == others.len()
                    && segments.iter().zip(&others).all(|(a, b)| a.overlaps(b))
            })
    }

    /// The segments of keys of names with or without an extension.
    fn segments(&self, extension: bool) -> Vec<Segment> {
        let mut done = Vec::new();
        let mut last = Segment::default();
        for part in &self.0 {
            match part {
                Part::Text(text) => {
                    for char in text.chars() {
                        match char {
                            '/' => done.push(std::mem::take(&mut last)),
                            _ => last.atoms.push(Atom::One(Class::Exactly(char))),
                        }
                    }
                }
                Part::Uuid => {
                    last.atoms
                        .extend("xxxxxxxx-xxxx-4xxx-xxxx-xxxxxxxxxxxx".chars().map(
                            |char| match char {
                                'x' => Atom::One(Class::Hexadecimal),
                                _ => Atom::One(Class::Exactly(char)),
                            },
                        ));
                }
                Part::Caller | Part::Var(_) => {
                    last.is_value = true;
                    last.push_some(Class::OfValue);
                }
                Part::Filename => last.push_some(Class::Any),
                Part::Extension | Part::DotExtension if !extension => {}
                Part::Extension => last.push_some(Class::LowerAlphanumeric),
                Part::DotExtension => {
                    last.atoms.push(Atom::One(Class::Exactly('.')));
                    last.push_some(Class::LowerAlphanumeric);
                }
                Part::Year => last.atoms.extend([Atom::One(Class::Digit); 4]),
                Part::Month | Part::Day => last.atoms.extend([Atom::One(Class::Digit); 2]),
            }
        }
        done.push(last);
        done
    }
}

impl Segment {
    /// One or more characters.
    fn push_some(&mut self, class: Class) {
        self.atoms.extend([Atom::One(class), Atom::Many(class)]);
    }

    fn overlaps(&self, other: &Self) -> bool {
        for (value, other) in [(self, other), (other, self)] {
            if !value.is_value {
                continue;
            }
            if let Some(text) = other.text() {
                return is_segment(&text);
            }
        }
        can_be_equal(&self.atoms, &other.atoms)
    }

    /// The text of a segment without placeholders.
    fn text(&self) -> Option<String> {
        let chars = self.atoms.iter().map(|atom| match atom {
            Atom::One(Class::Exactly(char)) => Some(*char),
            _ => None,
        });
        chars.collect()
    }
}

/// Whether the same text can match both.
fn can_be_equal(a: &[Atom], b: &[Atom]) -> bool {
    // Whether what follows from `a[i]` can be equal to what follows from `b[j]`, for each `j`, and one
    // beyond: first for the end of `a`.
    let only_optional = |rest: &[Atom]| rest.iter().all(|atom| matches!(atom, Atom::Many(_)));
    let mut next: Vec<bool> = (0..=b.len()).map(|j| only_optional(&b[j..])).collect();
    for i in (0..a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        row[b.len()] = only_optional(&a[i..]);
        for j in (0..b.len()).rev() {
            row[j] = match (a[i], b[j]) {
                (Atom::One(a), Atom::One(b)) => a.overlaps(b) && next[j + 1],
                (Atom::Many(a), Atom::One(b)) => next[j] || (a.overlaps(b) && row[j + 1]),
                (Atom::One(a), Atom::Many(b)) => row[j + 1] || (a.overlaps(b) && next[j]),
                (Atom::Many(_), Atom::Many(_)) => next[j] || row[j + 1],
            };
        }
        next = row;
    }
    next[0]
}

impl Class {
    /// Whether both contain a character. All but single ones contain the digits.
    fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Exactly(char), class) | (class, Self::Exactly(char)) => class.contains(char),
            _ => true,
        }
    }

    fn contains(self, char: char) -> bool {
        match self {
            Self::Exactly(own) => char == own,
            Self::Digit => char.is_ascii_digit(),
            Self::Hexadecimal => matches!(char, '0'..='9' | 'a'..='f'),
            Self::LowerAlphanumeric => matches!(char, '0'..='9' | 'a'..='z'),
            Self::OfValue => char.is_ascii_alphanumeric() || "-_@.+=".contains(char),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::date;
    use uuid::Uuid;

    use super::*;
    use crate::upload::{Caller, Filename, Ticket};

    fn template() -> impl Strategy<Value = KeyTemplate> {
        let part = "\\{(filename|ext|yyyy|mm)\\}|\\{filename\\}\\.\\{ext\\}|[ab1]{1,2}";
        let text = format!("((\\{{caller\\}}|\\{{vars\\.a\\}}|({part}){{1,2}})/){{0,2}}({part})");
        proptest::string::string_regex(&text)
            .unwrap()
            .prop_filter_map("invalid", |text| KeyTemplate::parse(&text).ok())
    }

    proptest! {
        // Most pairs have nothing in common.
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_template_makes_a_key_of_another_one_that_it_does_not_overlap(
            a in template(),
            b in template(),
            name in "[ab1]{1,2}",
            var in "[ab1]{1,2}",
            filename in "[ab1]{1,2}(\\.[ab1])?",
        ) {
            let ticket = Ticket::from_vars([("a", &*var)].into_iter());
            let caller = Caller::named(&name, None).with_ticket(ticket);
            let filename = Filename::parse(filename).unwrap();
            let key = a.key(&caller, &filename, Uuid::nil(), date!(1111 - 11 - 11));
            if b.owner(key.as_str()).is_some() {
                prop_assert!(a.overlaps(&b) && b.overlaps(&a), "{a:?} and {b:?}: {key:?}");
            }
        }
    }
}
