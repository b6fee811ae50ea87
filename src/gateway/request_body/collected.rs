//! Bodies that are collected before the price of their request is held: a request whose small body breaks off is then never
//! forwarded, and never charged.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::BodyError;
use super::streamed::Streamed;

/// A whole body.
pub(crate) struct Collected {
    /// `None` once it has been handed on.
    data: Option<Bytes>,
    /// For its bytes, of those that the whole process may collect.
    _permit: OwnedSemaphorePermit,
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

/// Reads a body to its end. `permit` is for all its bytes.
///
/// # Errors
/// The body broke off, or came too slowly.
pub(crate) async fn collect(mut body: Streamed, permit: OwnedSemaphorePermit) -> Result<Collected, BodyError> {
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
            all.reserve(permit.num_permits());
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    let data = if all.is_empty() { first } else { all.freeze() };
    Ok(Collected { data: Some(data), _permit: permit })
}
