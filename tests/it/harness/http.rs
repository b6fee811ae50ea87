//! HTTP/1.1 as it is on the wire: heads, and bodies by either framing.

use std::io::{self, Read};
use std::net::TcpStream;

/// Fields of a head or of trailers, in order, names in lower case.
pub(crate) type Fields = Vec<(String, String)>;

/// A head: the first line and the fields, in order, names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Head {
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Head { first_line, fields }
    }

    /// The value of a field that is there at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.fields.iter().filter(|(found, _)| found == name);
        let line = lines.next();
        assert!(lines.next().is_none(), "{name} is there more than once: {self:?}");
        line.map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.field(name).map(|value| value.parse().unwrap())
    }

    /// The status of a reply.
    pub(crate) fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap()
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.first_line.split(' ').next().unwrap()
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> &str {
        self.first_line.split(' ').nth(1).unwrap()
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding") == Some("chunked")
    }
}

/// A reply as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether it ended as its framing says; broken off otherwise.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The problem that this reply is.
    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status());
        assert_eq!(problem["request_id"].as_str(), self.field("x-request-id"));
        problem
    }

    /// Asserts that it is this problem, with this status.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!(self.status(), status, "{self:?}");
        let problem = self.problem();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["type"], format!("urn:keytoll:problem:{code}"));
        problem
    }

    /// What it says that it cost and what is left, after a hold.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        Some(Receipt {
            charge: self.head.number("keytoll-charge-id")?,
            cost: self.head.number("keytoll-cost-cents").unwrap(),
            balance: self.head.number("keytoll-balance-cents").unwrap(),
        })
    }

    /// Asserts what the receipt says.
    #[track_caller]
    pub(crate) fn assert_receipt(&self, cost: i64, balance: i64) {
        let receipt = self.receipt().unwrap_or_else(|| panic!("no receipt: {self:?}"));
        assert_eq!((receipt.cost, receipt.balance), (cost, balance), "{self:?}");
        assert!(receipt.charge > 0);
    }
}

/// What a reply after a hold says of money.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    pub(crate) charge: i64,
    pub(crate) cost: i64,
    pub(crate) balance: i64,
}

/// Reads messages from a connection, and keeps what came after them.
pub(crate) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(stream: TcpStream) -> Reader {
        Reader { stream, buffer: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes in what has come; waits for something. How much: 0 is the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// What has come and was not taken.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.buffer
    }

    /// A head; `None` when the connection ends, or broke, before one.
    pub(crate) fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Some(Head::parse(&text));
            }
            self.more()?;
        }
    }

    /// A head, and what follows it: interim replies are skipped.
    pub(crate) fn reply(&mut self, to_head: bool) -> Option<Reply> {
        let mut head = self.head()?;
        while head.status() == 100 {
            head = self.head()?;
        }
        let none = to_head || matches!(head.status(), 101 | 204 | 304);
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let whole = none || self.body(&head, true, &mut body, &mut trailers).is_some();
        Some(Reply { head, body, trailers, whole })
    }

    /// The body of a request.
    pub(crate) fn request_body(&mut self, head: &Head) -> Option<Vec<u8>> {
        self.request_body_and_trailers(head).map(|(body, _)| body)
    }

    /// The body of a request and its trailers.
    pub(crate) fn request_body_and_trailers(&mut self, head: &Head) -> Option<(Vec<u8>, Fields)> {
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        self.body(head, false, &mut body, &mut trailers).map(|()| (body, trailers))
    }

    /// `None` when it breaks off. `to_end`: whether one without framing goes on to the end of the connection.
    pub(crate) fn body(
        &mut self,
        head: &Head,
        to_end: bool,
        body: &mut Vec<u8>,
        trailers: &mut Vec<(String, String)>,
    ) -> Option<()> {
        if head.is_chunked() {
            return self.chunks(body, trailers);
        }
        match head.number("content-length") {
            Some(length) => self.take(usize::try_from(length).unwrap(), body),
            None if to_end => {
                while self.more().is_some() {}
                body.append(&mut self.buffer);
                Some(())
            }
            None => Some(()),
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>, trailers: &mut Vec<(String, String)>) -> Option<()> {
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
            if size == 0 {
                loop {
                    let line = self.line()?;
                    let Some((name, value)) = line.split_once(':') else { return Some(()) };
                    trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
            self.take(size, body)?;
            self.line()?;
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            self.more()?;
        }
    }

    /// Exactly so many bytes; fewer, and `None`, when the connection ends before.
    pub(crate) fn take(&mut self, count: usize, into: &mut Vec<u8>) -> Option<()> {
        let mut left = count;
        loop {
            let now = left.min(self.buffer.len());
            into.extend(self.buffer.drain(..now));
            left -= now;
            if left == 0 {
                return Some(());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        match self.fill() {
            Ok(0) => None,
            Ok(_) => Some(()),
            Err(error) if is_late(&error) => {
                panic!("nothing comes; so far: {:?}", String::from_utf8_lossy(&self.buffer))
            }
            Err(_) => None,
        }
    }
}

/// Whether a read came to the end of its patience.
pub(crate) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
