//! The server: an accept loop with a limit on connections, and a graceful shutdown. The router
//! handles the requests.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::connection::Closer;
use self::connection::{Connections, run};
use super::HttpService;
use crate::telemetry::Metrics;

/// How long requests that are already on their way may take to arrive once the service stops.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// What a client may use of time, memory and connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a new connection may stay silent.
    pub silent_timeout: Duration,
    /// How long a connection may take from one answer until the head of the next request is
    /// complete. Load balancers keep idle connections for 60 s. This timeout is longer, so that they
    /// do not use a connection that we are about to close.
    pub head_timeout: Duration,
    /// How long a client may accept nothing of an answer.
    pub unread_timeout: Duration,
    /// How long the system keeps an answer of which the client accepts nothing once the connection is
    /// closed. A closed connection does not count any more for `max_connections`.
    pub closed_timeout: Duration,
    /// How long the rest of a request is received that was answered before all of it had come. A
    /// client that reads no answer before it has sent all gets the answer then.
    pub rest_timeout: Duration,
    /// The longest head, in bytes. A head has at most 100 fields, too: up to there hyper reads it
    /// without an allocation.
    pub max_head_bytes: usize,
    /// Beyond this number, the longest idle connection is closed; if none is idle, new ones wait.
    pub max_connections: usize,
    /// How long requests may go on once the service stops. Kubernetes kills it after 30 s.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            silent_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(75),
            unread_timeout: Duration::from_mins(2),
            closed_timeout: Duration::from_secs(10),
            rest_timeout: Duration::from_secs(20),
            max_head_bytes: 64 * 1024,
            max_connections: 16 * 1024,
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct Server {
    pub limits: Limits,
    /// Cancelled when the service is to stop.
    pub stop: CancellationToken,
    /// Where connections are counted.
    pub metrics: Metrics,
}

/// Serves `service`, until `server.stop` is cancelled. Then new connections are refused, requests
/// in progress are answered, each with `connection: close`, and idle connections are closed.
pub async fn serve(listener: TcpListener, service: impl HttpService, server: Server) {
    let Server {
        limits,
        stop,
        metrics,
    } = server;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_head_bytes);
    metrics.set_max_connections(limits.max_connections);
    let connections = Arc::new(Connections::new(&metrics));
    let (tasks, close) = (TaskTracker::new(), CancellationToken::new());
    let free = Arc::new(Semaphore::new(limits.max_connections));
    let spawn = |(stream, peer), slot: OwnedSemaphorePermit| {
        let connection = connections.open(close.child_token());
        let (builder, service, stop) = (builder.clone(), service.clone(), stop.clone());
        tasks.spawn(async move {
            run((stream, peer), &builder, service, limits, &connection, stop).await;
            drop(slot);
        });
    };
    let accept_all = async {
        loop {
            let accepted = accept(&listener, &connections).await;
            spawn(accepted, slot(&free, &connections).await);
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = stop.cancelled() => {}
    }
    // Clients of connections in the kernel's queue believe that they are connected already.
    while let Ok(slot) = Arc::clone(&free).try_acquire_owned()
        // tokio's budget would pretend that the queue is empty.
        && let Some(accepted) = tokio::task::unconstrained(accept(&listener, &connections)).now_or_never()
    {
        spawn(accepted, slot);
    }
    drop(listener);
    if timeout(limits.drain_timeout, drain(&tasks, &close))
        .await
        .is_err()
    {
        let timeout = limits.drain_timeout;
        tracing::warn!("stopped with requests unanswered after {timeout:?}");
    }
}

/// Waits until all connections are closed, of which no more are opened.
async fn drain(tasks: &TaskTracker, close: &CancellationToken) {
    tasks.close();
    // A connection in use closes with its next answer. An idle one may have a request on its way. As
    // long as some connections get answers, others may still wait for the processor.
    loop {
        let before = tasks.len();
        sleep(LAST_REQUESTS).await;
        if tasks.len() == before {
            break;
        }
    }
    close.cancel();
    tasks.wait().await;
}

/// A free slot. As long as there is none, idle connections are closed to free one.
async fn slot(free: &Arc<Semaphore>, connections: &Connections) -> OwnedSemaphorePermit {
    /// When to look again for a connection that has become idle.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        if let Ok(slot) = Arc::clone(free).try_acquire_owned() {
            return slot;
        }
        connections.close_longest_idle();
        let acquired = timeout(PAUSE, Arc::clone(free).acquire_owned()).await;
        if let Ok(Ok(slot)) = acquired {
            return slot;
        }
    }
}

/// Accepts the next connection, whatever happens to others. Where no file descriptor is free, idle
/// connections are closed.
async fn accept(listener: &TcpListener, connections: &Connections) -> (TcpStream, SocketAddr) {
    /// When to try again.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut is_logged = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if !is_logged {
                    tracing::warn!(%error, "cannot accept a connection");
                    is_logged = true;
                }
                connections.close_longest_idle();
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
