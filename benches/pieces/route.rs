//! The route of a request, in tables of several shapes.

use divan::Bencher;
use http::{Method, Request};
use keytoll::config::{ApiConfig, ChargeOn, EncodedSlash, ExchangePolicy, RepeatedSlash, RouteConfig};
use keytoll::gateway::{RouteTable, pieces};
use keytoll::model::Cents;

use super::sections::{Size, parsed, request};
use super::{SAMPLE_SIZE, SAMPLES};

/// A table and a path that is looked for in it.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// One API without routes.
    Bare,
    /// Five routes; the path is one's.
    Few,
    /// Two hundred routes; the path is that of one in the middle.
    Many,
    /// Two hundred routes, none of which claims the path: all are compared.
    ManyUnclaimed,
    /// Two hundred routes with `{x}` and a common beginning.
    Placeholders,
    /// A hundred APIs without routes.
    Apis,
    /// As few, with percent-encoded letters in the path.
    Encoded,
}

const CASES: [Case; 7] =
    [Case::Bare, Case::Few, Case::Many, Case::ManyUnclaimed, Case::Placeholders, Case::Apis, Case::Encoded];

impl Case {
    fn path(self) -> &'static str {
        match self {
            Case::Bare => "/weather/forecast",
            Case::Few => "/weather/reports/2026",
            Case::Many => "/weather/part100/2026",
            Case::ManyUnclaimed => "/weather/forecast",
            Case::Placeholders => "/weather/v1/berlin/day/17/part100",
            Case::Apis => "/api050/forecast",
            Case::Encoded => "/weather/%72eports/2026",
        }
    }

    fn table(self) -> RouteTable {
        let routes = |count: usize, path: fn(usize) -> String| (0..count).map(|number| route(&path(number))).collect();
        let one = |routes| RouteTable::new(&[api("/weather", routes)]);
        match self {
            Case::Bare => one(Vec::new()),
            Case::Few | Case::Encoded => {
                one(["/reports", "/maps/{x}", "/alerts", "/history/{x}/{x}", "/health"].map(route).into())
            }
            Case::Many | Case::ManyUnclaimed => one(routes(200, |number| format!("/part{number:03}"))),
            Case::Placeholders => one(routes(200, |number| format!("/v1/{{city}}/day/{{day}}/part{number:03}"))),
            Case::Apis => {
                let apis: Vec<ApiConfig> =
                    (0..100).map(|number| api(&format!("/api{number:03}"), Vec::new())).collect();
                RouteTable::new(&apis)
            }
        }
    }
}

fn api(path: &str, routes: Vec<RouteConfig>) -> ApiConfig {
    ApiConfig {
        name: path.into(),
        host: None,
        path: path.into(),
        strip_path: true,
        preserve_host: true,
        encoded_slash: EncodedSlash::Refuse,
        repeated_slash: RepeatedSlash::Refuse,
        upstreams: Vec::new(),
        price: Cents(2),
        charge_on: ChargeOn::default(),
        idempotency: false,
        policy: ExchangePolicy::default(),
        routes,
    }
}

fn route(path: &str) -> RouteConfig {
    RouteConfig {
        methods: vec![Method::GET],
        path: path.into(),
        price: Cents(25),
        public: false,
        policy: ExchangePolicy::default(),
    }
}

/// The comparison alone.
#[divan::bench(args = CASES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn find(bencher: Bencher<'_, '_>, case: Case) {
    let table = case.table();
    bencher.bench_local(|| {
        let found = table.find(Some("api.example.com"), &Method::GET, divan::black_box(case.path()));
        found.map(|found| found.route.index)
    });
}

/// With the reading of target and `Host` and the normal form of the path.
#[divan::bench(args = CASES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn whole(bencher: Bencher<'_, '_>, case: Case) {
    let table = case.table();
    let asked = || {
        let mut asked = Request::builder().uri(case.path()).body(()).expect("a request");
        *asked.headers_mut() = parsed(request(Size::Small));
        asked
    };
    bencher
        .with_inputs(asked)
        .bench_local_values(|mut asked| (pieces::route(&table, &mut asked).expect("a route"), asked));
}
