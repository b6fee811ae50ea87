//! The worker threads: each has a single-threaded runtime that serves the connections that the acceptor hands over.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use hyper::server::conn::http1::Builder;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::client::ClientConnection;
use super::connection::{self, ConnectionContext};
use super::drain::{ConnectionGuard, Drain};
use super::edge::{Edge, EdgeLimits};
use super::head_wait::HeadWaitTimer;
use super::service::Connect;
use super::stream::ClientStream;

/// The least `max_buf_size` for hyper, in bytes: of read-ahead and of unsent data per connection. `header_bytes` may raise it.
const BUFFER_BYTES: usize = 16 * 1024;

/// hyper's default limit, for which it needs no allocation for each request.
const HEADERS_ON_STACK: usize = 100;

/// Which of the workers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex(pub usize);

/// A worker did not start.
#[derive(Debug)]
pub struct StartError {
    /// Which.
    pub worker: WorkerIndex,
    /// Why; `None` when its start hook panicked.
    pub cause: Option<std::io::Error>,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "worker {} cannot start: {cause}", self.worker.0),
            None => write!(f, "worker {} panicked when it started", self.worker.0),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// An order to a worker.
pub(super) enum Order {
    Serve(StdStream, Box<ClientConnection>, ConnectionGuard),
    /// Close what is idle, let the rest finish.
    Drain,
    /// Drop every connection.
    Cut,
    /// End the thread.
    Stop,
}

/// The acceptor's end of a worker.
#[derive(Clone)]
pub(super) struct Handle {
    orders: UnboundedSender<Order>,
    pub(super) open: Arc<AtomicUsize>,
}

impl Handle {
    /// A worker that is gone takes no orders, and needs none.
    pub(super) fn send(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// The running workers of one listener. They serve nothing before [`Workers::serve`], and outlive its
/// [`super::Server`]: what their runtimes run besides connections goes on until [`Workers::stop`]. Dropping this stops
/// them too, without waiting.
pub struct Workers {
    pub(super) handles: Vec<Handle>,
    pub(super) edge: Arc<Edge>,
    gone: Vec<oneshot::Receiver<Infallible>>,
}

impl Workers {
    /// Starts `count` threads named `keytoll-NAME-N` and returns when `hook`, called on each worker's runtime, has made
    /// what makes their services.
    ///
    /// # Errors
    /// The first worker that did not start; the others are stopped.
    pub async fn start<H, F>(name: &str, count: usize, edge: &Arc<Edge>, hook: H) -> Result<Workers, StartError>
    where
        H: Fn(WorkerIndex) -> F + Send + Sync + 'static,
        F: Future<Output: Connect>,
    {
        let hook = Arc::new(hook);
        let mut workers = Workers { handles: Vec::new(), edge: Arc::clone(edge), gone: Vec::new() };
        let mut started = Vec::new();
        for worker in (0..count).map(WorkerIndex) {
            let (orders, received) = unbounded_channel();
            let (up, is_up) = oneshot::channel();
            let (alive, gone) = oneshot::channel::<Infallible>();
            let (hook, limits) = (Arc::clone(&hook), edge.limits);
            thread::Builder::new()
                .name(format!("keytoll-{name}-{}", worker.0))
                .spawn(move || {
                    let _alive = alive;
                    run(received, limits, up, || hook(worker));
                })
                .map_err(|cause| StartError { worker, cause: Some(cause) })?;
            workers.handles.push(Handle { orders, open: Arc::default() });
            workers.gone.push(gone);
            started.push((worker, is_up));
        }
        for (worker, is_up) in started {
            match is_up.await {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => return Err(StartError { worker, cause: Some(cause) }),
                Err(_) => return Err(StartError { worker, cause: None }),
            }
        }
        Ok(workers)
    }

    /// Ends the threads and all that still runs on them, and returns when they are gone.
    pub async fn stop(self) {
        for handle in &self.handles {
            handle.send(Order::Stop);
        }
        for gone in self.gone {
            let _ = gone.await;
        }
    }
}

fn run<F: Future<Output: Connect>>(
    orders: UnboundedReceiver<Order>,
    limits: EdgeLimits,
    up: oneshot::Sender<std::io::Result<()>>,
    hook: impl FnOnce() -> F,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let _ = up.send(Err(cause));
            return;
        }
    };
    runtime.block_on(async {
        let connect = hook().await;
        let _ = up.send(Ok(()));
        obey(orders, limits, connect).await;
    });
}

async fn obey(mut orders: UnboundedReceiver<Order>, limits: EdgeLimits, connect: impl Connect) {
    let heads = HeadWaitTimer::default();
    let http = http(&limits, &heads);
    let context = Arc::new(ConnectionContext { http, heads, drain: Drain::default() });
    let mut connections = JoinSet::new();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
        };
        match order {
            Some(Order::Serve(stream, client, place)) => match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let client = Arc::from(client);
                    let service = connect.connect(&client);
                    let stream = ClientStream::new(stream, Arc::clone(&client), context.heads.clone(), place);
                    connections.spawn(connection::serve(Arc::clone(&context), stream, client, service));
                }
                Err(cause) => tracing::debug!(%cause, "a connection was gone before it was served"),
            },
            Some(Order::Drain) => context.drain.begin(),
            Some(Order::Cut) => connections.abort_all(),
            Some(Order::Stop) | None => return,
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked; the connection is closed, the worker goes on");
    }
}

fn http(limits: &EdgeLimits, heads: &HeadWaitTimer) -> Builder {
    let mut http = Builder::new();
    http.timer(heads.timer())
        // A client that has sent its request may end its side at once and still gets the reply (RFC 9112 §9.6). hyper then
        // no longer looks at the socket while a request is in flight: `ClientStream` watches for a reset.
        .half_close(true)
        .header_read_timeout(limits.header_timeout)
        // A head and a short body leave in one piece: copying some bytes costs less than gathering them in the kernel.
        .writev(false)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER_BYTES.max(limits.header_bytes));
    if limits.headers != HEADERS_ON_STACK {
        http.max_headers(limits.headers);
    }
    http
}
