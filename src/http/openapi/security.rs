//! How callers authenticate: the security schemes of the OpenAPI document, and what each operation
//! requires.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ObjectBuilder, OpenApi, Ref, RefOr, Required, Type};

use super::operations;
use crate::http::auth::{API_KEY as API_KEY_HEADER, Auth, ON_BEHALF_OF};

const BEARER: &str = "bearer";
const API_KEY: &str = "apiKey";
/// The name of the parameter for [`ON_BEHALF_OF`] among the document's components.
const USER: &str = "onBehalfOf";

/// Adds the ways to authenticate: all of them, or those that `auth` allows. An operation without a
/// 401 is public, which is stated explicitly.
pub(super) fn add(document: &mut OpenApi, auth: Option<&Auth>) {
    let of_none: [String; 0] = [];
    let [bearer, api_key] =
        [BEARER, API_KEY].map(|scheme| SecurityRequirement::new(scheme, of_none.clone()));
    let (requirements, token) = match auth {
        None => (
            vec![SecurityRequirement::default(), bearer, api_key],
            Some("An API key or a JWT, depending on the service's `AUTH_MODE`"),
        ),
        Some(auth) => match (&auth.api_keys, &auth.jwt) {
            (None, None) => (Vec::new(), None),
            (Some(_), None) => (vec![bearer, api_key], Some("An API key")),
            (None, Some(_)) => (
                vec![bearer],
                Some("A JWT from the issuer that the service trusts"),
            ),
            (Some(_), Some(_)) => (
                vec![bearer, api_key],
                Some("An API key, or a JWT from the issuer that the service trusts"),
            ),
        },
    };
    let components = document.components.get_or_insert_default();
    if token.is_some() {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(token);
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
    }
    let accepts_keys = auth.is_none_or(|auth| auth.api_keys.is_some());
    if accepts_keys {
        let header = ApiKeyValue::with_description(API_KEY_HEADER.as_str(), "An API key");
        components.add_security_scheme(API_KEY, SecurityScheme::ApiKey(ApiKey::Header(header)));
        let user = RefOr::T(user());
        components.parameters.insert(USER.to_owned(), user);
    }
    for path in document.paths.paths.values_mut() {
        // Some operations have a secret of their own.
        for operation in operations(path).filter(|operation| operation.security.is_none()) {
            if !operation.responses.responses.contains_key("401") {
                operation.security = Some(Vec::new());
                continue;
            }
            operation.security = Some(requirements.clone());
            if accepts_keys {
                let user = Ref::new(format!("#/components/parameters/{USER}"));
                let parameters = operation.parameters.get_or_insert_default();
                parameters.push(RefOr::Ref(user));
            }
        }
    }
}

/// The header with which a back end names one of its users.
fn user() -> Parameter {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1));
    ParameterBuilder::new()
        .name(ON_BEHALF_OF.as_str())
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The user that the request is for. Only an API key with `on_behalf = true` may name one",
        ))
        .schema(Some(name))
        .build()
}
