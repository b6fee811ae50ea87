//! The upstream: does with each request what its script says, and has a witness see it first.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::Head;
use crate::harness::http::Reader;
use crate::plan::{Framing, Script};

/// The field that a script travels in.
pub(crate) const SCRIPT: &str = "x-script";

/// A server; closed when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

/// Sees the requests of one connection, each before anything of it is answered.
pub(crate) type Witness = Box<dyn FnMut(&Head, Script)>;

impl Upstream {
    /// `witness` makes one for each connection.
    pub(crate) fn start(witness: impl Fn() -> Witness + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (end, witness) = (Arc::clone(&ended), Arc::new(witness));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let (stream, witness) = (stream.unwrap(), Arc::clone(&witness));
                thread::spawn(move || serve(stream, witness()));
            }
        });
        Upstream { address, ended }
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
        // A client that left in its body took the connection with it.
        if reader.request_body(&head).is_none() {
            return;
        }
        let script: Script = head.field(SCRIPT).unwrap().parse().unwrap();
        witness(&head, script);
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
