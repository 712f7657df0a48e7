//! Notifies an application: signs a message by [Standard
//! Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) and
//! posts it once. Knows nothing of what the message says.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Method, Response, StatusCode, Url, header, redirect};
use sha2::Sha256;

use crate::error_chain::causes;

/// How long an application may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a request that only finds out whether it can be reached.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// At most this much of an answer is read, so that its connection can be used again. Its content is
/// ignored.
const DRAINED_BYTES: usize = 4 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Where messages go, and how they are signed.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    url: Url,
    secrets: Secrets,
}

/// The keys that sign each message. With two of them a receiver can change from one to the other.
// An `Hmac` does not show its key in debug texts.
#[derive(Clone, Debug)]
pub struct Secrets(Vec<Hmac<Sha256>>);

/// Why a message did not reach the application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeliveryError {
    #[error("the application answered {0}")]
    Status(StatusCode),
    #[error("the application did not answer in time")]
    TimedOut,
    #[error("the application cannot be reached: {0}")]
    Unreachable(String),
}

impl DeliveryError {
    /// For metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::TimedOut => "timeout",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

impl From<reqwest::Error> for DeliveryError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::TimedOut
        } else {
            // The address may hold a secret.
            Self::Unreachable(causes(&error.without_url()))
        }
    }
}

impl Secrets {
    const PREFIX: &str = "whsec_";

    /// Reads secrets of the form `whsec_` and base64, separated by spaces.
    ///
    /// # Errors
    ///
    /// The rule that one of them breaks, as the rest of a sentence that begins with its name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const RULE: &str =
            "must be `whsec_` and 24 to 64 random bytes in base64; several are separated by spaces";
        let key = |secret: &str| {
            let bytes = BASE64_STANDARD.decode(secret.strip_prefix(Self::PREFIX)?);
            let bytes = bytes
                .ok()
                .filter(|bytes| (24..=64).contains(&bytes.len()))?;
            Hmac::new_from_slice(&bytes).ok()
        };
        let keys: Option<Vec<_>> = text.split_ascii_whitespace().map(key).collect();
        keys.filter(|keys| !keys.is_empty()).map(Self).ok_or(RULE)
    }

    /// A secret of 256 random bits.
    ///
    /// # Errors
    ///
    /// The machine has no randomness.
    pub fn generate() -> Result<String, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(format!(
            "{}{}",
            Self::PREFIX,
            BASE64_STANDARD.encode(random)
        ))
    }

    /// The value of the header `webhook-signature`.
    fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let signature = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            for part in [id, ".", &timestamp.to_string(), ".", body] {
                mac.update(part.as_bytes());
            }
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        };
        let signatures: Vec<String> = self.0.iter().map(signature).collect();
        signatures.join(" ")
    }
}

impl Webhook {
    /// # Errors
    ///
    /// No TLS client can be built.
    pub fn new(url: Url, secrets: Secrets) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // The operator named this application, and not the one that it redirects to.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("presignd/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            url,
            secrets,
        })
    }

    /// Whether messages leave this machine without encryption.
    pub(crate) fn is_unencrypted(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_local = host == "localhost" || address.is_ok_and(|it| it.is_loopback());
        self.url.scheme() == "http" && !is_local
    }

    /// Asks the application for anything, without a message: any answer shows that it can be reached.
    /// An OPTIONS request has no effect at the receiver.
    pub(crate) async fn probe(&self) -> Result<Response, DeliveryError> {
        let request = self.client.request(Method::OPTIONS, self.url.clone());
        let answer = request.timeout(PROBE_TIMEOUT).send().await;
        Ok(answer?)
    }

    /// Posts the JSON `body`. The application has the message once it answers with a status of 2xx.
    pub(crate) async fn send(
        &self,
        id: &str,
        body: String,
        now: SystemTime,
    ) -> Result<(), DeliveryError> {
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = self.secrets.sign(id, timestamp, &body);
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        let mut answer = request.send().await?;
        let status = answer.status();
        let drain = async {
            let mut bytes = 0;
            while bytes < DRAINED_BYTES
                && let Ok(Some(chunk)) = answer.chunk().await
            {
                bytes += chunk.len();
            }
        };
        tokio::time::timeout(DRAIN_TIMEOUT, drain).await.ok(); // best effort
        if status.is_success() {
            Ok(())
        } else {
            Err(DeliveryError::Status(status))
        }
    }
}

// Without the address, which may hold a secret.
debug_name!(Webhook);

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the project's libraries are tested with.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secrets.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs() {
        let [old, new] = [(); 2].map(|()| Secrets::generate().unwrap());
        let sign = |secrets: &str| Secrets::parse(secrets).unwrap().sign("a", 1, "{}");
        let both = format!("{} {}", sign(&old), sign(&new));
        assert_eq!(sign(&format!("{old} {new}")), both);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let long = format!("whsec_{}", BASE64_STANDARD.encode([0; 65]));
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La", // 21 bytes
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw secret",
            &long,
        ] {
            assert!(Secrets::parse(text).is_err(), "{text}");
        }
    }
}
