//! `/v1/users/{id}/wallet` and its entries.

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};

use super::answer::{Caller, created};
use super::fields::Fields;
use super::idempotency::Key;
use super::params::Params;
use super::path::Ids;
use super::problem::not_found;
use super::{AdminState, LOG_TARGET, value};
use crate::http::Problem;
use crate::model::{EntryId, UserId};
use crate::store::{Booking, EntryRecord, Page, WalletRecord};

/// `GET /v1/users/{id}/wallet`
pub(super) async fn wallet(
    State(admin): State<AdminState>,
    Ids([user]): Ids<1>,
) -> Result<Json<WalletRecord>, Problem> {
    admin.store.wallet(UserId(user)).await?.map(Json).ok_or_else(|| not_found("user"))
}

/// `GET /v1/users/{id}/wallet/entries`
pub(super) async fn list(
    State(admin): State<AdminState>,
    Ids([user]): Ids<1>,
    params: Params,
) -> Result<Json<Page<EntryRecord>>, Problem> {
    let entries = admin.store.entries(UserId(user), params.page()?).await?;
    entries.map(Json).ok_or_else(|| not_found("user"))
}

/// `GET /v1/users/{id}/wallet/entries/{id}`
pub(super) async fn show(
    State(admin): State<AdminState>,
    Ids([user, entry]): Ids<2>,
) -> Result<Json<EntryRecord>, Problem> {
    let entry = admin.store.entry(UserId(user), EntryId(entry)).await?;
    entry.map(Json).ok_or_else(|| not_found("entry"))
}

/// Who makes an entry when the request does not say.
const ACTOR: &str = "admin";

/// `POST /v1/users/{id}/wallet/entries`
pub(super) async fn add(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([user]): Ids<1>,
    Key(key): Key,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let direction = fields.need("kind", value::direction);
    let amount = fields.need("amount_cents", value::amount);
    let note = fields.read("note", value::note).flatten();
    let actor = fields.read("actor", value::actor).unwrap_or_else(|| ACTOR.to_owned());
    fields.done()?;
    let (Some(direction), Some(amount)) = (direction, amount) else { return Err(fields.refuse()) };
    let booking = Booking { direction, amount, note, actor: Some(actor), key };
    let booked = admin.store.book(UserId(user), booking).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = user, entry_id = booked.entry.id.0, kind = booked.entry.kind.as_str(), cents = amount.0,
        actor = booked.entry.actor, is_new = booked.is_new, "wallet changed"
    );
    let entry = booked.entry;
    Ok(created(&format!("/v1/users/{user}/wallet/entries/{}", entry.id), &entry))
}
