//! The steps of the request path one by one, for `benches/pieces`, which stands outside of the crate.
//!
//! Only a build with the feature `bench`, which no release has, has this module. It calls the steps as
//! [`super::Gateway`] does, and adds nothing that would be measured with them.

#![cfg(feature = "bench")]

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

use super::credential;
use super::headers::{CredentialHeaders, ForUpstream, Identity, Peer, Receipt, Via, to_client, to_upstream};
use super::route::RouteTable;
use super::target::Target;
use crate::config::CredentialSource;
use crate::http::RequestId;
use crate::model::{ApiKey, Cents, ChargeId, Principal};

/// Reads the target of a request, puts its path into normal form and finds its route: the route's index. `None`: the
/// request is refused.
pub fn route<B>(routes: &RouteTable, request: &mut Request<B>) -> Option<usize> {
    let mut target = Target::of(request).ok()?;
    target.route(routes, request.method()).ok().map(|found| found.route.index)
}

/// Takes the key out of a request. `None`: the request is refused.
pub fn take_key(headers: &mut HeaderMap, sources: &[CredentialSource], key_bytes: usize) -> Option<ApiKey> {
    credential::take(headers, None, sources, key_bytes).ok().map(|taken| taken.key)
}

/// What is said in the headers of a priced request and of its reply.
pub struct Sayings {
    request_id: RequestId,
    api: HeaderValue,
    identity: Identity,
    peer: Peer,
    credentials: CredentialHeaders,
    via: Via,
    receipt: Receipt,
}

impl Sayings {
    /// For a request of this principal's, from an address that is not a trusted proxy's.
    pub fn new(principal: &Principal, address: IpAddr) -> Sayings {
        let charge_id = ChargeId(1_234_567);
        Sayings {
            request_id: RequestId::generate(),
            api: HeaderValue::from_static("weather"),
            identity: Identity {
                user_id: principal.user_id,
                key_id: principal.key_id,
                charge_id: Some(charge_id),
                retry_of: None,
            },
            peer: Peer::new(address, false),
            credentials: CredentialHeaders::of(&[CredentialSource::Header(HeaderName::from_static("x-api-key"))]),
            via: Via::new(),
            receipt: Receipt { charge_id, cost: Cents(2), balance: Cents(498) },
        }
    }

    /// Turns a client's header section, from which the key is out already, into the one that goes upstream.
    pub fn to_upstream(&self, headers: &mut HeaderMap) {
        let about = ForUpstream {
            request_id: &self.request_id,
            api: &self.api,
            identity: Some(self.identity),
            peer: &self.peer,
            credentials: &self.credentials,
            via: self.via.entry(Version::HTTP_11),
            stripped_prefix: None,
            upgrade: None,
            expects_continue: false,
            version: Version::HTTP_11,
        };
        to_upstream(headers, about);
    }

    /// Turns an upstream's header section into the one that goes to the client, with its receipt.
    pub fn to_client(&self, headers: &mut HeaderMap) {
        to_client(headers, Some(&self.receipt), None);
    }
}
