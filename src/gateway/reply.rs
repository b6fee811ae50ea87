//! The body of a reply to the client, and how its end waits for the money.
//!
//! What may end a reply is held back until its capture is committed: under Content-Length the piece with the last
//! byte, otherwise the end itself or the trailers. All other data flows at once. hyper drops a body whose
//! Content-Length is met without asking for its end, so that nothing here depends on being polled to the end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{error, fmt, mem};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::runtime::Handle;

use super::headers::{Receipt, clean_reply_trailers};
use super::request_body::RequestBody;
use super::stall_watch::StallWatch;
use crate::billing::{Hold, Outcome, SettlementReason, Settling};
use crate::http::{Problem, Record};
use crate::model::Cents;
use crate::store::Settled;
use crate::upstream::{BodyError, UpstreamBody};

/// A reply's body as the upstream sends it.
pub(super) type Upstreamed = UpstreamBody<RequestBody>;

/// The body of a reply.
pub struct ReplyBody {
    kind: Kind,
}

enum Kind {
    /// There already, and settled.
    Whole(Full<Bytes>),
    /// None, in a reply whose head gives the length of another one.
    NotModified { length: u64 },
    /// On its way, with nothing left to settle.
    Passing(Box<Begun>),
    /// On its way, and not paid yet.
    Settling(Box<Unsettled>),
}

/// The body of a reply of which a part may be here.
pub(super) struct Begun {
    pub(super) body: Upstreamed,
    /// What came before the head went out.
    pub(super) first: VecDeque<Frame<Bytes>>,
}

impl Begun {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.pop_front() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.body.is_end_stream()
    }
}

/// A reply that is on its way while its price is held.
struct Unsettled {
    reply: Begun,
    end: End,
    /// With a silent end: the last piece so far.
    behind: Option<Frame<Bytes>>,
    state: State,
    outcome: Outcome,
    /// Whether the reply is charged when it is broken off for silence after some of it was delivered.
    charge_idle_cut: bool,
    has_delivered: bool,
    stalls: StallWatch,
    record: Record,
}

/// How a client sees that a reply is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By its length, or by a last chunk.
    Marked,
    /// HTTP/1.0: by the end of the connection, which is no mark of anything. So the last piece is held back instead,
    /// and each piece waits for the next one.
    Silent,
}

/// How a reply is settled that is not whole yet.
pub(super) struct Terms {
    pub(super) hold: Hold,
    pub(super) outcome: Outcome,
    pub(super) end: End,
    /// Whether the reply is charged when it is broken off for silence after some of it was delivered.
    pub(super) charge_idle_cut: bool,
    pub(super) record: Record,
}

enum State {
    /// Data flows.
    Flowing(Hold),
    /// The end is held back until the capture is committed.
    Capturing { last: Option<Frame<Bytes>>, settling: Settling, cents: Cents },
    /// Nothing more.
    Done,
}

/// Why a reply is broken off.
#[derive(Debug)]
pub enum ReplyError {
    /// The upstream's body broke off.
    Upstream(BodyError),
    /// Its price could not be captured.
    Unpaid,
}

impl ReplyBody {
    pub(super) fn empty() -> ReplyBody {
        ReplyBody::from(Bytes::new())
    }

    pub(super) fn passing(reply: Begun) -> ReplyBody {
        ReplyBody { kind: Kind::Passing(Box::new(reply)) }
    }

    /// Of a reply that is there, with or without data. hyper writes the Content-Length of the body that it is given, and never
    /// asks for that of a 304, whose length is that of the reply to a request without conditions.
    pub(super) fn whole(data: Option<Bytes>, head: &Parts) -> ReplyBody {
        let length = head.headers.get(CONTENT_LENGTH).filter(|_| head.status == StatusCode::NOT_MODIFIED);
        match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
            Some(length) => ReplyBody { kind: Kind::NotModified { length } },
            None => data.map_or_else(ReplyBody::empty, ReplyBody::from),
        }
    }

    pub(super) fn settling(reply: Begun, terms: Terms) -> ReplyBody {
        let Terms { hold, outcome, end, charge_idle_cut, record } = terms;
        let state = State::Flowing(hold);
        let unsettled = Unsettled {
            reply,
            end,
            behind: None,
            state,
            outcome,
            charge_idle_cut,
            has_delivered: false,
            stalls: StallWatch::new(record.client()),
            record,
        };
        ReplyBody { kind: Kind::Settling(Box::new(unsettled)) }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> ReplyBody {
        ReplyBody { kind: Kind::Whole(Full::new(bytes)) }
    }
}

/// A problem as the reply to a request that has been forwarded.
pub(super) fn problem(problem: Problem, receipt: Option<&Receipt>, record: &Record) -> Response<ReplyBody> {
    let mut reply = record.refuse(problem, None);
    if let Some(receipt) = receipt {
        receipt.write(reply.headers_mut());
    }
    reply
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut self.kind {
            Kind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::NotModified { .. } => Poll::Ready(None),
            Kind::Passing(reply) => reply.poll_frame(cx).map_ok(cleaned).map_err(ReplyError::Upstream),
            Kind::Settling(unsettled) => unsettled.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::NotModified { .. } => false,
            Kind::Passing(reply) => reply.is_end_stream(),
            Kind::Settling(unsettled) => matches!(unsettled.state, State::Done),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(body) => body.size_hint(),
            Kind::NotModified { length } => SizeHint::with_exact(*length),
            // The head says how long it is, if that is known.
            Kind::Passing(_) | Kind::Settling(_) => SizeHint::default(),
        }
    }
}

impl Unsettled {
    /// How a reply is settled that was broken off with this error.
    fn reason(&self, error: &BodyError) -> SettlementReason {
        let client = self.record.client();
        match error {
            BodyError::RequestBody(_) | BodyError::RequestStalled => SettlementReason::AbortedUpload,
            BodyError::TotalTimeout { was_client_slow: true } => SettlementReason::ClientStalled,
            BodyError::Broken(_) if self.stalls.explains_break(client) => SettlementReason::ClientStalled,
            BodyError::Idle if self.charge_idle_cut && self.has_delivered => SettlementReason::IdleCut,
            BodyError::Idle | BodyError::Broken(_) | BodyError::TotalTimeout { was_client_slow: false } => {
                SettlementReason::Released
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        loop {
            match &mut self.state {
                State::Done => return Poll::Ready(None),
                State::Capturing { last, settling, cents } => {
                    let settled = ready!(Pin::new(settling).poll(cx));
                    let (last, cents) = (last.take(), *cents);
                    self.state = State::Done;
                    let is_captured = settled == Settled::Captured;
                    self.record.capture_ended(is_captured, SettlementReason::Captured, cents);
                    return Poll::Ready(if is_captured { last.map(Ok) } else { Some(Err(ReplyError::Unpaid)) });
                }
                State::Flowing(_) => {
                    let Poll::Ready(frame) = self.reply.poll_frame(cx) else {
                        self.stalls.wait(self.record.client(), &self.reply.body);
                        return Poll::Pending;
                    };
                    let last = match frame {
                        Some(Ok(frame)) if frame.is_data() && self.end == End::Silent => {
                            match self.behind.replace(frame) {
                                Some(behind) => {
                                    self.has_delivered = true;
                                    return Poll::Ready(Some(Ok(behind)));
                                }
                                None => continue,
                            }
                        }
                        Some(Ok(_)) | None if self.end == End::Silent => self.behind.take(),
                        Some(Ok(frame)) if frame.is_data() && !self.reply.is_end_stream() => {
                            self.has_delivered = true;
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Ok(frame)) => Some(cleaned(frame)),
                        None => None,
                        Some(Err(error)) => {
                            if let State::Flowing(hold) = mem::replace(&mut self.state, State::Done) {
                                end_early(hold, self.outcome, &self.record, self.reason(&error));
                            }
                            return Poll::Ready(Some(Err(ReplyError::Upstream(error))));
                        }
                    };
                    if let State::Flowing(hold) = mem::replace(&mut self.state, State::Done) {
                        let cents = hold.cents();
                        self.state = State::Capturing { last, settling: hold.capture(self.outcome), cents };
                    }
                }
            }
        }
    }
}

/// Whether the client broke the reply off, by what it did with its own request.
pub(super) fn is_clients_fault(error: &BodyError) -> bool {
    match error {
        BodyError::RequestBody(_) | BodyError::RequestStalled => true,
        BodyError::Idle | BodyError::Broken(_) | BodyError::TotalTimeout { .. } => false,
    }
}

fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        let trailers: &mut HeaderMap = trailers;
        clean_reply_trailers(trailers);
    }
    frame
}

/// A client that leaves while its reply is on its way pays for it; a reply that Keytoll itself cuts is released.
impl Drop for ReplyBody {
    fn drop(&mut self) {
        let Kind::Settling(unsettled) = &mut self.kind else { return };
        match mem::replace(&mut unsettled.state, State::Done) {
            State::Flowing(hold) => {
                end_early(hold, unsettled.outcome, &unsettled.record, SettlementReason::ClientLeft);
            }
            State::Capturing { settling, cents, .. } => record_later(settling, cents, unsettled.record.clone()),
            State::Done => {}
        }
    }
}

/// Records the outcome of a capture whose client has left before it was durable.
fn record_later(settling: Settling, cents: Cents, record: Record) {
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        let is_captured = settling.await == Settled::Captured;
        record.capture_ended(is_captured, SettlementReason::ClientLeft, cents);
    });
}

/// Settles a reply that does not come to its end. If the client caused that, by leaving or by breaking off its own request,
/// the hold is captured, or else all but the last byte would be free. Otherwise it is released.
fn end_early(hold: Hold, outcome: Outcome, record: &Record, reason: SettlementReason) {
    let reason = if record.is_cutting() { SettlementReason::Drained } else { reason };
    if matches!(reason, SettlementReason::Drained | SettlementReason::Released) {
        record.settled(reason, Cents::ZERO);
        hold.release_unawaited();
    } else {
        record.settled(reason, hold.cents());
        drop(hold.capture(outcome));
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::Upstream(error) => error.fmt(f),
            ReplyError::Unpaid => f.write_str("the price of the reply could not be captured"),
        }
    }
}

impl error::Error for ReplyError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            ReplyError::Upstream(error) => Some(error),
            ReplyError::Unpaid => None,
        }
    }
}
