//! Every kind of problem that the service answers with. Answers, the OpenAPI document and the table in
//! docs/api.md are made from this list.

use axum::http::StatusCode;

/// One kind of problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) status: StatusCode,
    /// For programs. It does not change between versions.
    pub(crate) code: &'static str,
    /// The detail of an answer, for people; or an example of it, where an answer says more. The same as
    /// `when` where none is given.
    pub(crate) text: &'static str,
    /// When it happens, for the documentation.
    pub(crate) when: &'static str,
    /// Whether the document lists it for all operations that can answer with its status.
    pub(crate) is_shared: bool,
}

/// Names each kind, and lists them all. `alone` marks those of few operations, or of none.
macro_rules! kinds {
    ($($name:ident: $status:ident $code:literal $($alone:ident)?, $when:literal $(, $text:literal)?;)*) => {
        $(pub(crate) const $name: Kind = Kind {
            status: StatusCode::$status,
            code: $code,
            text: {
                let texts: &[&str] = &[$when $(, $text)?];
                texts[texts.len() - 1]
            },
            when: $when,
            is_shared: <[&str]>::is_empty(&[$(stringify!($alone))?]),
        };)*
        /// By status; the first kind of a status is the example for it.
        pub(crate) const ALL: &[Kind] = &[$($name),*];
    };
}

kinds! {
    INVALID_REQUEST: BAD_REQUEST "invalid-request",
        "fields or parameters are missing or invalid, or fields are unknown or repeated; `errors` lists them",
        "filename must not be empty";
    INVALID_JSON: BAD_REQUEST "invalid-json",
        "the body is not JSON in UTF-8";
    INVALID_XML: BAD_REQUEST "invalid-xml" alone,
        "the body is not the XML of S3 that completes an upload (`/s3/upload/…` alone)";
    JSON_TOO_DEEP: BAD_REQUEST "json-too-deep",
        "the JSON is nested too deeply";
    INCOMPLETE_BODY: BAD_REQUEST "incomplete-body",
        "the connection ended before the whole body arrived";
    INVALID_PARTS: BAD_REQUEST "invalid-parts",
        "the parts are not those that the store has, too small, or not of the size that was announced",
        "the parts are not those that the store has, or too small";
    NOT_AN_EVENT: BAD_REQUEST "not-an-event" alone,
        "the body is no notification of a store (`/events/s3` alone)",
        "the body has neither `Records` nor the `source` of an event from S3; it must be a notification of S3";
    UNAUTHORIZED: UNAUTHORIZED "unauthorized",
        "there is no valid API key or token. The answer is the same for every reason",
        "the request must carry valid credentials; /docs says which";
    INVALID_TICKET: UNAUTHORIZED "invalid-ticket",
        "the token is valid, but its ticket is not; `detail` says why";
    POLICY_NOT_ALLOWED: FORBIDDEN "policy-not-allowed",
        "the caller may not use this policy",
        "policy is not one that you may upload under";
    VAR_REQUIRED: FORBIDDEN "var-required",
        "the policy's keys have a variable, and the caller has no ticket with it; an API key never has one";
    ON_BEHALF_NOT_ALLOWED: FORBIDDEN "on-behalf-not-allowed",
        "with `AUTH_MODE`, the request has `x-on-behalf-of`, but not an API key with `on_behalf = true`",
        "these credentials may not be used on behalf of others; only an API key with `on_behalf = true` may";
    HOST_NOT_ALLOWED: FORBIDDEN "host-not-allowed",
        "on a loopback address without `AUTH_MODE`, or at `METRICS_ADDR` on one, the host is neither `localhost` nor an address, and no trusted proxy forwards the request",
        "on this loopback address, the host must be `localhost` or an address; TRUSTED_PROXIES allows others, for a proxy that forwards requests";
    CALL_EXPIRED: FORBIDDEN "call-expired" alone,
        "the URL has expired (`/s3/upload/…` alone)",
        "this URL has expired; ask for another one";
    NO_SUCH_UPLOAD: NOT_FOUND "no-such-upload",
        "there is no multipart upload with this `uploadId` and key, or not any more",
        "there is no multipart upload with this key, or not any more";
    NOT_UPLOADED: NOT_FOUND "not-uploaded" alone,
        "the policy cannot have granted this key to the caller; or, except when deleting, there is no such upload, or not yet",
        "there is no such upload under the policy of this request (`default`, unless `policy` names another one), or not yet";
    NO_SUCH_ROUTE: NOT_FOUND "no-such-route" alone,
        "there is no such route",
        "there is no such route; see /docs";
    METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED "method-not-allowed",
        "the route has other methods; see `Allow`";
    BODY_TIMEOUT: REQUEST_TIMEOUT "body-timeout",
        "the body did not arrive within 20 seconds, or a long one stalled while others waited for its room",
        "the body did not arrive within 20s, or stalled";
    OBJECT_EXISTS: CONFLICT "object-exists",
        "the key is taken, and the policy forbids overwriting it",
        "an object with this key exists, and the policy forbids overwriting it";
    MISMATCH: CONFLICT "mismatch" alone,
        "the object differs from what the policy or the request says; `errors` lists the differences",
        "size must be at most 5242880 bytes; it is 6000000";
    CONTENT_MISMATCH: CONFLICT "content-mismatch" alone,
        "the first bytes of the object are not of its content type";
    REPLACED: CONFLICT "replaced" alone,
        "the object was replaced again and again while it was verified or committed; ask again",
        "the object was replaced again and again in the meantime; ask again";
    PENDING: CONFLICT "pending" alone,
        "the upload is pending; commit it before it is downloaded",
        "the upload is pending: it counts once it is committed, with /upload/commit";
    BODY_TOO_LARGE: PAYLOAD_TOO_LARGE "body-too-large",
        "the body is over 64 KiB (2 MiB for `/upload/presigned-urls`, `/download/presigned-url` and for completing a multipart upload, 1 MiB for `/upload/verify`, `/upload/commit` and `/events/s3`)",
        "the body must not be longer than 65536 bytes";
    ANSWER_TOO_LARGE: PAYLOAD_TOO_LARGE "answer-too-large",
        "the answer would be longer than what stands before a function of AWS Lambda accepts: 1 MB for an ALB, otherwise 6 MB; ask for fewer files",
        "the answer would be too long for the load balancer or the gateway; ask for fewer files at once";
    UNSUPPORTED_MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE "unsupported-media-type",
        "the request is not `application/json`, or it is compressed",
        "the request must have the header `content-type: application/json`, and no `content-encoding`";
    FILE_TOO_LARGE: UNPROCESSABLE_ENTITY "file-too-large",
        "the file is larger than the policy or S3 allows",
        "size must be at most 5242880 bytes; it is 6000000";
    SIZE_REQUIRED: UNPROCESSABLE_ENTITY "size-required",
        "`size` is missing: the policy requires it, or the policy or the ticket has a limit below 5 GiB, which a PUT can only be bound to by an exact size";
    CHECKSUM_REQUIRED: UNPROCESSABLE_ENTITY "checksum-required",
        "the policy requires a checksum";
    TYPE_NOT_ALLOWED: UNPROCESSABLE_ENTITY "type-not-allowed",
        "the policy does not allow this content type";
    ACTIVE_CONTENT: UNPROCESSABLE_ENTITY "active-content",
        "the policy refuses types that a browser may run scripts of";
    BLANK: UNPROCESSABLE_ENTITY "blank",
        "the key would be nothing but spaces";
    DOWNLOAD_NOT_ALLOWED: UNPROCESSABLE_ENTITY "download-not-allowed",
        "the policy does not allow downloads (`download`)";
    DELETE_NOT_ALLOWED: UNPROCESSABLE_ENTITY "delete-not-allowed",
        "the policy does not allow deleting (`delete`)";
    METADATA_NOT_ALLOWED: UNPROCESSABLE_ENTITY "metadata-not-allowed",
        "the policy does not let clients set this metadata";
    METADATA_TOO_LARGE: UNPROCESSABLE_ENTITY "metadata-too-large",
        "all metadata together is larger than S3 stores, or has more than 50 names";
    UNKNOWN_POLICY: UNPROCESSABLE_ENTITY "unknown-policy",
        "there is no such policy";
    POLICY_REQUIRED: UNPROCESSABLE_ENTITY "policy-required",
        "the request names no policy, and there is no default one";
    MULTIPART_NOT_SUPPORTED: UNPROCESSABLE_ENTITY "multipart-not-supported",
        "the policy cannot be enforced for a multipart upload; ask for a PUT";
    MULTIPART_NOT_ALLOWED: UNPROCESSABLE_ENTITY "multipart-not-allowed",
        "the policy does not allow multipart uploads";
    PART_NUMBER_TOO_HIGH: UNPROCESSABLE_ENTITY "part-number-too-high",
        "a file of the largest size that is allowed, or of the size that was announced, cannot have this part";
    POST_NOT_SUPPORTED: UNPROCESSABLE_ENTITY "post-not-supported",
        "the store does not support forms, or a form cannot enforce the policy; without `S3_FORMS_ONLY`, ask for a PUT";
    RESERVED: UNPROCESSABLE_ENTITY "reserved",
        "a form cannot carry this text; without `S3_FORMS_ONLY`, ask for a PUT";
    FORMS_ONLY: UNPROCESSABLE_ENTITY "forms-only",
        "the service grants forms only (`S3_FORMS_ONLY`); ask for one at `/upload/presigned-post`",
        "this service grants forms only; ask for one at /upload/presigned-post";
    RATE_LIMITED: TOO_MANY_REQUESTS "rate-limited",
        "the caller sent too many requests; see `Retry-After`",
        "there were too many requests; the `retry-after` header says how many seconds to wait";
    TOO_MANY_WAITING: TOO_MANY_REQUESTS "too-many-waiting",
        "too many requests of this caller wait for uploads",
        "too many requests of this caller wait for uploads; ask again without `wait`";
    TOO_MANY_LONG_BODIES: TOO_MANY_REQUESTS "too-many-long-bodies",
        "earlier long bodies, of the caller or of all, are still arriving",
        "earlier long bodies are still arriving; send fewer at the same time";
    TOO_MUCH_AT_ONCE: TOO_MANY_REQUESTS "too-much-at-once",
        "earlier requests, of the caller or of all, are still being worked on",
        "earlier requests are still being worked on; send fewer at the same time";
    ANSWERS_UNREAD: TOO_MANY_REQUESTS "answers-unread",
        "earlier answers, of the caller or of all, have not been read",
        "earlier answers have not been read yet; read them, or close their connections";
    INTERNAL: INTERNAL_SERVER_ERROR "internal",
        "a fault in presignd",
        "something went wrong in presignd; its log has the cause under this request id";
    UNSUPPORTED_TRANSFER_CODING: NOT_IMPLEMENTED "unsupported-transfer-coding",
        "the request has a transfer coding other than `chunked`",
        "the only transfer coding that is supported is `chunked`";
    STORAGE_ERROR: BAD_GATEWAY "storage-error",
        "the store answered with an error",
        "the store answered with an error; the log has it under this request id";
    CREDENTIALS_UNAVAILABLE: SERVICE_UNAVAILABLE "credentials-unavailable",
        "there are no AWS credentials at the moment; see `Retry-After`",
        "there are no credentials to sign with at the moment; try again later";
    STORAGE_UNAVAILABLE: SERVICE_UNAVAILABLE "storage-unavailable",
        "the store cannot be reached at the moment; see `Retry-After`",
        "the store cannot be reached at the moment; try again later";
    ISSUER_UNAVAILABLE: SERVICE_UNAVAILABLE "issuer-unavailable",
        "the issuer's keys cannot be fetched at the moment; see `Retry-After`",
        "tokens cannot be checked at the moment; try again later";
    EVENT_NOT_DELIVERED: SERVICE_UNAVAILABLE "event-not-delivered" alone,
        "the application or the store failed, or there was no room for the notification, which has to be sent again (`/events/s3` alone)",
        "not every event of this notification reached the application; send it again";
    STOPPING: SERVICE_UNAVAILABLE "stopping",
        "the service is shutting down (`/readyz` alone)",
        "the service is shutting down";
    STORAGE_TIMEOUT: GATEWAY_TIMEOUT "storage-timeout",
        "the store did not answer in time",
        "the store did not answer in time; try again later";
    REQUEST_TIMEOUT: GATEWAY_TIMEOUT "request-timeout",
        "the request took too long in all";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_a_row_of_the_table_in_the_documentation() {
        let rows: Vec<String> = ALL
            .iter()
            .map(|kind| {
                let (status, code, when) = (kind.status.as_u16(), kind.code, kind.when);
                format!("| {status} | `{code}` | {when} |\n")
            })
            .collect();
        let rows = rows.concat();
        let page = include_str!("../../../docs/api.md");
        assert!(page.contains(&rows), "the table has to be:\n{rows}");
    }

    #[test]
    fn kinds_are_in_the_order_of_their_statuses_and_have_codes_of_their_own() {
        assert!(ALL.is_sorted_by_key(|kind| kind.status));
        let mut codes: Vec<&str> = ALL.iter().map(|kind| kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }
}
