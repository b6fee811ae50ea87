//! The upstream: a server on a raw socket that does what the test says, one call at a time, or answers by itself.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::http::{Fields, Reader, is_late};
use super::{GLANCE, Head, OK, PATIENCE};

/// A server.
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    calls: Option<Mutex<Receiver<Call>>>,
    ended: Arc<AtomicBool>,
}

type Answer = dyn Fn(&Head, &[u8]) -> Vec<u8> + Send + Sync;

enum Manner {
    Scripted(Sender<Call>),
    Answering(Box<Answer>),
}

impl Upstream {
    /// One whose every call is handed to the test by [`Upstream::call`].
    pub(crate) fn scripted() -> Upstream {
        let (sender, receiver) = mpsc::channel();
        let mut upstream = Upstream::start(Manner::Scripted(sender));
        upstream.calls = Some(Mutex::new(receiver));
        upstream
    }

    /// One that answers by itself, with the bytes that `answer` makes of a head and a body.
    pub(crate) fn answering(answer: impl Fn(&Head, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
        Upstream::start(Manner::Answering(Box::new(answer)))
    }

    /// One that answers everything with `200` and `ok`.
    pub(crate) fn fine() -> Upstream {
        Upstream::answering(|_, _| OK.into())
    }

    /// One that answers everything with these bytes.
    pub(crate) fn saying(bytes: &'static str) -> Upstream {
        Upstream::answering(move |_, _| bytes.as_bytes().to_vec())
    }

    fn start(manner: Manner) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, manner) = (Arc::clone(&seen), Arc::clone(&ended), Arc::new(manner));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let (count, manner) = (Arc::clone(&count), Arc::clone(&manner));
                thread::spawn(move || serve(stream.unwrap(), &count, &manner));
            }
        });
        Upstream { address, seen, calls: None, ended }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have come.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::Acquire)
    }

    /// The next call, when its head has come.
    #[track_caller]
    pub(crate) fn call(&self) -> Call {
        let calls = self.calls.as_ref().expect("this upstream answers by itself").lock().unwrap();
        calls.recv_timeout(PATIENCE).expect("no request came")
    }

    /// No call comes.
    #[track_caller]
    pub(crate) fn expect_no_call(&self) {
        let calls = self.calls.as_ref().expect("this upstream answers by itself").lock().unwrap();
        match calls.recv_timeout(GLANCE) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the upstream is gone"),
            Ok(call) => panic!("a request came: {:?}", call.head),
        }
    }

    /// An address that nothing listens on.
    pub(crate) fn unused_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, count: &AtomicUsize, manner: &Manner) {
    stream.set_nodelay(true).unwrap();
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head() {
        count.fetch_add(1, Ordering::AcqRel);
        match manner {
            Manner::Scripted(calls) => {
                reader.stream().set_read_timeout(Some(PATIENCE)).unwrap();
                let (done, next) = mpsc::channel();
                if calls.send(Call { head, reader: Some(reader), done }).is_err() {
                    return;
                }
                let Ok(kept) = next.recv() else { return };
                reader = kept;
                reader.stream().set_read_timeout(None).unwrap();
            }
            Manner::Answering(answer) => {
                let Some(body) = reader.request_body(&head) else { return };
                if reader.stream().write_all(&answer(&head, &body)).is_err() {
                    return;
                }
            }
        }
    }
}

/// A request at the upstream. Dropped, its connection is closed.
pub(crate) struct Call {
    pub(crate) head: Head,
    reader: Option<Reader>,
    done: Sender<Reader>,
}

impl Call {
    fn reader(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("taken only at the end")
    }

    /// The gateway's end of the connection.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.reader.as_ref().expect("taken only at the end").stream().peer_addr().unwrap()
    }

    /// Sends a part of a reply.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader().stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a part of a reply to a gateway that may not want it any more.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader().stream().write_all(bytes.as_ref())
    }

    /// Sends the rest of a reply; the connection stays open for the next call.
    #[track_caller]
    pub(crate) fn reply(mut self, bytes: impl AsRef<[u8]>) {
        self.send(bytes);
        if let Some(reader) = self.reader.take() {
            let _ = self.done.send(reader);
        }
    }

    /// Ends the sending side.
    pub(crate) fn finish(&mut self) {
        self.reader().stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Closes the connection.
    pub(crate) fn break_off(self) {
        drop(self);
    }

    /// Resets the connection.
    pub(crate) fn reset(mut self) {
        let reader = self.reader.take().expect("taken only at the end");
        SockRef::from(reader.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The request's body; `None` when it broke off.
    pub(crate) fn body(&mut self) -> Option<Vec<u8>> {
        let head = self.head.clone();
        self.reader().request_body(&head)
    }

    /// The request's body and its trailers; `None` when it broke off.
    pub(crate) fn body_and_trailers(&mut self) -> Option<(Vec<u8>, Fields)> {
        let head = self.head.clone();
        self.reader().request_body_and_trailers(&head)
    }

    /// The next bytes, exactly these.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut found = Vec::new();
        let _ = self.reader().take(bytes.len(), &mut found);
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
    }

    /// The gateway closes the connection.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        loop {
            match self.reader().fill() {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_late(&error) => panic!("the gateway keeps the connection open"),
                Err(_) => return,
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            let _ = reader.stream().shutdown(Shutdown::Both);
        }
    }
}
