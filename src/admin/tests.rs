//! The plane over real sockets: a router on a port of its own, and a client that speaks HTTP/1.1 by hand.

mod listener;
mod resources;
mod rules;

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceBuilder;
use tower::layer::layer_fn;

use super::*;
use crate::config::{DatabaseConfig, Durability, Limits};
use crate::http::{
    AccessLog, ClientConnection, Edge, EdgeLimits, LimitInFlight, Listener, MarkProbes, RequestIds, Server, Workers,
    bind,
};
use crate::store::Role;
use crate::telemetry::metrics::MetricNames;

const TOKEN: &str = "a-token-for-the-tests";

/// A running plane.
struct Plane {
    address: SocketAddr,
    store: Store,
    lifecycle: Arc<Lifecycle>,
    server: Server,
    _workers: Workers,
    directory: TempDir,
}

impl Plane {
    async fn start() -> Plane {
        Plane::start_with(|_, _| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut AdminSettings, &mut Limits)) -> Plane {
        let mut limits = Limits::default();
        let mut settings = AdminSettings {
            token: AdminToken::new(TOKEN),
            apis: vec!["weather".into(), "maps".into()],
            storage: KeyStorage::Sha256,
            prefix: KeyPrefix::new("kt").unwrap(),
            body_bytes: 1000,
            body_timeout: Duration::from_secs(30),
            host_check: HostCheck::new([127, 0, 0, 1].into(), &[]),
        };
        change(&mut settings, &mut limits);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.db");
        let database =
            DatabaseConfig { path, create: true, file_mode: 0o600, durability: Durability::Normal, keep_charges: None };
        let metrics = Arc::new(Metrics::new(&MetricNames::default(), None));
        let (store, _) = Store::open(&database, &limits, Role::Gateway, Arc::clone(&metrics.store)).unwrap();
        let lifecycle = Arc::new(Lifecycle::default());
        let (workers, server) = serve(&store, &metrics, &lifecycle, settings, &limits).await;
        Plane { address: server.local_addr(), store, lifecycle, server, _workers: workers, directory }
    }

    /// Sends bytes as they are and reads until the plane closes.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    /// A request with these lines of its head.
    async fn send(&self, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let (host, length) = (self.address, body.len());
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
        ))
        .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &bearer(), "").await
    }

    /// A request with the token and a JSON body.
    async fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &format!("{}Content-Type: application/json\r\n", bearer()), body).await
    }

    async fn add_user(&self, email: &str) -> i64 {
        let made = self.json("POST", "/v1/users", &format!(r#"{{"email":"{email}","name":"N"}}"#)).await;
        assert_eq!(made.status, 201);
        made.body["id"].as_i64().unwrap()
    }
}

/// The API behind the layers that count for it.
async fn serve(
    store: &Store,
    metrics: &Arc<Metrics>,
    lifecycle: &Arc<Lifecycle>,
    settings: AdminSettings,
    limits: &Limits,
) -> (Workers, Server) {
    let limits = EdgeLimits::admin(limits);
    let (own, gateway) = (Arc::clone(&metrics.admin), Arc::clone(&metrics.gateway));
    let edge = Edge::new(Listener::Admin, limits, &[], own, gateway, Arc::clone(lifecycle));
    let service = AdminService::new(store.clone(), Arc::clone(metrics), Arc::clone(lifecycle), settings);
    let layers = ServiceBuilder::new()
        .layer(layer_fn(RequestIds::new))
        .layer(layer_fn(AccessLog::new))
        .layer(layer_fn(|inner| MarkProbes::new(inner, is_probe)))
        .layer(layer_fn(LimitInFlight::new));
    // The worker logs where the test does.
    let log = tracing::dispatcher::get_default(Clone::clone);
    let hook = move |_| {
        let (layers, service, log) = (layers.clone(), service.clone(), log.clone());
        async move {
            let logs_there = tracing::dispatcher::set_default(&log);
            move |_: &Arc<ClientConnection>| {
                let _ = &logs_there;
                layers.clone().service(service.clone())
            }
        }
    };
    let workers = Workers::start("admin", 1, &edge, hook).await.unwrap();
    let server = workers.serve(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
    (workers, server)
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    text: String,
    body: Value,
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let whole = String::from_utf8(bytes).unwrap();
        let (head, text) = whole.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = serde_json::from_str(text).unwrap_or(Value::Null);
        Answer { status, head: head.to_owned(), text: text.to_owned(), body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Status and code of a problem, after a look at what every problem has.
    fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.body["type"], format!("urn:keytoll:problem:{code}"));
        assert_eq!(self.body["status"], self.status);
        assert_eq!(self.body["request_id"].as_str(), self.header("x-request-id"));
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        (self.status, code)
    }

    /// The fields that a 422 names.
    fn fields(&self) -> Vec<&str> {
        assert_eq!(self.problem(), (422, "invalid"));
        let errors = self.body["errors"].as_array().unwrap();
        assert!(errors.iter().all(|error| error["message"].is_string()));
        errors.iter().map(|error| error["field"].as_str().unwrap()).collect()
    }
}
