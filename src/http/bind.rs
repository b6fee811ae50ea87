//! The listening socket.

use std::net::{SocketAddr, TcpListener};
use std::{fmt, io};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::edge::EdgeLimits;

/// Connections that wait to be accepted: room for a burst of clients. The kernel's `somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// A listening socket; connections queue up in the kernel until it is served.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: TcpListener,
    local: SocketAddr,
}

impl Bound {
    /// Where it listens; with port 0, the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The listening socket, with the options that its connections inherit (on Linux).
    ///
    /// # Errors
    /// The operating system refuses an option.
    pub(super) fn listener(self, limits: &EdgeLimits) -> io::Result<TcpListener> {
        let socket = SockRef::from(&self.listener);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(limits.tcp_keepalive))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(limits.tcp_user_timeout))?;
        Ok(self.listener)
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
/// The port is taken (two gateways that share a port by `SO_REUSEPORT` would be a mistake, so it is not set) or not
/// allowed, or the address is not one of this machine.
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let listen = || -> io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart does not have to wait until the connections of the last process have left TIME_WAIT.
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
