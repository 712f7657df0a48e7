//! How to fix what failed, and the lines of the report that say so.

use super::Problem;
use crate::check::report::Line;

impl Problem {
    /// How to fix it. `permission` is what the request needs.
    pub(in crate::check) fn fix(&self, permission: &str) -> Option<String> {
        let refused = self.refused()?;
        let fix = match refused.code.as_str() {
            "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "NotSignedUp"
            | "XAdminUserNotFound" => {
                "the store does not know the access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys of this store"
            }
            "SignatureDoesNotMatch" => {
                "AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID, or a proxy before the store changes requests or their Host"
            }
            "ExpiredToken" | "TokenRefreshRequired" => "the credentials have expired: get new ones",
            "InvalidToken" | "InvalidSecurity" => {
                "AWS_SESSION_TOKEN does not belong to the access key: set both again, or neither"
            }
            "RequestTimeTooSkewed" => "set this machine's clock (NTP)",
            "NoSuchBucket" => "create the bucket, or set AWS_S3_BUCKET_NAME to one that exists",
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException"
            | "AuthorizationQueryParametersError" => {
                return Some(match &refused.region {
                    Some(region) => format!("set AWS_REGION={region}"),
                    None => "set AWS_REGION to the bucket's region".to_owned(),
                });
            }
            _ if self.is_403_of_proxy() => {
                "this may not be the answer of the store: look at the proxies before it, and at AWS_ENDPOINT_URL_S3"
            }
            _ if self.is_denied() => {
                return Some(format!("the credentials need {permission}"));
            }
            _ => return None,
        };
        Some(fix.to_owned())
    }

    /// How to fix TLS, if there is no answer because of it.
    pub(in crate::check) fn tls_fix(&self) -> Option<&'static str> {
        match self {
            Self::NoAnswer(why) => tls_fix(why),
            _ => None,
        }
    }

    /// The line of a check that must succeed.
    pub(in crate::check) fn failed(&self, check: &'static str, permission: &str) -> Line {
        Line::failed(check, self.to_string()).fix_if(self.fix(permission))
    }

    /// The same of an upload, which the store may also refuse because of what its policy asks for.
    pub(in crate::check) fn failed_or_unsupported(
        &self,
        check: &'static str,
        permission: &str,
    ) -> Line {
        const UNSUPPORTED: &str = "the log of the store may say why; if other policies are ok, it does not support something that this one has, such as `server_side_encryption`, `storage_class`, `acl`, `tagging`, `pending` or `overwrite = false`: remove that";
        let line = self.failed(check, permission);
        if line.fix.is_none() && self.may_be_unsupported() {
            return line.fix(UNSUPPORTED);
        }
        line
    }

    /// The line of something that is not known, because of this problem.
    pub(in crate::check) fn unclear(&self, check: &'static str) -> Line {
        const PERMISSIONS: &str = "s3:GetObject, s3:GetObjectTagging and s3:GetObjectAcl";
        let fix = self.fix(PERMISSIONS);
        let fix = fix.or_else(|| (!self.is_refusal()).then(|| "try again".to_owned()));
        Line::warning(check, format!("not known: {self}")).fix_if(fix)
    }

    /// The line of a check that some stores do not support, and some credentials have no permission
    /// for.
    pub(in crate::check) fn unknown(&self, check: &'static str, permission: &str) -> Line {
        if self.is_not_implemented() {
            return Line::skipped(check, "the store does not support this");
        }
        if self.is_denied() && !self.is_403_of_proxy() {
            let detail = format!("the credentials may not ask; they need {permission}");
            return Line::skipped(check, detail);
        }
        match self {
            Self::Unreadable => Line::skipped(check, self.to_string()),
            _ => Line::warning(check, self.to_string()),
        }
    }
}

/// How to fix TLS, if this error has to do with it.
pub(in crate::check) fn tls_fix(why: &str) -> Option<&'static str> {
    if why.contains("certificate") {
        Some(
            "its TLS certificate is not accepted: renew it if it has expired, use the host name that it is for, or add its CA to the file that SSL_CERT_FILE names",
        )
    } else if why.contains("corrupt message") {
        Some("it answers without TLS: begin its address with http://, or set the port of TLS")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_tls_is_named() {
        for (why, words) in [
            ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
            ("invalid peer certificate: Expired", "renew"),
            (
                "received corrupt message of type InvalidContentType",
                "http://",
            ),
        ] {
            let fix = Problem::NoAnswer(why.to_owned()).tls_fix();
            assert!(fix.unwrap().contains(words), "{why}: {fix:?}");
        }
        let closed = Problem::NoAnswer("Connection refused".to_owned());
        assert_eq!(closed.tls_fix(), None);
    }
}
