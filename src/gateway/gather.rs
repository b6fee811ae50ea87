//! Whether a reply is short enough to be settled and sent in one piece.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::headers::clean_reply_trailers;
use super::request_body::RequestBody;
use crate::upstream::{BodyError, UpstreamBody};

/// A reply's body as the upstream sends it.
pub(super) type ReplySource = UpstreamBody<RequestBody>;

/// How much of a reply's body is there already.
pub(super) enum Gathered {
    /// All of it: nothing, or one piece.
    Whole(Option<Bytes>),
    /// The frames that came so far.
    Partial(VecDeque<Frame<Bytes>>),
    /// It broke off, because of the client or of the upstream.
    Broken(BodyError),
}

/// Looks whether a short reply is complete, without waiting for the upstream: it is then captured and sent in one
/// piece. Yields to hyper's connection task, which reads the next piece, up to `yields` times.
pub(super) async fn gather(body: &mut ReplySource, yields: usize) -> Gathered {
    let mut frames = VecDeque::new();
    for turn in 0..=yields {
        let mut ended = body.is_end_stream();
        if !ended {
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
                Poll::Ready(Some(Ok(frame))) => {
                    frames.push_back(frame);
                    ended = body.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => {
                    return Gathered::Broken(error);
                }
                Poll::Ready(None) => ended = true,
                Poll::Pending if turn < yields => tokio::task::yield_now().await,
                Poll::Pending => {}
            }
        }
        let is_one_piece = frames.len() <= 1 && frames.front().is_none_or(Frame::is_data);
        if ended && is_one_piece {
            return Gathered::Whole(frames.pop_front().and_then(|frame| frame.into_data().ok()));
        }
        if frames.len() > 1 || !is_one_piece {
            break;
        }
    }
    Gathered::Partial(frames)
}

/// The body of a reply whose first frames were read before its head was sent.
pub(super) struct PeekedBody {
    pub(super) body: ReplySource,
    pub(super) frames: VecDeque<Frame<Bytes>>,
}

impl PeekedBody {
    /// The next frame. Trailers lack what a reply's head may not have either.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        polled.map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                clean_reply_trailers(trailers);
            }
            frame
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.body.is_end_stream()
    }
}
