//! What stops a process on Windows.

use std::io;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

pub(super) struct Stops {
    c: CtrlC,
    r#break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Stops {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            c: ctrl_c()?,
            r#break: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.r#break.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}

/// Windows has no SIGHUP: keys and policies are read at the start alone.
pub(in crate::serve) struct Hangups;

impl Hangups {
    #[expect(clippy::unnecessary_wraps, reason = "like the one of other systems")]
    pub(in crate::serve) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(in crate::serve) async fn recv(&mut self) {
        std::future::pending::<()>().await;
    }
}
