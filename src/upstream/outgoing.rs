//! A request's body on its way to an upstream: marks its errors as the client's, and says how far it came.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::RequestBody;

/// A request's body as hyper is given it.
pub(super) struct Outgoing<B> {
    body: B,
    /// None for a request without a body, which is the common case and needs no allocation.
    progress: Option<Arc<Progress>>,
}

impl<B: RequestBody> Outgoing<B> {
    /// The body, and where its progress can be seen unless it is empty.
    pub(super) fn new(body: B) -> (Outgoing<B>, Option<Arc<Progress>>) {
        let progress = (!body.is_end_stream()).then(|| Arc::new(Progress::new()));
        (Outgoing { body, progress: progress.clone() }, progress)
    }

    /// No body.
    pub(super) fn empty() -> Outgoing<B> {
        Outgoing { body: B::default(), progress: None }
    }
}

/// When the upstream last took a piece of the request's body.
pub(super) struct Progress {
    start: Instant,
    /// Milliseconds after `start`, or [`WAITS`].
    moved_ms: AtomicU64,
    failed: AtomicBool,
}

/// It is the client that is waited for. How long that may take is for the body itself to say.
const WAITS: u64 = u64::MAX;

impl Progress {
    fn new() -> Progress {
        Progress { start: Instant::now(), moved_ms: AtomicU64::new(0), failed: AtomicBool::new(false) }
    }

    fn moved(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(WAITS - 1);
        self.moved_ms.store(passed, Ordering::Relaxed);
    }

    /// Whether the body broke off: the client's doing, and the end of the reply as well.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The time from which the upstream's silence counts.
    pub(super) fn silent_since(&self) -> Instant {
        match self.moved_ms.load(Ordering::Relaxed) {
            WAITS => Instant::now(),
            moved_ms => self.start + Duration::from_millis(moved_ms),
        }
    }
}

impl<B: RequestBody> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(progress) = &self.progress {
            match polled {
                Poll::Ready(Some(Err(_))) => progress.failed.store(true, Ordering::Relaxed),
                Poll::Ready(_) => progress.moved(),
                Poll::Pending => progress.moved_ms.store(WAITS, Ordering::Relaxed),
            }
        }
        polled.map_err(|cause| ClientError(cause.into()))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body's own error, so that it can be told from all that hyper reports.
#[derive(Debug)]
pub(super) struct ClientError(pub(super) Box<dyn Error + Send + Sync>);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}
