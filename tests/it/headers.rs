//! What the upstream is told of the client, what the client is told of the upstream, and what neither may say.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::harness::{Api, Call, Client, Customer, Gateway, Request, Upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    customer: Customer,
}

impl Scene {
    fn new() -> Scene {
        let upstream = Upstream::scripted();
        let gateway = Gateway::of(Api::new("weather", upstream.address()));
        let customer = gateway.customer("weather", 500);
        Scene { upstream, gateway, customer }
    }

    fn get(&self) -> Request {
        self.gateway.get("/").key(&self.customer.key)
    }

    fn forwarded(&self, request: &Request) -> (Client, Call) {
        let client = request.open();
        (client, self.upstream.call())
    }
}

#[test]
fn the_upstream_is_told_whose_request_it_is() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.get());
    let (head, customer) = (call.head.clone(), &scene.customer);
    call.reply(OK);
    let reply = client.reply();
    assert_eq!(head.number("keytoll-user-id"), Some(customer.id));
    assert_eq!(head.number("keytoll-key-id"), Some(customer.key_id));
    assert_eq!(head.field("keytoll-api"), Some("weather"));
    assert_eq!(head.field("keytoll-charge-id"), reply.field("keytoll-charge-id"));
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert_eq!(head.field("x-forwarded-host"), Some("api.example"));
    assert_eq!(head.field("host"), Some("api.example"));
    assert!(head.field("traceparent").is_some());
    assert_eq!(head.field("x-api-key"), None);
    assert!(!format!("{head:?}").contains(&customer.key));
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let scene = Scene::new();
    let request = scene
        .get()
        .field("Keytoll-User-Id", "somebody-else")
        .field("keytoll_user_id", "somebody-else")
        .field("KEYTOLL-KEY-ID", "somebody-else")
        .field("Keytoll.Key.Id", "somebody-else")
        .field("Keytoll-Retry-Of", "somebody-else")
        .field("Keytoll_Anything", "somebody-else")
        .field("Connection", "Keytoll-User-Id, keytoll-charge-id, X-Request-Id, X-Forwarded-For")
        .field("X-Forwarded-For", "6.6.6.6")
        .field("X_Forwarded_For", "6.6.6.6")
        .field("Forwarded", "for=6.6.6.6")
        .field("X-Real-IP", "6.6.6.6");
    let (mut client, call) = scene.forwarded(&request);
    let head = call.head.clone();
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    assert!(!format!("{head:?}").contains("somebody-else"), "{head:?}");
    assert!(!format!("{head:?}").contains("6.6.6.6"), "{head:?}");
    assert_eq!(head.number("keytoll-user-id"), Some(scene.customer.id));
    assert!(head.number("keytoll-charge-id").is_some());
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert!(head.field("x-request-id").is_some());
}

#[test]
fn a_client_cannot_show_the_upstream_another_request() {
    let scene = Scene::new();
    let request = [
        "X-HTTP-Method-Override",
        "X_HTTP_Method_Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "x_original_url",
        "X-Forwarded-Prefix",
    ]
    .into_iter()
    .fold(scene.get(), |request, name| request.field(name, "/smuggled"));
    let (mut client, call) = scene.forwarded(&request);
    assert!(!format!("{:?}", call.head).contains("smuggled"), "{:?}", call.head);
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
}

#[test]
fn a_request_id_is_kept_or_made() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.get().field("X-Request-Id", "mine-1.2_3"));
    assert_eq!(call.head.field("x-request-id"), Some("mine-1.2_3"));
    call.reply("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().field("x-request-id"), Some("mine-1.2_3"));
    for unfit in ["not an id", &"x".repeat(129), "", "<script>"] {
        let (mut client, call) = scene.forwarded(&scene.get().field("X-Request-Id", unfit));
        let made = call.head.field("x-request-id").unwrap().to_owned();
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        call.reply(OK);
        assert_eq!(client.reply().field("x-request-id"), Some(made.as_str()));
    }
}

#[test]
fn an_upstream_cannot_write_a_receipt() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.get());
    call.reply(
        "HTTP/1.1 200 OK\r\nKeytoll-Cost-Cents: 0\r\nkeytoll_balance_cents: somebody-else\r\nKeytoll-Anything: somebody-else\r\n\
         Connection: Keytoll-Charge-Id\r\nContent-Length: 0\r\n\r\n",
    );
    let reply = client.reply();
    reply.assert_receipt(10, 490);
    assert!(!format!("{:?}", reply.head).contains("somebody-else"), "{reply:?}");
}

#[test]
fn what_belongs_to_a_connection_stays_on_it() {
    let scene = Scene::new();
    let request = scene
        .get()
        .field("Connection", "X-Hop, close")
        .field("X-Hop", "1")
        .field("X-End", "1")
        .field("Keep-Alive", "timeout=5")
        .field("Proxy-Authorization", "Basic eA==")
        .field("Proxy-Connection", "keep-alive")
        .field("TE", "gzip")
        .field("Upgrade", "websocket")
        .field("Expect", "something");
    let (mut client, call) = scene.forwarded(&request);
    for name in ["x-hop", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade", "expect"] {
        assert_eq!(call.head.field(name), None, "{name}");
    }
    assert_eq!(call.head.field("x-end"), Some("1"));
    call.reply(
        "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nX-Far: 1\r\nKeep-Alive: timeout=9\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
    );
    let reply = client.reply();
    assert_eq!((reply.field("x-back"), reply.field("keep-alive"), reply.field("x-far")), (None, None, Some("1")));
    let cookies: Vec<_> = reply.head.fields.iter().filter(|(name, _)| name == "set-cookie").collect();
    assert_eq!(cookies.len(), 2);
}

#[test]
fn a_body_is_framed_once() {
    let scene = Scene::new();
    let (mut client, mut call) = scene.forwarded(&scene.get().body("hello"));
    assert_eq!(call.body().unwrap(), b"hello");
    call.reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.whole, reply.text(), reply.field("content-length")), (true, "whole", Some("5")));
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn a_request_that_is_framed_twice_is_forwarded_framed_once() {
    let scene = Scene::new();
    let request = scene.get().field("Content-Length", "4").field("Transfer-Encoding", "chunked");
    let mut client = request.open();
    // To a server that goes by the length another request would begin within the chunks.
    client.send(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut call = scene.upstream.call();
    assert_eq!(call.head.field("content-length"), None);
    assert!(matches!(call.head.field("transfer-encoding"), None | Some("chunked")));
    assert_eq!(call.body().unwrap(), b"");
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    // What follows is a request of its own, or nothing.
    if let Some(next) = client.try_reply() {
        next.assert_problem(401, "missing-key");
    }
    assert_eq!(scene.upstream.seen(), 1);
    scene.gateway.assert_charges(1, 0);
}

#[test]
fn via_says_where_a_request_has_been() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.get());
    let own = call.head.field("via").unwrap().to_owned();
    call.reply(OK);
    client.reply();
    let name = own.strip_prefix("1.1 keytoll-").unwrap();
    assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    let request = scene.get().field("Via", "1.0 fred, 1.1 p.example (x)").field("Connection", "Via");
    let (mut client, call) = scene.forwarded(&request);
    assert_eq!(call.head.field("via"), Some(format!("1.0 fred, 1.1 p.example (x), {own}").as_str()));
    call.reply(OK);
    client.reply();
    let mut client = scene.gateway.connect();
    client.send(format!("GET / HTTP/1.0\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", scene.customer.key).as_bytes());
    let call = scene.upstream.call();
    assert_eq!(call.head.field("via"), Some(own.replace("1.1", "1.0").as_str()));
    call.reply(OK);
    client.reply();
}

#[test]
fn a_request_that_comes_back_is_a_loop_and_costs_nothing() {
    let scene = Scene::new();
    let (mut client, call) = scene.forwarded(&scene.get());
    let via = call.head.field("via").unwrap().to_owned();
    call.reply(OK);
    client.reply().assert_receipt(10, 490);
    let back = scene.get().field("Via", "1.1 between").field("Via", format!("{via}, 1.1 after"));
    back.send().assert_problem(508, "loop-detected");
    // Without a key, as its first passage leaves it.
    scene.gateway.get("/").field("Via", &via).send().assert_problem(508, "loop-detected");
    assert_eq!(scene.upstream.seen(), 1);
    scene.gateway.assert_charges(1, 0);
}

/// Two gateways in a chain are no loop; two that forward to each other are.
#[test]
fn gateways_in_a_chain_differ_and_each_knows_itself() {
    let upstream = Upstream::scripted();
    let public = "path = \"/status\"\npublic = true";
    let inner = Gateway::of(Api::new("inner", upstream.address()).route(public));
    let outer = Gateway::of(Api::new("outer", inner.address()).route(public));
    let mut client = outer.get("/status").open();
    let call = upstream.call();
    let names: Vec<_> = call.head.field("via").unwrap().split(", ").map(str::to_owned).collect();
    assert!(names.len() == 2 && names[0] != names[1], "{names:?}");
    call.reply(OK);
    assert_eq!(client.reply().status(), 200);
    for gateway in [&inner, &outer] {
        let back = gateway.get("/status").field("Via", names.join(", ")).send();
        back.assert_problem(508, "loop-detected");
    }
}

/// What the upstream hands back to the gateway, as a proxy between would that points to it by mistake.
#[test]
fn a_loop_ends_after_one_round() {
    let front: Arc<OnceLock<SocketAddr>> = Arc::default();
    let target = Arc::clone(&front);
    let rounds = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |head, _| {
        if rounds.fetch_add(1, Ordering::AcqRel) > 5 {
            return OK.into();
        }
        let lines: Vec<_> = head.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut client = Client::connect(*target.get().unwrap());
        client.send(format!("{}\r\n{}\r\n", head.first_line, lines.concat()).as_bytes());
        let status = client.reply().status();
        format!("HTTP/1.1 {status} Passed On\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let gateway = Gateway::of(Api::new("weather", upstream.address()).route("path = \"/status\"\npublic = true"));
    front.set(gateway.address()).unwrap();
    let customer = gateway.customer("weather", 500);
    assert_eq!(gateway.get("/status").send().status(), 508);
    let reply = gateway.get("/").key(&customer.key).send();
    assert_eq!(reply.status(), 508);
    reply.assert_receipt(0, 500);
    assert_eq!(upstream.seen(), 2);
    gateway.assert_charges(0, 1);
}
