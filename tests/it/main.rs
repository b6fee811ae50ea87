//! Tests of the program from outside: the real binary, real files, real sockets.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers are tests too.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod process;
