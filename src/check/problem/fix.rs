//! How to fix what failed, and the lines of the report that say so.

use super::Problem;
use crate::check::report::Line;

const NOT_THE_STORE: &str = "this may not be the answer of the store: look at the proxies before it, and at AWS_ENDPOINT_URL_S3";
const PROXY_LOGIN: &str = "the proxy on the way out asks for a user and a password: put them into HTTP_PROXY or HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)";

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
            _ if self.is_403_of_proxy() => NOT_THE_STORE,
            _ if self.is_denied() => {
                return Some(format!("the credentials need {permission}"));
            }
            code => by_status(refused.status?, code)?,
        };
        Some(fix.to_owned())
    }

    /// How to fix the endpoint of the `bucket`, if it redirects. Where S3 itself does that, it has a code or
    /// names the region.
    pub(in crate::check) fn redirect_fix(&self, bucket: &str) -> Option<String> {
        let refused = self.refused()?;
        let is_redirect = matches!(refused.status, Some(300..400));
        if !is_redirect || refused.region.is_some() || !refused.code.is_empty() {
            return None;
        }
        let Some(origin) = &refused.redirects_to else {
            let fix =
                "it redirects, as no store does: set AWS_ENDPOINT_URL_S3 to the store's address";
            return Some(fix.to_owned());
        };
        let store = origin.replacen(&format!("://{bucket}."), "://", 1);
        Some(format!(
            "it redirects to {origin}, and uploads follow no redirects: if that is the store, set AWS_ENDPOINT_URL_S3={store}"
        ))
    }

    /// How to fix the connection, if this is known.
    pub(in crate::check) fn connection_fix(&self) -> Option<&'static str> {
        match self {
            Self::NoAnswer(why) => connection_fix(why),
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

/// How to fix an answer of this status, which may not be one of the store if it has no code.
fn by_status(status: u16, code: &str) -> Option<&'static str> {
    Some(match status {
        429 => {
            "the store, or a proxy before it, limits requests: try again later, or raise its limit"
        }
        _ if !code.is_empty() => return None,
        401 => {
            "something before the store asks for a login: look at the proxies before it, and at AWS_ENDPOINT_URL_S3"
        }
        405 | 501 => NOT_THE_STORE,
        407 => PROXY_LOGIN,
        _ => return None,
    })
}

/// How to fix the connection, if this error shows what is wrong with it.
pub(in crate::check) fn connection_fix(why: &str) -> Option<&'static str> {
    if why.contains("CaUsedAsEndEntity") {
        Some(
            "its TLS certificate is that of a CA, which no server may use: make one with basicConstraints=CA:FALSE (docs/deploy.md, \"A private CA\"), and add it, or the CA that has signed it, to the file that SSL_CERT_FILE names",
        )
    } else if why.contains("certificate") {
        Some(
            "its TLS certificate is not accepted: renew it if it has expired, use the host name that it is for, or add its CA to the file that SSL_CERT_FILE names",
        )
    } else if why.contains("corrupt message") {
        Some("it answers without TLS: begin its address with http://, or set the port of TLS")
    } else if why.contains("proxy authorization required") {
        Some(PROXY_LOGIN)
    } else {
        None
    }
}

/// The end of the advice on an `address` that does not answer: the variable of the proxy that requests to it
/// may go through.
pub(in crate::check) fn proxy_remark(address: &str) -> String {
    let of_scheme = if address.starts_with("https:") {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let mut names = of_scheme.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match names.find(is_set) {
        None => String::new(),
        Some(name) => format!(
            "; {name} is set, so this may be the proxy: correct it, or add the host to NO_PROXY"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_connection_is_named() {
        for (why, words) in [
            ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
            ("invalid peer certificate: Expired", "renew"),
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "CA:FALSE",
            ),
            (
                "tunnel error: proxy authorization required",
                "user and a password",
            ),
            (
                "received corrupt message of type InvalidContentType",
                "http://",
            ),
        ] {
            let fix = Problem::NoAnswer(why.to_owned()).connection_fix();
            assert!(fix.unwrap().contains(words), "{why}: {fix:?}");
        }
        let closed = Problem::NoAnswer("Connection refused".to_owned());
        assert_eq!(closed.connection_fix(), None);
    }
}
