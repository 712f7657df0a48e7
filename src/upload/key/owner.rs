//! The owner of a key: the caller that a template can have made it for. Pure.

use super::{KeyTemplate, Part};
use crate::upload::Caller;

impl KeyTemplate {
    /// The only caller, with its variables, that the template can have made `key` for; an anonymous
    /// one if its keys name no caller.
    ///
    /// A caller and a variable are segments of their own, and no other part has a `/`. So each is
    /// found at the same place in every key.
    pub(in crate::upload) fn owner(&self, key: &str) -> Option<Caller> {
        let segments: Vec<&str> = key.split('/').collect();
        let (mut at, mut name, mut vars) = (0, None, Vec::new());
        for part in &self.0 {
            match part {
                Part::Text(text) => at += text.matches('/').count(),
                Part::Caller => name = Some(*segments.get(at)?),
                Part::Var(var) => vars.push((var.as_str(), *segments.get(at)?)),
                _ => {}
            }
        }
        let caller = Caller::from_segments(name, &vars)?;
        self.could_have_made(&caller, key).then_some(caller)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::date;
    use uuid::Uuid;

    use super::*;
    use crate::upload::{Filename, Ticket};

    const ID: &str = "5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e";

    #[test]
    fn the_owner_of_a_key_is_the_caller_in_it() {
        let hash = format!("=sha256-{}", "0a".repeat(32));
        let of_hash = format!("{hash}/ID");
        for (template, key, expected) in [
            (
                "uploads/{uuid}/{filename}",
                "uploads/ID/a.txt",
                Some("=anonymous"),
            ),
            ("uploads/{uuid}/{filename}", "other/ID/a.txt", None),
            ("{caller}/{uuid}", "alice/ID", Some("alice")),
            ("{caller}/{uuid}", "auth0=7C5f7c/ID", Some("auth0=7C5f7c")),
            ("{caller}/{uuid}", &of_hash, Some(&*hash)),
            ("{caller}/{uuid}", "=sha256-0a/ID", None),
            ("{caller}/{uuid}", "a b/ID", None),
            ("{caller}/{uuid}", "한/ID", None),
            ("{caller}/{uuid}", "=7/ID", None),
            ("{caller}/{uuid}", "=7c/ID", None), // an escape has capital letters
            ("{caller}/{uuid}", "=61/ID", None), // an `a` is not escaped
            ("{caller}/{uuid}", "=anonymous/ID", None),
            ("{caller}/{uuid}", "/ID", None),
            ("{caller}/{uuid}", "alice", None),
            ("{caller}/{caller}/{uuid}", "alice/alice/ID", Some("alice")),
            ("{caller}/{caller}/{uuid}", "alice/bob/ID", None),
            ("{filename}/{caller}", "a/alice", Some("alice")),
            ("{vars.tenant}/{uuid}", "acme=2Feu/ID", Some("=anonymous")),
            ("{vars.tenant}/{uuid}", "ac me/ID", None),
            (
                "{vars.tenant}/{caller}/{uuid}",
                "acme/alice/ID",
                Some("alice"),
            ),
            ("{vars.a}/{vars.a}/{uuid}", "acme/other/ID", None),
        ] {
            let parsed = KeyTemplate::parse(template).unwrap();
            let owner = parsed.owner(&key.replace("ID", ID));
            let segment = owner.as_ref().map(Caller::segment);
            assert_eq!(segment, expected, "{template}: {key}");
        }
    }

    proptest! {
        #[test]
        fn the_owner_of_a_key_is_its_caller(
            template in "([a-z]{1,3}/|\\{(uuid|filename|ext|caller|vars\\.a|yyyy)\\}/){1,5}\\{uuid\\}",
            name in "\\PC{1,20}|[.=a]{1,4}|a{200}",
            var in "\\PC{1,9}",
            filename in "\\PC{1,12}(\\.[A-Za-z0-9]{1,18}){1,2}",
        ) {
            let template = KeyTemplate::parse(&template);
            let filename = Filename::parse(&filename);
            prop_assume!(template.is_ok() && filename.is_ok());
            let (template, filename) = (template.unwrap(), filename.unwrap());
            let ticket = Ticket::from_vars([("a", &*var)].into_iter());
            let caller = Caller::named(&name, None).with_ticket(ticket);
            let id = Uuid::parse_str(ID).unwrap();
            let key = template.key(&caller, &filename, id, date!(2026 - 01 - 02));
            let owner = template.owner(key.as_str()).unwrap();
            if template.has_caller() {
                prop_assert_eq!(owner.segment(), caller.segment());
            } else {
                prop_assert!(owner.is_anonymous());
            }
        }
    }
}
