//! The server: connections, and bounds on what a client may take of them. What is asked for and
//! answered is the router's.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::telemetry::Metrics;

/// How long, after the service was told to stop, requests may still come in on connections that are open.
const LAST_REQUESTS: Duration = Duration::from_millis(500);

/// And how often in a row, at least, there have to be as many connections as before. In looks, not in
/// time: a process that gets no core answers nobody meanwhile.
const LAST_LOOKS: u32 = 10;

/// What a client may take: of time, memory and connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long the head of a request may take from its first byte to its last.
    pub head_timeout: Duration,
    /// How long the client may take to receive an answer, or what of it was sent at once.
    pub answer_timeout: Duration,
    /// How long nothing may happen on a connection that waits for a request. Longer than what load balancers keep connections for (60 s), so that it is
    /// not us who close one that they are about to use.
    pub idle_timeout: Duration,
    /// The longest head, in bytes. Enough for the numbers of 10,000 parts in a query. (It may have 100 fields:
    /// hyper's own bound, below which it reads them without an allocation.)
    pub max_head_bytes: usize,
    /// Further ones wait until one is closed.
    pub max_connections: usize,
    /// How long requests may go on after the service was told to stop. Shorter than the 30 s after which
    /// Kubernetes loses patience.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_mins(2),
            idle_timeout: Duration::from_secs(75),
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

/// Serves what `service` answers, which must always be ready, until `server.stop` is cancelled. Then new connections
/// are refused, requests in progress are answered, each with `connection: close`, and idle connections are closed.
pub async fn serve<S>(listener: TcpListener, service: S, server: Server)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    let Server {
        limits,
        stop,
        metrics,
    } = server;
    let mut builder = http1::Builder::new();
    builder
        // `Activity` bounds the time of heads, without a timer for each request.
        .header_read_timeout(None)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_head_bytes);
    let connections = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(limits.max_connections));
    let spawn = |(stream, peer), slot: OwnedSemaphorePermit| {
        let connection = Connection {
            builder: builder.clone(),
            service: service.clone(),
            limits,
            stop: stop.clone(),
            watcher: connections.watcher(),
            _open: Open::new(metrics.open_connections().clone()),
        };
        tokio::spawn(async move {
            connection.run(stream, peer).await;
            drop(slot);
        });
    };
    let accept_all = async {
        loop {
            let Ok(slot) = Arc::clone(&free).acquire_owned().await else {
                return;
            };
            spawn(accept(&listener).await, slot);
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = stop.cancelled() => {}
    }
    // Those that clients believe to be connected already.
    while let Ok(slot) = Arc::clone(&free).try_acquire_owned()
        // Without tokio's budget, which would end the queue before its end.
        && let Some(accepted) = tokio::task::unconstrained(accept(&listener)).now_or_never()
    {
        spawn(accepted, slot);
    }
    drop(listener);
    let drain = async {
        // A connection that is in use closes with its next answer. One that is idle may have a request on
        // its way: it gets this long to arrive. When more have arrived than were answered in that time, as
        // on a busy machine, connections go on to close.
        let deadline = Instant::now() + LAST_REQUESTS;
        let mut left = connections.count();
        let mut looks = 0;
        while left > 0 && (looks < LAST_LOOKS || Instant::now() < deadline) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let before = std::mem::replace(&mut left, connections.count());
            looks = if left < before { 0 } else { looks + 1 };
        }
        connections.shutdown().await;
    };
    if tokio::time::timeout(limits.drain_timeout, drain)
        .await
        .is_err()
    {
        let timeout = limits.drain_timeout;
        tracing::warn!("stopped with requests unanswered after {timeout:?}");
    }
}

/// The next connection, however long it takes to have one.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    /// Until a file descriptor may be free again.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
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

/// Counts an open connection until it is dropped.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Connection<S> {
    builder: http1::Builder,
    service: S,
    limits: Limits,
    stop: CancellationToken,
    watcher: Watcher,
    _open: Open,
}

impl<S> Connection<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone,
{
    /// Answers the requests of a client, until it hangs up or is too slow.
    async fn run(self, stream: TcpStream, peer: SocketAddr) {
        let _without_it_answers_are_slower = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new());
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            activity.note_without_time(Phase::Answering);
            let answer = self.service.clone().call(request);
            let (activity, stop) = (&*activity, &self.stop);
            async move {
                let mut response = answer.await?;
                activity.note(Phase::Sending);
                if stop.is_cancelled() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let io = TokioIo::new(Noting {
            stream,
            activity: Arc::clone(&activity),
        });
        let connection = self.builder.serve_connection(io, service);
        tokio::select! {
            // In this order, without throwing dice for it each time.
            biased;
            // Whatever went wrong is the client's doing: it hung up, or spoke no HTTP.
            _ = self.watcher.watch(connection) => {}
            () = too_slow(&activity, self.limits) => {}
        }
    }
}

/// Ready when the client has taken longer than it may.
async fn too_slow(activity: &Activity, limits: Limits) {
    // One timer for the life of the connection: it is only moved when it has run out.
    let mut timer = std::pin::pin!(tokio::time::sleep(limits.head_timeout));
    loop {
        let mut is_set = false;
        // It has the waker of this task, which is that of a connection for good: so it need not be told again
        // each time that the client sends something.
        std::future::poll_fn(|cx| {
            if is_set && !timer.is_elapsed() {
                return Poll::Pending;
            }
            is_set = true;
            timer.as_mut().poll(cx)
        })
        .await;
        let deadline = match activity.last() {
            // The handler has bounds of its own, and its answer is written as soon as it is there.
            (Phase::Answering, _) => Instant::now() + limits.head_timeout,
            (Phase::Head, since) => since + limits.head_timeout,
            (Phase::Sending, since) => since + limits.answer_timeout,
            (Phase::Idle, since) => since + limits.idle_timeout,
        };
        let now = Instant::now();
        if deadline <= now {
            return;
        }
        // What begins in the meantime must not wait for this one's end.
        timer
            .as_mut()
            .reset(deadline.min(now + limits.head_timeout));
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for a request, or the rest of a long answer is on its way.
    Idle,
    /// The head of a request has begun.
    Head,
    /// A handler is at work.
    Answering,
    /// The client has an answer to receive.
    Sending,
}

/// The phase of a connection and when it began; of an idle one, when something was last sent.
struct Activity {
    begin: Instant,
    /// Milliseconds since `begin`, four times, plus the phase.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            last: AtomicU64::new(Phase::Idle as u64),
        }
    }

    /// For a phase without a bound.
    fn note_without_time(&self, phase: Phase) {
        self.last.store(phase as u64, Ordering::Relaxed);
    }

    fn note(&self, phase: Phase) {
        let millis = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX / 4);
        // Only the connection's own task writes and reads it.
        self.last
            .store(millis << 2 | phase as u64, Ordering::Relaxed);
    }

    fn last(&self) -> (Phase, Instant) {
        let last = self.last.load(Ordering::Relaxed);
        let phase = match last & 3 {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Answering,
            _ => Phase::Sending,
        };
        (phase, self.begin + Duration::from_millis(last >> 2))
    }
}

/// A connection that notes what its client does.
struct Noting {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.activity.last().0 == Phase::Idle {
            self.activity.note(Phase::Head);
        }
        poll
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&poll);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        // Only asked for once all that was to be sent is in the kernel's hands.
        if poll.is_ready() && self.activity.last().0 == Phase::Sending {
            self.activity.note(Phase::Idle);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Noting {
    fn wrote(&self, poll: &Poll<io::Result<usize>>) {
        if poll.is_ready() && self.activity.last().0 == Phase::Idle {
            self.activity.note(Phase::Idle);
        }
    }
}
