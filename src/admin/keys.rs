//! `/v1/keys` and `/v1/users/{id}/keys`.

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use http::StatusCode;
use serde::Serialize;

use super::answer::{Caller, created};
use super::fields::{Fields, OptionalFields};
use super::params::Params;
use super::path::Ids;
use super::problem::not_found;
use super::{AdminState, LOG_TARGET, value};
use crate::http::Problem;
use crate::model::{KeyId, UserId};
use crate::store::{KeyFilter, KeyRecord, Page};

/// A key and its secret: the answer to issuing and to rotating it, and to nothing else.
#[derive(Serialize)]
struct Issued<'a> {
    #[serde(flatten)]
    record: &'a KeyRecord,
    key: &'a str,
}

/// `GET /v1/keys`
pub(super) async fn list(
    State(admin): State<AdminState>,
    mut params: Params,
) -> Result<Json<Page<KeyRecord>>, Problem> {
    let filter = KeyFilter { user_id: params.id("user_id").map(UserId), api_name: params.text("api_name") };
    Ok(Json(admin.store.keys(filter, params.page()?).await?))
}

/// `GET /v1/users/{id}/keys`
pub(super) async fn list_of_user(
    State(admin): State<AdminState>,
    Ids([user]): Ids<1>,
    mut params: Params,
) -> Result<Json<Page<KeyRecord>>, Problem> {
    let filter = KeyFilter { user_id: Some(UserId(user)), api_name: params.text("api_name") };
    let wish = params.page()?;
    if admin.store.user(UserId(user)).await?.is_none() {
        return Err(not_found("user"));
    }
    Ok(Json(admin.store.keys(filter, wish).await?))
}

/// `POST /v1/users/{id}/keys`
pub(super) async fn issue(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([user]): Ids<1>,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let settings = &admin.settings;
    let api_name = fields.need("api_name", |name| value::api_name(name, &settings.apis));
    fields.done()?;
    let Some(api_name) = api_name else { return Err(fields.refuse()) };
    let new = admin.store.issue_key(UserId(user), &api_name, settings.storage, &settings.prefix).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = user, key_id = new.record.id.0, api = api_name, "key issued"
    );
    let issued = Issued { record: &new.record, key: new.key.expose() };
    Ok(created(&format!("/v1/keys/{}", new.record.id), &issued))
}

/// `GET /v1/keys/{id}`
pub(super) async fn show(State(admin): State<AdminState>, Ids([key]): Ids<1>) -> Result<Json<KeyRecord>, Problem> {
    admin.store.key(KeyId(key)).await?.map(Json).ok_or_else(|| not_found("key"))
}

/// `PATCH /v1/keys/{id}`
pub(super) async fn update(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([key]): Ids<1>,
    mut fields: Fields,
) -> Result<Json<KeyRecord>, Problem> {
    let is_active = fields.need("is_active", value::boolean);
    fields.done()?;
    let Some(is_active) = is_active else { return Err(fields.refuse()) };
    let record = admin.store.set_key_active(KeyId(key), is_active).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = record.user_id.0, key_id = key, is_active, "key changed"
    );
    Ok(Json(record))
}

/// `POST /v1/keys/{id}/rotate`: replaces the secret of a key. The body may be left out.
pub(super) async fn rotate(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([key]): Ids<1>,
    OptionalFields(mut fields): OptionalFields,
) -> Result<Response, Problem> {
    fields.read("grace_seconds", value::grace_seconds);
    fields.done()?;
    let settings = &admin.settings;
    let new = admin.store.rotate_key(KeyId(key), settings.storage, &settings.prefix).await?;
    let KeyRecord { user_id, api_name, is_active, .. } = &new.record;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = user_id.0, key_id = key, api = api_name, is_active, "key rotated"
    );
    let issued = Issued { record: &new.record, key: new.key.expose() };
    Ok(created(&format!("/v1/keys/{key}"), &issued))
}

/// `DELETE /v1/keys/{id}`
pub(super) async fn delete(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([key]): Ids<1>,
) -> Result<StatusCode, Problem> {
    admin.store.delete_key(KeyId(key)).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer, key_id = key, "key deleted"
    );
    Ok(StatusCode::NO_CONTENT)
}
