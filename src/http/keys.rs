//! One key or several: what the bodies of requests about uploads have in common.

use serde::Serialize;
use utoipa::openapi::{OneOfBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{FieldError, FieldErrors, Problem};
use crate::upload::Invalid;

/// How many keys of a list count as one request in the rate limit. Each of them is a call to the store.
pub(super) const KEYS_PER_REQUEST: usize = 10;

/// Reads the fields `key` and `keys`, of which a request has exactly one. `of_one` are pointers to the
/// fields that need `key`, and whether the request has them.
pub(super) fn key_or_keys(
    key: Option<String>,
    keys: Option<Vec<String>>,
    of_one: &[(&str, bool)],
    errors: &mut FieldErrors,
) -> Option<Vec<String>> {
    match (key, keys) {
        (Some(key), None) => Some(vec![key]),
        (None, Some(keys)) => {
            for (pointer, _) in of_one.iter().filter(|(_, is_there)| *is_there) {
                let detail = "is for one `key`, and not to be given with `keys`";
                errors.push((*pointer).into(), Invalid::new("needs-key", detail));
            }
            Some(keys)
        }
        (Some(_), Some(_)) => {
            let detail = "must not be given together with `key`";
            errors.push("/keys".into(), Invalid::new("key-and-keys", detail));
            None
        }
        (None, None) => {
            let invalid = Invalid::new("required", "is required, or `keys`");
            errors.push("/key".into(), invalid);
            None
        }
    }
}

/// What is wrong with one upload of several.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadProblem)]
pub(super) struct UploadProblemDto {
    /// `not-uploaded`; when verifying or committing also `mismatch`, `content-mismatch` or `replaced`, and when
    /// downloading also `pending`.
    #[schema(example = "not-uploaded")]
    code: &'static str,
    #[schema(
        example = "there is no such upload under the policy of this request (`default`, unless `policy` names another one), or not yet"
    )]
    detail: String,
    /// All differences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

impl From<Problem> for UploadProblemDto {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            detail: problem.detail,
            errors: problem.errors,
        }
    }
}

/// The schema of a body with either `key` or `keys`: one of these two.
pub(super) fn one_or_many(one: &str, many: &str, description: &str) -> RefOr<Schema> {
    let example =
        serde_json::json!({"key": "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg"});
    OneOfBuilder::new()
        .item(Ref::from_schema_name(one))
        .item(Ref::from_schema_name(many))
        .description(Some(description))
        .examples([example])
        .into()
}

/// Adds the schemas of a body `T` with either `key` or `keys`, by their names and with their descriptions. `of_one`
/// are the fields that need `key`.
pub(super) fn schemas_of<T: ToSchema>(
    one: (&str, &str),
    many: (&str, &str),
    of_one: &[&str],
    schemas: &mut Vec<(String, RefOr<Schema>)>,
) {
    let without: Vec<&str> = of_one.iter().copied().chain(["key"]).collect();
    for ((name, description), key, without) in
        [(one, "key", &["keys"][..]), (many, "keys", &without)]
    {
        let schema = fields::<T>(description, key, without);
        schemas.push((name.to_owned(), schema));
    }
    T::schemas(schemas);
}

/// The fields of a request, with `key` as a required one and without some others.
fn fields<T: PartialSchema>(description: &str, key: &str, without: &[&str]) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = T::schema() else {
        unreachable!("a struct is an object");
    };
    object
        .properties
        .retain(|name, _| !without.contains(&name.as_str()));
    object.required.push(key.to_owned());
    object.description = Some(description.to_owned());
    Schema::Object(object).into()
}
