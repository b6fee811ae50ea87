//! The acceptor: takes connections, makes room or refuses when the listener is full, and ends it all.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::bind::Bound;
use super::client::ClientConnection;
use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use super::drain::{ConnectionGuard, OpenConnections};
use super::edge::Edge;
use super::keyed_limit::{AddressLimitError, acquire_of_address};
use super::refused::RefusalReason;
use super::worker::{Handle, Order, Workers};

/// After a failed accept: file descriptors come back when connections close, and trying again at once would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A connection that has waited less for a request head is not closed to make room: its client may just be sending.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);

/// A listener that is being served.
pub struct Server {
    open_connections: Arc<OpenConnections>,
    workers: Vec<Handle>,
    edge: Arc<Edge>,
    local: SocketAddr,
    /// Dropped to stop the acceptor.
    stop: oneshot::Sender<()>,
    acceptor: JoinHandle<()>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were not done at the deadline and were dropped.
    pub cut: usize,
}

impl Workers {
    /// Serves `bound` from now on; the acceptor runs on the runtime that this is called on. One server at a time: a
    /// drain ends every connection of these workers.
    ///
    /// # Errors
    /// The operating system refuses an option of the socket, or the runtime cannot watch it.
    pub fn serve(&self, bound: Bound) -> io::Result<Server> {
        let local = bound.local_addr();
        let listener = TcpListener::from_std(bound.listener(&self.edge.limits)?)?;
        let open_connections = Arc::new(OpenConnections::default());
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            open_connections: Arc::clone(&open_connections),
            workers: self.handles.clone(),
            full: ConnectionLimit::new(self.edge.limits.connections, false),
            probes: ConnectionLimit::new(self.edge.limits.probe_connections, true),
            edge: Arc::clone(&self.edge),
        };
        let acceptor = tokio::spawn(acceptor.run(listener, stopped));
        Ok(Server {
            open_connections,
            workers: self.handles.clone(),
            edge: Arc::clone(&self.edge),
            local,
            stop,
            acceptor,
        })
    }
}

impl Server {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections that are open, upgraded ones included.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        self.open_connections.open()
    }

    #[cfg(test)]
    pub(super) async fn all_closed(&self) {
        self.open_connections.emptied().await;
    }

    /// Stops listening, after the connections that already wait; closes idle connections at once, lets requests in
    /// flight finish, and cuts off what is left after `limit`: the [`Lifecycle`](super::Lifecycle) then says so. An upgraded
    /// connection counts as open; it ends with its tunnel, at the latest with its worker.
    pub async fn drain(self, limit: Duration) -> Drained {
        drop(self.stop);
        // It fails only by a panic, and then the listener is closed as well.
        let _ = self.acceptor.await;
        for worker in &self.workers {
            worker.send(Order::Drain);
        }
        if timeout(limit, self.open_connections.emptied()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.open_connections.open();
        self.edge.lifecycle.begin_cut();
        for worker in &self.workers {
            worker.send(Order::Cut);
        }
        Drained { cut }
    }
}

struct Acceptor {
    open_connections: Arc<OpenConnections>,
    workers: Vec<Handle>,
    edge: Arc<Edge>,
    /// Connections that serve every request.
    full: Arc<ConnectionLimit>,
    /// Connections beyond those, which serve probes.
    probes: Arc<ConnectionLimit>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, stopped: oneshot::Receiver<()>) {
        let listener_name = self.edge.listener.name();
        tokio::select! {
            () = self.accept_until(&listener, stopped) => {}
            () = self.edge.refused.report_periodically(listener_name) => {}
        }
        self.empty_backlog(listener);
        self.edge.refused.report(listener_name);
    }

    async fn accept_until(&self, listener: &TcpListener, mut stopped: oneshot::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => return,
            };
            let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
            if let Err(cause) = self.take(accepted) {
                tracing::warn!(%cause, "connections cannot be accepted for now");
                sleep(BACK_OFF).await;
            }
        }
    }

    /// Clients that connected before the listener closes are served.
    fn empty_backlog(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        loop {
            let accepted = listener.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((stream, peer))
            });
            if self.take(accepted).is_err() {
                return;
            }
        }
    }

    /// # Errors
    /// Those after which another accept would fail as well.
    fn take(&self, accepted: io::Result<(StdStream, SocketAddr)>) -> io::Result<()> {
        match accepted {
            Ok((stream, peer)) => {
                if let Err(reason) = self.place(stream, peer) {
                    self.edge.refused.count(reason);
                }
                Ok(())
            }
            Err(cause) if is_of_one_connection(&cause) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// Hands a connection to a worker.
    fn place(&self, stream: StdStream, peer: SocketAddr) -> Result<(), RefusalReason> {
        let (limit, trusted) = (self.edge.connections_of_address.as_ref(), self.edge.trusted_proxies());
        let of_address = acquire_of_address(limit, peer.ip(), trusted);
        let of_address = of_address.map_err(|AddressLimitError| RefusalReason::AddressLimit)?;
        let permit = self.admit()?;
        let worker = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = worker else { return Err(RefusalReason::Overloaded) };
        let (is_for_probes, waiting) = (permit.is_for_probes(), Arc::clone(permit.waiting()));
        let client = ClientConnection::new(Arc::clone(&self.edge), peer, is_for_probes, waiting);
        let place = ConnectionGuard::new(&self.open_connections, &worker.open, &self.edge, permit, of_address);
        worker.send(Order::Serve(stream, Box::new(client), place));
        Ok(())
    }

    /// Finds a place for one more connection: a free one, that of a connection that waits for a head, or one for probes.
    fn admit(&self) -> Result<ConnectionPermit, RefusalReason> {
        for (limit, least_wait) in [(&self.full, EVICTABLE_AFTER), (&self.probes, Duration::ZERO)] {
            if let Some(permit) = limit.join() {
                return Ok(permit);
            }
            if limit.evict_longest(least_wait) {
                self.edge.refused.count(RefusalReason::Evicted);
                if let Some(permit) = limit.join() {
                    return Ok(permit);
                }
            }
        }
        Err(RefusalReason::Overloaded)
    }
}

/// The client went away between its handshake and the accept.
fn is_of_one_connection(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::EdgeLimits;
    use crate::http::tests::{limits, running};

    /// Loopback addresses are exempt from the limit, so the test passes other addresses to the acceptor.
    #[tokio::test]
    async fn an_address_has_so_many_connections_open_at_once() {
        let running = running(1, EdgeLimits { connections_per_address: 2, ..limits() }).await;
        let acceptor = Acceptor {
            open_connections: Arc::default(),
            workers: running.workers.handles.clone(),
            full: ConnectionLimit::new(10, false),
            probes: ConnectionLimit::new(10, true),
            edge: Arc::clone(&running.edge),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // A connection of a client at this address, if it is taken.
        let connect = |address: &str| {
            let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            acceptor.place(stream, SocketAddr::new(address.parse().unwrap(), 1)).map(|()| client)
        };
        let (first, second) = (connect("203.0.113.7").unwrap(), connect("::ffff:203.0.113.7").unwrap());
        for _ in 0..2 {
            assert_eq!(connect("203.0.113.7").unwrap_err(), RefusalReason::AddressLimit);
        }
        let _others = (connect("203.0.113.8").unwrap(), connect("2001:db8::7").unwrap());
        let _exempt = ["127.0.0.1"; 3].map(|address| connect(address).unwrap());
        drop(first);
        let third = loop {
            if let Ok(third) = connect("203.0.113.7") {
                break third;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(connect("203.0.113.7").unwrap_err(), RefusalReason::AddressLimit);
        drop((second, third));
    }
}
