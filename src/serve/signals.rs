//! The signals that stop the process, and the one that makes it read its files again.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGINT or SIGTERM cancels. A second signal ends the process immediately.
///
/// The signals are caught from this call on, even if nobody waits for the token yet.
pub(crate) fn cancelled_by_signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            cancelled.cancel();
        }
        // No message: a blocked stdout or stderr may be the reason for the second signal.
        std::process::exit(1);
    });
    Ok(stop)
}

/// Each SIGHUP from this call on. Before it, the signal ends the process.
pub(super) fn hangups() -> Result<Signal> {
    Ok(signal(SignalKind::hangup())?)
}
