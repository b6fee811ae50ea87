//! Whether the head of a reply reached its client, for charges whose request may be sent again.
//!
//! If the head is sent before the capture, the capture records it. If it is sent later, a separate write records it, and no
//! task waits for that write: if the process dies first, a retry is treated as if the client had received nothing.
//! Until the write is committed, or the reply is dropped unsent, the request counts as in flight in this process, so that a
//! client that has its reply and sends the request again is never faster than the record of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::model::ChargeId;
use crate::store::writer::queue::Queue;

const UNSENT: u8 = 0;
const SENT: u8 = 1;
/// The capture went to the writer before the head was sent.
const CAPTURED: u8 = 2;

/// The head of the reply to one request.
pub struct ReplyHead {
    charge: ChargeId,
    state: AtomicU8,
    queue: Arc<Queue>,
}

impl ReplyHead {
    pub(in crate::store) fn new(charge: ChargeId, queue: &Arc<Queue>) -> ReplyHead {
        ReplyHead { charge, state: AtomicU8::new(UNSENT), queue: Arc::clone(queue) }
    }

    /// Called when the operating system has taken bytes of it. More cannot be known.
    pub fn sent(&self) {
        if self.state.swap(SENT, Ordering::AcqRel) == CAPTURED {
            self.queue.note_head(self.charge);
        }
    }

    /// Says that the capture is about to go to the writer. Whether the head was sent before; otherwise it will be noted
    /// later.
    pub(in crate::store) fn begin_capture(&self) -> bool {
        self.queue.delivery_begins(self.charge);
        let is_sent = self.state.compare_exchange(UNSENT, CAPTURED, Ordering::AcqRel, Ordering::Acquire).is_err();
        if is_sent {
            self.queue.delivery_ends([self.charge]);
        }
        is_sent
    }
}

/// Where nothing was sent, and nothing will be, a retry may be forwarded.
impl Drop for ReplyHead {
    fn drop(&mut self) {
        if *self.state.get_mut() == CAPTURED {
            self.queue.delivery_ends([self.charge]);
        }
    }
}
