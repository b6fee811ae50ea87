//! One connection of a client, from its first byte to its last.
//!
//! While a request is under way, and for a moment after, hyper has the socket, with 16 KiB of buffers. When the client stays
//! and says nothing, the socket is taken back and hyper's part is dropped: a client that is only connected costs the socket
//! and a timer. Its next byte brings hyper back.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Parts, UpgradeableConnection};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::ServerLimits;
use super::drain::Drain;
use super::head::Heads;
use super::io::{ClientIo, Signs};

/// For the first request on a connection that came just before a drain: it is on its way, or the client is not there.
const FIRST_REQUEST: Duration = Duration::from_millis(250);

/// How long a silent connection keeps its buffers: to make them anew costs a client that asks less often nothing to speak of.
pub(super) const REST_AFTER: Duration = Duration::from_millis(500);

/// What the connections of a worker share.
pub(super) struct Shared {
    pub(super) http: Builder,
    pub(super) heads: Heads,
    pub(super) limits: ServerLimits,
    pub(super) drain: Arc<Drain>,
}

/// A socket that rests, and what answers its requests.
struct Resting<S> {
    io: ClientIo,
    service: S,
    /// Since when its next head is waited for.
    since: Instant,
}

/// Serves a connection until it ends.
pub(super) async fn serve<S, B>(shared: Arc<Shared>, io: ClientIo, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + Unpin + 'static,
    B: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut resting = Resting { io, service, since: Instant::now() };
    loop {
        // On the heap, so that a task whose connection rests is small.
        match Box::pin(work(&shared, resting)).await {
            Ok(Some(quiet)) => resting = quiet,
            Ok(None) => return,
            Err(cause) => {
                tracing::debug!(%cause, "a client's connection ended");
                return;
            }
        }
        match woken(&shared, &resting.io, resting.since).await {
            Woken::Readable => {}
            Woken::TooLate => return,
            Woken::Drain => {
                let _ = resting.io.shutdown().await;
                return;
            }
        }
    }
}

/// hyper's part, until the connection ends (`None`) or rests.
async fn work<S, B>(shared: &Shared, from: Resting<S>) -> Result<Option<Resting<S>>, hyper::Error>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + Unpin + 'static,
    B: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let Resting { io, service, since } = from;
    let signs = io.signs();
    let mut connection = shared.http.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut bell = pin!(shared.drain.bell());
    let mut late = pin!(None);
    let (mut listens, mut told) = (false, false);
    let mut wait = HeadWait { since: Some(since), alarm: Alarm::default() };
    let end = poll_fn(|cx| {
        // Once is enough to be woken: the waker is the task's, and nothing here is polled by another.
        if !listens {
            listens = true;
            let _ = bell.as_mut().poll(cx);
        }
        loop {
            if let Poll::Ready(end) = wait.poll(shared, &mut connection, false, cx) {
                return Poll::Ready(end.map(|()| None));
            }
            if told || !shared.drain.has_begun() {
                let Some(since) = ready!(wait.poll_alarm(shared, &signs, told, cx)) else {
                    // Too late: hyper says so itself.
                    return wait.poll(shared, &mut connection, true, cx).map_ok(|()| None);
                };
                return Poll::Ready(Ok(Some(since)));
            }
            // hyper closes a connection at once on which nothing came; what a client sent may just not be read yet.
            if !signs.spoke() {
                if late.is_none() {
                    late.set(Some(sleep_until(Instant::now() + FIRST_REQUEST)));
                }
                if let Some(late) = late.as_mut().as_pin_mut()
                    && late.poll(cx).is_pending()
                {
                    return Poll::Pending;
                }
            }
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await?;
    let Some(since) = end else { return Ok(None) };
    Ok(connection.into_parts().map(|Parts { io, read_buf, service, .. }| {
        let mut io = io.into_inner();
        io.unread(&read_buf);
        Resting { io, service, since }
    }))
}

/// The wait for a head, and the one timer that bounds it.
struct HeadWait {
    /// `None` while a request is under way.
    since: Option<Instant>,
    alarm: Alarm,
}

impl HeadWait {
    fn poll<S, B>(
        &mut self,
        shared: &Shared,
        connection: &mut UpgradeableConnection<TokioIo<ClientIo>, S>,
        is_late: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), hyper::Error>>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Send
            + Unpin
            + 'static,
        B: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let (end, wait) = shared.heads.watch(is_late, || Pin::new(connection).poll(cx));
        if wait.has_ended {
            self.since = None;
        }
        if wait.has_begun {
            // That of a connection that rested began before.
            self.since.get_or_insert_with(Instant::now);
        }
        end
    }

    /// Ready with the begin of the wait when the connection may rest, and with `None` when the wait was too long.
    fn poll_alarm(
        &mut self,
        shared: &Shared,
        signs: &Signs,
        is_told: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Instant>> {
        let Some(since) = self.since else { return Poll::Pending };
        let late = since + shared.limits.header_timeout;
        loop {
            let now = Instant::now();
            if now >= late {
                return Poll::Ready(None);
            }
            let rest = since + REST_AFTER;
            let may_rest = shared.heads.is_waited_for() && signs.is_quiet() && !is_told;
            if may_rest && now >= rest {
                return Poll::Ready(Some(since));
            }
            let due = if may_rest { rest.min(late) } else { late };
            ready!(self.alarm.poll(due, now, cx));
        }
    }
}

/// A timer that is set rarely: when it goes off too early, it is set anew.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    due: Option<Instant>,
}

impl Alarm {
    /// Ready when it went off, which may be before `due`; never after.
    fn poll(&mut self, due: Instant, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match self.due {
            Some(set) if set <= due && now < set => return Poll::Pending,
            Some(set) if set <= due => {}
            Some(_) | None => {
                self.due = Some(due);
                match &mut self.sleep {
                    Some(sleep) => sleep.as_mut().reset(due),
                    None => self.sleep = Some(Box::pin(sleep_until(due))),
                }
            }
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        self.due = None;
        Poll::Ready(())
    }
}

/// Why a connection rests no longer.
enum Woken {
    Readable,
    TooLate,
    Drain,
}

async fn woken(shared: &Shared, io: &ClientIo, since: Instant) -> Woken {
    let mut bell = pin!(shared.drain.bell());
    let mut late = pin!(sleep_until(since + shared.limits.header_timeout));
    let woken = poll_fn(|cx| {
        let rings = bell.as_mut().poll(cx).is_ready();
        if io.poll_readable(cx).is_ready() {
            return Poll::Ready(Woken::Readable);
        }
        if rings || shared.drain.has_begun() {
            return Poll::Ready(Woken::Drain);
        }
        late.as_mut().poll(cx).map(|()| Woken::TooLate)
    })
    .await;
    match woken {
        Woken::Drain if !io.signs().spoke() => {
            // As in `work`: the first request may be on its way.
            match timeout(FIRST_REQUEST, poll_fn(|cx| io.poll_readable(cx))).await {
                Ok(()) => Woken::Readable,
                Err(_) => Woken::Drain,
            }
        }
        woken => woken,
    }
}
