//! The plan: what each round ends with and what each request is, drawn from the seed alone.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use keytoll::failpoint::POINTS;

/// The routes of the API `weather`, with their prices.
pub(crate) const ROUTES: [(&str, i64); 4] = [("/one", 1), ("/three", 3), ("/seven", 7), ("/free", 0)];

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
            "migration-applied" => point(rng.u64(1..=3), None, SOON),
            "wallets-adopted" | "instance-registered" | "start-committed" | "ids-reserved" => point(1, None, SOON),
            "dead-hold-released" => point(rng.u64(1..=2), None, SOON),
            "mark-moved" | "lock-checked" => point(1, None, LATER),
            "requests-swept" | "sums-applied" | "charges-rolled-up" => {
                point(1, rng.bool().then(|| rng.u64(0..3_000)), LATER)
            }
            "again-begun" | "again-ended" | "again-given-back" => {
                point(rng.u64(1..4), rng.bool().then(|| rng.u64(0..3_000)), LATER)
            }
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

/// Of a start with a new file only.
const OF_A_NEW_FILE: [&str; 2] = ["migration-applied", "wallets-adopted"];
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
        let name = if is_older { OF_A_NEW_FILE[0] } else { OF_A_NEW_FILE[rng.usize(..OF_A_NEW_FILE.len())] };
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
    /// 204.
    Nothing,
    /// It closes the connection without a head.
    NoHead,
    /// It closes the connection in the middle of the body.
    Broken,
}

const FRAMINGS: [(Framing, &str); 6] = [
    (Framing::Length, "length"),
    (Framing::Pieces, "pieces"),
    (Framing::Chunks, "chunks"),
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

/// When a client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Never,
    /// In the middle of its request's body.
    InItsBody,
    /// When it has sent the request, before the upstream answers.
    Before,
    /// When it has the head of the reply.
    AfterTheHead,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) user: usize,
    pub(crate) route: usize,
    pub(crate) method: &'static str,
    pub(crate) is_chunked: bool,
    pub(crate) leaves: Leaves,
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
        let method = ["GET", "GET", "GET", "POST", "HEAD"][rng.usize(..5)];
        let keyed = match rng.u8(..10) {
            0..4 => Keyed::Without,
            4..6 => Keyed::New,
            _ => Keyed::Again { which: rng.usize(..), stays: rng.u8(..6) == 0 },
        };
        // What was paid for and never seen is worth sending again.
        let leaves = match rng.u8(..if keyed == Keyed::Without { 30 } else { 10 }) {
            0 if method == "POST" => Leaves::InItsBody,
            1 => Leaves::Before,
            2 => Leaves::AfterTheHead,
            _ => Leaves::Never,
        };
        let mut script = Script::draw(rng, method == "HEAD");
        if leaves == Leaves::Before {
            // Slow enough that the reply does not come before the client is missed.
            script.delay = Duration::from_micros(rng.u64(1_000..12_000));
        }
        Call {
            user: rng.usize(..users),
            route: [0, 1, 2, 0, 1, 2, 0, 1, 2, 3][rng.usize(..10)],
            method,
            is_chunked: rng.bool(),
            leaves,
            script,
            keyed,
            patience: rng.u8(..12),
        }
    }

    /// The same as a request with this method: what cannot be said of one is left out.
    pub(crate) fn with_method(mut self, method: &'static str) -> Call {
        self.method = method;
        if method == "HEAD" && matches!(self.script.framing, Framing::Pieces | Framing::Broken) {
            self.script.framing = Framing::Length;
        }
        if method != "POST" && self.leaves == Leaves::InItsBody {
            self.leaves = Leaves::Never;
        }
        self
    }
}
