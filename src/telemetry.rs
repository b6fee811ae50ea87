//! What the program says about itself: log lines, metrics, and one wide line a request.
//!
//! May be used by every part. Never holds a key, a query string or a header's value.

pub mod access;
pub mod logs;
pub mod metrics;
pub mod watch;
