//! The SDK's sources of credentials, which are searched again after they had none, and for keys that
//! were replaced.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use aws_config::Region;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};

use super::loader;
use crate::config::Env;

/// The SDK's chain of providers, which reads the profile once. It is built again unless it gave
/// credentials that expire: what is missing or wrong in the profile can be corrected, and its keys can be
/// replaced, without a restart.
#[derive(Debug)]
pub(super) struct RenewedChain {
    env: Env,
    region: Region,
    chain: Mutex<Option<SharedCredentialsProvider>>,
}

impl RenewedChain {
    pub(super) fn new(env: Env, region: Region, chain: SharedCredentialsProvider) -> Self {
        Self {
            env,
            region,
            chain: Mutex::new(Some(chain)),
        }
    }

    async fn credentials(&self) -> provider::Result {
        let lock = || self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().take();
        let chain = match kept {
            Some(chain) => chain,
            None => self.chain().await?,
        };
        let answer = chain.provide_credentials().await;
        if answer.as_ref().is_ok_and(|it| it.expiry().is_some()) {
            *lock() = Some(chain);
        }
        answer.map_err(|error| self.named(error))
    }

    async fn chain(&self) -> Result<SharedCredentialsProvider, CredentialsError> {
        let loader = loader(&self.env).region(self.region.clone());
        let chain = loader.load().await.credentials_provider();
        chain.ok_or_else(|| CredentialsError::not_loaded("the SDK has no chain"))
    }

    /// The SDK's error does not name the file of a token.
    fn named(&self, error: CredentialsError) -> CredentialsError {
        let name = "AWS_WEB_IDENTITY_TOKEN_FILE";
        let file = self.env.get(name);
        match file.map(|path| (path, File::open(path))) {
            Some((path, Err(why))) => {
                CredentialsError::provider_error(format!("{name}: cannot read {path}: {why}"))
            }
            _ => error,
        }
    }
}

impl ProvideCredentials for RenewedChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use tokio::time::timeout;

    use super::*;
    use crate::config::tests::env;

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_did_not_answer_or_whose_keys_do_not_expire_is_built_again() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIAOFENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let keys = Credentials::new("AKIAOLD", "secret", None, None, "test");
        for old in [
            SharedCredentialsProvider::new(provide_credentials_fn(std::future::pending)),
            SharedCredentialsProvider::new(keys),
        ] {
            let chain = RenewedChain::new(env(&variables), Region::new("eu-west-1"), old);
            let first = timeout(Duration::from_secs(5), chain.provide_credentials()).await;
            assert!(!first.is_ok_and(|it| it.unwrap().access_key_id() == "AKIAOFENV"));
            let second = chain.provide_credentials().await.unwrap();
            assert_eq!(second.access_key_id(), "AKIAOFENV");
        }
    }
}
