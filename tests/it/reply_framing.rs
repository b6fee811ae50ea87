//! A table of replies: every framing that an upstream may use × status × method × version of the client.
//!
//! Each cell is one priced request. Its upstream sends the reply that the request's path names, byte by byte as written in
//! [`wires`]. What the client must see and what it must pay is derived by [`rules`] from RFC 9110 and RFC 9112, and not
//! from the program. [`scene`] runs the cells and reports each one that differs.

mod rules;
mod scene;
mod upstream;
mod wires;

use scene::run;
use wires::{BROKEN, SURPLUS, WHOLE, Wire};

const STATUSES: [u16; 7] = [200, 204, 302, 304, 404, 429, 500];
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
const CLIENT_VERSIONS: [&str; 2] = ["HTTP/1.0", "HTTP/1.1"];

/// One request and its reply.
#[derive(Clone, Copy)]
struct Cell {
    manner: Manner,
    wire: &'static Wire,
    status: u16,
    method: &'static str,
    client_version: &'static str,
}

/// How the upstream sends the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// All of it. A reply that cannot have a body has none.
    Whole,
    /// A part, and then the end of the connection.
    Broken,
    /// The same, but the part ends only when the client has the head.
    BrokenLater,
    /// All of it, a body even where there can be none, and then another whole reply, in one write.
    Surplus,
    /// The same. The client has sent its next request together with the first.
    SurplusPipelined,
}

fn cells(manners: &[Manner], wires: &'static [Wire]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for manner in manners.iter().copied() {
        for wire in wires {
            for status in STATUSES {
                for method in METHODS {
                    for client_version in CLIENT_VERSIONS {
                        cells.push(Cell { manner, wire, status, method, client_version });
                    }
                }
            }
        }
    }
    cells
}

#[test]
fn a_whole_reply_is_handed_on_or_refused_by_its_framing() {
    let cells = cells(&[Manner::Whole], &WHOLE);
    assert_eq!(cells.len(), 34 * 7 * 3 * 2);
    run(&cells);
}

#[test]
fn a_reply_that_breaks_off_never_looks_whole_and_is_free() {
    let cells = cells(&[Manner::Broken, Manner::BrokenLater], &BROKEN);
    assert_eq!(cells.len(), 2 * 8 * 7 * 3 * 2);
    run(&cells);
}

#[test]
fn what_follows_a_reply_reaches_no_client() {
    let mut cells = cells(&[Manner::Surplus, Manner::SurplusPipelined], &SURPLUS);
    // An HTTP/1.0 client has one request a connection.
    cells.retain(|cell| cell.manner == Manner::Surplus || cell.client_version == "HTTP/1.1");
    assert_eq!(cells.len(), 6 * 7 * 3 * 3);
    run(&cells);
}
