//! `keytoll health`: asks a running gateway over its data listener.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::{Common, Format};
use super::exit::{Exit, Failure, NotReady};
use super::output;
use crate::config::{self, Environment, Overrides};

/// For the connection, and then for the answer. Container health checks give up after 30 s by default.
const PATIENCE: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  keytoll health                                asks server.listen of ./keytoll.toml or KEYTOLL_LISTEN
  HEALTHCHECK CMD [\"keytoll\", \"health\"]         in a Dockerfile

Asks GET /.keytoll/readyz. Status 0 when the gateway is ready to serve and to bill, 1 when not.";

/// Flags of `health`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Where the gateway listens, when not as configured
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Answer {
    ready: bool,
    address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) fn run(args: Args, common: Common, environment: &Environment) -> Result<(), Failure> {
    let overrides = Overrides { listen: args.listen, ..common.overrides() };
    let address = reachable(config::load_listeners(&overrides, environment)?.data);
    match (ask(address, PATIENCE), args.format.json) {
        (Ok(()), false) => output::line(format_args!("ready: the gateway on {address}")),
        (Ok(()), true) => output::json(&Answer { ready: true, address, reason: None }),
        (Err(reason), false) => Err(Failure::NotReady(reason)),
        (Err(reason), true) => {
            output::json(&Answer { ready: false, address, reason: Some(reason.to_string()) })?;
            Err(Failure::No(Exit::No))
        }
    }
}

/// A listener on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr, patience: Duration) -> Result<(), NotReady> {
    let mut stream =
        TcpStream::connect_timeout(&address, patience).map_err(|error| NotReady::Connect(address, error))?;
    match status(&mut stream, address, Instant::now() + patience) {
        Ok(Some(200)) => Ok(()),
        Ok(Some(status)) => Err(NotReady::Status(address, status)),
        Ok(None) => Err(NotReady::NotHttp(address)),
        Err(error) => Err(NotReady::Answer(address, error)),
    }
}

/// Sends the request and reads no further than the status. `None`: the answer is not HTTP.
fn status(stream: &mut TcpStream, address: SocketAddr, deadline: Instant) -> io::Result<Option<u16>> {
    /// `HTTP/1.1 200`, the part of the status line that counts (RFC 9112 §4).
    const STATUS_BYTES: usize = 12;
    let request = format!("GET /.keytoll/readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    stream.set_write_timeout(left()?)?;
    stream.write_all(request.as_bytes())?;
    let mut head = [0; STATUS_BYTES];
    let mut filled = 0;
    while filled < STATUS_BYTES {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut head[filled..])? {
            0 => return Ok(None),
            read => filled += read,
        }
    }
    let text = std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1."));
    Ok(text.and_then(|rest| rest.get(2..)).and_then(|status| status.parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answered(answer: &'static [u8]) -> Result<(), NotReady> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 25];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            (request, stream)
        });
        let asked = ask(address, Duration::from_secs(20));
        assert!(server.join().unwrap().0.starts_with(b"GET /.keytoll/readyz HTTP"));
        asked
    }

    #[test]
    fn only_a_200_is_ready() {
        assert!(answered(b"HTTP/1.1 200 OK\r\n\r\n").is_ok());
        assert!(matches!(answered(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Err(NotReady::Status(_, 503))));
        assert!(matches!(answered(b"SSH-2.0-OpenSSH_9.2p1"), Err(NotReady::NotHttp(_))));
    }

    #[test]
    fn a_gateway_that_says_nothing_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = ask(listener.local_addr().unwrap(), Duration::from_millis(20));
        assert!(matches!(asked, Err(NotReady::Answer(..))), "{asked:?}");
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let of = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(of("[::]:8080"), "[::1]:8080");
        assert_eq!(of("10.0.0.7:80"), "10.0.0.7:80");
    }
}
