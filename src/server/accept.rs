//! The acceptor: takes connections, refuses those past the limit, hands the others to workers, and ends it all.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::drain::{Census, Place};
use super::io::{ClientIo, Outlet};
use super::worker::{Handle, Order, Workers};
use super::{Bound, ConnInfo};

/// After a failed accept: file descriptors come back when connections close, and to ask at once again would spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Refused clients that are waited for, so that they read the refusal. Past it they are closed on.
const REFUSALS: usize = 256;

/// For a refused client to take the answer.
const REFUSAL_WRITE: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\n\
    content-length: 136\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:keytoll:problem:overloaded\",\"title\":\"Too many connections\",\"status\":503,\"detail\":\"Try again shortly.\",\"code\":\"overloaded\"}\n";

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
        let listener = TcpListener::from_std(bound.listener)?;
        let census = Arc::new(Census::default());
        let (stop, stopped) = oneshot::channel();
        let acceptor = Acceptor {
            census: Arc::clone(&census),
            workers: self.handles.clone(),
            connections: self.limits.connections,
            refusals: Arc::default(),
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

    /// Stops listening, after the connections that already wait; closes idle connections at once, lets requests that
    /// are under way finish, and drops what is left after `limit`. An upgraded connection counts as open; it ends with
    /// whoever it was given to, at the latest with its worker.
    pub async fn drain(self, limit: Duration) -> Drained {
        drop(self.stop);
        // Only a panic makes it fail, and then the listener is closed as well.
        let _ = self.acceptor.await;
        for worker in &self.workers {
            worker.tell(Order::Drain);
        }
        if timeout(limit, self.census.emptied()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.census.open();
        for worker in &self.workers {
            worker.tell(Order::Cut);
        }
        Drained { cut }
    }
}

struct Acceptor {
    census: Arc<Census>,
    workers: Vec<Handle>,
    connections: usize,
    refusals: Arc<AtomicUsize>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => break,
            };
            let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
            if let Err(cause) = self.take(accepted) {
                tracing::warn!(%cause, "cannot accept connections for now");
                sleep(BACK_OFF).await;
            }
        }
        self.empty_backlog(listener);
    }

    /// Who connected before the listener closed is served.
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
                self.place(stream, peer);
                Ok(())
            }
            Err(cause) if of_one_connection(&cause) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    fn place(&self, stream: StdStream, peer: SocketAddr) {
        if self.census.open() >= self.connections {
            self.refuse(stream);
            return;
        }
        let Ok(local) = stream.local_addr() else { return };
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)) else { return };
        let place = Place::new(&self.census, &worker.open);
        worker.tell(Order::Serve(stream, ConnInfo { peer, local, outlet: Outlet::default() }, place));
    }

    /// Says why, without waiting for a client that does not listen.
    fn refuse(&self, stream: StdStream) {
        if self.refusals.load(Ordering::Relaxed) >= REFUSALS {
            return;
        }
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let refusal = Refusal::new(&self.refusals);
        tokio::spawn(async move {
            let _refusal = refusal;
            let mut io = ClientIo::new(stream, REFUSAL_WRITE, Outlet::default(), None);
            if io.write_all(REFUSAL).await.is_ok() {
                let _ = io.shutdown().await;
            }
        });
    }
}

/// One refusal that is being said.
struct Refusal(Arc<AtomicUsize>);

impl Refusal {
    fn new(count: &Arc<AtomicUsize>) -> Refusal {
        count.fetch_add(1, Ordering::Relaxed);
        Refusal(Arc::clone(count))
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client went away between its handshake and our accept.
fn of_one_connection(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
