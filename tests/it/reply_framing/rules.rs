//! What a client must see of a reply, and what it must pay: RFC 9110 and RFC 9112, and Keytoll's default rule of what is
//! charged.

use super::wires::Wire;
use super::{Cell, Manner};

/// What every call costs, and what every wallet has before.
pub(super) const PRICE: i64 = 10;
pub(super) const OPENING: i64 = 500;

/// Where the end of a reply is, by the fields of its head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Length(u64),
    LastChunk,
    Close,
}

/// RFC 9112 §6.3. A list of equal lengths may be refused, and is. Keytoll knows no coding but `chunked`.
/// `None`: the framing is faulty.
fn end_of(wire: &Wire) -> Option<End> {
    let values = |name| wire.fields.iter().filter(move |field| field.0 == name).map(|field| field.1.trim());
    let mut codings = values("Transfer-Encoding");
    if let Some(coding) = codings.next() {
        let is_chunked = coding.eq_ignore_ascii_case("chunked") && codings.next().is_none();
        return (is_chunked && wire.version == "HTTP/1.1").then_some(End::LastChunk);
    }
    let mut lengths = values("Content-Length").map(length);
    let Some(first) = lengths.next() else { return Some(End::Close) };
    let first = first?;
    lengths.all(|other| other == Some(first)).then_some(End::Length(first))
}

/// `1*DIGIT` (RFC 9110 §8.6). `parse` alone would take a sign.
fn length(value: &str) -> Option<u64> {
    let is_digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_digits)
}

/// RFC 9112 §6.3, first rule.
pub(super) fn can_have_body(cell: &Cell) -> bool {
    cell.method != "HEAD" && !matches!(cell.status, 204 | 304)
}

/// The default of `charge_on`.
fn is_charged(status: u16) -> bool {
    matches!(status, 200..=499) && !matches!(status, 408 | 429)
}

/// Whether the upstream sends a reply that breaks off.
fn breaks_off(cell: &Cell) -> bool {
    matches!(cell.manner, Manner::Broken | Manner::BrokenLater) && can_have_body(cell)
}

/// Whether the upstream closes the connection after its reply. Where there is no body it does not have to: Keytoll must not
/// wait for it.
pub(super) fn upstream_closes(cell: &Cell) -> bool {
    let is_cut = matches!(cell.manner, Manner::Broken | Manner::BrokenLater);
    is_cut || cell.wire.closes && (can_have_body(cell) || cell.wire.version == "HTTP/1.0")
}

/// Whether the connection to the upstream may serve another request (RFC 9112 §6.3, §9.3).
pub(super) fn upstream_is_reusable(cell: &Cell) -> bool {
    let is_followed = matches!(cell.manner, Manner::Surplus | Manner::SurplusPipelined);
    end_of(cell.wire).is_some() && !is_followed && !upstream_closes(cell)
}

/// The cents that the request takes from the wallet in the end.
pub(super) fn charge(cell: &Cell) -> i64 {
    let is_free = end_of(cell.wire).is_none() || breaks_off(cell) || !is_charged(cell.status);
    if is_free { 0 } else { PRICE }
}

/// The fields of a head that frame a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// One Content-Length with this value, and no Transfer-Encoding.
    Length(String),
    /// `Transfer-Encoding: chunked`, and no Content-Length.
    Chunked,
    /// Neither.
    Neither,
}

/// How much of the upstream's body a client has.
#[derive(Debug)]
pub(super) enum Body {
    /// Exactly this.
    Exactly(&'static str),
    /// A beginning of this.
    BeginningOf(&'static str),
    /// A beginning of this, and not all of it.
    PartOf(&'static str),
    /// A problem with this code instead.
    Problem(&'static str),
}

/// What a client sees.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) status: u16,
    /// Any of these; empty for a problem, whose length is that of its text.
    pub(super) framings: Vec<Framing>,
    pub(super) body: Body,
    /// Whether the reply ends as its framing says. `None` for a reply that only the close of the connection ends.
    pub(super) is_whole: Option<bool>,
    pub(super) is_kept: bool,
    /// What the receipt says that the request costs.
    pub(super) cost: i64,
}

/// What a client may see. Where there is more than one, timing decides which.
pub(super) fn expected(cell: &Cell) -> Vec<Expected> {
    let Some(end) = end_of(cell.wire) else { return vec![upstream_broken(cell)] };
    match (can_have_body(cell), cell.manner) {
        (false, _) => vec![without_body(cell, end)],
        (true, Manner::Whole | Manner::Surplus | Manner::SurplusPipelined) => vec![whole(cell, end)],
        (true, Manner::BrokenLater) => vec![broken_off(cell, end)],
        // The break may come before the head is sent.
        (true, Manner::Broken) => vec![broken_off(cell, end), upstream_broken(cell)],
    }
}

/// HTTP/1.0 connections are not kept, unless the client asks for it.
fn is_keepable(cell: &Cell) -> bool {
    cell.client_version == "HTTP/1.1"
}

fn receipt_cost(cell: &Cell) -> i64 {
    if is_charged(cell.status) { PRICE } else { 0 }
}

fn upstream_broken(cell: &Cell) -> Expected {
    Expected {
        status: 502,
        framings: Vec::new(),
        body: Body::Problem("upstream-broken"),
        is_whole: Some(true),
        is_kept: is_keepable(cell),
        cost: 0,
    }
}

fn without_body(cell: &Cell, end: End) -> Expected {
    let framings = match (cell.status, end) {
        // RFC 9110 §8.6, RFC 9112 §6.1
        (204, _) => vec![Framing::Neither],
        // The length is that of a `200` to a GET, and may be left out (RFC 9110 §8.6).
        (304, End::Length(length)) => vec![Framing::Length(length.to_string()), Framing::Neither],
        (_, End::Length(length)) => vec![Framing::Length(length.to_string())],
        // A Transfer-Encoding may be left out (RFC 9112 §6.1); an HTTP/1.0 client does not get one.
        (_, End::LastChunk | End::Close) if is_keepable(cell) => vec![Framing::Neither, Framing::Chunked],
        (_, End::LastChunk | End::Close) => vec![Framing::Neither],
    };
    Expected {
        status: cell.status,
        framings,
        body: Body::Exactly(""),
        is_whole: Some(true),
        is_kept: is_keepable(cell),
        cost: receipt_cost(cell),
    }
}

/// How a reply with a body is framed for a client, if the upstream has framed it so. A length that the upstream does not give
/// may be given when the whole body is there: `known`.
fn framings(cell: &Cell, end: End, known: Option<&str>) -> Vec<Framing> {
    let known = known.map(|content| Framing::Length(content.len().to_string()));
    match end {
        End::Length(length) => vec![Framing::Length(length.to_string())],
        End::LastChunk | End::Close if is_keepable(cell) => [Framing::Chunked].into_iter().chain(known).collect(),
        End::LastChunk | End::Close => [Framing::Neither].into_iter().chain(known).collect(),
    }
}

fn whole(cell: &Cell, end: End) -> Expected {
    Expected {
        status: cell.status,
        framings: framings(cell, end, Some(cell.wire.content)),
        body: Body::Exactly(cell.wire.content),
        is_whole: Some(true),
        is_kept: is_keepable(cell),
        cost: receipt_cost(cell),
    }
}

fn broken_off(cell: &Cell, end: End) -> Expected {
    let content = cell.wire.content;
    let is_close_delimited = end == End::LastChunk && !is_keepable(cell);
    Expected {
        status: cell.status,
        framings: framings(cell, end, None),
        // A client that cannot see the break must not have all that a paid reply would have had.
        body: if is_close_delimited && is_charged(cell.status) && !content.is_empty() {
            Body::PartOf(content)
        } else {
            Body::BeginningOf(content)
        },
        is_whole: (!is_close_delimited).then_some(false),
        is_kept: false,
        cost: receipt_cost(cell),
    }
}
