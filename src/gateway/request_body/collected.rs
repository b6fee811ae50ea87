//! Bodies that are collected before the price of their request is held: a request whose small body breaks off is then never
//! forwarded, and never charged.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BodyError;
use super::streamed::Streamed;

/// A whole body.
pub(crate) struct Collected {
    /// `None` once it has been handed on.
    data: Option<Bytes>,
    /// For its bytes, of those that the whole process may collect.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Collected {
    /// Bytes that have not been handed on.
    pub(super) fn len(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }

    /// The whole body, once.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.data.take()
    }
}

/// What became of a body that was to be collected.
pub(crate) enum Collection {
    /// It is here.
    Whole(Collected),
    /// There was not enough room. What was read of it comes first in what is streamed.
    Streamed(Streamed),
}

/// Reads a body to its end, with a permit for each byte. Only bytes that have arrived take room, so that clients that send
/// nothing leave it to others.
///
/// # Errors
/// The body broke off, or came too slowly.
pub(crate) async fn collect(mut body: Streamed, room: &Arc<Semaphore>) -> Result<Collection, BodyError> {
    let mut permit: Option<OwnedSemaphorePermit> = None;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let more = Arc::clone(room).try_acquire_many_owned(count);
        if first.is_empty() && all.is_empty() {
            // Most bodies arrive in one piece, which is handed on as it is.
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
        match (more, &mut permit) {
            (Ok(more), Some(permit)) => permit.merge(more),
            (Ok(more), None) => permit = Some(more),
            (Err(_), _) => {
                body.put_back(if all.is_empty() { first } else { all.freeze() }, permit);
                return Ok(Collection::Streamed(body));
            }
        }
    }
    let data = if all.is_empty() { first } else { all.freeze() };
    Ok(Collection::Whole(Collected { data: Some(data), _permit: permit }))
}
