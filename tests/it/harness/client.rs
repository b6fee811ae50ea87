//! The client: one connection, every byte in sight.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::http::{Reader, is_late};
use super::{GLANCE, Head, PATIENCE, Reply};

/// A request in the making, to a gateway.
#[derive(Clone)]
pub(crate) struct Request {
    gateway: SocketAddr,
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(gateway: SocketAddr, method: &str, target: &str) -> Request {
        Request::to_host("api.example", gateway, method, target)
    }

    /// With this value of `Host`.
    pub(crate) fn to_host(host: &str, gateway: SocketAddr, method: &str, target: &str) -> Request {
        let fields = vec![("Host".to_owned(), host.as_bytes().to_vec())];
        Request { gateway, method: method.to_owned(), target: target.to_owned(), fields, body: None }
    }

    pub(crate) fn key(self, key: &str) -> Request {
        self.field("x-api-key", key)
    }

    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With a body of known length.
    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        let length = body.as_ref().len().to_string();
        self.body = Some(body.as_ref().to_vec());
        self.field("Content-Length", length)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own; the reply is still to be read.
    pub(crate) fn open(&self) -> Client {
        let mut client = Client::connect(self.gateway);
        client.send_request(self);
        client
    }

    /// A connection to where it goes, or `None` when nobody listens there.
    pub(crate) fn try_connect(&self) -> Option<Client> {
        Client::try_connect(self.gateway).ok()
    }

    /// Sends it on a connection of its own and reads the reply.
    #[track_caller]
    pub(crate) fn send(&self) -> Reply {
        self.open().reply()
    }
}

/// A connection to a gateway.
pub(crate) struct Client {
    reader: Reader,
    to_head: bool,
}

impl Client {
    pub(crate) fn connect(gateway: SocketAddr) -> Client {
        Client::try_connect(gateway).unwrap()
    }

    /// To a gateway that may be gone.
    pub(crate) fn try_connect(gateway: SocketAddr) -> io::Result<Client> {
        Client::on(TcpStream::connect(gateway)?)
    }

    /// On a connection that is there already.
    pub(crate) fn on(stream: TcpStream) -> io::Result<Client> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { reader: Reader::new(stream), to_head: false })
    }

    pub(crate) fn send_request(&mut self, request: &Request) {
        self.to_head = request.method == "HEAD";
        // A gateway that refuses early may close before it has read everything.
        let _ = self.try_send(&request.bytes());
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.stream().write_all(bytes)
    }

    /// The reply to the last request, whole or broken off.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("the connection ended before a reply")
    }

    /// `None` when the connection ends before a head.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        self.reader.reply(self.to_head)
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("the connection ended before a head")
    }

    /// `None` when the connection ends before it.
    pub(crate) fn try_head(&mut self) -> Option<Head> {
        self.reader.head()
    }

    /// The next bytes after a head, exactly these.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut found = Vec::new();
        let _ = self.reader.take(bytes.len(), &mut found);
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
    }

    /// Nothing comes, and the connection stays open.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        assert_eq!(String::from_utf8_lossy(self.reader.waiting()), "");
        self.reader.stream().set_read_timeout(Some(GLANCE)).unwrap();
        let found = self.reader.fill();
        self.reader.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        match found {
            Err(error) if is_late(&error) => {}
            Ok(0) => panic!("the connection was closed"),
            Ok(_) => panic!("too early: {:?}", String::from_utf8_lossy(self.reader.waiting())),
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    /// The connection ends, and nothing more comes before.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.reader.fill() {
            Err(error) if is_late(&error) => panic!("the connection stays open"),
            Ok(0) | Err(_) => assert_eq!(String::from_utf8_lossy(self.reader.waiting()), ""),
            Ok(_) => panic!("more came: {:?}", String::from_utf8_lossy(self.reader.waiting())),
        }
    }

    /// Reads until the connection ends, in order or not; what came.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        loop {
            match self.reader.fill() {
                Err(error) if is_late(&error) => panic!("the connection stays open"),
                Ok(0) | Err(_) => return String::from_utf8_lossy(self.reader.waiting()).into_owned(),
                Ok(_) => {}
            }
        }
    }

    /// Whether the connection has ended, in order or not, without a wait; nothing may have come on it before.
    pub(crate) fn has_ended(&self) -> bool {
        let stream = self.reader.stream();
        stream.set_nonblocking(true).unwrap();
        let found = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        !matches!(found, Ok(1..)) && !found.is_err_and(|error| is_late(&error))
    }

    /// The same connection, for a thread that sends while this one reads.
    pub(crate) fn sender(&self) -> TcpStream {
        self.reader.stream().try_clone().unwrap()
    }

    /// Its own address and the gateway's.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let stream = self.reader.stream();
        (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        self.reader.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Goes away with a reset.
    pub(crate) fn leave(self) {
        SockRef::from(self.reader.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
