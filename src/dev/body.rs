//! The body of a request to the store, which is also received where the store does not read it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;

/// A body that can still be received when its reader has dropped it.
#[derive(Clone)]
pub(super) struct SharedBody(Arc<Mutex<Shared>>);

struct Shared {
    body: Body,
    is_begun: bool,
    is_cut_off: bool,
}

impl SharedBody {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            body,
            is_begun: false,
            is_cut_off: false,
        })))
    }

    /// Whether the store has read a part of it. A client that waits for `100 Continue` has been asked for it
    /// then.
    pub(super) fn is_begun(&self) -> bool {
        self.with(|shared| shared.is_begun)
    }

    /// Whether the client closed the connection before the end.
    pub(super) fn is_cut_off(&self) -> bool {
        self.with(|shared| shared.is_cut_off)
    }

    /// Receives what the client still sends. Many clients read no answer before they have sent all, and
    /// report that the connection was closed.
    pub(super) async fn receive(mut self) {
        const LONGEST: Duration = Duration::from_secs(2);
        const MAX_BYTES: usize = 16 * 1024 * 1024;
        let receive = async {
            let mut received = 0;
            while received < MAX_BYTES
                && let Some(Ok(frame)) = self.frame().await
            {
                received += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        timeout(LONGEST, receive).await.ok(); // best effort
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|shared| {
            shared.is_begun = true;
            let frame = Pin::new(&mut shared.body).poll_frame(context);
            shared.is_cut_off |= matches!(frame, Poll::Ready(Some(Err(_))));
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|shared| shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|shared| shared.body.size_hint())
    }
}
