//! An `[[api]]` of the configuration.

use std::fmt::Display;

/// An API in the making; at `/`, for 10 cents, unless something else is said.
#[derive(Clone)]
pub(crate) struct Api {
    name: String,
    path: String,
    upstream: String,
    more_upstreams: String,
    price_cents: i64,
    more: String,
    routes: String,
}

impl Api {
    pub(crate) fn new(name: &str, upstream: impl Display) -> Api {
        Api {
            name: name.to_owned(),
            path: "/".to_owned(),
            upstream: format!("http://{upstream}"),
            more_upstreams: String::new(),
            price_cents: 10,
            more: String::new(),
            routes: String::new(),
        }
    }

    pub(crate) fn path(mut self, path: &str) -> Api {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn price(mut self, cents: i64) -> Api {
        self.price_cents = cents;
        self
    }

    /// Another upstream.
    pub(crate) fn or(mut self, upstream: impl Display) -> Api {
        self.more_upstreams += &format!(", \"http://{upstream}\"");
        self
    }

    /// A line of the API's section.
    pub(crate) fn with(mut self, line: &str) -> Api {
        self.more += line;
        self.more.push('\n');
        self
    }

    /// A route with the lines of its section.
    pub(crate) fn route(mut self, lines: &str) -> Api {
        self.routes += &format!("[[api.route]]\n{lines}\n");
        self
    }

    pub(super) fn toml(&self) -> String {
        let Api { name, path, upstream, more_upstreams, price_cents, more, routes } = self;
        format!(
            "[[api]]\nname = \"{name}\"\npath = \"{path}\"\nupstreams = [\"{upstream}\"{more_upstreams}]\nprice_cents = {price_cents}\n{more}{routes}"
        )
    }
}
