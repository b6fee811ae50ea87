//! The request path and the pure pieces that it is made of.
//!
//! The pieces do no I/O: bytes in, decision out. They run on every request, so each goes over its input
//! once and allocates only where a request is out of the ordinary.

pub mod credential;
pub mod headers;
pub mod path;
mod percent;
pub mod problem;
pub mod route;
