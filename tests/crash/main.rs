//! The gateway as a process that dies, at every point that is dangerous and at any other: clients, upstream and
//! application keep records of their own, and after each death the books are compared with all three.
//!
//! `KEYTOLL_IT_SEED` repeats a plan, `KEYTOLL_IT_KILLS` (100) and `KEYTOLL_IT_SOAK_SECONDS` (10) make the runs longer.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers are tests too.

#[cfg(test)]
mod application;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod client;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod file;
#[cfg(test)]
#[path = "../it/harness.rs"]
#[allow(dead_code, unused_imports, reason = "shared with tests/it: neither uses all of it")]
mod harness;
#[cfg(test)]
mod lane;
#[cfg(test)]
mod manners;
#[cfg(test)]
mod past;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod records;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod table;
#[cfg(test)]
mod upstream;
