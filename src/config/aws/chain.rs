//! Where the SDK finds credentials, also when it did not find any before.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use aws_config::Region;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};

use super::loader;
use crate::config::Env;

/// The SDK's chain of providers, which is built again when it has failed: a chain reads the profile
/// once, so one that was missing would be missing until a restart.
#[derive(Debug)]
pub(super) struct RenewedChain {
    env: Env,
    region: Region,
    chain: Mutex<SharedCredentialsProvider>,
}

impl RenewedChain {
    pub(super) fn new(env: Env, region: Region, chain: SharedCredentialsProvider) -> Self {
        Self {
            env,
            region,
            chain: Mutex::new(chain),
        }
    }

    async fn credentials(&self) -> provider::Result {
        let lock = || self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let chain = lock().clone();
        let answer = chain.provide_credentials().await;
        if answer.is_err() {
            let loader = loader(&self.env).region(self.region.clone());
            if let Some(chain) = loader.load().await.credentials_provider() {
                *lock() = chain;
            }
        }
        answer.map_err(|error| self.named(error))
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
