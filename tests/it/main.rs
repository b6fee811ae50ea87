//! Tests of the program from outside: the real binary, real files, real sockets. Every promise that a client, an
//! upstream or another program on the same file can see.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers are tests too.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod process;
