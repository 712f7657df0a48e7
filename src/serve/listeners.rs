//! Opens the ports that the service listens on.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Config;

/// Open ports.
pub(super) struct Listeners {
    pub(super) service: TcpListener,
    pub(super) metrics: Option<TcpListener>,
}

impl Listeners {
    /// `setting` is the name of the setting that has `addr`.
    pub(super) fn open(addr: SocketAddr, setting: &str, config: &Config) -> Result<Self> {
        Ok(Self {
            service: listen(addr, setting)?,
            metrics: config
                .metrics_addr
                .map(|addr| listen(addr, "METRICS_ADDR"))
                .transpose()?,
        })
    }

    pub(super) fn addr(&self) -> Result<SocketAddr> {
        Ok(self.service.local_addr()?)
    }
}

pub(super) fn listen(addr: SocketAddr, setting: &str) -> Result<TcpListener> {
    /// How many connections may wait to be accepted: more than come in a burst.
    const BACKLOG: u32 = 4096;
    let socket = || {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    socket().map_err(|error: std::io::Error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there already".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("cannot listen on {addr}: {why}; set another address with {setting}")
    })
}
