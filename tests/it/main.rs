//! Tests of the program from outside: the real binary, real files, real sockets. Every promise that a client, an
//! upstream or another program on the same file can see.
//!
//! `cfg(test)` always holds here; it tells clippy that helpers are tests too.

#[cfg(test)]
mod aborted_uploads;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod captures;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod early_answers;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod files;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod half_close;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod house;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod long_replies;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod odd_replies;
#[cfg(test)]
mod open_files;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod power;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod reply_framing;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod sent_again;
#[cfg(test)]
mod silent_streams;
#[cfg(test)]
mod stalls;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod trailers;
#[cfg(test)]
mod two_gateways;
#[cfg(test)]
mod unknown_apis;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod uploads;
