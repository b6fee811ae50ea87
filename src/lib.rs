//! Keytoll: an API-key gateway that bills every request exactly once.
//!
//! It runs as a sidecar in front of an existing HTTP API, checks the key of every request, takes the price of the call
//! out of the owner's wallet in the application's own SQLite file, and forwards what has been paid for.
//!
//! # The map
//!
//! Uses go downward only; neighbours on a floor do not use each other; [`telemetry`], [`failpoint`] and [`files`] (how
//! files are opened and created) may be used by all.
//!
//! ```text
//! cli                  one file a command
//! app                  Config -> running parts: the only wiring; start and stop order
//! gateway    admin     the request path; the operators' router
//! upstream             connections to upstreams: pool, choice among several, timeouts
//! http                 the edge that both listeners share: accept, limits, layers, problems, access log, drain
//! auth       billing   credential -> principal, from memory; holds, and the passage that they pay for
//! store                all SQL; the writer thread: one transaction a batch, answers after COMMIT
//! ledger               the rules of money, without I/O, clock or threads
//! config               TOML, environment and flags -> checked Config
//! model                ids, cents, keys, times: no I/O
//! ```
//!
//! # The life of one request
//!
//! ```text
//! client ─── http ─── gateway ──────────────────────────────────────────────── upstream
//!                       │ route        the path in its normal form, and its price
//!                       │ credential   taken out of headers and query
//!                       │ authenticate auth: from memory, or one look-up shared by all who ask
//!                       │ hold         billing -> store: one message to the writer, an answer after its commit
//!                       │ forward      upstream demands the Passage that the Hold paid for ────▶
//!                       │ settle       by the outcome: capture, or release          ◀────
//!                       ▼ reply        its end is held back until the capture is committed
//! ```
//!
//! From the hold on, the request goes on even when its client leaves. Once a part of it was forwarded, its hold is captured
//! or released; before that, the hold is cancelled, which leaves no trace. The holds of a process that dies are released by
//! the next process that finds them.
//!
//! # How the books stay exact
//!
//! - One thread writes ([`store`]); inside of its `BEGIN IMMEDIATE` nobody else can.
//! - A hold carries the generation of the view that its principal was loaded under. Equal to the writer's: nothing has
//!   changed. Older: the rows are compared again, inside of the transaction that takes the money.
//! - Triggers note what other programs do to wallets; the next transaction enters it.
//! - What is final is added up account by account, so that all wallets are compared with the books once a minute without a
//!   look at every charge; settled charges that are old become usage by hour.
//! - A request with an `Idempotency-Key` is recorded with its hold. A retry of one that was charged, and
//!   whose reply never reached its client, has that charge refunded and is held and forwarded as a new request.

pub mod admin;
pub mod app;
pub mod auth;
pub mod billing;
pub mod cli;
pub mod config;
pub mod failpoint;
pub mod files;
pub mod gateway;
pub mod http;
pub mod ledger;
pub mod model;
pub mod store;
pub mod telemetry;
pub mod upstream;
