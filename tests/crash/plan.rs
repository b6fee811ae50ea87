//! The plan: what each round ends with and what each request is, drawn from the seed alone.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use keytoll::failpoint::POINTS;

/// The routes of the API `weather`, with their prices.
pub(crate) const ROUTES: [(&str, i64); 5] =
    [("/one", 1), ("/three", 3), ("/seven", 7), ("/free", 0), ("/broken-off", BROKEN_OFF_CENTS)];
/// The route of small bodies that break off. It has no other calls, so no charge of this price may ever exist.
const BROKEN_OFF: usize = 4;
pub(crate) const BROKEN_OFF_CENTS: i64 = 11;

/// How a round is to end.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// The process kills itself at a fail point: under traffic, unless it is reached before.
    Point { name: &'static str, count: u64, delay_us: Option<u64>, within: Duration },
    /// It is told to end, and kills itself at a fail point on the way.
    End { name: &'static str, after: Duration },
    /// It is killed from outside, so long after it served.
    Outside { after: Duration },
}

/// How long a point that traffic leads to may take to be reached.
const SOON: Duration = Duration::from_millis(500);
/// The same for what happens once a second, or less often.
const LATER: Duration = Duration::from_millis(2_500);

impl Ending {
    /// The end of a round that dies at this point, or near it.
    fn at(name: &'static str, rng: &mut Rng) -> Ending {
        let point = |count, delay_us, within| Ending::Point { name, count, delay_us, within };
        match name {
            "end-begun" | "end-done" | "end-committed" | "end-checkpointed" => {
                Ending::End { name, after: Duration::from_millis(rng.u64(1..150)) }
            }
            "migration-applied" => point(rng.u64(1..=5), None, SOON),
            "wallets-adopted" | "instance-registered" | "start-committed" | "ids-reserved" => point(1, None, SOON),
            "lease-recovered" => point(rng.u64(1..=2), None, SOON),
            "lock-checked" => point(1, None, LATER),
            "requests-swept" | "sums-applied" | "charges-rolled-up" => {
                point(1, rng.bool().then(|| rng.u64(0..3_000)), LATER)
            }
            "retry-held" => point(rng.u64(1..4), rng.bool().then(|| rng.u64(0..3_000)), LATER),
            "checkpoint-begun" => point(rng.u64(1..=3), Some(rng.u64(0..3_000)), LATER),
            "checkpoint-done" => point(rng.u64(1..=3), None, LATER),
            "last-checkpoint-begun" => point(1, rng.bool().then(|| rng.u64(0..3_000)), LATER),
            // The request is on its way when the point is reached: a moment later it is there.
            "request-sent" => point(rng.u64(1..40), Some(rng.u64(0..3_000)), SOON),
            "client-left" => point(rng.u64(1..=2), None, LATER),
            "external-absorbed" | "release-queued" | "release-committed" => {
                point(rng.u64(1..6), rng.bool().then(|| rng.u64(0..1_000)), SOON)
            }
            // The rest is reached by any request.
            _ => point(rng.u64(1..40), (rng.u8(0..3) == 0).then(|| rng.u64(0..2_000)), SOON),
        }
    }

    fn outside(rng: &mut Rng) -> Ending {
        Ending::Outside { after: Duration::from_micros(rng.u64(1..150_000)) }
    }

    /// Whether it needs charges, or requests, that are old.
    pub(crate) fn is_of_old_age(&self) -> bool {
        matches!(self.name(), "requests-swept" | "charges-rolled-up")
    }

    /// The name of the fail point.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Ending::Point { name, .. } | Ending::End { name, .. } => name,
            Ending::Outside { .. } => "from outside",
        }
    }

    /// What the process is armed with.
    pub(crate) fn fail_point(&self) -> Option<String> {
        match self {
            Ending::Point { name, count, delay_us: Some(delay), .. } => Some(format!("{name}:{count}:{delay}")),
            Ending::Point { name, count, delay_us: None, .. } => Some(format!("{name}:{count}")),
            Ending::End { name, .. } => Some(format!("{name}:1")),
            Ending::Outside { .. } => None,
        }
    }
}

/// Of a start with a new file only, or with one of an older version.
const OF_A_NEW_FILE: [&str; 2] = ["migration-applied", "wallets-adopted"];
/// Of a start with a file that an older gateway was killed on.
const OF_AN_OLDER_FILE: &str = "lease-recovered";
/// Kills from outside for each time that every point had its turn.
const OUTSIDE: usize = 6;

/// The endings of one lane: every point in turn, in an order that changes.
pub(crate) struct Deck {
    left: Vec<Ending>,
}

impl Deck {
    pub(crate) fn new() -> Deck {
        Deck { left: Vec::new() }
    }

    pub(crate) fn next(&mut self, rng: &mut Rng) -> Ending {
        if self.left.is_empty() {
            let points = POINTS.into_iter().filter(|name| !OF_A_NEW_FILE.contains(name));
            self.left = points.map(|name| Ending::at(name, rng)).collect();
            self.left.extend((0..OUTSIDE).map(|_| Ending::outside(rng)));
            rng.shuffle(&mut self.left);
        }
        self.left.pop().expect("it was filled just now")
    }

    /// The end of the first rounds of a file, which lacks so many migrations. `is_older`: the wallets were adopted before.
    pub(crate) fn of_a_new_file(rng: &mut Rng, migrations: u64, is_older: bool) -> Ending {
        let second = if is_older { OF_AN_OLDER_FILE } else { OF_A_NEW_FILE[1] };
        let name = if rng.bool() { OF_A_NEW_FILE[0] } else { second };
        match Ending::at(name, rng) {
            Ending::Point { name, count, delay_us, within } => {
                Ending::Point { name, count: count.min(migrations), delay_us, within }
            }
            other => other,
        }
    }
}

/// How an upstream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// With a length, at once.
    Length,
    /// With a length, in two pieces.
    Pieces,
    /// In chunks.
    Chunks,
    /// With a length, and more than the buffers of a connection hold.
    Large,
    /// The same in chunks.
    LargeChunks,
    /// 204.
    Nothing,
    /// It closes the connection without a head.
    NoHead,
    /// It closes the connection in the middle of the body.
    Broken,
}

/// The length of a large reply: more than Linux gives a send buffer at most (`tcp_wmem`).
pub(crate) const LARGE_BYTES: usize = 5 << 20;

const FRAMINGS: [(Framing, &str); 8] = [
    (Framing::Length, "length"),
    (Framing::Pieces, "pieces"),
    (Framing::Chunks, "chunks"),
    (Framing::Large, "large"),
    (Framing::LargeChunks, "large_chunks"),
    (Framing::Nothing, "nothing"),
    (Framing::NoHead, "no_head"),
    (Framing::Broken, "broken"),
];

/// What the upstream is to do with a request; travels in a field of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    pub(crate) delay: Duration,
}

impl Script {
    /// Whether the reply comes to its end.
    pub(crate) fn is_whole(self) -> bool {
        !matches!(self.framing, Framing::NoHead | Framing::Broken)
    }

    /// A reply that is charged when it is whole, more often than not.
    pub(crate) fn draw(rng: &mut Rng, is_head: bool) -> Script {
        let status = [200, 200, 200, 200, 200, 200, 200, 404, 429, 500][rng.usize(..10)];
        let framing = match rng.u8(..20) {
            0 => Framing::NoHead,
            1 | 2 if !is_head => Framing::Broken,
            3 | 4 if status == 200 => Framing::Nothing,
            5..10 => Framing::Chunks,
            10..13 if !is_head => Framing::Pieces,
            _ => Framing::Length,
        };
        let delay_us = match rng.u8(..20) {
            0 => rng.u64(..30_000),
            1..4 => rng.u64(..4_000),
            _ => 0,
        };
        let status = if framing == Framing::Nothing { 204 } else { status };
        Script { status, framing, delay: Duration::from_micros(delay_us) }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FRAMINGS.iter().find(|(framing, _)| *framing == self.framing).map_or("", |(_, name)| name);
        write!(f, "{}-{name}-{}", self.status, self.delay.as_micros())
    }
}

impl FromStr for Script {
    type Err = ();

    fn from_str(text: &str) -> Result<Script, ()> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(());
        let status = part()?.parse().map_err(drop)?;
        let name = part()?;
        let (framing, _) = FRAMINGS.into_iter().find(|(_, known)| *known == name).ok_or(())?;
        let delay = Duration::from_micros(part()?.parse().map_err(drop)?);
        Ok(Script { status, framing, delay })
    }
}

/// What a client does while its request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends the request and reads the reply.
    Stays,
    /// Closes the connection when it has sent the request, before the upstream answers.
    LeavesEarly,
    /// Closes the connection when it has the head of the reply.
    LeavesAfterTheHead,
    /// Breaks off a body with a Content-Length that the gateway collects, after this part of it.
    BreaksOffSmall { part: Part, end: End },
    /// Breaks off a body that the gateway streams. `waits`: not before the upstream has the head of the request.
    BreaksOffStream { part: Part, end: End, waits: bool },
    /// Resets the connection when the upstream has the request, and works.
    Resets,
    /// Sends FIN after the request, and reads the reply.
    HalfCloses,
    /// Reads nothing of a large reply for a while; then all of it, or it leaves.
    Stalls { stall: Duration, leaves: Option<End> },
}

/// The names of all manners, for the count of calls.
pub(crate) const MANNERS: [&str; 9] = [
    "stays",
    "leaves early",
    "leaves after the head",
    "breaks off small",
    "breaks off stream",
    "resets",
    "half-closes",
    "stalls, reads on",
    "stalls, leaves",
];

/// How much of its body a client sends before it breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Nothing,
    Some,
    /// All but the last byte.
    Most,
}

/// How a client ends its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `SO_LINGER` 0, and close.
    Reset,
    Close,
    /// FIN; it still reads.
    Fin,
    /// What follows is no chunk; it still reads.
    NoChunk,
}

impl End {
    /// Whether the client still reads a reply.
    pub(crate) fn reads(self) -> bool {
        matches!(self, End::Fin | End::NoChunk)
    }
}

impl Manner {
    fn draw(rng: &mut Rng, is_keyed: bool) -> Manner {
        let part = [Part::Nothing, Part::Some, Part::Most][rng.usize(..3)];
        // What was paid for and never seen is worth sending again.
        match rng.u8(..if is_keyed { 24 } else { 48 }) {
            0 => Manner::BreaksOffSmall { part, end: [End::Reset, End::Close, End::Fin][rng.usize(..3)] },
            1..4 => {
                let end = [End::Reset, End::Close, End::Fin, End::NoChunk][rng.usize(..4)];
                Manner::BreaksOffStream { part, end, waits: rng.bool() }
            }
            4 => Manner::Resets,
            5 => Manner::HalfCloses,
            6 => {
                let leaves = [None, Some(End::Reset), Some(End::Close)][rng.usize(..3)];
                Manner::Stalls { stall: Duration::from_millis(rng.u64(5..30)), leaves }
            }
            7 => Manner::LeavesEarly,
            8 | 9 => Manner::LeavesAfterTheHead,
            _ => Manner::Stays,
        }
    }

    /// One of [`MANNERS`].
    pub(crate) fn name(self) -> &'static str {
        MANNERS[match self {
            Manner::Stays => 0,
            Manner::LeavesEarly => 1,
            Manner::LeavesAfterTheHead => 2,
            Manner::BreaksOffSmall { .. } => 3,
            Manner::BreaksOffStream { .. } => 4,
            Manner::Resets => 5,
            Manner::HalfCloses => 6,
            Manner::Stalls { leaves: None, .. } => 7,
            Manner::Stalls { leaves: Some(_), .. } => 8,
        }]
    }

    /// Whether its client goes away without the reply.
    pub(crate) fn leaves(self) -> bool {
        match self {
            Manner::Stays | Manner::HalfCloses | Manner::Stalls { leaves: None, .. } => false,
            Manner::LeavesEarly | Manner::LeavesAfterTheHead | Manner::Resets | Manner::Stalls { .. } => true,
            Manner::BreaksOffSmall { end, .. } | Manner::BreaksOffStream { end, .. } => !end.reads(),
        }
    }

    /// Whether it never sends the whole request.
    pub(crate) fn breaks_off(self) -> bool {
        matches!(self, Manner::BreaksOffSmall { .. } | Manner::BreaksOffStream { .. })
    }
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Nothing,
    /// With a length, and collected.
    Small,
    /// Streamed, because its length is unknown.
    Chunked,
    /// Streamed, because it is too long to be collected.
    Long,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) user: usize,
    pub(crate) route: usize,
    pub(crate) method: &'static str,
    pub(crate) body: Body,
    pub(crate) manner: Manner,
    pub(crate) script: Script,
    pub(crate) keyed: Keyed,
    /// How eager its client is to send it again: 0 most of all.
    pub(crate) patience: u8,
}

/// Which `Idempotency-Key` a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyed {
    Without,
    New,
    /// That of one that was sent before, if there is any; `stays`: somebody else may send it again at the same time.
    Again {
        which: usize,
        stays: bool,
    },
}

impl Call {
    pub(crate) fn draw(rng: &mut Rng, users: usize) -> Call {
        let keyed = match rng.u8(..10) {
            0..4 => Keyed::Without,
            4..6 => Keyed::New,
            _ => Keyed::Again { which: rng.usize(..), stays: rng.u8(..6) == 0 },
        };
        let manner = Manner::draw(rng, keyed != Keyed::Without);
        let method = ["GET", "GET", "GET", "POST", "HEAD"][rng.usize(..5)];
        let method = if manner.breaks_off() { "POST" } else { method };
        let streamed = [Body::Chunked, Body::Chunked, Body::Long][rng.usize(..3)];
        let is_streamed = rng.bool();
        let body = match manner {
            Manner::BreaksOffSmall { .. } => Body::Small,
            Manner::BreaksOffStream { .. } => streamed,
            _ if is_streamed => streamed,
            _ => Body::Small,
        };
        let route = [0, 1, 2, 0, 1, 2, 0, 1, 2, 3][rng.usize(..10)];
        let mut script = Script::draw(rng, method == "HEAD");
        match manner {
            // Slow enough that the reply does not come before the client is missed.
            Manner::LeavesEarly | Manner::Resets => script.delay = Duration::from_micros(rng.u64(1_000..12_000)),
            Manner::Stalls { .. } if script.is_whole() && script.framing != Framing::Nothing => {
                script.framing = [Framing::Large, Framing::LargeChunks][rng.usize(..2)];
            }
            _ => {}
        }
        let call = Call {
            user: rng.usize(..users),
            route: if matches!(manner, Manner::BreaksOffSmall { .. }) { BROKEN_OFF } else { route },
            method,
            body: if method == "POST" { body } else { Body::Nothing },
            manner,
            script,
            keyed,
            patience: rng.u8(..12),
        };
        call.consistent()
    }

    /// The same as a request with this route, method and body.
    pub(crate) fn as_request(self, route: usize, method: &'static str, body: Body) -> Call {
        Call { route, method, body, ..self }.consistent()
    }

    /// Leaves out what cannot be said of such a request.
    fn consistent(mut self) -> Call {
        let is_large = matches!(self.script.framing, Framing::Large | Framing::LargeChunks);
        if self.method == "HEAD" && (is_large || matches!(self.script.framing, Framing::Pieces | Framing::Broken)) {
            self.script.framing = Framing::Length;
        }
        match (&mut self.manner, self.body) {
            (Manner::BreaksOffStream { end, .. }, Body::Long) if *end == End::NoChunk => *end = End::Fin,
            (Manner::BreaksOffStream { .. }, Body::Chunked | Body::Long) => {}
            (manner @ Manner::BreaksOffStream { .. }, Body::Nothing | Body::Small) => *manner = Manner::Stays,
            _ => {}
        }
        self
    }
}
