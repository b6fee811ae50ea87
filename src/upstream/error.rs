//! How a request or a reply fails on its way: typed, without a status.

use std::error::Error;
use std::{fmt, io};

use super::ReplyHeadError;
use super::outgoing::ClientError;

/// Why there is no reply.
#[derive(Debug)]
pub enum SendError {
    /// No upstream took a connection; the request was seen by none.
    Unreachable {
        /// Of the last one tried.
        cause: io::Error,
    },
    /// The request could not be sent before the hold expired; another process may have released the hold. Nothing was sent.
    PassageExpired,
    /// The upstream did not answer in time; it may have done what was asked.
    HeadTimeout,
    /// The connection ended, or what came was not HTTP or too large, before a whole head came.
    Broken {
        /// What hyper says.
        cause: hyper::Error,
    },
    /// A head came that cannot be handed on.
    BadReply {
        /// What is wrong with it.
        reason: ReplyHeadError,
    },
    /// The upstream gave up, or the time was over, while the client kept it waiting for the request's body.
    RequestStalled,
    /// The request's own body failed or fell short of its length: the client's doing.
    RequestBody {
        /// What hyper says; the body's own error is in [`SendError::request_body_cause`].
        cause: hyper::Error,
        /// Whether anything of the request was written to the upstream.
        was_forwarded: bool,
    },
}

impl SendError {
    /// The error that the request's body ended with, if that is why and it is an `E`.
    pub fn request_body_cause<E: Error + 'static>(&self) -> Option<&E> {
        let SendError::RequestBody { cause, .. } = self else { return None };
        cause.source()?.downcast_ref::<ClientError>()?.0.downcast_ref()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Unreachable { .. } => "no upstream takes a connection",
            SendError::PassageExpired => "the hold expired before the request could be sent",
            SendError::HeadTimeout => "the upstream did not answer in time",
            SendError::Broken { .. } => "the upstream broke off before its answer",
            SendError::BadReply { .. } => "the upstream's reply cannot be handed on",
            SendError::RequestStalled => "the request's body stopped coming",
            SendError::RequestBody { .. } => "the request's body broke off",
        })
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Unreachable { cause } => Some(cause),
            SendError::HeadTimeout | SendError::PassageExpired | SendError::RequestStalled => None,
            SendError::Broken { cause } => Some(cause),
            SendError::BadReply { reason } => Some(reason),
            SendError::RequestBody { cause, .. } => Some(cause),
        }
    }
}

/// Why a reply's body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// Nothing came for too long.
    Idle,
    /// The whole exchange took longer than allowed.
    TotalTimeout {
        /// Whether the upstream's data was there and the client did not take it; otherwise the upstream was waited for.
        was_client_slow: bool,
    },
    /// The connection ended or the framing is wrong.
    Broken(hyper::Error),
    /// The upstream gave up, or the time was over, while the client kept it waiting for the rest of the request's body.
    RequestStalled,
    /// The request's own body failed while the reply was on its way: the client's doing.
    RequestBody(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Idle => "the upstream's body stopped coming",
            BodyError::TotalTimeout { was_client_slow: false } => "the upstream did not end its body in time",
            BodyError::TotalTimeout { was_client_slow: true } => "the client did not take the reply in time",
            BodyError::Broken(_) => "the upstream broke off its body",
            BodyError::RequestStalled => "the request's body stopped coming, and the reply with it",
            BodyError::RequestBody(_) => "the request's body broke off, and the reply with it",
        })
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BodyError::Idle | BodyError::TotalTimeout { .. } | BodyError::RequestStalled => None,
            BodyError::Broken(cause) | BodyError::RequestBody(cause) => Some(cause),
        }
    }
}
