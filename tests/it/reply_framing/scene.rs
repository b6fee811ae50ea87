//! Runs the cells of the table: one gateway, several clients at a time, one customer for each cell.

use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::rules::{Body, Expected, Framing, OPENING, PRICE, charge, expected};
use super::upstream::{FREE, FREE_BODY, TableUpstream};
use super::{Cell, Manner};
use crate::harness::http::Reader;
use crate::harness::{Api, Customer, Gateway, Head, PATIENCE, until};

/// Clients at a time.
const CLIENTS: usize = 4;

/// A program that waits for the end of a body where there is none fails its cell by this, and not by [`PATIENCE`].
const BODY_IDLE_MS: u64 = 2_000;
/// Longer than a test takes: an unused connection is closed because of its last reply, or not at all.
const KEEP_IDLE_MS: u64 = 600_000;

/// Runs all cells, and fails with the list of those that are not as expected.
#[track_caller]
pub(super) fn run(cells: &[Cell]) {
    let upstream = TableUpstream::start(cells);
    let free = format!("path = \"{FREE}\"\npublic = true");
    let gateway = Gateway::builder()
        .api(Api::new("weather", upstream.address()).price(PRICE).route(&free))
        .limit("upstream_body_idle_ms", BODY_IDLE_MS)
        .limit("upstream_keep_idle_ms", KEEP_IDLE_MS)
        .start();
    let customers = customers(&gateway, cells.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(index) else { return };
                    let client = Client { gateway: &gateway, upstream: &upstream, customer: &customers[index], index };
                    let found = catch_unwind(AssertUnwindSafe(|| client.check(cell)));
                    let found = found.unwrap_or_else(|panic| vec![text_of(panic.as_ref())]);
                    failures.lock().unwrap().extend(found.into_iter().map(|found| format!("{cell}: {found}")));
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.extend(wrong_charges(&gateway, cells, &customers));
    if failures.is_empty() {
        until("every connection that had a faulty reply is closed", || upstream.doomed() == 0);
    }
    failures.extend(upstream.misuses());
    failures.sort_unstable();
    let (count, of) = (failures.len(), cells.len());
    assert!(failures.is_empty(), "{count} failures in {of} cells:\n{}", failures.join("\n"));
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}

/// Customers of the application, written to the file in one transaction.
fn customers(gateway: &Gateway, count: usize) -> Vec<Customer> {
    let mut connection = gateway.database().open();
    let transaction = connection.transaction().unwrap();
    let customer = |index| {
        let user = "INSERT INTO users (email, name, is_active) VALUES (?1, 'Somebody', 1)";
        transaction.execute(user, [format!("{index}@example.com")]).unwrap();
        let id = transaction.last_insert_rowid();
        transaction.execute("INSERT INTO wallets (user_id, balance) VALUES (?1, ?2)", [id, OPENING]).unwrap();
        let key = format!("key-{index:032}");
        let row = "INSERT INTO api_keys (\"key\", user_id, api_name, is_active) VALUES (?1, ?2, 'weather', 1)";
        transaction.execute(row, rusqlite::params![key, id]).unwrap();
        Customer { id, key_id: transaction.last_insert_rowid(), key }
    };
    let customers = (0..count).map(customer).collect();
    transaction.commit().unwrap();
    customers
}

/// The cells whose charge or wallet is not what the cell costs.
fn wrong_charges(gateway: &Gateway, cells: &[Cell], customers: &[Customer]) -> Vec<String> {
    gateway.settle();
    gateway.database().assert_books();
    let connection = gateway.database().open();
    let mut charges = connection
        .prepare(
            "SELECT c.state, c.cents FROM keytoll_charges c JOIN keytoll_accounts a ON a.id = c.account_id
             WHERE a.user_id = ?1",
        )
        .unwrap();
    let mut balance = connection.prepare("SELECT balance FROM wallets WHERE user_id = ?1").unwrap();
    let mut wrong = Vec::new();
    for (cell, customer) in cells.iter().zip(customers) {
        let rows = charges.query_map([customer.id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let seen: Vec<(i64, i64)> = rows.collect::<rusqlite::Result<_>>().unwrap();
        let left: i64 = balance.query_row([customer.id], |row| row.get(0)).unwrap();
        let cents = charge(cell);
        let (state, name) = if cents > 0 { (1, "captured") } else { (2, "released") };
        if seen != [(state, PRICE)] || left != OPENING - cents {
            let seen: Vec<_> = seen.iter().map(|(state, cents)| format!("{} {cents}", state_name(*state))).collect();
            wrong.push(format!(
                "{cell}: expected {name} {PRICE} and a balance of {}, seen {seen:?} and {left}",
                OPENING - cents
            ));
        }
    }
    wrong
}

fn state_name(state: i64) -> String {
    ["held", "captured", "released"].get(usize::try_from(state).unwrap()).map_or(state.to_string(), ToString::to_string)
}

/// What a client sees.
struct Seen {
    status: u16,
    framing: Result<Framing, String>,
    body: String,
    is_whole: bool,
    /// Whether the connection serves the next request.
    is_kept: bool,
    /// The cost and the balance.
    receipt: Option<(i64, i64)>,
}

/// The client of one cell.
struct Client<'a> {
    gateway: &'a Gateway,
    upstream: &'a TableUpstream,
    customer: &'a Customer,
    index: usize,
}

impl Client<'_> {
    /// Sends the request and the next one. Returns everything that is not as expected.
    fn check(&self, cell: &Cell) -> Vec<String> {
        let mut reader = connect(self.gateway.address());
        let next = format!("GET {FREE} {}\r\nHost: weather\r\n\r\n", cell.client_version);
        let is_pipelined = cell.manner == Manner::SurplusPipelined;
        let mut request = self.request(cell);
        if is_pipelined {
            request += &next;
        }
        reader.stream().write_all(request.as_bytes()).unwrap();
        let Some(head) = reader.head() else { return vec!["no reply".to_owned()] };
        self.upstream.client_has_head(self.index);
        let mut seen = read(&mut reader, &head, cell);
        // Where the connection is closed, the next request goes on a new one.
        if !is_pipelined {
            let _ = reader.stream().write_all(next.as_bytes());
        }
        let mut following = free_reply(&mut reader);
        seen.is_kept = following.is_some();
        if following.is_none() {
            let mut reader = connect(self.gateway.address());
            reader.stream().write_all(next.as_bytes()).unwrap();
            following = free_reply(&mut reader);
        }
        let mut found = Vec::new();
        let expected = expected(cell);
        if !expected.iter().any(|expected| seen.is(expected, cell)) {
            found.push(format!("expected {expected:?}, seen {seen:?}"));
        }
        if following.as_deref() != Some(FREE_BODY) {
            found.push(format!("the next request is answered with {following:?}"));
        }
        found
    }

    fn request(&self, cell: &Cell) -> String {
        let (length, body) = if cell.method == "POST" { ("Content-Length: 2\r\n", "hi") } else { ("", "") };
        format!(
            "{} /{} {}\r\nHost: weather\r\nX-Api-Key: {}\r\n{length}\r\n{body}",
            cell.method, self.index, cell.client_version, self.customer.key
        )
    }
}

fn connect(gateway: SocketAddr) -> Reader {
    let stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    Reader::new(stream)
}

/// The rest of a reply. What is not framed well is not read.
fn read(reader: &mut Reader, head: &Head, cell: &Cell) -> Seen {
    let status = head.status();
    let framing = framing(head);
    let has_body = cell.method != "HEAD" && !matches!(status, 204 | 304);
    let mut body = Vec::new();
    let is_whole = framing.is_ok() && (!has_body || reader.body(head, true, &mut body, &mut Vec::new()).is_some());
    let number = |name: &str| head.field(name).and_then(|value| value.parse().ok());
    let receipt = number("keytoll-cost-cents").zip(number("keytoll-balance-cents"));
    let body = String::from_utf8_lossy(&body).into_owned();
    Seen { status, framing, body, is_whole, is_kept: false, receipt }
}

/// How a reply is framed for a client; an error when the client could read it in more than one way.
fn framing(head: &Head) -> Result<Framing, String> {
    let is_framing = |name: &str| matches!(name, "content-length" | "transfer-encoding");
    let fields = head.fields.iter().filter(|(name, _)| is_framing(name)).collect::<Vec<_>>();
    match fields[..] {
        [] => Ok(Framing::Neither),
        [(name, value)] if name == "transfer-encoding" && value == "chunked" => Ok(Framing::Chunked),
        [(name, value)] if name == "content-length" && !value.starts_with('+') && value.parse::<u64>().is_ok() => {
            Ok(Framing::Length(value.clone()))
        }
        ref fields => Err(format!("{fields:?}")),
    }
}

/// The body of the reply to the next request; `None` when the connection is closed.
fn free_reply(reader: &mut Reader) -> Option<String> {
    let head = reader.head()?;
    let mut body = Vec::new();
    reader.body(&head, true, &mut body, &mut Vec::new())?;
    Some(String::from_utf8_lossy(&body).into_owned())
}

impl Seen {
    fn is(&self, expected: &Expected, cell: &Cell) -> bool {
        let is_problem = matches!(expected.body, Body::Problem(_));
        let has_framing = match &self.framing {
            Ok(Framing::Length(length)) if is_problem => {
                cell.method == "HEAD" || *length == self.body.len().to_string()
            }
            Ok(framing) => expected.framings.contains(framing),
            Err(_) => false,
        };
        let has_body = match expected.body {
            Body::Exactly(content) => self.body == content,
            Body::BeginningOf(content) => content.starts_with(&self.body),
            Body::PartOf(content) => content.starts_with(&self.body) && self.body.len() < content.len(),
            Body::Problem(code) => cell.method == "HEAD" || problem_code(&self.body).as_deref() == Some(code),
        };
        self.status == expected.status
            && has_framing
            && has_body
            && expected.is_whole.is_none_or(|is_whole| self.is_whole == is_whole)
            && self.is_kept == expected.is_kept
            && self.receipt == Some((expected.cost, OPENING - expected.cost))
    }
}

fn problem_code(text: &str) -> Option<String> {
    let problem: Value = serde_json::from_str(text).ok()?;
    Some(problem["code"].as_str()?.to_owned())
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { status, framing, body, is_whole, is_kept, receipt } = self;
        let body = problem_code(body).map_or_else(|| format!("{body:?}"), |code| format!("problem {code}"));
        write!(
            f,
            "{status}, {framing:?}, {body}, is_whole: {is_whole}, is_kept: {is_kept}, cost and balance: {receipt:?}"
        )
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { manner, wire, status, method, client_version } = self;
        write!(f, "[{manner:?}, {}, {status}, {method}, {client_version}]", wire.name)
    }
}
