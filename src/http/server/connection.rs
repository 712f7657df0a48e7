//! One connection: its timeouts, and what the accept loop knows of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Limits;
use crate::http::HttpService;
use crate::http::unread::Answer;
use crate::telemetry::Metrics;

/// From this many connections on, an answer waits until the other requests that have arrived are
/// answered, too. Sending the answers together wakes the clients' processors only once, which saves
/// half of the time of a grant when clients and service share a machine. With fewer connections,
/// waiting costs more.
const MANY_CONNECTIONS: i64 = 16;

/// The size of the socket buffer in each direction. Linux doubles it for its own bookkeeping. About half of
/// the doubled size is sent or received per round trip, so that a list of 2 MiB and its answer take some 20
/// round trips.
const BUFFER_BYTES: usize = 128 * 1024;

/// How long a stop waits for the rest of the first head of a connection. hyper would wait until its timeout.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the requests of a client until it closes the connection, is too slow, or has to make
/// room for another.
pub(super) async fn run(
    (mut stream, peer): (TcpStream, SocketAddr),
    builder: &http1::Builder,
    service: impl HttpService,
    limits: Limits,
    connection: &Connection,
    stop: CancellationToken,
) {
    configure(&stream);
    #[cfg(target_os = "linux")]
    set_unread_timeout(&stream, limits.unread_timeout);
    let Closer { state, close } = &connection.closer;
    let spoken = has_spoken(&stream, limits.silent_timeout);
    if close.run_until_cancelled(spoken).await != Some(true) {
        return;
    }
    let has_request = AtomicBool::new(false);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        has_request.store(true, Ordering::Relaxed);
        state.begin_request(!request.body().is_end_stream());
        let mut request = request.map(|body| Body::new(Tracked(body, Arc::clone(state))));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = service.clone().call(request);
        let stop = &stop;
        async move {
            let mut response = answer.await?;
            let is_one_of_many = connection.all.gauge.get() >= MANY_CONNECTIONS;
            if is_one_of_many && !stop.is_cancelled() {
                tokio::task::yield_now().await;
            }
            if let Some(answer) = response.extensions_mut().remove::<Arc<Answer>>() {
                answer.set_connection(connection.closer.clone());
            }
            // hyper closes a connection on which the rest of a body may still come.
            if stop.is_cancelled() || state.has_unread_body() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            state.end_request();
            Ok::<_, Infallible>(response)
        }
    });
    // `None` if the connection has to close at once.
    let is_answered_early = 'served: {
        let mut http = pin!(builder.serve_connection(TokioIo::new(&mut stream), service));
        let ended = tokio::select! {
            biased;
            ended = http.as_mut() => ended,
            () = close.cancelled() => {
                if state.may_close_now() {
                    break 'served None;
                }
                http.as_mut().graceful_shutdown();
                match tokio::time::timeout(FIRST_HEAD_TIMEOUT, http.as_mut()).await {
                    Ok(ended) => ended,
                    Err(_) if has_request.load(Ordering::Relaxed) => http.await,
                    Err(_) => break 'served None,
                }
            }
        };
        // Whatever else goes wrong is the client's fault: it closed the connection, or is too slow.
        let unreadable = ended.err().filter(hyper::Error::is_parse);
        if let Some(error) = &unreadable {
            connection.all.note_unreadable(error, peer);
        }
        Some(state.has_unread_body() || unreadable.is_some())
    };
    match is_answered_early {
        Some(true) => {
            let rest = discard_rest(&mut stream, limits.rest_timeout);
            close.run_until_cancelled(rest).await;
        }
        // It makes room for another, so the kernel must not keep its answer: the client gets a reset.
        None if !stop.is_cancelled() => {
            let socket = SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).ok(); // best effort
        }
        _ => {}
    }
    #[cfg(target_os = "linux")]
    set_unread_timeout(&stream, limits.closed_timeout);
}

/// Sets the options of the socket, best effort: the service works without each of them.
fn configure(stream: &TcpStream) {
    stream.set_nodelay(true).ok(); // without it answers are slower
    // Without these, the kernel enlarges the buffers to several MiB, which count as memory of the
    // container.
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(BUFFER_BYTES).ok();
    socket.set_recv_buffer_size(BUFFER_BYTES).ok();
}

/// How long the kernel keeps an answer of which the client accepts nothing, also after the connection is
/// closed.
#[cfg(target_os = "linux")]
fn set_unread_timeout(stream: &TcpStream, timeout: Duration) {
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(timeout)).ok(); // best effort: without it, it stays longer
}

/// Receives what the client still sends after its answer, until it closes the connection, too.
///
/// If a connection is closed while bytes arrive that nobody reads, the system resets it, and the client
/// may lose the answer; a proxy answers 502 instead
/// ([RFC 9112 §9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)).
async fn discard_rest(stream: &mut TcpStream, rest_timeout: Duration) {
    // The client learns that no other answer comes. These are best effort: it may be gone.
    stream.shutdown().await.ok();
    let mut nowhere = tokio::io::sink();
    let discard = tokio::io::copy(stream, &mut nowhere);
    tokio::time::timeout(rest_timeout, discard).await.ok();
}

/// Whether the client sends a first byte in time. Until then nothing is kept for the connection.
async fn has_spoken(stream: &TcpStream, silent_timeout: Duration) -> bool {
    let mut first_byte = [0];
    let spoken = tokio::time::timeout(silent_timeout, stream.peek(&mut first_byte)).await;
    matches!(spoken, Ok(Ok(1)))
}

/// The pause between two lines of the log about requests that cannot be read.
const UNREADABLE_PAUSE: Duration = Duration::from_mins(1);

/// All open connections.
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Closer>>,
    next: AtomicU64,
    gauge: Gauge,
    unreadable: Counter,
    logged_unreadable: Mutex<Option<Instant>>,
    /// Grows each time that any connection becomes idle.
    idles: Arc<AtomicU64>,
}

impl Connections {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(0),
            gauge: metrics.open_connections().clone(),
            unreadable: metrics.unreadable_requests().clone(),
            logged_unreadable: Mutex::default(),
            idles: Arc::default(),
        }
    }

    /// Counts what hyper has refused before it was a request for the service, which leaves no other line. A load
    /// balancer that speaks TLS, HTTP/2 or the PROXY protocol causes this for every request.
    fn note_unreadable(&self, error: &hyper::Error, peer: SocketAddr) {
        self.unreadable.inc();
        let mut logged = self
            .logged_unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= UNREADABLE_PAUSE) {
            *logged = Some(Instant::now());
            let why = if error.is_parse_too_large() {
                "the head of a request was too long, so it was refused with 431"
            } else {
                "what arrived is not a valid head of HTTP/1.1, so it was refused; a load balancer must speak plain HTTP/1.1 without the PROXY protocol"
            };
            tracing::warn!(
                peer = %peer.ip(),
                "{why}. Further ones within a minute are only counted"
            );
        }
    }

    /// Adds a connection, which counts as open until it is dropped.
    pub(super) fn open(self: &Arc<Self>, close: CancellationToken) -> Connection {
        let state = Arc::new(State::new(Arc::clone(&self.idles)));
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        let closer = Closer { state, close };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(id, closer.clone());
        drop(open);
        Connection {
            id,
            closer,
            all: Arc::clone(self),
        }
    }

    /// Closes the connection that has been idle for the longest time, if any is.
    pub(super) fn close_longest_idle(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = open
            .values()
            .filter(|closer| !closer.close.is_cancelled())
            .min_by_key(|closer| closer.state.idle_since());
        if let Some(closer) = longest
            && closer.state.idle_since() != BUSY
        {
            closer.close_for_others();
        }
    }
}

/// An open connection, for the task that serves it.
pub(super) struct Connection {
    id: u64,
    closer: Closer,
    all: Arc<Connections>,
}

/// Closes a connection.
#[derive(Clone, Debug)]
pub(in crate::http) struct Closer {
    state: Arc<State>,
    close: CancellationToken,
}

impl Closer {
    /// Closes the connection for others, also in the middle of an answer, but not while a handler
    /// works for it.
    pub(in crate::http) fn close_for_others(&self) {
        self.state.is_chosen.store(true, Ordering::Relaxed);
        self.close.cancel();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let open = &self.all.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.id);
        self.all.gauge.dec();
    }
}

/// The value of `idle_since` while a handler works for the connection.
const BUSY: u64 = u64::MAX;

/// What a connection is doing. A connection is idle while no handler works for it, also while its
/// client does not read the last answer.
#[derive(Debug)]
struct State {
    idles: Arc<AtomicU64>,
    /// The value of `idles` when this connection became idle, or [`BUSY`].
    idle_since: AtomicU64,
    /// Whether a part of the request's body has not been read.
    unread_body: AtomicBool,
    /// Whether it was chosen to make room for another.
    is_chosen: AtomicBool,
}

impl State {
    fn new(idles: Arc<AtomicU64>) -> Self {
        let state = Self {
            idles,
            idle_since: AtomicU64::new(BUSY),
            unread_body: AtomicBool::new(false),
            is_chosen: AtomicBool::new(false),
        };
        state.end_request();
        state
    }

    fn begin_request(&self, has_body: bool) {
        self.idle_since.store(BUSY, Ordering::Relaxed);
        self.unread_body.store(has_body, Ordering::Relaxed);
    }

    fn end_request(&self) {
        let before = self.idles.fetch_add(1, Ordering::Relaxed);
        self.idle_since.store(before, Ordering::Relaxed);
    }

    fn idle_since(&self) -> u64 {
        self.idle_since.load(Ordering::Relaxed)
    }

    fn has_unread_body(&self) -> bool {
        self.unread_body.load(Ordering::Relaxed)
    }

    /// Whether nothing is lost when the connection is closed at once. A request may have come since
    /// it was chosen.
    fn may_close_now(&self) -> bool {
        self.is_chosen.load(Ordering::Relaxed) && self.idle_since() != BUSY
    }
}

/// The body of a request, which notes when all of it was read.
struct Tracked(Incoming, Arc<State>);

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.0.is_end_stream() {
            self.1.unread_body.store(false, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Arc<Connections> {
        Arc::new(Connections::new(&Metrics::default()))
    }

    fn open(connections: &Arc<Connections>) -> Connection {
        connections.open(CancellationToken::new())
    }

    #[test]
    fn each_connection_that_makes_room_is_another_one_and_none_is_in_use() {
        let connections = connections();
        let [used, first, second] = [(); 3].map(|()| open(&connections));
        let is_closed = |it: &Connection| it.closer.close.is_cancelled();
        used.closer.state.begin_request(false);
        // The first one takes its time to close.
        connections.close_longest_idle();
        assert!(is_closed(&first) && !is_closed(&second));
        connections.close_longest_idle();
        assert!(is_closed(&second));
        connections.close_longest_idle();
        assert!(!is_closed(&used));
    }

    #[test]
    fn a_request_that_came_since_the_connection_was_chosen_is_answered() {
        let connections = connections();
        let connection = open(&connections);
        let state = &connection.closer.state;
        connections.close_longest_idle();
        assert!(state.may_close_now());
        state.begin_request(false);
        assert!(!state.may_close_now());
        state.end_request();
        assert!(state.may_close_now());
    }
}
