//! What a request asks for: host, path and query, from the request's target and `Host` (RFC 9112 §3.2).

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri};

use super::bad_request::BadRequest;
use super::path::{BadPath, Normalized, normalize, readings};
use super::probes::RESERVED;
use super::route::{Match, RouteTable};
use crate::http::{Problem, ProblemKind};

/// The target of a request, on its way to the form that is forwarded.
pub(super) struct Target {
    host: Option<Box<str>>,
    original: PathAndQuery,
    /// The path to match and forward, when it is not the original's.
    path: Option<Box<str>>,
    query: Query,
}

enum Query {
    AsItWas,
    Changed(Option<Box<str>>),
}

impl Target {
    /// Reads the target; an absolute one gives the host (RFC 9112 §3.2.2).
    pub(super) fn of<B>(request: &mut Request<B>) -> Result<Target, Problem> {
        // Methods are case-sensitive (RFC 9110 §9.1), and many upstreams forget it: `post` must not get past the price
        // of POST.
        if request.method().as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(BadRequest::Method.into());
        }
        let is_connect = request.method() == Method::CONNECT;
        let Some(original) = request.uri().path_and_query().cloned().filter(|_| !is_connect) else {
            return Err(BadRequest::Target.into());
        };
        if original.path() == "*" {
            return Err(BadRequest::Target.into());
        }
        if let Some(authority) = request.uri().authority() {
            let value = HeaderValue::from_str(host_and_port(authority.as_str()));
            let value = value.map_err(|_| BadRequest::Host)?;
            request.headers_mut().insert(HOST, value);
        }
        let host = host(request)?;
        Ok(Target { host, original, path: None, query: Query::AsItWas })
    }

    /// Finds the route, and puts the path into the form that is matched, priced and forwarded.
    pub(super) fn route<'r>(&mut self, routes: &'r RouteTable, method: &Method) -> Result<Match<'r>, Problem> {
        let normalized = normalize(self.original.path())?;
        // In another spelling it is no probe, and it is no API's either.
        if normalized.as_str().starts_with(RESERVED) {
            return Err(ProblemKind::NoRoute.into());
        }
        let Some(found) = routes.find(self.host.as_deref(), method, normalized.as_str()) else {
            return Err(normalized.empty_segment().map_or_else(|| ProblemKind::NoRoute.into(), Problem::from));
        };
        if normalized.is_ambiguous() {
            self.check_readings(&normalized, &found, routes, method)?;
        }
        let path = normalized.into_path();
        let forwarded = found.forward_path(&path);
        if forwarded != self.original.path() {
            self.path = Some(forwarded.into());
        }
        Ok(found)
    }

    /// Refuses a path with slashes that its API does not take, or that an upstream may read as a path with another route
    /// than the one that was found. An upstream that does not see the API's own path reads only the rest.
    #[cold]
    fn check_readings(
        &self,
        normalized: &Normalized<'_>,
        found: &Match<'_>,
        routes: &RouteTable,
        method: &Method,
    ) -> Result<(), BadPath> {
        normalized.check(found.api.encoded_slash, found.api.repeated_slash)?;
        let path = normalized.as_str();
        let mut read = readings(path);
        let forwarded = found.forward_path(path);
        if forwarded != path {
            let taken_off = path.strip_suffix(forwarded).unwrap_or(path);
            read.extend(readings(forwarded).iter().map(|rest| format!("{taken_off}{rest}")));
        }
        let has_same_route = |reading: &String| {
            let other = routes.find(self.host.as_deref(), method, reading);
            !reading.starts_with(RESERVED) && other.is_some_and(|other| other.route.index == found.route.index)
        };
        if read.iter().all(has_same_route) { Ok(()) } else { Err(BadPath::OtherRoute) }
    }

    /// Path and query as they came; shares their bytes.
    pub(super) fn original(&self) -> PathAndQuery {
        self.original.clone()
    }

    /// What is left of the query when keys are taken out.
    pub(super) fn set_query(&mut self, query: Option<&str>) {
        if query != self.original.query() {
            self.query = Query::Changed(query.map(Into::into));
        }
    }

    /// Path and query as they go upstream.
    pub(super) fn forwarded(&self) -> (&str, Option<&str>) {
        let query = match &self.query {
            Query::AsItWas => self.original.query(),
            Query::Changed(query) => query.as_deref(),
        };
        (self.path.as_deref().unwrap_or(self.original.path()), query)
    }

    /// The URI that goes upstream, in origin form.
    pub(super) fn into_uri(self) -> Result<Uri, Problem> {
        let changed = self.path.is_some() || matches!(self.query, Query::Changed(_));
        if !changed {
            return Ok(Uri::from(self.original));
        }
        let text = match self.forwarded() {
            (path, Some(query)) => format!("{path}?{query}"),
            (path, None) => path.to_owned(),
        };
        text.parse::<PathAndQuery>().map(Uri::from).map_err(|_| BadRequest::Target.into())
    }
}

/// The one `Host` of the request; HTTP/1.0 may do without.
fn host<B>(request: &Request<B>) -> Result<Option<Box<str>>, Problem> {
    let bad = BadRequest::Host;
    let mut values = request.headers().get_all(HOST).iter();
    let Some(value) = values.next() else {
        return if request.version() == http::Version::HTTP_10 { Ok(None) } else { Err(bad.into()) };
    };
    let Ok(text) = value.to_str() else { return Err(bad.into()) };
    if values.next().is_some() || !is_host(text) {
        return Err(bad.into());
    }
    Ok(Some(text.into()))
}

/// Whether a text is a host with or without a port; empty counts (RFC 9112 §3.2). Names and IPv4 addresses, which most
/// hosts are, need no parser.
fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let is_plain = (!name.is_empty() || text.is_empty())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit());
    is_plain || text.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'))
}

/// An authority without its user information.
fn host_and_port(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests;
