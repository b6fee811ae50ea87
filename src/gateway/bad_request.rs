//! Requests that are valid HTTP, but not for a gateway.

use crate::http::{Problem, ProblemKind};

/// What is wrong with a request that is valid HTTP, but not for a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// No `Host`, more than one, or one that is not a host (RFC 9112 §3.2).
    Host,
    /// `CONNECT`, or the target `*`.
    Target,
    /// A method in lower case.
    Method,
    /// A body that does not follow HTTP's framing, or broke off.
    Body,
    /// A transfer coding other than `chunked`.
    TransferCoding,
}

impl From<BadRequest> for Problem {
    fn from(bad: BadRequest) -> Problem {
        ProblemKind::BadRequest.with_detail(match bad {
            BadRequest::Host => "The request needs exactly one valid Host header.",
            BadRequest::Target => "Keytoll is not a forward proxy: the request target must be a path.",
            BadRequest::Method => "Methods are case-sensitive; write the method in upper case.",
            BadRequest::Body => "The request body broke off or is not framed as HTTP requires.",
            BadRequest::TransferCoding => "The only transfer coding that Keytoll understands is chunked, once.",
        })
    }
}
