//! The upstream: does with each request what its script says. A witness sees the head of each request before its body is
//! read, and the whole request before it is answered.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::harness::http::Reader;
use crate::harness::{Head, until};
use crate::plan::{Framing, LARGE_BYTES, Script};

/// The field that a script travels in.
pub(crate) const SCRIPT: &str = "x-script";

/// A server; closed when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// Connections that are being served.
    connections: Arc<AtomicUsize>,
}

/// What has arrived of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Head,
    /// The head has been seen before.
    Whole,
}

/// Sees the requests of one connection.
pub(crate) type Witness = Box<dyn FnMut(&Head, Script, Progress)>;

/// A connection that is being served.
struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Upstream {
    /// `witness` makes one for each connection.
    pub(crate) fn start(witness: impl Fn() -> Witness + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (end, served, witness) = (Arc::clone(&ended), Arc::clone(&connections), Arc::new(witness));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let (stream, witness) = (stream.unwrap(), Arc::clone(&witness));
                served.fetch_add(1, Ordering::AcqRel);
                let guard = Served(Arc::clone(&served));
                thread::spawn(move || {
                    serve(stream, witness());
                    drop(guard);
                });
            }
        });
        Upstream { address, ended, connections }
    }

    /// Waits until all that was ever sent here has been seen. The gateway must be gone.
    pub(crate) fn quiesce(&self) {
        // Connections are accepted in order: after this one, none is left in the backlog.
        let mut last = TcpStream::connect(self.address).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        assert_eq!(last.read(&mut [0]).unwrap(), 0);
        until("the end of the upstream's connections", || self.connections.load(Ordering::Acquire) == 0);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, mut witness: Witness) {
    stream.set_nodelay(true).unwrap();
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head() {
        let script: Script = head.field(SCRIPT).unwrap().parse().unwrap();
        witness(&head, script, Progress::Head);
        // A client that broke off its body ends the connection.
        if reader.request_body(&head).is_none() {
            return;
        }
        witness(&head, script, Progress::Whole);
        thread::sleep(script.delay);
        if answer(reader.stream(), script, head.method() == "HEAD").is_none() {
            let _ = reader.stream().shutdown(Shutdown::Both);
            return;
        }
    }
}

/// `None`: the connection is done with.
fn answer(mut stream: &TcpStream, script: Script, to_head: bool) -> Option<()> {
    let mut write = |text: String| stream.write_all(text.as_bytes()).ok();
    let large = || "x".repeat(LARGE_BYTES);
    let line = format!("HTTP/1.1 {} Answer\r\n", script.status);
    match script.framing {
        Framing::NoHead => None,
        Framing::Nothing => write(format!("{line}\r\n")),
        Framing::Chunks if to_head => write(format!("{line}Transfer-Encoding: chunked\r\n\r\n")),
        Framing::Chunks => {
            write(format!("{line}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n"))?;
            write("3\r\ntwo\r\n0\r\n\r\n".to_owned())
        }
        Framing::Length | Framing::Pieces | Framing::Broken if to_head => {
            write(format!("{line}Content-Length: 6\r\n\r\n"))
        }
        Framing::Large => {
            write(format!("{line}Content-Length: {LARGE_BYTES}\r\n\r\n"))?;
            write(large())
        }
        Framing::LargeChunks => {
            write(format!("{line}Transfer-Encoding: chunked\r\n\r\n{LARGE_BYTES:x}\r\n"))?;
            write(large())?;
            write("\r\n0\r\n\r\n".to_owned())
        }
        Framing::Length => write(format!("{line}Content-Length: 6\r\n\r\nonetwo")),
        Framing::Pieces => {
            write(format!("{line}Content-Length: 6\r\n\r\none"))?;
            thread::yield_now();
            write("two".to_owned())
        }
        Framing::Broken => {
            write(format!("{line}Content-Length: 6\r\n\r\none"));
            None
        }
    }
}
