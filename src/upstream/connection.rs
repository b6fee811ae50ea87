//! One connection to an upstream: a task that drives it, and the handle that sends on it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::bounded_reads::BoundedReads;
use super::outgoing::{ClientError, Outgoing, Progress};
use super::{RequestBody, SendError, Waits};
use crate::failpoint;

/// Of a reply's head, and of what is read ahead of a body. Replies carry larger heads than requests (cookies, policies),
/// but none that is sound comes near it.
const HEAD_BYTES: usize = 64 * 1024;

/// The handle. To drop it closes the connection at once, whatever is under way on it.
pub(super) struct Connection<B: RequestBody> {
    sender: SendRequest<Outgoing<B>>,
    driver: Option<AbortHandle>,
    /// One timer for all waits on this connection, one after the other: to move a registered timer into the future
    /// costs next to nothing, to register a new one for each request does not. Made with the first wait.
    timer: Timer,
}

/// Why an exchange gave no reply.
pub(super) enum Failure<B> {
    /// The connection was dead already; nothing was written.
    Unsent { request: Box<Request<Outgoing<B>>>, cause: hyper::Error },
    /// The upstream may have seen the request.
    Sent(SendError),
}

impl<B: RequestBody> Connection<B> {
    /// Speaks HTTP/1.1 on `stream`.
    ///
    /// # Errors
    /// `Broken` when hyper cannot start.
    pub(super) async fn open(stream: TcpStream) -> Result<Connection<B>, SendError> {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES)
            // As towards clients: short messages leave in one piece.
            .writev(false)
            .max_buf_size(HEAD_BYTES)
            .handshake::<_, Outgoing<B>>(TokioIo::new(BoundedReads(stream)))
            .await
            .map_err(|cause| SendError::Broken { cause })?;
        let driver = tokio::spawn(async move {
            // Whoever has a request on the connection is told the error by hyper; on an idle one it is no event.
            let _ = connection.with_upgrades().await;
        });
        Ok(Connection { sender, driver: Some(driver.abort_handle()), timer: Timer(None) })
    }

    /// Whether the connection is between two requests and alive, as far as one can know.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Leaves the connection to its upgrade.
    pub(super) fn release(&mut self) {
        self.driver = None;
    }

    /// The timer, for the wait that follows the exchange.
    pub(super) fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    /// Sends a request and waits for its reply's head, `waits.head` long after the request's last movement, and until
    /// `waits.end` at most.
    pub(super) fn exchange<'a>(
        &'a mut self,
        request: Request<Outgoing<B>>,
        progress: Option<&'a Progress>,
        waits: Waits,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure<B>>> + Send + use<'a, B> {
        let Waits { head: limit, end, .. } = waits;
        self.timer.set((Instant::now() + limit).min(end));
        Exchange { answer: self.sender.try_send_request(request), timer: &mut self.timer, progress, limit, end }
    }
}

pin_project! {
    /// Written out, because an async function would hold the request twice: it is the longest part of a request's future.
    struct Exchange<'a, A> {
        #[pin]
        answer: A,
        timer: &'a mut Timer,
        progress: Option<&'a Progress>,
        limit: Duration,
        end: Instant,
    }
}

impl<A, B> Future for Exchange<'_, A>
where
    A: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing<B>>>>>,
{
    type Output = Result<Response<Incoming>, Failure<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.answer.poll(cx) {
            return Poll::Ready(answer.map_err(|mut failed| match failed.take_message() {
                Some(request) => Failure::Unsent { request: Box::new(request), cause: failed.into_error() },
                None => Failure::Sent(sort(failed.into_error())),
            }));
        }
        failpoint::reach("request-sent");
        loop {
            ready!(this.timer.poll(cx));
            let due = this.progress.map(|progress| (progress.silent_since() + *this.limit).min(*this.end));
            match due.filter(|due| *due > Instant::now()) {
                Some(due) => this.timer.set(due),
                None => return Poll::Ready(Err(Failure::Sent(SendError::HeadTimeout))),
            }
        }
    }
}

impl<B: RequestBody> Drop for Connection<B> {
    /// hyper alone would go on sending a request's body to an upstream that has already answered, for as long as both take.
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}

/// Tells the client's failure from the upstream's.
fn sort(cause: hyper::Error) -> SendError {
    let client = std::error::Error::source(&cause).is_some_and(<dyn std::error::Error>::is::<ClientError>);
    if client || cause.is_body_write_aborted() {
        return SendError::RequestBody { cause };
    }
    SendError::Broken { cause }
}

/// A timer that is registered once and moved.
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    pub(super) fn set(&mut self, due: Instant) {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.0 = Some(Box::pin(sleep_until(due))),
        }
    }

    /// Ready when the time that was set last is over; never before one was set.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
