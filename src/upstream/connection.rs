//! One connection to an upstream: a task that drives it, and the handle that sends on it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::Instant;

use super::outgoing::{ClientError, Outgoing, Progress};
use super::socket::UpstreamSocket;
use super::socket_state::SocketState;
use super::{ExchangeDeadlines, ReplyHeadError, RequestBody, SendError, UpstreamLimits};
use crate::failpoint;
use crate::http::Timer;

/// Of a reply's head, and of what is read ahead of a body. Replies carry larger heads than requests (cookies, policies),
/// but none that is sound comes near it.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// hyper's own limit on header fields, for which it keeps an array on the stack. Any other limit costs two allocations a
/// reply.
const STACK_HEADERS: usize = 100;

/// The handle. To drop it closes the connection at once, whatever is under way on it. Boxed, because it is moved with each
/// reply.
pub(super) struct Connection<B: RequestBody>(Box<Handle<B>>);

struct Handle<B: RequestBody> {
    sender: SendRequest<Outgoing<B>>,
    driver: Option<AbortHandle>,
    /// One for all waits on this connection, one after the other.
    timer: Timer,
    /// Shared with the socket, which hyper owns.
    state: Arc<SocketState>,
    /// Bytes of a reply's head and of the interim replies before it.
    head_bytes: u64,
    body_timeouts: BodyTimeouts,
}

/// How long the body of the current reply may take.
#[derive(Clone, Copy)]
pub(super) struct BodyTimeouts {
    /// Between two pieces.
    pub(super) idle: Duration,
    /// When the body must have ended.
    pub(super) end: Option<Instant>,
}

/// Why an exchange gave no reply.
pub(super) enum Failure<B> {
    /// The connection was dead already; nothing was written.
    Unsent { request: Box<Request<Outgoing<B>>>, cause: hyper::Error },
    /// The connection ended without a byte of reply to a request that may be sent again, which is here as it was written.
    Unanswered { request: Vec<u8>, error: SendError },
    /// The upstream may have seen the request.
    Sent(SendError),
}

impl<B: RequestBody> Connection<B> {
    /// Speaks HTTP/1.1 on `stream`.
    ///
    /// # Errors
    /// `Broken` when hyper cannot start.
    pub(super) async fn open(stream: TcpStream, limits: &UpstreamLimits) -> Result<Connection<B>, SendError> {
        let mut builder = http1::Builder::new();
        if limits.reply_headers != STACK_HEADERS {
            builder.max_headers(limits.reply_headers);
        }
        let state = Arc::new(SocketState::new(&stream));
        let socket = UpstreamSocket::new(stream, Arc::clone(&state));
        let (sender, connection) = builder
            .max_header_size(HEAD_BYTES)
            // Old servers send both. hyper removes the spaces and joins the lines, as a proxy must (RFC 9112 §5.1, §5.2).
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            // As towards clients: short messages leave in one piece.
            .writev(false)
            .max_buf_size(HEAD_BYTES)
            .handshake::<_, Outgoing<B>>(TokioIo::new(socket))
            .await
            .map_err(|cause| SendError::Broken { cause })?;
        let driver = tokio::spawn(async move {
            // hyper reports the error to the request on the connection, if there is one; without one it does not matter.
            let _ = connection.with_upgrades().await;
        });
        let head_bytes = (HEAD_BYTES + limits.interim_reply_bytes) as u64;
        let (driver, timer) = (Some(driver.abort_handle()), Timer::default());
        let body_timeouts = BodyTimeouts { idle: Duration::ZERO, end: None };
        Ok(Connection(Box::new(Handle { sender, driver, timer, state, head_bytes, body_timeouts })))
    }

    /// Whether the connection is between two requests and alive, as far as one can know.
    pub(super) fn is_ready(&self) -> bool {
        self.0.sender.is_ready() && !self.0.state.has_write_failed()
    }

    /// Leaves the connection to its upgrade.
    pub(super) fn release(&mut self) {
        self.0.state.become_tunnel();
        self.0.driver = None;
    }

    /// The local address and the upstream's.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0.state.addresses()
    }

    /// Whether the upstream broke off while a request was written to it.
    pub(super) fn has_write_failed(&self) -> bool {
        self.0.state.has_write_failed()
    }

    /// Sets the timeouts of the body of the reply.
    pub(super) fn set_body_timeouts(&mut self, timeouts: BodyTimeouts) {
        self.0.body_timeouts = timeouts;
    }

    /// The timeouts of the body of the reply, and the timer for them.
    pub(super) fn body_timeouts(&mut self) -> (BodyTimeouts, &mut Timer) {
        (self.0.body_timeouts, &mut self.0.timer)
    }

    /// Sends a request `now` and waits for its reply's head, the head timeout after the request's last movement, and until
    /// `deadlines.end` at most. `may_repeat`: without a byte of reply the request is handed back.
    pub(super) fn exchange<'a>(
        &'a mut self,
        request: Request<Outgoing<B>>,
        progress: Option<&'a Progress>,
        deadlines: &ExchangeDeadlines<'_>,
        now: Instant,
        may_repeat: bool,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure<B>>> + Send + use<'a, B> {
        let (head_timeout, end) = (deadlines.policy.head_timeout, deadlines.end);
        let Handle { sender, timer, state, head_bytes, .. } = &mut *self.0;
        timer.set((now + head_timeout).min(end));
        state.begin(*head_bytes, may_repeat);
        Exchange { answer: sender.try_send_request(request), timer, state, progress, head_timeout, end }
    }
}

pin_project! {
    /// Written out, because an async function would hold the request twice: it is the longest part of a request's future.
    struct Exchange<'a, A> {
        #[pin]
        answer: A,
        timer: &'a mut Timer,
        state: &'a SocketState,
        progress: Option<&'a Progress>,
        head_timeout: Duration,
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
            let answer = answer.map_err(|failed| failure(failed, this.state, *this.progress));
            this.state.head_received();
            return Poll::Ready(answer);
        }
        failpoint::reach("request-sent");
        loop {
            ready!(this.timer.poll(cx));
            let due = this.progress.map(|progress| (progress.silent_since() + *this.head_timeout).min(*this.end));
            match due.filter(|due| *due > Instant::now()) {
                Some(due) => this.timer.set(due),
                None => {
                    let is_clients = this.progress.is_some_and(Progress::is_client_awaited);
                    let error = if is_clients { SendError::RequestStalled } else { SendError::HeadTimeout };
                    return Poll::Ready(Err(Failure::Sent(error)));
                }
            }
        }
    }
}

impl<B: RequestBody> Drop for Connection<B> {
    /// hyper alone would go on sending a request's body to an upstream that has already answered, for as long as both take.
    fn drop(&mut self) {
        if let Some(driver) = self.0.driver.take() {
            driver.abort();
        }
    }
}

/// Why there is no reply.
fn failure<B>(
    mut failed: TrySendError<Request<Outgoing<B>>>,
    state: &SocketState,
    progress: Option<&Progress>,
) -> Failure<B> {
    if let Some(request) = failed.take_message() {
        return Failure::Unsent { request: Box::new(request), cause: failed.into_error() };
    }
    let error = match sort(failed.into_error(), state) {
        SendError::Broken { .. } if progress.is_some_and(Progress::has_client_stalled) => SendError::RequestStalled,
        error => error,
    };
    match state.take_unanswered() {
        Some(request) => Failure::Unanswered { request, error },
        None => Failure::Sent(error),
    }
}

/// Tells the client's failure from the upstream's. Of both, the upstream's came first: hyper ends a connection at once when
/// its request breaks off.
fn sort(cause: hyper::Error, state: &SocketState) -> SendError {
    let client = std::error::Error::source(&cause).is_some_and(<dyn std::error::Error>::is::<ClientError>);
    if (client || cause.is_body_write_aborted()) && !state.has_write_failed() {
        return SendError::RequestBody { cause, was_forwarded: state.has_written() };
    }
    if state.read_allowance() == 0 {
        let reason = ReplyHeadError::InterimReplies;
        tracing::debug!(%reason, "rejected an upstream reply");
        return SendError::BadReply { reason };
    }
    SendError::Broken { cause }
}
