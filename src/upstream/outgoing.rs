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
    pub(super) fn new(body: B, pace: UploadPace) -> (Outgoing<B>, Option<Arc<Progress>>) {
        let progress = (!body.is_end_stream()).then(|| Arc::new(Progress::new(pace)));
        (Outgoing { body, progress: progress.clone() }, progress)
    }

    /// No body.
    pub(super) fn empty() -> Outgoing<B> {
        Outgoing { body: B::default(), progress: None }
    }
}

/// What counts as a client that is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadPace {
    /// A client that is waited for as long as this has stalled.
    pub(super) stall: Duration,
    /// Bytes that make up for a second of waiting.
    pub(super) bytes_per_second: u64,
}

/// How a request's body moves: when the upstream last took a piece of it, and since when the client is waited for.
pub(super) struct Progress {
    start: Instant,
    pace: UploadPace,
    /// Milliseconds after `start`, or [`CLIENT_AWAITED`].
    moved_ms: AtomicU64,
    /// Milliseconds after `start` since when the client is waited for, or [`NEVER`]. A client that sends less than its pace
    /// asks for is waited for all the time.
    awaited_since_ms: AtomicU64,
    failed: AtomicBool,
    has_ended: AtomicBool,
}

/// The client is waited for. How long that may take is for the body itself to say.
const CLIENT_AWAITED: u64 = u64::MAX;
const NEVER: u64 = u64::MAX;

impl Progress {
    fn new(pace: UploadPace) -> Progress {
        Progress {
            start: Instant::now(),
            pace,
            moved_ms: AtomicU64::new(0),
            awaited_since_ms: AtomicU64::new(NEVER),
            failed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// A piece of so many bytes came, or the end.
    fn moved(&self, bytes: u64) {
        let now_ms = self.now_ms();
        self.moved_ms.store(now_ms, Ordering::Relaxed);
        let since_ms = self.awaited_since_ms.load(Ordering::Relaxed);
        if since_ms != NEVER {
            let since_ms = since_ms.saturating_add(bytes.saturating_mul(1_000) / self.pace.bytes_per_second);
            self.awaited_since_ms.store(if since_ms < now_ms { since_ms } else { NEVER }, Ordering::Relaxed);
        }
    }

    fn wait_for_client(&self) {
        self.moved_ms.store(CLIENT_AWAITED, Ordering::Relaxed);
        if self.awaited_since_ms.load(Ordering::Relaxed) == NEVER {
            self.awaited_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Whether the body broke off. The client caused it, and with it the end of the reply.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether the whole body was taken.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Whether the client is waited for, and not the upstream.
    pub(super) fn is_client_awaited(&self) -> bool {
        self.moved_ms.load(Ordering::Relaxed) == CLIENT_AWAITED
    }

    /// Whether the client is waited for, and has been for so long that an upstream may have given up on it.
    pub(super) fn has_client_stalled(&self) -> bool {
        let since = Duration::from_millis(self.awaited_since_ms.load(Ordering::Relaxed));
        self.is_client_awaited() && self.start.elapsed() >= since.saturating_add(self.pace.stall)
    }

    /// The time from which the upstream's silence counts.
    pub(super) fn silent_since(&self) -> Instant {
        match self.moved_ms.load(Ordering::Relaxed) {
            CLIENT_AWAITED => Instant::now(),
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
            match &polled {
                Poll::Ready(Some(Err(_))) => progress.failed.store(true, Ordering::Relaxed),
                Poll::Ready(Some(Ok(frame))) => {
                    progress.moved(frame.data_ref().map_or(0, |data| data.len() as u64));
                    progress.has_ended.store(frame.is_trailers() || self.body.is_end_stream(), Ordering::Relaxed);
                }
                Poll::Ready(None) => {
                    progress.moved(0);
                    progress.has_ended.store(true, Ordering::Relaxed);
                }
                Poll::Pending if self.body.is_asked_for() => progress.wait_for_client(),
                Poll::Pending => {}
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
