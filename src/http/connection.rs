//! One connection of a client, from its first byte to its last.
//!
//! While a request is in flight, and for [`IDLE_AFTER`] after it, hyper owns the socket and its buffers. When the client
//! stays connected and sends nothing, the socket is taken back and hyper's state is dropped: an idle connection costs only
//! the socket and a timer. hyper takes over again when the next byte arrives.
//!
//! Generic over the transport and the service, so that it knows neither TLS nor routes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts, UpgradeableConnection};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};

use super::alarm::Alarm;
use super::client::ClientConnection;
use super::drain::Drain;
use super::head_wait::HeadWaitTimer;
use super::layers::ReceivedRequest;
use super::problem::ProblemKind;
use super::refused::RefusalReason;
use super::service::EdgeService;
use super::stream::ClientStream;
use super::transport::Transport;

/// For the first request on a connection that was accepted just before a drain: it is on its way, or there is none.
const FIRST_REQUEST: Duration = Duration::from_millis(250);

/// How long a silent connection keeps its buffers. Making new ones costs little for a client that sends less often.
pub(super) const IDLE_AFTER: Duration = Duration::from_millis(500);

/// How long a connection that has reached its age must have been idle to be closed: its client may just be sending.
const CLOSE_IDLE_AFTER: Duration = Duration::from_secs(1);

/// What the connections of a worker share.
pub(super) struct ConnectionContext {
    pub(super) http: Builder,
    pub(super) heads: HeadWaitTimer,
    pub(super) drain: Drain,
}

/// A socket without hyper, and the service for its requests.
struct Idle<T, S> {
    stream: ClientStream<T>,
    service: S,
    /// Since when its next head is waited for.
    since: Instant,
}

/// How hyper hands a connection back.
enum HandBack<T, S> {
    /// It has ended, or was upgraded.
    Ended,
    Idle(Idle<T, S>),
    Close(Closing<T>),
}

/// How a connection is closed on which no request is in flight.
enum Closing<T> {
    /// It is idle, and the drain has begun or it has reached its age.
    Idle(ClientStream<T>),
    /// Its next head did not arrive in time. `has_begun`: a part of it did.
    HeadTimeout { stream: ClientStream<T>, has_begun: bool, since: Instant },
    /// It makes room for another one.
    Evicted { stream: ClientStream<T>, has_begun: bool, since: Instant },
    /// It speaks HTTP/2.
    Http2(ClientStream<T>),
}

/// Serves a connection until it ends.
pub(super) async fn serve<T, S>(
    context: Arc<ConnectionContext>,
    stream: ClientStream<T>,
    client: Arc<ClientConnection>,
    service: S,
) where
    T: Transport,
    S: EdgeService,
{
    let service = Entry { service, client: Arc::clone(&client) };
    let mut idle = Idle { stream, service, since: Instant::now() };
    loop {
        // On the heap, so that the task of an idle connection is small.
        let handed_back = match Box::pin(run_hyper(&context, &client, idle)).await {
            Ok(handed_back) => handed_back,
            Err(cause) => {
                tracing::debug!(%cause, "a client's connection ended");
                return;
            }
        };
        let quiet = match handed_back {
            HandBack::Ended => return,
            HandBack::Close(closing) => return closing.close_unless_evicted(&client).await,
            HandBack::Idle(quiet) => quiet,
        };
        let closing = match wait_idle(&context, &client, &quiet.stream, quiet.since).await {
            IdleEnd::Readable => {
                idle = quiet;
                continue;
            }
            IdleEnd::HeadTimeout => Closing::HeadTimeout { stream: quiet.stream, has_begun: false, since: quiet.since },
            IdleEnd::Evicted => Closing::Evicted { stream: quiet.stream, has_begun: false, since: quiet.since },
            IdleEnd::Close => Closing::Idle(quiet.stream),
        };
        return closing.close_unless_evicted(&client).await;
    }
}

impl<T: Transport> Closing<T> {
    /// Closes in order. A client that still sends can make that last: meanwhile the connection makes room for others.
    async fn close_unless_evicted(self, client: &ClientConnection) {
        let mut close = pin!(self.close(client));
        poll_fn(|cx| {
            client.waiting.wake_on_eviction(cx.waker());
            // What can be written at once is written, also for an evicted client.
            let closed = close.as_mut().poll(cx);
            if client.waiting.is_evicted() { Poll::Ready(()) } else { closed }
        })
        .await;
    }

    async fn close(self, client: &ClientConnection) {
        match self {
            Closing::Http2(stream) => stream.refuse_head(ProblemKind::BadRequest, Duration::ZERO).await,
            Closing::HeadTimeout { stream, has_begun: true, since } => {
                stream.refuse_head(ProblemKind::HeaderTimeout, since.elapsed()).await;
            }
            Closing::HeadTimeout { mut stream, has_begun: false, .. } => {
                if !client.activity.has_received() {
                    client.edge.refused.count(RefusalReason::HeadTimeout);
                }
                let _ = stream.shutdown().await;
            }
            Closing::Idle(mut stream) => {
                let _ = stream.shutdown().await;
            }
            // Its place is taken: nothing is waited for.
            Closing::Evicted { stream, has_begun: true, since } => {
                stream.refuse_head_at_once(ProblemKind::Overloaded, since.elapsed()).await;
            }
            Closing::Evicted { stream, has_begun: false, .. } => drop(stream),
        }
    }
}

/// The service as hyper calls it.
struct Entry<S> {
    service: S,
    client: Arc<ClientConnection>,
}

impl<S: EdgeService> hyper::service::Service<Request<Incoming>> for Entry<S> {
    type Response = Response<S::Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let client = Arc::clone(&self.client);
        let is_evicted = !client.waiting.end();
        client.activity.discard(false);
        let is_for_probes = client.is_for_probes || is_evicted;
        let mut service = self.service.clone();
        // As tower asks. The layers are always ready; to wait for them here would cost a move of the whole request.
        let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        debug_assert!(ready.is_ready(), "a layer that waits would have to be waited for");
        service.call(ReceivedRequest { request, client, is_for_probes })
    }
}

/// Lets hyper serve the connection, until it ends or no request is in flight and there is a reason to take it back.
async fn run_hyper<T, S>(
    context: &ConnectionContext,
    client: &Arc<ClientConnection>,
    from: Idle<T, Entry<S>>,
) -> Result<HandBack<T, Entry<S>>, hyper::Error>
where
    T: Transport,
    S: EdgeService,
{
    let Idle { stream, service, since } = from;
    let mut connection = context.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut drain_begun = pin!(context.drain.drain_begun());
    let mut late = pin!(None);
    let (mut is_registered, mut is_shutting_down) = (false, false);
    let mut wait = HeadWait { since: Some(since), alarm: Alarm::default() };
    let reason = poll_fn(|cx| {
        // Once is enough to be woken: the waker is the task's, and nothing here is polled by another.
        if !is_registered {
            is_registered = true;
            let _ = drain_begun.as_mut().poll(cx);
            client.waiting.wake_on_eviction(cx.waker());
        }
        loop {
            match wait.poll(context, &mut connection, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(None)),
                // hyper would close without a reply.
                Poll::Ready(Err(cause)) if cause.is_parse_version_h2() => return Poll::Ready(Ok(Some(Reason::Http2))),
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                Poll::Pending => {}
            }
            if is_shutting_down || !context.drain.has_begun() {
                return wait.poll_reason(context, client, is_shutting_down, cx).map(|reason| Ok(Some(reason)));
            }
            // hyper closes a connection at once on which nothing came; what a client sent may just not be read yet.
            if !client.activity.has_received() {
                if late.is_none() {
                    late.set(Some(sleep_until(Instant::now() + FIRST_REQUEST)));
                }
                if let Some(late) = late.as_mut().as_pin_mut()
                    && late.poll(cx).is_pending()
                {
                    return Poll::Pending;
                }
            }
            is_shutting_down = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await?;
    let Some(reason) = reason else { return Ok(HandBack::Ended) };
    let Some(Parts { io, read_buf, service, .. }) = connection.into_parts() else { return Ok(HandBack::Ended) };
    let mut stream = io.into_inner();
    // The beginning of a head that came with the last request is still in hyper's buffer.
    let since = wait.since.unwrap_or_else(Instant::now);
    let has_begun = (client.activity.has_read() || !read_buf.is_empty()) && !client.activity.is_closing();
    Ok(match reason {
        Reason::Quiet(since) => {
            stream.unread(&read_buf);
            HandBack::Idle(Idle { stream, service, since })
        }
        Reason::HeadTimeout => HandBack::Close(Closing::HeadTimeout { stream, has_begun, since }),
        Reason::Evicted => HandBack::Close(Closing::Evicted { stream, has_begun, since }),
        Reason::Http2 => HandBack::Close(Closing::Http2(stream)),
    })
}

/// Why a connection is taken back from hyper.
enum Reason {
    /// Nothing came since the last reply; when the wait for the next head began.
    Quiet(Instant),
    HeadTimeout,
    Evicted,
    Http2,
}

/// The wait for a head, and the one timer that bounds it.
struct HeadWait {
    /// `None` while a request is in flight.
    since: Option<Instant>,
    alarm: Alarm,
}

impl HeadWait {
    fn poll<T, S>(
        &mut self,
        context: &ConnectionContext,
        connection: &mut UpgradeableConnection<TokioIo<ClientStream<T>>, Entry<S>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), hyper::Error>>
    where
        T: Transport,
        S: EdgeService,
    {
        let (end, wait) = context.heads.watch(self.since.is_some(), || Pin::new(connection).poll(cx));
        if wait.has_ended {
            self.since = None;
        }
        if wait.has_begun {
            // That of a connection that was idle began before.
            self.since.get_or_insert_with(Instant::now);
        }
        end
    }

    /// Ready when the connection is to be taken back from hyper.
    fn poll_reason(
        &mut self,
        context: &ConnectionContext,
        client: &ClientConnection,
        is_shutting_down: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Reason> {
        let is_closing = client.activity.is_closing();
        let may_be_evicted = self.since.is_some() || is_closing || client.activity.is_discarding();
        if client.waiting.is_evicted() && may_be_evicted {
            return Poll::Ready(Reason::Evicted);
        }
        let Some(since) = self.since.filter(|_| !is_closing) else { return Poll::Pending };
        if client.activity.is_write_blocked() {
            // The last reply is still on its way, and has a timer of its own. The wait begins after it.
            self.since = Some(Instant::now());
            return Poll::Pending;
        }
        let is_quiet = context.heads.is_polled() && !client.activity.has_read() && !is_shutting_down;
        if !is_quiet {
            // A part of a head is there. A quiet connection can be evicted from when it is idle.
            client.waiting.begin(since.into_std());
        }
        let head_timeout = header_timeout(client);
        loop {
            let now = Instant::now();
            if now >= since + head_timeout {
                return Poll::Ready(Reason::HeadTimeout);
            }
            let idle_from = since + IDLE_AFTER;
            if is_quiet && now >= idle_from {
                client.waiting.begin(since.into_std());
                return Poll::Ready(Reason::Quiet(since));
            }
            let late = since + head_timeout;
            let due = if is_quiet { idle_from.min(late) } else { late };
            ready!(self.alarm.poll(due, now, cx));
        }
    }
}

fn header_timeout(client: &ClientConnection) -> Duration {
    let limits = &client.edge.limits;
    if client.is_for_probes { limits.probe_header_timeout } else { limits.header_timeout }
}

/// Why a connection is no longer idle.
enum IdleEnd {
    Readable,
    HeadTimeout,
    Evicted,
    Close,
}

async fn wait_idle<T: Transport>(
    context: &ConnectionContext,
    client: &ClientConnection,
    stream: &ClientStream<T>,
    since: Instant,
) -> IdleEnd {
    let mut drain_begun = pin!(context.drain.drain_begun());
    let late = since + header_timeout(client);
    // The replies of a busy connection say that it closes. One that has been idle for a while is just closed.
    let closes_after = Instant::from_std(client.closes_after()).max(since + CLOSE_IDLE_AFTER);
    let mut alarm = pin!(sleep_until(late.min(closes_after)));
    let end = poll_fn(|cx| {
        let is_draining = drain_begun.as_mut().poll(cx).is_ready();
        client.waiting.wake_on_eviction(cx.waker());
        if client.waiting.is_evicted() {
            return Poll::Ready(IdleEnd::Evicted);
        }
        if stream.poll_readable(cx).is_ready() {
            return Poll::Ready(IdleEnd::Readable);
        }
        if is_draining || context.drain.has_begun() {
            return Poll::Ready(IdleEnd::Close);
        }
        alarm.as_mut().poll(cx).map(|()| if late <= closes_after { IdleEnd::HeadTimeout } else { IdleEnd::Close })
    })
    .await;
    match end {
        IdleEnd::Close if context.drain.has_begun() && !client.activity.has_received() => {
            // As in `run_hyper`: the first request may be on its way.
            match timeout(FIRST_REQUEST, poll_fn(|cx| stream.poll_readable(cx))).await {
                Ok(()) => IdleEnd::Readable,
                Err(_) => IdleEnd::Close,
            }
        }
        end => end,
    }
}
