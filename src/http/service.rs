//! What the edge serves: a tower service for each connection, with the layers around it.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Buf;
use http::Response;
use http_body::Body;

use super::client::ClientConnection;
use super::layers::ReceivedRequest;

/// The body of a reply.
pub trait EdgeBody: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

impl<B> EdgeBody for B where B: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

/// What answers the requests of one connection: the layers and the service behind them.
pub trait EdgeService:
    tower::Service<ReceivedRequest, Response = Response<Self::Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Unpin
    + 'static
{
    /// Of its replies.
    type Body: EdgeBody;
}

impl<S, B> EdgeService for S
where
    S: tower::Service<ReceivedRequest, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Unpin
        + 'static,
    B: EdgeBody,
{
    type Body = B;
}

/// Makes the service of each connection; lives on its worker.
pub trait Connect: 'static {
    /// What answers the requests of one connection.
    type Service: EdgeService;

    /// A client has connected.
    fn connect(&self, client: &Arc<ClientConnection>) -> Self::Service;
}

impl<F, S> Connect for F
where
    F: Fn(&Arc<ClientConnection>) -> S + 'static,
    S: EdgeService,
{
    type Service = S;

    fn connect(&self, client: &Arc<ClientConnection>) -> S {
        self(client)
    }
}
