//! The variables of events and webhooks.

use std::time::Duration;

use reqwest::Url;

use super::env::Reader;
use crate::http::events::{Settings, Token};
use crate::webhook::{Secrets, Webhook};

const DEFAULT_GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// `None` if no webhook is configured, or if there is a fault.
pub(super) fn events(reader: &mut Reader<'_>) -> Option<Settings> {
    const OTHERS: [&str; 3] = ["EVENTS_TOKEN", "WEBHOOK_SECRET", "WEBHOOK_GIVE_UP_AFTER"];
    if !reader.is_set("WEBHOOK_URL") {
        for name in OTHERS {
            if reader.is_set(name) {
                reader.fault(format!(
                    "{name} is set, but WEBHOOK_URL is not; set it to the address that webhooks go to, or remove {name}"
                ));
            }
        }
        return None;
    }
    let url = reader.read_secret("WEBHOOK_URL", webhook_url);
    let name = "WEBHOOK_SECRET";
    reader.required(name, "WEBHOOK_URL needs it, to sign what it sends; set it to whsec_ and the output of `openssl rand -base64 32`");
    let secrets = reader.read_secret(name, Secrets::parse);
    let name = "EVENTS_TOKEN";
    // In Lambda, the store invokes the function itself.
    if !reader.is_in_lambda() {
        reader.required(name, "WEBHOOK_URL needs it, for the store to report uploads with; set it to the output of `openssl rand -hex 32`");
    }
    let token = reader.read_secret(name, Token::parse);
    let must_be = "a time from 1m to 14d such as 24h";
    let give_up_after = reader.read("WEBHOOK_GIVE_UP_AFTER", must_be, |text| {
        let time = humantime::parse_duration(text).ok()?;
        (Duration::from_mins(1)..=Duration::from_hours(14 * 24))
            .contains(&time)
            .then_some(time)
    });
    let webhook = Webhook::new(url?, secrets?).map_err(anyhow::Error::from);
    Some(Settings {
        token,
        webhook: reader.keep("WEBHOOK_URL", webhook)?,
        give_up_after: give_up_after.unwrap_or(DEFAULT_GIVE_UP_AFTER),
    })
}

pub(crate) fn webhook_url(text: &str) -> Result<Url, &'static str> {
    let url = text.parse::<Url>().ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    url.ok_or(
        "must be a URL such as https://app.example.com/hooks/uploads, with no user and no fragment",
    )
}
