//! Trailers, both ways: what was announced and may be a trailer passes, to those who take trailers.

use crate::harness::{Api, Customer, Gateway, Upstream};

fn scene() -> (Upstream, Gateway, Customer) {
    let upstream = Upstream::scripted();
    let gateway = Gateway::of(Api::new("weather", upstream.address()));
    let customer = gateway.customer("weather", 500);
    (upstream, gateway, customer)
}

const REPLY: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Keytoll-Cost-Cents, Content-Length\r\n\
                     \r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Secret: 1\r\nKeytoll-Cost-Cents: 0\r\nContent-Length: 3\r\n\r\n";

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_client_that_takes_trailers_gets_those_that_were_announced() {
    let (upstream, gateway, customer) = scene();
    for (te, expected) in [
        (Some("trailers"), owned(&[("x-sum", "7")])),
        (Some("gzip, Trailers"), owned(&[("x-sum", "7")])),
        (Some("gzip"), vec![]),
        (None, vec![]),
    ] {
        let mut request = gateway.get("/").key(&customer.key);
        if let Some(te) = te {
            request = request.field("TE", te).field("Connection", "TE");
        }
        let mut client = request.open();
        let call = upstream.call();
        let passed = (!expected.is_empty()).then_some("trailers");
        assert_eq!(call.head.field("te"), passed, "{te:?}");
        assert_eq!(call.head.field("connection"), passed.map(|_| "te"), "{te:?}");
        call.reply(REPLY);
        let reply = client.reply();
        assert_eq!((reply.whole, reply.text()), (true, "ok"));
        assert_eq!(reply.trailers, expected, "{te:?}");
    }
    gateway.assert_charges(4, 0);
}

#[test]
fn an_http_10_client_gets_no_trailers() {
    let (upstream, gateway, customer) = scene();
    let mut client = gateway.connect();
    let head = format!("GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\nX-API-Key: {}\r\n\r\n", customer.key);
    client.send(head.as_bytes());
    let call = upstream.call();
    assert_eq!((call.head.field("te"), call.head.field("connection")), (None, None));
    call.reply(REPLY);
    assert_eq!(client.head().status(), 200);
    client.expect(b"ok");
    client.expect_end();
    gateway.assert_charges(1, 0);
}

#[test]
fn an_upstream_gets_the_trailers_that_were_announced_and_no_credential() {
    let (upstream, gateway, customer) = scene();
    let mut client = gateway.connect();
    let key = &customer.key;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Sum, X-API-Key, Keytoll-User-Id, Content-Length, Authorization\r\n\r\n"
    );
    let trailers = format!(
        "X-Sum: 7\r\nX-Secret: 1\r\nX-API-Key: {key}\r\nKeytoll-User-Id: 1\r\nContent-Length: 3\r\nAuthorization: {key}\r\n"
    );
    client.send(format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n").as_bytes());
    let mut call = upstream.call();
    assert_eq!(call.body_and_trailers().unwrap(), (b"hello".to_vec(), owned(&[("x-sum", "7")])));
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    gateway.assert_charges(1, 0);
}

#[test]
fn trailers_that_were_not_announced_do_not_go_upstream() {
    let (upstream, gateway, customer) = scene();
    let mut client = gateway.request("POST", "/").key(&customer.key).field("Transfer-Encoding", "chunked").open();
    client.send(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n");
    let mut call = upstream.call();
    assert_eq!(call.body_and_trailers().unwrap(), (b"hello".to_vec(), vec![]));
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status(), 200);
    gateway.assert_charges(1, 0);
}
