//! Which keys a template could have made. Pure, and quick whatever the key.

use time::{Date, Month};
use uuid::{Uuid, Variant};

use super::{KeyTemplate, Part, is_blank};
use crate::upload::{Caller, Filename};

impl KeyTemplate {
    /// Whether [`key`](Self::key) could have made this key for `caller`, of some file, id and day.
    ///
    /// The time is proportional to the key's length: each of the few possible lengths of the
    /// extension determines the length of the name, and with it the place of each part.
    pub(in crate::upload) fn could_have_made(&self, caller: &Caller, key: &str) -> bool {
        let longest = if self.has_extension() {
            Filename::MAX_EXTENSION_BYTES
        } else {
            0
        };
        !is_blank(key)
            && self.missing_var(caller).is_none()
            && (0..=longest).any(|extension| {
                self.remake(caller, key, extension)
                    .is_some_and(|it| it == key)
            })
    }

    /// The key that the template makes of the values that it finds in `key`, if the extension has
    /// this length; `None` if they are not valid values.
    fn remake(&self, caller: &Caller, key: &str, extension: usize) -> Option<String> {
        let lengths = || self.0.iter().map(|part| part.len(caller, extension));
        let names = lengths().filter(Option::is_none).count();
        let name = key.len().checked_sub(lengths().flatten().sum())?;
        let name = name.checked_div(names).unwrap_or_default();
        if name > Filename::MAX_BYTES {
            return None;
        }

        let (mut filename, mut ext, mut id) = (None, "", Uuid::nil());
        // If the template has no year or no month: a leap year and a month of 31 days, so that each day is valid.
        let (mut year, mut month, mut day) = (2000, 1, 1);
        let mut rest = key;
        for (part, length) in self.0.iter().zip(lengths()) {
            let (text, after) = rest.split_at_checked(length.unwrap_or(name))?;
            rest = after;
            match part {
                Part::Text(_) | Part::Caller | Part::Var(_) => {}
                Part::Uuid => id = Uuid::try_parse(text).ok().filter(is_random)?,
                Part::Filename => filename = Some(text),
                Part::Extension => ext = text,
                Part::DotExtension => ext = text.get(1..).unwrap_or_default(),
                Part::Year => year = text.parse().ok()?,
                Part::Month => month = text.parse().ok()?,
                Part::Day => day = text.parse().ok()?,
            }
        }
        let day = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
        // Any name with this extension will do where the key does not hold the name itself.
        let filename = match filename {
            Some(name) => Filename::parse(name),
            None if ext.is_empty() => Filename::parse("x"),
            None => Filename::parse(format!("x.{ext}")),
        };
        let filename = filename.ok()?;
        let extension = filename.extension();
        Some(self.fill(caller, filename.as_str(), extension.as_deref(), id, day))
    }
}

impl Part {
    /// The length of this part in the keys of `caller`, in bytes, with an extension of this length;
    /// `None` for a file's name.
    fn len(&self, caller: &Caller, extension: usize) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.len()),
            Self::Uuid => Some(uuid::fmt::Hyphenated::LENGTH),
            Self::Filename => None,
            Self::Extension => Some(extension),
            Self::DotExtension => Some(extension + usize::from(extension > 0)),
            Self::Caller => Some(caller.segment().len()),
            Self::Var(name) => Some(caller.var(name)?.len()),
            Self::Year => Some(4),
            Self::Month | Self::Day => Some(2),
        }
    }
}

/// Whether the id is of version 4, like all ids that are issued.
fn is_random(id: &Uuid) -> bool {
    id.get_version_num() == 4 && id.get_variant() == Variant::RFC4122
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::date;

    use super::*;
    use crate::upload::Ticket;

    const ID: &str = "5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e";

    /// Whether the template could have made the key for Alice, who is `alice=2F7` in it.
    #[track_caller]
    fn could(template: &str, key: &str) -> bool {
        let template = KeyTemplate::parse(template).unwrap();
        let key = key.replace("ID", ID);
        let ticket = Ticket::from_vars([("tenant", "acme/eu")].into_iter());
        template.could_have_made(&Caller::named("alice/7", None).with_ticket(ticket), &key)
    }

    #[test]
    fn keys_of_the_template_are_known_and_no_others() {
        let template = "uploads/{uuid}/{filename}";
        for key in ["uploads/ID/a.txt", "uploads/ID/한.txt", "uploads/ID/{uuid}"] {
            assert!(could(template, key), "{key}");
        }
        let upper = ID.to_uppercase();
        let simple = ID.replace('-', "");
        for key in [
            "",
            "/",
            "uploads/ID/",
            "uploads/ID",
            "/uploads/ID/a",
            "uploads//a",
            "upload/ID/a",
            "uploadx/ID/a",
            "uploads/ID/a/b",
            "uploads/ID/..",
            "uploads/ID/a\\b",
            "uploads/ID/a\0b",
            "uploads/ID/a\u{202e}b",
            "uploads/ID/\u{1112}\u{1161}\u{11AB}.txt", // not NFC
            "uploads/00000000-0000-0000-0000-000000000000/a",
            "uploads/5d3c8f60-9d0e-1b1f-8e51-3c2f5c0a8f3e/a", // version 1
            "uploads/5d3c8f60-9d0e-4b1f-0e51-3c2f5c0a8f3e/a", // another variant
            "uploads/5d3c8f60+9d0e-4b1f-8e51-3c2f5c0a8f3e/a",
            &format!("uploads/{upper}/a"),
            &format!("uploads/{simple}/a"),
            &format!("uploads/{{{simple}}}/a"),
            &format!("uploads/ID/{}", "a".repeat(256)),
            &format!("uploads/ID/{}", "한".repeat(100_000)),
            &"한".repeat(20),
        ] {
            assert!(!could(template, key), "{key}");
        }
    }

    #[test]
    fn the_parts_of_a_key_have_to_agree() {
        for (template, key, expected) in [
            ("{uuid}.{ext}", "ID.png", true),
            ("{uuid}.{ext}", "ID", true),
            ("{uuid}.{ext}", "ID.", false),
            ("{uuid}.{ext}", "ID.PNG", false),
            ("{uuid}.{ext}", "ID.p.g", false),
            ("{uuid}.{ext}", "ID.abcdefghijklmnop", true),
            ("{uuid}.{ext}", "ID.abcdefghijklmnopq", false),
            ("{uuid}{ext}", "IDpng", true),
            ("{filename}.{ext}", "a.PNG.png", true),
            ("{filename}.{ext}", "a.PNG.jpg", false),
            ("{filename}.{ext}", "a.png", false), // the name itself has no extension
            ("{filename}.{ext}", "a", true),
            ("{filename}.{ext}", "a..", true),
            ("{ext}{filename}", "gza.tar.gz", true),
            ("{ext}{filename}", "tara.tar.gz", false),
            ("{filename}{uuid}", "a bID", true),
            ("{filename}{uuid}", "ID", false),
            ("{filename}", "a ", true),
            ("{filename}", " ", false),
            ("{uuid}/{filename}-{filename}", "ID/a-b-a-b", true),
            ("{uuid}/{filename}-{filename}", "ID/a-b-a-c", false),
            ("{uuid}-{uuid}", "ID-ID", true),
            (
                "{uuid}-{uuid}",
                "ID-5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3f",
                false,
            ),
            ("{yyyy}/{mm}/{dd}/{uuid}", "2024/02/29/ID", true),
            ("{yyyy}/{mm}/{dd}/{uuid}", "2026/02/29/ID", false),
            ("{yyyy}/{mm}/{dd}/{uuid}", "2026/13/01/ID", false),
            ("{yyyy}/{mm}/{dd}/{uuid}", "2026/00/01/ID", false),
            ("{yyyy}/{mm}/{dd}/{uuid}", "+026/01/01/ID", false),
            ("{yyyy}/{mm}/{dd}/{uuid}", "2026/01/+1/ID", false),
            ("{yyyy}{yyyy}/{uuid}", "20262025/ID", false),
            ("{dd}/{uuid}", "31/ID", true),
            ("{dd}/{uuid}", "32/ID", false),
            ("{mm}{dd}/{uuid}", "0229/ID", true),
            ("{caller}/{uuid}", "alice=2F7/ID", true),
            ("{caller}/{uuid}", "alice/7/ID", false),
            ("{caller}/{uuid}", "bob-is-x7/ID", false),
            ("{caller}/{uuid}", "=anonymous/ID", false),
            ("{filename}/{caller}", "a/alice=2F7", true),
            ("{filename}/{caller}", "a/alice=2F77", false),
            ("{vars.tenant}/{uuid}", "acme=2Feu/ID", true),
            ("{vars.tenant}/{uuid}", "acme/eu/ID", false),
            ("{vars.tenant}/{uuid}", "acme/ID", false),
            ("{vars.tenant}/{uuid}", "/ID", false),
            ("{vars.team}/{uuid}", "/ID", false),
            ("{filename}/{vars.tenant}", "a/acme=2Feu", true),
        ] {
            assert_eq!(could(template, key), expected, "{template}: {key}");
        }
    }

    #[test]
    fn no_key_takes_long() {
        let begin = std::time::Instant::now();
        let longest = "\u{1F3F4}\u{E0067}".repeat(Filename::MAX_RAW_BYTES / 8);
        for _ in 0..100 {
            assert!(!could(
                "uploads/{uuid}/{filename}",
                &format!("uploads/ID/{longest}")
            ));
        }
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    }

    proptest! {
        #[test]
        fn every_key_that_a_template_makes_is_known(
            template in "([a-z]{0,3}[-./]?\\{(uuid|filename|ext|caller|yyyy|mm|dd)\\}){1,6}x?",
            caller in "\\PC{1,20}",
            names in proptest::collection::vec("\\PC{1,12}(\\.[A-Za-z0-9]{1,18}){0,2}", 2),
            id: [u8; 16],
            day in 0_i64..9999 * 365,
        ) {
            let template = KeyTemplate::parse(&template);
            let filename = Filename::parse(&names[0]);
            prop_assume!(template.is_ok() && filename.is_ok());
            let (template, filename) = (template.unwrap(), filename.unwrap());
            let caller = Caller::named(&caller, None);
            let id = uuid::Builder::from_random_bytes(id).into_uuid();
            let day = date!(0000 - 01 - 01) + time::Duration::days(day);
            let key = template.key(&caller, &filename, id, day);
            let key = key.as_str();
            prop_assume!(!is_blank(key));
            prop_assert!(template.could_have_made(&caller, key), "{key}");

            let other = Caller::named(&format!("{}x", names[1]), None);
            if template.has_caller() && !template.0.contains(&Part::Filename) && other != caller {
                prop_assert!(!template.could_have_made(&other, key), "{key}");
            }
            if template.is_unique() {
                let digit = key.find(&id.to_string()).unwrap();
                let changed = format!("{}g{}", &key[..digit], &key[digit + 1..]);
                prop_assert!(!template.could_have_made(&caller, &changed), "{changed}");
            }
        }

        #[test]
        fn a_key_is_known_exactly_if_some_name_makes_it(
            template in "(a?[./]?\\{(filename|ext|mm)\\}){1,3}",
            key in "[a./01]{1,9}",
        ) {
            let template = KeyTemplate::parse(&template);
            prop_assume!(template.is_ok());
            let (template, caller) = (template.unwrap(), Caller::anonymous());
            // All names that the key could hold, tried one by one.
            let mut by_trying = false;
            for (from, to) in (0..key.len()).flat_map(|from| (from + 1..=key.len()).map(move |to| (from, to))) {
                for name in [key[from..to].to_owned(), format!("x.{}", &key[from..to]), "x".to_owned()] {
                    let Ok(filename) = Filename::parse(&name) else { continue };
                    by_trying |= (1..=12).any(|month| {
                        let day = Date::from_calendar_date(2000, Month::try_from(month).unwrap(), 1);
                        template.key(&caller, &filename, Uuid::nil(), day.unwrap()).as_str() == key
                    });
                }
            }
            prop_assert_eq!(template.could_have_made(&caller, &key), by_trying, "{}", key);
        }
    }
}
