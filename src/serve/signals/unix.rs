//! Signals of Linux and macOS.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Each SIGHUP from its creation on. Before it, the signal ends the process.
pub(in crate::serve) struct Hangups(Signal);

impl Hangups {
    pub(in crate::serve) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    pub(in crate::serve) async fn recv(&mut self) {
        self.0.recv().await;
    }
}
