//! A reply that flows to the client while its price is held.
//!
//! What may end a reply is held back until its capture is committed: under Content-Length the piece with the last
//! byte, otherwise the end itself or the trailers. All other data flows at once. hyper drops a body whose
//! Content-Length is met without asking for its end, so nothing here depends on being polled to the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{error, fmt, mem};

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;

use super::gather::PeekedBody;
use super::payment::{Capture, Payment};
use super::stall_watch::StallWatch;
use crate::billing::SettlementReason;
use crate::config::ExchangePolicy;
use crate::upstream::BodyError;

/// The body of a reply whose status is one that is charged.
pub(super) struct HeldReply {
    body: PeekedBody,
    status: StatusCode,
    /// HTTP/1.0 without a length: the end of the connection ends the reply, and looks like a break. So each piece is held
    /// back until the next one is there, and the last one until the capture.
    is_close_delimited: bool,
    /// The last piece so far of a close-delimited reply.
    held_back: Option<Frame<Bytes>>,
    /// Whether the reply is charged when it is broken off for silence after some of it was delivered.
    charge_idle_cut: bool,
    has_delivered: bool,
    stalls: StallWatch,
    state: State,
}

enum State {
    /// Data flows.
    Flowing(Payment),
    /// The end is held back until the capture is committed.
    Capturing { last: Option<Frame<Bytes>>, capture: Capture },
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

impl HeldReply {
    /// A reply with this `status`, paid with `payment`. `is_close_delimited`: whether only the end of the connection ends it.
    pub(super) fn new(
        body: PeekedBody,
        status: StatusCode,
        is_close_delimited: bool,
        policy: &ExchangePolicy,
        payment: Payment,
    ) -> HeldReply {
        let charge_idle_cut = policy.charge_idle_cut && body.body.is_event_stream();
        HeldReply {
            body,
            status,
            is_close_delimited,
            held_back: None,
            charge_idle_cut,
            has_delivered: false,
            stalls: StallWatch::new(payment.record().client()),
            state: State::Flowing(payment),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        loop {
            match &mut self.state {
                State::Done => return Poll::Ready(None),
                State::Capturing { last, capture } => {
                    let is_captured = ready!(Pin::new(capture).poll(cx));
                    let last = last.take();
                    self.state = State::Done;
                    return Poll::Ready(if is_captured { last.map(Ok) } else { Some(Err(ReplyError::Unpaid)) });
                }
                State::Flowing(payment) => {
                    let Poll::Ready(frame) = self.body.poll_frame(cx) else {
                        self.stalls.wait(payment.record().client(), &self.body.body);
                        return Poll::Pending;
                    };
                    let last = match frame {
                        Some(Ok(frame)) if frame.is_data() && self.is_close_delimited => {
                            let Some(frame) = self.held_back.replace(frame) else { continue };
                            self.has_delivered = true;
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Ok(_)) | None if self.is_close_delimited => self.held_back.take(),
                        Some(Ok(frame)) if frame.is_data() && !self.body.is_end_stream() => {
                            self.has_delivered = true;
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Ok(frame)) => Some(frame),
                        None => None,
                        Some(Err(error)) => {
                            if let State::Flowing(payment) = mem::replace(&mut self.state, State::Done) {
                                let reason = self.reason(&error, &payment);
                                payment.end_early(self.status, reason);
                            }
                            return Poll::Ready(Some(Err(ReplyError::Upstream(error))));
                        }
                    };
                    if let State::Flowing(payment) = mem::replace(&mut self.state, State::Done) {
                        let capture = payment.capture(Some(self.status), SettlementReason::Captured);
                        self.state = State::Capturing { last, capture };
                    }
                }
            }
        }
    }

    /// How a reply is settled that was broken off with this error.
    fn reason(&self, error: &BodyError, payment: &Payment) -> SettlementReason {
        match error {
            BodyError::RequestBody(_) | BodyError::RequestStalled => SettlementReason::AbortedUpload,
            BodyError::TotalTimeout { was_client_slow: true } => SettlementReason::ClientStalled,
            BodyError::Broken(_) if self.stalls.explains_break(payment.record().client()) => {
                SettlementReason::ClientStalled
            }
            BodyError::Idle if self.charge_idle_cut && self.has_delivered => SettlementReason::IdleCut,
            BodyError::Idle | BodyError::Broken(_) | BodyError::TotalTimeout { was_client_slow: false } => {
                SettlementReason::Released
            }
        }
    }
}

/// A client that leaves while its reply is on its way pays for it; a reply that Keytoll itself cuts is released.
impl Drop for HeldReply {
    fn drop(&mut self) {
        match mem::replace(&mut self.state, State::Done) {
            State::Flowing(payment) => payment.end_early(self.status, SettlementReason::ClientLeft),
            State::Capturing { capture, .. } => capture.detach(SettlementReason::ClientLeft),
            State::Done => {}
        }
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
