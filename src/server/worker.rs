//! The worker threads: each has a single-threaded runtime that serves the connections it is handed.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::Service;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::connection::{self, Shared};
use super::drain::{Drain, Place};
use super::head::Heads;
use super::io::ClientIo;
use super::{ConnInfo, ServerLimits};

/// Of what is read ahead of a body and of what waits to be written, for each connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// hyper's own bound, for which it needs no allocation a request.
const HEADERS_ON_STACK: usize = 100;

/// Which of the workers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex(pub usize);

/// Makes the service of each connection; lives on its worker.
pub trait Connect: 'static {
    /// What answers the requests of one connection.
    type Service: Service<Request<Incoming>, Response = Response<Self::Body>, Error = Infallible, Future: Send>
        + Send
        + Unpin
        + 'static;
    /// Of its replies.
    type Body: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// A connection has come.
    fn connect(&self, info: ConnInfo) -> Self::Service;
}

impl<F, S, B> Connect for F
where
    F: Fn(ConnInfo) -> S + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Send + Unpin + 'static,
    B: Body<Data: Buf + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Service = S;
    type Body = B;

    fn connect(&self, info: ConnInfo) -> S {
        self(info)
    }
}

/// A worker did not come up.
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
            None => write!(f, "worker {} panicked at its start", self.worker.0),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// What a worker is told.
pub(super) enum Order {
    Serve(StdStream, ConnInfo, Place),
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
    pub(super) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// The running workers. They serve nothing before [`Workers::serve`], and outlive its [`super::Server`]: what their
/// runtimes run besides connections goes on until [`Workers::stop`]. To drop this stops them too, without waiting.
pub struct Workers {
    pub(super) handles: Vec<Handle>,
    pub(super) limits: ServerLimits,
    gone: Vec<oneshot::Receiver<Infallible>>,
}

impl Workers {
    /// Starts `count` threads named `keytoll-worker-N` and comes back when `hook`, called on each worker's runtime, has
    /// made all their services' makers.
    ///
    /// # Errors
    /// The first worker that did not come up; the others are stopped.
    pub async fn start<H, F>(count: usize, limits: ServerLimits, hook: H) -> Result<Workers, StartError>
    where
        H: Fn(WorkerIndex) -> F + Send + Sync + 'static,
        F: Future<Output: Connect>,
    {
        let hook = Arc::new(hook);
        let mut workers = Workers { handles: Vec::new(), limits, gone: Vec::new() };
        let mut started = Vec::new();
        for worker in (0..count).map(WorkerIndex) {
            let (orders, received) = unbounded_channel();
            let (up, is_up) = oneshot::channel();
            let (alive, gone) = oneshot::channel::<Infallible>();
            let hook = Arc::clone(&hook);
            thread::Builder::new()
                .name(format!("keytoll-worker-{}", worker.0))
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

    /// Ends the threads and all that still runs on them, and comes back when they are gone.
    pub async fn stop(self) {
        for handle in &self.handles {
            handle.tell(Order::Stop);
        }
        for gone in self.gone {
            let _ = gone.await;
        }
    }
}

fn run<F: Future<Output: Connect>>(
    orders: UnboundedReceiver<Order>,
    limits: ServerLimits,
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
        let maker = hook().await;
        let _ = up.send(Ok(()));
        obey(orders, limits, maker).await;
    });
}

async fn obey(mut orders: UnboundedReceiver<Order>, limits: ServerLimits, maker: impl Connect) {
    let heads = Heads::default();
    let drain = Arc::new(Drain::default());
    let shared = Arc::new(Shared { http: http(&limits, &heads), heads, limits, drain: Arc::clone(&drain) });
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
            Some(Order::Serve(stream, info, place)) => match ready_stream(stream) {
                Ok(stream) => {
                    let io = ClientIo::new(stream, limits.reply_write_idle, info.outlet.clone(), Some(place));
                    let service = maker.connect(info);
                    connections.spawn(connection::serve(Arc::clone(&shared), io, service));
                }
                Err(cause) => tracing::debug!(%cause, "a connection was gone before it was served"),
            },
            Some(Order::Drain) => drain.begin(),
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

fn ready_stream(stream: StdStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

fn http(limits: &ServerLimits, heads: &Heads) -> Builder {
    let mut http = Builder::new();
    http.timer(heads.timer())
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
