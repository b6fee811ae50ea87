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
use super::drain::{Census, Place};
use super::edge::Edge;
use super::keyed_limit::AddressGroup;
use super::population::{Member, Population};
use super::refused::RefusalReason;
use super::worker::{Handle, Order, Workers};

/// After a failed accept: file descriptors come back when connections close, and trying again at once would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A connection that has waited less for a request head is not closed to make room: its client may just be sending.
const EVICTABLE_AFTER: Duration = Duration::from_secs(1);

/// A listener that is being served.
pub struct Server {
    census: Arc<Census>,
    workers: Vec<Handle>,
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
    /// The runtime cannot watch the socket.
    pub fn serve(&self, bound: Bound) -> io::Result<Server> {
        let local = bound.local_addr();
        let listener = TcpListener::from_std(bound.listener(&self.edge.limits)?)?;
        let census = Arc::new(Census::default());
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            census: Arc::clone(&census),
            workers: self.handles.clone(),
            full: Population::new(self.edge.limits.connections),
            probes: Population::new(self.edge.limits.probe_connections),
            edge: Arc::clone(&self.edge),
        };
        let acceptor = tokio::spawn(acceptor.run(listener, stopped));
        Ok(Server { census, workers: self.handles.clone(), local, stop, acceptor })
    }
}

impl Server {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections that are open, upgraded ones included.
    pub fn open_connections(&self) -> usize {
        self.census.open()
    }

    #[cfg(test)]
    pub(super) async fn census_emptied(&self) {
        self.census.emptied().await;
    }

    /// Stops listening, after the connections that already wait; closes idle connections at once, lets requests in
    /// flight finish, and drops what is left after `limit`. An upgraded connection counts as open; it ends with
    /// its tunnel, at the latest with its worker.
    pub async fn drain(self, limit: Duration) -> Drained {
        drop(self.stop);
        // It fails only by a panic, and then the listener is closed as well.
        let _ = self.acceptor.await;
        for worker in &self.workers {
            worker.send(Order::Drain);
        }
        if timeout(limit, self.census.emptied()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.census.open();
        for worker in &self.workers {
            worker.send(Order::Cut);
        }
        Drained { cut }
    }
}

struct Acceptor {
    census: Arc<Census>,
    workers: Vec<Handle>,
    edge: Arc<Edge>,
    /// Connections that serve every request.
    full: Arc<Population>,
    /// Connections beyond those, which serve probes.
    probes: Arc<Population>,
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
        let of_address = match &self.edge.connections_of_address {
            Some(limit) => match AddressGroup::of(peer.ip(), self.edge.trusted_proxies()) {
                Some(group) => Some(limit.acquire(group).ok_or(RefusalReason::AddressLimit)?),
                None => None,
            },
            None => None,
        };
        let (member, is_for_probes) = self.admit()?;
        let worker = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = worker else { return Err(RefusalReason::Overloaded) };
        let client = ClientConnection::new(Arc::clone(&self.edge), peer, is_for_probes, Arc::clone(member.waiting()));
        let place = Place::new(&self.census, &worker.open, &self.edge, member, of_address);
        worker.send(Order::Serve(stream, Box::new(client), place));
        Ok(())
    }

    /// Finds a place for one more connection: a free one, that of a connection that waits for a head, or one for probes.
    /// True: for probes.
    fn admit(&self) -> Result<(Member, bool), RefusalReason> {
        if let Some(member) = self.full.join() {
            return Ok((member, false));
        }
        if self.full.evict_longest(EVICTABLE_AFTER) {
            self.edge.refused.count(RefusalReason::Evicted);
            if let Some(member) = self.full.join() {
                return Ok((member, false));
            }
        }
        if let Some(member) = self.probes.join() {
            return Ok((member, true));
        }
        if self.probes.evict_longest(Duration::ZERO) {
            self.edge.refused.count(RefusalReason::Evicted);
        }
        self.probes.join().map(|member| (member, true)).ok_or(RefusalReason::Overloaded)
    }
}

/// The client went away between its handshake and the accept.
fn is_of_one_connection(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
