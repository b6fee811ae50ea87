//! The traces that every request leaves: a reply that says what is wrong, a line in the access log, a count.

mod parser;
mod pipelining;
mod problems;
mod settlements;
mod slow_heads;
