//! Whether a reply is short enough to be settled and sent in one piece.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http_body::{Body, Frame};

use super::reply::Upstreamed;
use crate::upstream::BodyError;

/// How much of a reply's body is there already.
pub(super) enum Gathered {
    /// All of it: nothing, or one piece.
    Whole(Option<Bytes>),
    /// What came so far.
    Begun(VecDeque<Frame<Bytes>>),
    /// It broke off, because of the client or of the upstream.
    Broken(BodyError),
}

/// Looks whether a short reply is complete, without waiting for the upstream: it is then captured and sent in one
/// piece. hyper's connection task brings the next piece when it is its turn, which it is given `give_way` times.
pub(super) async fn gather(body: &mut Upstreamed, give_way: usize) -> Gathered {
    let mut frames = VecDeque::new();
    for turn in 0..=give_way {
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
                Poll::Pending if turn < give_way => tokio::task::yield_now().await,
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
    Gathered::Begun(frames)
}
