//! Bodies that are collected before the price of their request is held: a request whose small body breaks off is then never
//! forwarded, and never charged.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

use super::BodyError;
use super::streamed::Streamed;

/// How many bytes of collected bodies the whole process holds.
pub(crate) struct CollectedBytes {
    limit: usize,
    used: AtomicUsize,
}

impl CollectedBytes {
    /// None so far, `limit` at most.
    pub(crate) fn new(limit: usize) -> Arc<CollectedBytes> {
        Arc::new(CollectedBytes { limit, used: AtomicUsize::new(0) })
    }

    /// Reserves room for a body of `length` bytes. `None` when there is not enough of it.
    pub(crate) fn reserve(self: &Arc<Self>, length: usize) -> Option<Reservation> {
        let within = |used: usize| used.checked_add(length).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Reservation { total: Arc::clone(self), length })
    }
}

/// Room for one body; dropping it returns the room.
pub(crate) struct Reservation {
    total: Arc<CollectedBytes>,
    length: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.total.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// A whole body.
pub(crate) struct Collected {
    /// `None` once it has been handed on.
    data: Option<Bytes>,
    _reservation: Reservation,
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

/// Reads a body to its end.
///
/// # Errors
/// The body broke off, or came too slowly.
pub(crate) async fn collect(mut body: Streamed, reservation: Reservation) -> Result<Collected, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() {
            // Most bodies arrive in one piece, which is handed on as it is.
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(reservation.length);
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    let data = if all.is_empty() { first } else { all.freeze() };
    Ok(Collected { data: Some(data), _reservation: reservation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_returned_when_a_body_is_dropped() {
        let total = CollectedBytes::new(10);
        let six = total.reserve(6).unwrap();
        assert!(total.reserve(5).is_none());
        let four = total.reserve(4).unwrap();
        drop(six);
        assert!(total.reserve(6).is_some());
        drop(four);
        assert_eq!(total.used.load(Ordering::Relaxed), 0);
        assert!(total.reserve(usize::MAX).is_none());
    }
}
