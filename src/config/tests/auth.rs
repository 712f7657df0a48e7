//! Who may call.

use super::{config, faults, policies_file};

#[test]
fn an_incomplete_authentication_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let no_keys = file("empty.toml", "");
    let not_hashed = file(
        "plain.toml",
        "[[keys]]\nname = 'a'\nsha256 = 'my-secret-key'",
    );
    let no_pem = file("no.pem", "my-secret-key");
    let with_caller = file(
        "policies.toml",
        "[policies.default]\nkey = '{caller}/{uuid}'",
    );
    let with_download = file("download.toml", "[policies.default]\ndownload = true");
    let with_delete = file("delete.toml", "[policies.default]\ndelete = true");
    let keys = ("AUTH_MODE", "api-key");
    let jwt = ("AUTH_MODE", "jwt");
    let issuer = ("JWT_ISSUER", "https://issuer.example/");
    let audience = ("JWT_AUDIENCE", "presignd");
    let secret = ("JWT_SECRET", "a secret of more than thirty-two bytes");
    for (variables, says) in [
        (&[keys][..], "API_KEYS_FILE is not set"),
        (
            &[keys, ("API_KEYS_FILE", "/no/such/file")],
            "API_KEYS_FILE: cannot read",
        ),
        (&[keys, ("API_KEYS_FILE", &no_keys)], "API_KEYS_FILE: "),
        (&[keys, ("API_KEYS_FILE", &not_hashed)], "line 1: sha256"),
        (&[jwt, issuer, audience], "JWT_JWKS_URL"),
        (&[jwt, issuer, secret], "JWT_AUDIENCE is not set"),
        (&[jwt, audience, secret], "JWT_ISSUER is not set"),
        (
            &[jwt, issuer, audience, ("JWT_SECRET", "my-secret-key")],
            "JWT_SECRET must have at least 32 bytes",
        ),
        (
            &[jwt, issuer, audience, ("JWT_PUBLIC_KEY_FILE", &no_pem)],
            "JWT_PUBLIC_KEY_FILE: ",
        ),
        (
            &[
                jwt,
                issuer,
                audience,
                ("JWT_JWKS_URL", "http://user:my-secret-key@issuer.example/"),
            ],
            "JWT_JWKS_URL must be an https URL",
        ),
        (
            &[jwt, issuer, audience, ("JWT_JWKS_URL", "issuer.example")],
            "JWT_JWKS_URL must be an https URL",
        ),
        (
            &[
                jwt,
                issuer,
                audience,
                secret,
                ("JWT_JWKS_URL", "https://a.example/"),
            ],
            "only one",
        ),
        (
            &[("AUTH_MODE", "jwt, api-key"), issuer, audience, secret],
            "API_KEYS_FILE is not set",
        ),
        (
            &[("UPLOAD_POLICIES_FILE", &with_caller)],
            "policies.default.key uses {caller}",
        ),
        (
            &[("UPLOAD_POLICIES_FILE", &with_download)],
            "policies.default.download is true, but AUTH_MODE is none",
        ),
        (
            &[("UPLOAD_POLICIES_FILE", &with_delete)],
            "policies.default.delete is true, but AUTH_MODE is none",
        ),
    ] {
        let faults = faults(variables);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(says), "{says:?}: {faults:?}");
        assert!(!faults[0].contains("my-secret-key"), "{faults:?}");
    }
    let all = faults(&[jwt]);
    assert_eq!(
        all.len(),
        3,
        "keys, issuer and audience are missing: {all:?}"
    );
}

#[test]
fn the_advice_on_a_variable_without_effect_keeps_the_other_way() {
    let file = ("API_KEYS_FILE", "keys.toml");
    let jwt = [
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "https://issuer.example/"),
        ("JWT_AUDIENCE", "presignd"),
        ("JWT_SECRET", "a secret of more than thirty-two bytes"),
        file,
    ];
    for (variables, mode, advice) in [
        (&jwt[1..2], "none", "jwt"),
        (&[file], "none", "api-key"),
        (&jwt, "jwt", "jwt,api-key"),
    ] {
        let (name, _) = variables.last().unwrap();
        let fault = format!(
            "{name} is set, but AUTH_MODE is `{mode}`; set AUTH_MODE={advice}, or remove {name}"
        );
        assert_eq!(faults(variables), [fault]);
    }
}

#[test]
fn a_function_of_lambda_says_who_may_call() {
    let function = ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001");
    let without_mode = faults(&[function]);
    assert_eq!(without_mode.len(), 1, "{without_mode:?}");
    assert!(without_mode[0].contains("AUTH_MODE is not set, but anyone"));
    assert!(config(&[function, ("AUTH_MODE", "none")]).is_ok());
}

#[test]
fn tickets_need_tokens_and_a_claim_of_their_own() {
    let (_folder, path) = policies_file("[policies.default]\nkey = '{vars.tenant}/{uuid}'");
    let jwt = [
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "https://issuer.example/"),
        ("JWT_AUDIENCE", "presignd"),
        ("JWT_SECRET", "a secret of more than thirty-two bytes"),
    ];
    let with_vars = ("UPLOAD_POLICIES_FILE", &*path);
    assert!(config(&[&jwt[..], &[with_vars]].concat()).is_ok());
    let faults_of = |variables: &[(&str, &str)]| faults(variables).join(", ");
    assert!(faults_of(&[with_vars]).contains("policies.default.key uses {vars.…}"));
    let claim = ("JWT_POLICIES_CLAIM", "upload");
    let faults = faults_of(&[&jwt[..], &[claim]].concat());
    assert!(
        faults.contains("JWT_POLICIES_CLAIM must not be upload"),
        "{faults}"
    );
}

#[test]
fn a_trusted_address_of_ipv4_counts_in_either_form() {
    let all = "::ffff:10.0.0.0/104, ::ffff:192.0.2.1, fd00::/8, 198.51.100.0/24";
    let config = config(&[("TRUSTED_PROXIES", all)]).unwrap();
    let trusted = config.http.trusted_proxies.iter().map(ToString::to_string);
    let trusted: Vec<String> = trusted.collect();
    assert_eq!(
        trusted,
        ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "198.51.100.0/24"]
    );
}

#[test]
fn a_missing_file_of_keys_is_named_beside_a_fault_of_the_policies() {
    let (_folder, path) = policies_file("[policies.default]\nkey = 7");
    let both = faults(&[("AUTH_MODE", "api-key"), ("UPLOAD_POLICIES_FILE", &path)]);
    assert!(both[0].contains("UPLOAD_POLICIES_FILE"), "{both:?}");
    assert!(both[1].contains("API_KEYS_FILE is not set"), "{both:?}");
}
