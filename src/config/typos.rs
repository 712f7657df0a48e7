//! Variables of the process whose names are misspelled: they have no effect, and nothing else says so.

use strsim::osa_distance;

use super::VARIABLES;

/// The variable of presignd that was probably meant by `name`, which is none.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    if name.starts_with("OTEL_") || VARIABLES.contains(&name) {
        return None;
    }
    // The SDK reads variables that are not listed, and whose names differ little.
    let tolerance = usize::from(!name.starts_with("AWS_"));
    // Other programs read secrets from files of such names; this one does not.
    let without_file = plain(name.strip_suffix("_FILE").unwrap_or(name));
    let whole = plain(name);
    VARIABLES.iter().copied().find(|known| {
        let known = plain(known);
        osa_distance(&known, &whole) <= tolerance || known == without_file
    })
}

/// The name without `_`, and with its words in the singular.
fn plain(name: &str) -> String {
    let singular = |word: &str| match word.strip_suffix("IES") {
        Some(stem) => format!("{stem}Y"),
        None => word.trim_end_matches('S').to_owned(),
    };
    name.to_ascii_uppercase().split('_').map(singular).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_is_recognised() {
        for (name, known) in [
            ("RATE_LIMIT_PERSECOND", "RATE_LIMIT_PER_SECOND"),
            ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
            ("UPLOAD_POLICY_FILE", "UPLOAD_POLICIES_FILE"),
            ("CORS_ALLOWED_ORIGIN", "CORS_ALLOWED_ORIGINS"),
            ("JWT_POLICY_CLAIM", "JWT_POLICIES_CLAIM"),
            ("CORS_ALOWED_ORIGINS", "CORS_ALLOWED_ORIGINS"),
            ("API_KEY_FILE", "API_KEYS_FILE"),
            ("METRICS_ADR", "METRICS_ADDR"),
            ("WEBHOOK_SERCET", "WEBHOOK_SECRET"),
            ("S3_FORCE_PATH_STILE", "S3_FORCE_PATH_STYLE"),
            ("cors_allowed_origins", "CORS_ALLOWED_ORIGINS"),
            ("AWS_ENDPOINT_URLS3", "AWS_ENDPOINT_URL_S3"),
            ("EVENTS_TOKEN_FILE", "EVENTS_TOKEN"),
        ] {
            assert_eq!(meant_by(name), Some(known), "{name}");
        }
    }

    #[test]
    fn names_of_other_programs_are_not_taken_for_misspelled_ones() {
        for name in VARIABLES.iter().copied().chain([
            "PATH",
            "HOME",
            "PORT",
            "RUST_BACKTRACE",
            "RUST_LOG_STYLE",
            "LOG_LEVEL",
            "AWS_ENDPOINT_URL_SQS",
            "AWS_S3_BUCKET",
            "AWS_DEFAULT_REGION",
            "OTEL_EXPORTER_OTLP_ENDPOINTS",
            "JWT_PRIVATE_KEY_FILE",
            "PUBLIC_IP",
            "DATABASE_URL",
            "METRICS_PORT",
            "METRICS_PORT_9090_TCP_ADDR",
            "EVENTS_SERVICE_HOST",
            "WEBHOOK_PORT",
            "UPLOAD_SERVICE_PORT",
            "",
        ]) {
            assert_eq!(meant_by(name), None, "{name}");
        }
    }
}
