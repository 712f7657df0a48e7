//! The terms of one caller: a policy, and the ticket that narrows it. Pure.

use std::ops::Deref;
use std::sync::Arc;

use super::{ANY, DEFAULT_POLICY, Policies, Policy, check_size};
use crate::s3;
use crate::upload::metadata::{self, Metadata};
use crate::upload::ticket::Ticket;
use crate::upload::{
    Caller, ContentType, Error, Field, File, Invalid, Refusal, Result, UploadKind,
};

/// What one caller may upload, and how: whatever both the policy and the caller's ticket allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upload) struct Terms {
    /// The name of the policy.
    pub(in crate::upload) name: Arc<str>,
    policy: Arc<Policy>,
    ticket: Option<Arc<Ticket>>,
    max_size: u64,
}

/// The parts of a policy that no ticket narrows.
impl Deref for Terms {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

impl Policies {
    /// The terms of `caller` under the policy that it asks for.
    ///
    /// # Errors
    ///
    /// There is no such policy, the caller or its ticket may not use it, or the ticket lacks a
    /// variable of its keys.
    pub(in crate::upload) fn terms(&self, asked: Option<&str>, caller: &Caller) -> Result<Terms> {
        let terms = self.terms_for_known_key(asked, caller)?;
        match terms.key.missing_var(caller) {
            Some(name) => Err(Error::MissingVar(name.to_owned())),
            None => Ok(terms),
        }
    }

    /// The same, for an upload whose key is known: it needs no variables.
    pub(in crate::upload) fn terms_for_known_key(
        &self,
        asked: Option<&str>,
        caller: &Caller,
    ) -> Result<Terms> {
        let name = caller.policy_name(asked);
        if !caller.may_use(name) {
            // This does not reveal whether the policy exists.
            let detail = "is not one that you may upload under";
            let invalid = Invalid::new("policy-not-allowed", detail);
            return Err(Error::refused(Field::Policy, invalid));
        }
        let Some((name, policy)) = self.0.get_key_value(name) else {
            let (code, detail) = match asked {
                Some(_) => (
                    "unknown-policy",
                    "must name a policy of this service; there is none of that name",
                ),
                None if name == DEFAULT_POLICY => (
                    "policy-required",
                    "must name a policy: there is no default one",
                ),
                None => (
                    "unknown-policy",
                    "is set by the path, the ticket or the token, and this service has none of that name",
                ),
            };
            return Err(Error::refused(Field::Policy, Invalid::new(code, detail)));
        };
        Ok(Terms::new(name, policy, caller.ticket()))
    }

    /// The policies that can have granted this key, in the order of their names, each with the
    /// caller whose key it is. No ticket narrows them, because the key does not show what the
    /// ticket allowed.
    pub(in crate::upload) fn for_key(
        &self,
        bucket: Option<&str>,
        key: &str,
    ) -> Vec<(Terms, Caller)> {
        let policies = self.0.iter().filter_map(|(name, policy)| {
            if policy.bucket.as_deref() != bucket {
                return None;
            }
            let owner = policy.key.owner(key)?;
            Some((Terms::new(name, policy, None), owner))
        });
        policies.collect()
    }
}

impl Terms {
    pub(super) fn new(name: &Arc<str>, policy: &Arc<Policy>, ticket: Option<&Arc<Ticket>>) -> Self {
        let terms = Self {
            name: Arc::clone(name),
            policy: Arc::clone(policy),
            ticket: ticket.cloned(),
            max_size: policy.max_size,
        };
        terms.limited_to(ticket.and_then(|ticket| ticket.max_size))
    }

    /// The same terms, for files of at most this size.
    pub(in crate::upload) fn limited_to(self, max_size: Option<u64>) -> Self {
        let max_size = max_size.map_or(self.max_size, |max| max.min(self.max_size));
        Self { max_size, ..self }
    }

    /// In bytes.
    pub(in crate::upload) fn max_size(&self) -> u64 {
        self.max_size
    }

    /// All reasons to refuse `file` when it is uploaded in this way.
    pub(in crate::upload) fn check(&self, file: &File, kind: UploadKind) -> Vec<Refusal> {
        let max_size = match kind {
            UploadKind::Put | UploadKind::Post => self.max_size().min(s3::MAX_PUT_BYTES),
            UploadKind::Multipart => self.max_size(),
        };
        let mut refusals = Vec::new();
        if let Err(invalid) = self.check_type(&file.content_type) {
            refusals.push(Refusal::new(Field::ContentType, invalid));
        }
        if let Some(Err(mut invalid)) = file.size.map(|size| check_size(size, max_size)) {
            if self.allows_parts() && file.size <= Some(self.max_size) {
                invalid.detail += "; a larger file is sent in parts, with `POST /s3/multipart`";
            }
            refusals.push(Refusal::new(Field::Size, invalid));
        }
        let mut refuse = |field, code, detail: String| {
            refusals.push(Refusal::new(field, Invalid::new(code, detail)));
        };
        if self.key.is_blank(&file.filename) {
            let detail = "must not be nothing but spaces: its key would be, too".into();
            refuse(Field::Filename, "blank", detail);
        }
        if file.size.is_none() && self.requires_size() && kind == UploadKind::Put {
            let by = if self.policy.require_size {
                "policy"
            } else {
                "ticket, which has a `max_size`"
            };
            let detail = format!("is required by the {by}");
            refuse(Field::Size, "size-required", detail);
        }
        if !self.multipart && kind == UploadKind::Multipart {
            let detail = format!("`{}` does not allow uploads in parts", self.name);
            refuse(Field::Policy, "multipart-not-allowed", detail);
        }
        if self.require_checksum && kind == UploadKind::Multipart {
            let detail = "is required by the policy, and no upload in parts can be bound to one";
            refuse(
                Field::ChecksumSha256,
                "multipart-not-supported",
                detail.into(),
            );
        } else if self.require_checksum && file.checksum_sha256.is_none() {
            let detail = "is required by the policy".into();
            refuse(Field::ChecksumSha256, "checksum-required", detail);
        }
        if kind != UploadKind::Put && file.content_md5.is_some() {
            let detail = "can be bound to a PUT alone; ask for one, or give `checksumSha256`";
            refuse(Field::ContentMd5, "post-not-supported", detail.into());
        }
        let mut refuse_metadata = |name: &String, detail: &'static str| {
            let field = Field::MetadataOf(name.clone());
            refuse(field, "metadata-not-allowed", detail.into());
        };
        for name in file.metadata.keys() {
            if !self.allows_metadata(name) {
                refuse_metadata(name, "is not metadata that the policy lets clients set");
            }
        }
        for (name, _) in self.metadata_of_ticket() {
            if !self.policy_allows_metadata(name) {
                let detail = "is metadata of the ticket that the policy does not allow";
                refuse_metadata(name, detail);
            }
        }
        let all = self.metadata.iter().chain(self.metadata_of_ticket());
        if let Err(invalid) = metadata::check_size(all.chain(&file.metadata)) {
            refusals.push(Refusal::new(Field::Metadata, invalid));
        }
        refusals
    }

    /// A PUT can only be bound to one size, so a ticket with a limit makes the size required.
    fn requires_size(&self) -> bool {
        let is_limited = self.max_size < self.policy.max_size;
        self.policy.require_size || (is_limited && self.max_size < s3::MAX_PUT_BYTES)
    }

    pub(in crate::upload) fn check_type(&self, content_type: &ContentType) -> Result<(), Invalid> {
        self.policy.check_type(content_type)?;
        match self
            .ticket
            .as_ref()
            .and_then(|it| it.content_types.as_ref())
        {
            Some(ranges) => super::check_ranges(ranges, content_type),
            None => Ok(()),
        }
    }

    /// Whether the client may set metadata of this name.
    pub(in crate::upload) fn allows_metadata(&self, name: &str) -> bool {
        self.policy_allows_metadata(name)
            && !self.metadata_of_ticket().any(|(fixed, _)| fixed == name)
    }

    fn policy_allows_metadata(&self, name: &str) -> bool {
        let mut allowed = self.allowed_metadata.iter();
        !self.metadata.contains_key(name)
            && allowed.any(|allowed| allowed == name || allowed == ANY)
    }

    /// The metadata that the ticket fixes.
    fn metadata_of_ticket(&self) -> impl Iterator<Item = (&String, &String)> {
        self.ticket.iter().flat_map(|ticket| &ticket.metadata)
    }

    /// All metadata of an object: the policy's, the ticket's and the client's.
    pub(in crate::upload) fn metadata_with(&self, of_client: &Metadata) -> Vec<(String, String)> {
        let all = self
            .metadata
            .iter()
            .chain(self.metadata_of_ticket())
            .chain(of_client);
        let mut all: Vec<_> = all
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // Their names differ: no policy or ticket allows others to set its own.
        all.sort_unstable();
        all
    }
}
