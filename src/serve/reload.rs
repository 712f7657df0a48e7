//! Reads the keys of callers and of the issuer, and the policies again when SIGHUP arrives. All
//! else needs a restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Service;
use super::announce::warn_of_same_keys;
use super::signals::Hangups;
use crate::config::{Config, Faults};

/// How long the files may take to be read. A network file system that hangs would hide the reload.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Service {
    /// `read` reads the whole configuration, so that a reload is checked like a start. If it has a
    /// fault, keys and policies stay as they are.
    pub(super) fn reload_on_hangups(
        &self,
        mut hangups: Hangups,
        read: impl Fn() -> Result<Config, Faults> + Send + Sync + 'static,
    ) {
        let (uploads, credentials) = (self.uploads.clone(), self.credentials.clone());
        let (auth, metrics) = (self.settings.auth.clone(), self.settings.metrics.clone());
        let read = Arc::new(read);
        tokio::spawn(async move {
            loop {
                hangups.recv().await;
                let read = Arc::clone(&read);
                let config = match timeout(TIMEOUT, spawn_blocking(move || read())).await {
                    Ok(Ok(config)) => config,
                    Ok(Err(panicked)) => Err(Faults(vec![panicked.to_string()])),
                    Err(_elapsed) => {
                        let fault = format!("the files could not be read within {TIMEOUT:?}");
                        Err(Faults(vec![fault]))
                    }
                };
                let config = config.and_then(|config| {
                    let replaced = uploads.replace_policies(config.upload.policies.clone());
                    let moved = replaced.map_err(|unknown| {
                        Faults(vec![format!("UPLOAD_POLICIES_FILE: {unknown}")])
                    })?;
                    Ok((config, moved))
                });
                metrics.reload(config.is_ok());
                match config {
                    Ok((config, moved)) => {
                        for (policy, why) in moved {
                            tracing::warn!(
                                "the policy {policy} {why}: its earlier uploads may not be found any more, so nobody can verify, commit, download or delete them, and pending ones expire; to keep them, keep the policy as it was, and add the new one under another name"
                            );
                        }
                        warn_of_same_keys(&config.upload.policies);
                        credentials.set_longest_grant(config.upload.policies.longest_lifetime());
                        if let (Some(current), Some(new)) =
                            (&auth.api_keys, &config.http.auth.api_keys)
                        {
                            current.replace(new);
                        }
                        if let (Some(current), Some(new)) = (&auth.jwt, &config.http.auth.jwt) {
                            current.keys.replace(&new.keys);
                        }
                        tracing::info!("API keys, keys of the issuer and policies were read again");
                    }
                    Err(faults) => {
                        for fault in faults.0 {
                            tracing::error!(
                                "keys and policies stay as they were, because of a fault: {fault}"
                            );
                        }
                    }
                }
            }
        });
    }
}
