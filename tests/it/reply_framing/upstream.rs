//! The upstream of the table: it sends the reply that a request's path names.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use super::rules::{can_have_body, upstream_closes, upstream_is_reusable};
use super::{Cell, Manner};
use crate::harness::PATIENCE;
use crate::harness::http::Reader;

/// The target of a request that costs nothing, and the body of its reply.
pub(super) const FREE: &str = "/free";
pub(super) const FREE_BODY: &str = "free";

/// What follows a reply in the cells with a surplus. A client that gets it has the reply of another request.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// The server.
pub(super) struct TableUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    entries: Vec<Entry>,
    /// Requests that came on a connection that had to be closed.
    misuses: Mutex<BTreeSet<String>>,
    /// Connections that the gateway has to close, and has not closed yet.
    doomed: AtomicUsize,
    is_ended: AtomicBool,
}

struct Entry {
    cell: Cell,
    client_has_head: Sender<()>,
    head_is_there: Mutex<Receiver<()>>,
}

impl TableUpstream {
    pub(super) fn start(cells: &[Cell]) -> TableUpstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let entries = cells.iter().map(|cell| {
            let (client_has_head, head_is_there) = mpsc::channel();
            Entry { cell: *cell, client_has_head, head_is_there: Mutex::new(head_is_there) }
        });
        let shared = Arc::new(Shared {
            entries: entries.collect(),
            misuses: Mutex::default(),
            doomed: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
        });
        let of_server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if of_server.is_ended.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&of_server);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        TableUpstream { address, shared }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The client of this cell has the head of its reply.
    pub(super) fn client_has_head(&self, index: usize) {
        let _ = self.shared.entries[index].client_has_head.send(());
    }

    /// How many connections the gateway still has to close.
    pub(super) fn doomed(&self) -> usize {
        self.shared.doomed.load(Ordering::Acquire)
    }

    /// Requests on connections that had to be closed.
    pub(super) fn misuses(&self) -> BTreeSet<String> {
        self.shared.misuses.lock().unwrap().clone()
    }
}

impl Drop for TableUpstream {
    fn drop(&mut self) {
        self.shared.is_ended.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).unwrap();
    let mut reader = Reader::new(stream);
    let mut doomed_by = None;
    // A connection that is misused is served nevertheless, so that one failure is not the cause of others.
    while let Some(head) = reader.head() {
        if let Some(cell) = doomed_by {
            let misuse = format!("{cell}: its upstream's connection is used again");
            shared.misuses.lock().unwrap().insert(misuse);
        }
        if reader.request_body(&head).is_none() {
            break;
        }
        let is_written = if head.target() == FREE {
            reader.stream().write_all(free_reply(head.method()).as_bytes())
        } else {
            let entry = &shared.entries[head.target().trim_start_matches('/').parse::<usize>().unwrap()];
            // Counted before the reply: the client may have it before this thread runs again.
            if doomed_by.is_none() && !upstream_is_reusable(&entry.cell) {
                shared.doomed.fetch_add(1, Ordering::AcqRel);
                doomed_by = Some(entry.cell);
            }
            answer(reader.stream(), entry)
        };
        if is_written.is_err() {
            break;
        }
    }
    if doomed_by.is_some() {
        shared.doomed.fetch_sub(1, Ordering::AcqRel);
    }
}

fn free_reply(method: &str) -> String {
    let body = if method == "HEAD" { "" } else { FREE_BODY };
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", FREE_BODY.len())
}

/// Sends the reply of a cell. The gateway may have closed the connection before its end.
fn answer(mut stream: &TcpStream, entry: &Entry) -> std::io::Result<()> {
    let Entry { cell, head_is_there, .. } = entry;
    let mut head = format!("{} {} Reason\r\n", cell.wire.version, cell.status);
    for (name, value) in cell.wire.fields {
        head += &format!("{name}: {value}\r\n");
    }
    if upstream_closes(cell) && !can_have_body(cell) {
        // A close that is not announced may come when the next request is on its way.
        head += "Connection: close\r\n";
    }
    head += "\r\n";
    let has_surplus = matches!(cell.manner, Manner::Surplus | Manner::SurplusPipelined);
    let (begin, rest) = if can_have_body(cell) || has_surplus { (cell.wire.begin, cell.wire.rest) } else { ("", "") };
    match cell.manner {
        Manner::Whole => stream.write_all(format!("{head}{begin}{rest}").as_bytes())?,
        Manner::Surplus | Manner::SurplusPipelined => {
            return stream.write_all(format!("{head}{begin}{rest}{POISON}").as_bytes());
        }
        Manner::Broken => stream.write_all(format!("{head}{begin}{rest}").as_bytes())?,
        Manner::BrokenLater => {
            stream.write_all(format!("{head}{begin}").as_bytes())?;
            // A client whose head does not come says so itself.
            let _ = head_is_there.lock().unwrap().recv_timeout(PATIENCE);
            stream.write_all(rest.as_bytes())?;
        }
    }
    if upstream_closes(cell) {
        stream.shutdown(Shutdown::Write)?;
    }
    Ok(())
}
