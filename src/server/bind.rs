//! The listening socket.

use std::net::{SocketAddr, TcpListener};
use std::{fmt, io};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted. A burst of clients fits; the kernel's `somaxconn` may cut it.
const BACKLOG: i32 = 4096;

/// A socket that listens; connections queue up in the kernel until it is served.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: TcpListener,
    local: SocketAddr,
}

impl Bound {
    /// Where it listens; the port that the kernel chose where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The bare listener, for connections that no worker serves. On a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn into_listener(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener)
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.cause)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Listens on `address`.
///
/// # Errors
/// The port is taken (two gateways that share a port by `SO_REUSEPORT` would be a mistake, so it is not set), not
/// allowed, or the address is not ours.
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let listen = || -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart need not wait for the last process's connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let local = listener.local_addr()?;
        Ok(Bound { listener, local })
    };
    listen().map_err(|cause| BindError { address, cause })
}
