//! Connections from one worker to the upstreams of one API: pool, choice among several, timeouts.
//!
//! Owns the HTTP/1.1 client side: where a request goes, on which connection, and how long each step may take. Promises
//! that a request which an upstream may have seen is not sent again, with one exception; that nothing waits without a limit;
//! and that a reply which breaks off is an error of its body, never its end. The exception: `GET`, `HEAD` and `OPTIONS`
//! without a body, on a kept connection that ended without a byte of reply, are sent again once, on a new connection. Knows
//! nothing of keys, money or problems: refusals are typed, and `gateway` gives them a status.
//!
//! An [`Upstream`] belongs to one worker, a single-threaded runtime. It may be shared between threads (its locks are
//! then contended, and a connection that is still finishing its last request is closed instead of reused).

mod body;
mod connect;
mod connection;
mod error;
mod outgoing;
mod pool;
mod repeat;
mod reply_head;
mod socket;
mod socket_state;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::billing::Passage;
use crate::config::{ExchangePolicy, Limits, UpstreamConfig};

pub use body::UpstreamBody;
pub use error::{BodyError, SendError};
pub use reply_head::ReplyHeadError;

use connect::Address;
use connection::{Connection, Failure};
use outgoing::{Outgoing, Progress, UploadPace};
use pool::Pool;
use reply_head::ReplyTraits;

/// The waits and counts of the way to an upstream; see [`Limits`] for each.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLimits {
    /// For a connection, all addresses of a name together.
    pub connect_timeout: Duration,
    /// From the start of forwarding to the head of the reply, also while the body of the request moves.
    pub head_deadline: Duration,
    /// How long an unused connection is kept.
    pub keep_idle: Duration,
    /// How many unused connections to one upstream are kept.
    pub keep_connections: usize,
    /// Header fields of a reply.
    pub reply_headers: usize,
    /// Bytes of the interim replies before a reply.
    pub interim_reply_bytes: usize,
    /// How long a client may keep the upstream waiting for its body before a break of the upstream is the client's fault.
    pub client_stall: Duration,
    /// Bytes of a body that make up for a second of that.
    pub request_body_bytes_per_second: u64,
}

impl From<&Limits> for UpstreamLimits {
    fn from(limits: &Limits) -> UpstreamLimits {
        UpstreamLimits {
            connect_timeout: limits.connect_timeout,
            head_deadline: limits.upstream_head_deadline,
            keep_idle: limits.upstream_keep_idle,
            keep_connections: limits.upstream_keep_connections,
            reply_headers: limits.reply_headers,
            interim_reply_bytes: limits.interim_reply_bytes,
            client_stall: limits.client_stall,
            request_body_bytes_per_second: limits.request_body_bytes_per_second,
        }
    }
}

/// The time limits of one exchange.
#[derive(Clone, Copy, Debug)]
struct ExchangeDeadlines<'p> {
    policy: &'p ExchangePolicy,
    start: Instant,
    /// The latest time for the reply's head.
    end: Instant,
}

/// Which `Host` an upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The request's own; the upstream's where a request has none.
    Preserve,
    /// The upstream's authority.
    Replace,
}

/// What a request body must be to be sent upstream. Its default is no body.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Default + Send + Unpin + 'static
{
    /// Whether the client has been asked for the body. While it has not, a body that is pending does not wait for the client.
    fn is_asked_for(&self) -> bool {
        true
    }
}

/// The upstreams of one API, as one worker reaches them.
pub struct Upstream<B: RequestBody> {
    targets: Box<[Target<B>]>,
    /// Whose turn it is.
    next: AtomicUsize,
    host: HostHeader,
    limits: UpstreamLimits,
}

/// One upstream.
struct Target<B: RequestBody> {
    address: Address,
    host: HeaderValue,
    base_path: Box<str>,
    pool: Arc<Pool<B>>,
}

impl<B: RequestBody> Upstream<B> {
    /// Connections to `upstreams`, none of them open yet.
    ///
    /// # Panics
    /// Without upstreams: the configuration has at least one.
    pub fn new(upstreams: &[UpstreamConfig], host: HostHeader, limits: UpstreamLimits) -> Upstream<B> {
        assert!(!upstreams.is_empty(), "an API has at least one upstream");
        let targets = upstreams
            .iter()
            .map(|upstream| Target {
                address: Address::new(&upstream.authority),
                host: HeaderValue::from_str(upstream.authority.as_str())
                    .expect("an authority is visible ASCII, so it is a header value"),
                base_path: upstream.base_path.clone(),
                pool: Pool::new(limits.keep_idle, limits.keep_connections),
            })
            .collect();
        Upstream { targets, next: AtomicUsize::new(0), host, limits }
    }

    /// Demands the proof that the request was paid for, or is free, and sends `request` (its URI in origin form, or `*`)
    /// to the upstream whose turn it is, and hands back the final reply (RFC 9110 §15: interim ones but 101 are skipped)
    /// as soon as its head is there, even if the request's body is still on its way. To drop this future, or the reply's
    /// body before its end, closes the connection.
    ///
    /// A refused or late connection tries the next upstream, each once. A kept connection that turns out dead before
    /// the request was written to it is replaced by a new one; so is one that ends without a byte of reply to a `GET`,
    /// `HEAD` or `OPTIONS` without a body. Nothing else is tried again.
    ///
    /// # Errors
    /// Each [`SendError`] says how far the request came.
    pub async fn send(
        &self,
        passage: &Passage,
        policy: &ExchangePolicy,
        request: Request<B>,
    ) -> Result<Response<UpstreamBody<B>>, SendError> {
        let (mut head, body) = request.into_parts();
        head.version = Version::HTTP_11;
        let path = head.uri.path_and_query().cloned();
        let own_host = matches!(self.host, HostHeader::Preserve) && head.headers.contains_key(HOST);
        let UpstreamLimits { client_stall: stall, request_body_bytes_per_second: bytes_per_second, .. } = self.limits;
        let (body, progress) = Outgoing::new(body, UploadPace { stall, bytes_per_second });
        let mut request = Request::from_parts(head, body);

        let may_repeat = progress.is_none() && repeat::may_repeat(request.method());
        let start = Instant::now();
        let head_deadline = self.limits.head_deadline;
        let longest = policy.total_timeout.map_or(head_deadline, |timeout| timeout.min(head_deadline));
        let deadlines = ExchangeDeadlines { policy, start, end: start + longest };
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut refused = None;
        for turn in 0..self.targets.len() {
            let target = &self.targets[first.wrapping_add(turn) % self.targets.len()];
            if !own_host {
                request.headers_mut().insert(HOST, target.host.clone());
            }
            target.address_to(&mut request, path.as_ref());

            if !passage.is_valid() {
                return Err(SendError::PassageExpired);
            }
            // Reading the clock a second time costs a request something; a later upstream comes after a failed connection.
            let now = if turn == 0 { start } else { Instant::now() };
            if let Some(mut kept) = target.pool.take(now) {
                passage.begin_forwarding();
                match kept.exchange(request, progress.as_deref(), &deadlines, now, may_repeat).await {
                    Ok(reply) => return Self::reply(reply, kept, progress, target, &deadlines),
                    Err(Failure::Unsent { request: unsent, cause: _ }) => request = *unsent,
                    Err(Failure::Unanswered { request, error }) => {
                        return Box::pin(self.repeat(&request, error, passage, target, deadlines)).await;
                    }
                    Err(Failure::Sent(error)) => return Err(error),
                }
            }
            // Boxed, because it is seldom needed: the future of a request is as long as the longest way through it.
            match Box::pin(connect::connect(&target.address, self.limits.connect_timeout)).await {
                Ok(_) if !passage.is_valid() => return Err(SendError::PassageExpired),
                Ok(stream) => {
                    passage.begin_forwarding();
                    return Box::pin(self.send_on(stream, request, progress, target, &deadlines)).await;
                }
                Err(cause) => {
                    tracing::debug!(upstream = %target.address, %cause, "cannot connect");
                    refused = Some(cause);
                }
            }
        }
        Err(SendError::Unreachable { cause: refused.expect("there is an upstream, and none was reached") })
    }

    /// Sends a request again that was `written` to a kept connection which ended without a byte of reply, within the
    /// deadlines of the first time. `error`: what is said where that is not possible.
    async fn repeat(
        &self,
        written: &[u8],
        error: SendError,
        passage: &Passage,
        target: &Target<B>,
        deadlines: ExchangeDeadlines<'_>,
    ) -> Result<Response<UpstreamBody<B>>, SendError> {
        let end = deadlines.end.min(deadlines.start + deadlines.policy.head_timeout);
        let connect_timeout = self.limits.connect_timeout.min(end.saturating_duration_since(Instant::now()));
        let Some(request) = repeat::read_back(written) else { return Err(error) };
        match connect::connect(&target.address, connect_timeout).await {
            Ok(stream) if passage.is_valid() => {
                tracing::debug!(upstream = %target.address, "a kept connection ended without a reply; sending again");
                self.send_on(stream, request, None, target, &ExchangeDeadlines { end, ..deadlines }).await
            }
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Sends a request as the first one on a connection.
    async fn send_on(
        &self,
        stream: TcpStream,
        request: Request<Outgoing<B>>,
        progress: Option<Arc<Progress>>,
        target: &Target<B>,
        deadlines: &ExchangeDeadlines<'_>,
    ) -> Result<Response<UpstreamBody<B>>, SendError> {
        let mut fresh = Connection::open(stream, &self.limits).await?;
        match fresh.exchange(request, progress.as_deref(), deadlines, Instant::now(), false).await {
            Ok(reply) => Self::reply(reply, fresh, progress, target, deadlines),
            Err(Failure::Unsent { cause, .. }) => Err(SendError::Broken { cause }),
            Err(Failure::Unanswered { error, .. } | Failure::Sent(error)) => Err(error),
        }
    }

    /// Checks the head of a reply, and hands its connection over to its body.
    ///
    /// # Errors
    /// `BadReply`; the connection is closed.
    fn reply(
        mut reply: Response<Incoming>,
        connection: Connection<B>,
        request: Option<Arc<Progress>>,
        target: &Target<B>,
        deadlines: &ExchangeDeadlines<'_>,
    ) -> Result<Response<UpstreamBody<B>>, SendError> {
        let traits = target.check(&mut reply)?;
        if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(reply.map(|body| UpstreamBody::of_upgrade(body, connection, request)));
        }
        Ok(reply.map(|body| UpstreamBody::new(body, connection, &target.pool, request, traits, deadlines)))
    }
}

impl<B: RequestBody> Target<B> {
    /// Checks the head of a reply from here.
    fn check(&self, reply: &mut Response<Incoming>) -> Result<ReplyTraits, SendError> {
        reply_head::check(reply).map_err(|reason| {
            tracing::debug!(upstream = %self.address, %reason, "rejected an upstream reply");
            SendError::BadReply { reason }
        })
    }

    /// Puts the base path before `path`, the path that the request came with.
    fn address_to<T>(&self, request: &mut Request<T>, path: Option<&PathAndQuery>) {
        let Some(path) = path else { return };
        let full = if self.base_path.is_empty() {
            path.clone()
        } else {
            PathAndQuery::from_maybe_shared(Bytes::from(format!("{}{path}", self.base_path)))
                .expect("a checked base path before a parsed path is a path")
        };
        *request.uri_mut() = Uri::from(full);
    }
}
