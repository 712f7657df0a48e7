//! Calls of an upload in parts, sealed into tokens. The holder of a token may make its call until
//! it expires, as with a presigned URL. They are for clients that insist on speaking S3 and send no
//! credentials. The policy holds, because presignd answers these calls.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::session::{EXPIRED, NOT_SEALED, Session, seconds};
use super::ticket::Ticket;
use super::{
    Caller, ContentType, Error, Field, File, Filename, Metadata, OpenUpload, Result, UploadKind,
    UploadService,
};

/// A call that continues an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    List,
    Complete,
    Abort,
}

/// What the holder of a token may do.
#[derive(Debug)]
pub enum Call {
    Begin(Begin),
    Continue(Operation, OpenUpload),
}

/// An upload that may begin, as it is sealed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Begin {
    /// The segment of the caller.
    caller: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ticket: Option<Ticket>,
    policy: String,
    filename: Filename,
    /// If there is none, the client that begins the upload chooses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

impl Begin {
    /// The file, of this type.
    pub fn into_file(self, content_type: ContentType) -> File {
        File {
            size: self.size,
            policy: Some(self.policy),
            metadata: self.metadata,
            ..File::new(self.filename, content_type)
        }
    }
}

/// A call as a token. Whoever has it may make the call.
pub struct SealedCall {
    pub token: String,
    /// The first moment at which the call is refused, in whole seconds.
    pub expires_at: SystemTime,
}

debug_name!(SealedCall);

/// The claims of a token.
#[derive(Serialize, Deserialize)]
struct Claims {
    call: Sealed,
    /// The segment of the API key whose holder asked for the call on behalf of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// Seconds since 1970.
    exp: u64,
    /// Sets these tokens apart from others that are signed with the same secret.
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Call,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sealed {
    Begin(Box<Begin>),
    Continue(Operation, Box<Session>),
}

impl UploadService {
    /// A token to begin an upload of `file`. The file is checked now, except its type unless it
    /// `is_typed`, and completely when the upload begins.
    ///
    /// # Errors
    ///
    /// The same as those of beginning the upload.
    pub fn seal_begin(
        &self,
        caller: &Caller,
        file: &File,
        is_typed: bool,
        now: SystemTime,
    ) -> Result<SealedCall> {
        let expires_in = match self.checked_but_for_type(caller, file, is_typed) {
            Ok(expires_in) => expires_in,
            // An upload that is allowed is counted when it begins.
            refused => self.counted(caller, &[(file, UploadKind::Multipart)], refused)?,
        };
        let begin = Begin {
            caller: caller.segment().to_owned(),
            ticket: caller.ticket().map(|ticket| Ticket::clone(ticket)),
            policy: caller.policy_name(file.policy.as_deref()).to_owned(),
            filename: file.filename.clone(),
            content_type: is_typed.then(|| file.content_type.clone()),
            size: file.size,
            metadata: file.metadata.clone(),
        };
        Ok(self.seal(caller, Sealed::Begin(begin.into()), now + expires_in))
    }

    /// Checks `file`, except its type unless it `is_typed`, and returns the lifetime of its grant.
    fn checked_but_for_type(
        &self,
        caller: &Caller,
        file: &File,
        is_typed: bool,
    ) -> Result<Duration> {
        let terms = self.policies.load().terms(file.policy.as_deref(), caller)?;
        self.refuse_if_forms_only()?;
        let mut refusals = terms.check(file, UploadKind::Multipart);
        refusals.retain(|it| is_typed || it.field != Field::ContentType);
        if refusals.is_empty() {
            Ok(terms.expires_in)
        } else {
            Err(Error::Refused(refusals))
        }
    }

    /// A token for one call that continues an upload. It is valid for `extra` longer than the URLs
    /// of parts.
    pub fn seal_call(
        &self,
        caller: &Caller,
        upload: &OpenUpload,
        operation: Operation,
        extra: Duration,
        now: SystemTime,
    ) -> SealedCall {
        let expires_at = now + upload.terms.expires_in + extra;
        let call = Sealed::Continue(operation, upload.session.clone().into());
        self.seal(caller, call, expires_at)
    }

    fn seal(&self, caller: &Caller, call: Sealed, expires_at: SystemTime) -> SealedCall {
        let claims = Claims {
            call,
            api_key: caller.api_key().map(ToString::to_string),
            exp: seconds(expires_at),
            kind: Kind::Call,
        };
        SealedCall {
            token: self.session_key.seal(&claims),
            expires_at,
        }
    }

    /// The call of a token, and whom it was sealed for.
    ///
    /// # Errors
    ///
    /// The token is not one of ours, or has expired.
    pub fn open_call(&self, token: &str, now: SystemTime) -> Result<(Caller, Call), Error> {
        let claims: Option<Claims> = self.session_key.open(token);
        let claims = claims.ok_or(Error::NoSuchUpload(NOT_SEALED))?;
        if seconds(now) >= claims.exp {
            return Err(Error::CallExpired);
        }
        let api_key = claims.api_key.as_deref();
        match claims.call {
            Sealed::Begin(mut begin) => {
                let caller = Caller::sealed(&begin.caller, api_key, begin.ticket.take());
                Ok((caller, Call::Begin(*begin)))
            }
            Sealed::Continue(_, session) if session.has_expired(now) => {
                Err(Error::NoSuchUpload(EXPIRED))
            }
            Sealed::Continue(operation, session) => {
                // What the caller may do was checked before the call was sealed, and the session
                // has the limit of the ticket.
                let caller = Caller::sealed(&session.caller, api_key, None);
                let upload = self.open_session(&caller, *session)?;
                Ok((caller, Call::Continue(operation, upload)))
            }
        }
    }
}
