//! From a paid passage to the reply: forward, settle by the outcome, and hand the reply on.
//!
//! Runs to its end even when the client goes away ([`super::detach`]).

use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use http::header::TRANSFER_ENCODING;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::Gateway;
use super::headers::{ForUpstream, Identity, Peer, to_upstream, upgrade_requested};
use super::payment::Payment;
use super::reply::ReplyBody;
use super::request_body::{Collection, ContinueGate, RequestBody, Streamed, expects_continue};
use super::route::Match;
use super::settle::{AbortCause, Settle};
use super::target::Target;
use crate::billing::{Hold, Passage};
use crate::config::ExchangePolicy;
use crate::failpoint;
use crate::http::{Problem, ProblemKind, Record};

/// A request that may go upstream.
pub(super) struct Exchange {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Arc<Peer>,
    pub(super) passage: Passage,
    pub(super) record: Record,
    pub(super) policy: ExchangePolicy,
}

/// The request in the form that goes upstream, and what of it decides on the reply.
pub(super) struct Outgoing {
    request: Request<RequestBody>,
    is_http10: bool,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

impl Exchange {
    /// Puts the request into the form that goes upstream. `collected`: its body, if that was read already.
    pub(super) fn outgoing(
        &self,
        found: &Match<'_>,
        target: Target,
        request: &mut Request<Option<Incoming>>,
        collected: Option<Collection>,
    ) -> Result<Outgoing, Problem> {
        let upgrade = upgrade_requested(request.headers(), request.version());
        let upgrade = upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut *request)));
        let hold = self.passage.hold();
        let identity = self.record.user().map(|(user_id, key_id)| Identity {
            user_id,
            key_id,
            charge_id: hold.map(Hold::charge_id),
            retry_of: hold.and_then(Hold::retry_of),
        });
        let shared = &self.gateway.shared;
        let expects_continue = collected.is_none() && expects_continue(request);
        let about = ForUpstream {
            request_id: self.record.request_id(),
            api: &found.api.name_value,
            identity,
            peer: &self.peer,
            credentials: &shared.credential_headers,
            via: shared.via.entry(request.version()),
            stripped_prefix: found.api.stripped_prefix.as_ref(),
            upgrade: upgrade.as_ref().map(|(protocol, _)| protocol.clone()),
            expects_continue,
            version: request.version(),
        };
        to_upstream(request.headers_mut(), about);
        let mut outgoing = Request::new(RequestBody::default());
        if let Some(collected) = collected {
            *outgoing.body_mut() = collected.into();
        } else if let Some(incoming) = request.body_mut().take().filter(|incoming| !incoming.is_end_stream()) {
            if incoming.size_hint().exact().is_none() {
                // hyper would send a GET of unknown length without its body.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let limit = shared.parts.limits.expect_continue;
            let gate = expects_continue.then(|| ContinueGate::new(&mut outgoing, limit));
            *outgoing.body_mut() =
                Streamed::new(incoming, &shared.body_limits(&self.policy), gate, &self.record).into();
        }
        let is_http10 = request.version() == Version::HTTP_10;
        *outgoing.uri_mut() = target.into_uri()?;
        *outgoing.method_mut() = mem::take(request.method_mut());
        *outgoing.headers_mut() = mem::take(request.headers_mut());
        Ok(Outgoing { request: outgoing, is_http10, upgrade })
    }

    /// Forwards, settles by the outcome, and makes the reply. A problem after a hold has its receipt, and so is made
    /// here.
    pub(super) async fn run(self, api: usize, outgoing: Outgoing) -> Result<Response<ReplyBody>, Problem> {
        let Exchange { gateway, passage, record, policy, .. } = self;
        let Outgoing { request, is_http10, upgrade } = outgoing;
        let upstream = gateway.upstreams.get(api).ok_or(ProblemKind::Internal)?;
        let charge_on = &gateway.shared.parts.routes.apis().get(api).ok_or(ProblemKind::Internal)?.charge_on;
        let started = Instant::now();
        let sent = upstream.send(&passage, &policy, request).await;
        failpoint::reach("reply-begun");
        record.upstream_answered(started.elapsed());
        // Each hop has a version of its own (RFC 9110 §6.2); that of an HTTP/1.0 upstream would also take away the
        // chunks that tell the end of a reply from a break.
        let sent = sent.map(|mut reply| {
            *reply.version_mut() = Version::HTTP_11;
            reply
        });
        if let Err(error) = &sent {
            let cause = error.source();
            tracing::debug!(request_id = record.request_id().as_str(), %error, cause, "the upstream gave no reply");
        }
        let payment = passage.into_hold().map(|hold| Payment::new(hold, record.clone()));
        let settle = Settle { gateway: &gateway, charge_on, policy: &policy, is_http10, record: &record };
        Ok(match sent {
            // Rare branches are boxed, here and below, to keep this future small.
            Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Box::pin(settle.switched(payment, reply, upgrade)).await
            }
            Ok(reply) => settle.replied(payment, reply).await,
            Err(error) => Box::pin(settle.failed(payment, Problem::from(&error), AbortCause::of(&error))).await,
        })
    }
}
