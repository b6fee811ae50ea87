//! Keytoll over real sockets: every promise that a client, an upstream or another program on the same file can see.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod captures;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod revocation;
