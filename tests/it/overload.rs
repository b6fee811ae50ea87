//! Limits on requests, connections and their age: what is past them is refused clearly, probes always answer, and what is
//! under way is not harmed.

mod addresses;
mod connections;
mod operators;
mod requests;
mod stopping;

use crate::harness::{Api, Call, Client, Customer, Gateway, GatewayBuilder, Upstream};

const BEGUN: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

/// A gateway with the API `weather`, whose upstream does what the test says, and a public route that is always answered.
struct Scene {
    busy: Upstream,
    _fine: Upstream,
    gateway: Gateway,
    customer: Customer,
}

fn scene(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Scene {
    let (busy, fine) = (Upstream::scripted(), Upstream::fine());
    let gateway = settings(builder(&busy, &fine)).start();
    let customer = gateway.customer("weather", 500);
    Scene { busy, _fine: fine, gateway, customer }
}

fn builder(busy: &Upstream, fine: &Upstream) -> GatewayBuilder {
    let weather = Api::new("weather", busy.address()).path("/weather");
    let pages = Api::new("pages", fine.address()).path("/pages").price(0).route("path = \"/status\"\npublic = true");
    Gateway::builder().api(weather).api(pages)
}

impl Scene {
    /// A reply whose first piece has reached the client.
    fn begun(&self) -> (Client, Call) {
        let mut client = self.gateway.get("/weather").key(&self.customer.key).open();
        let mut call = self.busy.call();
        call.send(BEGUN);
        assert_eq!(client.head().status(), 200);
        client.expect(b"5\r\nfirst\r\n");
        (client, call)
    }

    /// The status of a request on a connection of its own that needs no key.
    fn status(&self) -> u16 {
        self.gateway.get("/pages/status").send().status()
    }

    /// Both probes answer that all is well.
    #[track_caller]
    fn assert_probes(&self) {
        for probe in ["/.keytoll/healthz", "/.keytoll/readyz"] {
            let reply = self.gateway.get(probe).send();
            assert_eq!(reply.status(), 200, "{probe}: {reply:?}");
        }
    }
}

/// Ends a reply that was begun; the client has it whole.
fn finish(client: &mut Client, call: Call) {
    call.reply("0\r\n\r\n");
    client.expect(b"0\r\n\r\n");
}
