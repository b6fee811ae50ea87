//! What is known of a request, for its line in the log and its place in the metrics, both written when its reply ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};

use super::Shared;
use super::headers::RequestId;
use super::problem::Problem;
use super::route::Api;
use crate::auth::Known;
use crate::billing::Hold;
use crate::model::{Cents, ChargeId, KeyId, UserId};
use crate::telemetry::access::AccessLine;

/// The record of one request. Cloning shares it; the last clone to be dropped writes it.
#[derive(Clone)]
pub(super) struct Record {
    inner: Arc<Inner>,
}

struct Inner {
    request_id: RequestId,
    client: SocketAddr,
    method: Method,
    path: Option<PathAndQuery>,
    started: Instant,
    shared: Arc<Shared>,
    notes: Mutex<Notes>,
}

/// What is learned on the way.
#[derive(Default)]
struct Notes {
    api: Option<(usize, Arc<str>)>,
    user: Option<(UserId, KeyId)>,
    status: Option<StatusCode>,
    problem: Option<&'static str>,
    charge: Option<ChargeId>,
    cost: Option<Cents>,
    upstream: Option<Duration>,
}

impl Record {
    pub(super) fn new<B>(
        request_id: &RequestId,
        client: SocketAddr,
        request: &Request<B>,
        shared: Arc<Shared>,
    ) -> Record {
        shared.parts.metrics.requests_open.inc();
        Record {
            inner: Arc::new(Inner {
                request_id: request_id.clone(),
                client,
                method: request.method().clone(),
                path: request.uri().path_and_query().cloned(),
                started: Instant::now(),
                shared,
                notes: Mutex::default(),
            }),
        }
    }

    pub(super) fn routed(&self, api: &Api) {
        self.notes().api = Some((api.index, Arc::clone(&api.name)));
    }

    pub(super) fn authenticated(&self, known: &Known) {
        self.notes().user = Some((known.user_id(), known.key_id()));
    }

    pub(super) fn held(&self, hold: &Hold) {
        self.notes().charge = Some(hold.charge_id());
    }

    /// Who the request is for, when its key was read.
    pub(super) fn user(&self) -> Option<(UserId, KeyId)> {
        self.notes().user
    }

    pub(super) fn upstream_answered(&self, after: Duration) {
        let mut notes = self.notes();
        notes.upstream = Some(after);
        if let Some((index, _)) = &notes.api
            && let Some(metrics) = self.inner.shared.parts.metrics.api(*index)
        {
            metrics.upstream_answered(after);
        }
    }

    /// What the request cost in the end.
    pub(super) fn settled(&self, cost: Cents) {
        self.notes().cost = Some(cost);
    }

    pub(super) fn replied(&self, status: StatusCode) {
        self.notes().status = Some(status);
    }

    pub(super) fn refused(&self, problem: &Problem) {
        let code = problem.code();
        self.inner.shared.parts.metrics.refused(code.index());
        let mut notes = self.notes();
        notes.problem = Some(code.as_str());
        notes.status = Some(problem.status());
    }

    /// Whether Keytoll itself is cutting what is left.
    pub(super) fn is_cutting(&self) -> bool {
        self.inner.shared.is_cutting()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// nginx's number for a client that left before it had a reply; only in the log.
const CLIENT_LEFT: u16 = 499;

impl Drop for Inner {
    fn drop(&mut self) {
        let notes = self.notes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let duration = self.started.elapsed();
        let metrics = &self.shared.parts.metrics;
        metrics.requests_open.dec();
        if let (Some((index, _)), Some(status)) = (&notes.api, notes.status)
            && let Some(api) = metrics.api(*index)
        {
            api.replied(status, duration);
        }
        AccessLine {
            request_id: self.request_id.as_str(),
            client: self.client.ip(),
            method: self.method.as_str(),
            path: self.path.as_ref().map_or("*", |path| path.path()),
            api: notes.api.as_ref().map(|(_, name)| &**name),
            user_id: notes.user.map(|(user, _)| user.0),
            key_id: notes.user.map(|(_, key)| key.0),
            status: notes.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            problem: notes.problem,
            cost_cents: notes.cost.map(|cost| cost.0),
            charge_id: notes.charge.map(|charge| charge.0),
            duration,
            upstream: notes.upstream,
        }
        .emit();
    }
}
