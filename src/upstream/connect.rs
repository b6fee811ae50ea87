//! A TCP connection to an upstream: names resolved anew for each, every address tried within one timeout.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use http::uri::Authority;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

/// Where an upstream listens.
pub(super) enum Address {
    Ip(SocketAddr),
    Name { host: Box<str>, port: u16 },
}

impl Address {
    /// The authority's host and port; `http`'s port 80 where it has none.
    pub(super) fn new(authority: &Authority) -> Address {
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(80);
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
            Err(_) => Address::Name { host: host.into(), port },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Connects within `limit`, with `TCP_NODELAY`.
///
/// # Errors
/// Of the last address tried; `TimedOut` when the limit is over.
pub(super) async fn connect(address: &Address, limit: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + limit;
    let stream = match address {
        Address::Ip(address) => connect_before(*address, deadline).await?,
        Address::Name { host, port } => {
            let found = timeout_at(deadline, lookup_host((&**host, *port))).await.map_err(|_| too_late())??;
            connect_any(&found.collect::<Vec<_>>(), deadline).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Each address gets its share of the time that is left, so that one that swallows packets does not take it all.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in (0_u32..).zip(addresses) {
        let left = u32::try_from(addresses.len()).unwrap_or(u32::MAX) - tried;
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match connect_before(*address, Instant::now() + share).await {
            Ok(stream) => return Ok(stream),
            Err(cause) => error = cause,
        }
    }
    Err(error)
}

async fn connect_before(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    timeout_at(deadline, TcpStream::connect(address)).await.map_err(|_| too_late())?
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no connection in time")
}
