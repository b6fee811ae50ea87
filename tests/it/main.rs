//! Keytoll over real sockets: every promise that a client, an upstream or another program on the same file can see.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod bodies;
#[cfg(test)]
mod captures;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod house;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod upgrades;
