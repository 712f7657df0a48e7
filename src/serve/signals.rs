//! The signals that stop the process, and the one that makes it read its files again.

use anyhow::Result;
use tokio_util::sync::CancellationToken;

#[cfg_attr(windows, path = "signals/windows.rs")]
#[cfg_attr(unix, path = "signals/unix.rs")]
mod system;

pub(super) use self::system::Hangups;
use self::system::Stops;

/// A token that a signal to stop cancels: SIGINT or SIGTERM, or on Windows Ctrl-C and what closes the
/// console. A second signal ends the process immediately.
///
/// The signals are caught from this call on, even if nobody waits for the token yet.
pub(crate) fn cancelled_by_signals() -> Result<CancellationToken> {
    let mut stops = Stops::new()?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            stops.recv().await;
            cancelled.cancel();
        }
        // No message: a blocked stdout or stderr may be the reason for the second signal.
        std::process::exit(1);
    });
    Ok(stop)
}
