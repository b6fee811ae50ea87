//! Keytoll over real sockets: every promise that a client, an upstream or another program on the same file can see.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod credentials;
