//! The pieces of a request, one by one: `cargo bench --features bench --bench pieces`. The writer has a bench of its own.
//!
//! With the allocator that the program has, and with what each piece allocates beside its time: that stays the same on
//! another machine. A piece by its name: `cargo bench --features bench --bench pieces -- headers`.
//!
//! Cargo builds the program with that feature too: `cargo build --release` again before `target/release/keytoll` is used.

#[path = "../common/mod.rs"]
mod common;

mod cold_key;
mod credential;
mod headers;
mod route;
mod sections;

use divan::AllocProfiler;
use mimalloc::MiMalloc;

/// So many calls are timed as one: some last hardly longer than a look at the clock.
const SAMPLE_SIZE: u32 = 64;
const SAMPLES: u32 = 500;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
    cold_key::remove_files();
}
