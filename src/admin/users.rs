//! `/v1/users`.

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};

use super::answer::{Caller, created};
use super::fields::Fields;
use super::params::Params;
use super::path::Ids;
use super::problem::not_found;
use super::{AdminState, LOG_TARGET, value};
use crate::http::Problem;
use crate::model::UserId;
use crate::store::{Page, USUAL_OPENING_BALANCE, UserChange, UserRecord};

/// `GET /v1/users`
pub(super) async fn list(State(admin): State<AdminState>, params: Params) -> Result<Json<Page<UserRecord>>, Problem> {
    Ok(Json(admin.store.users(params.page()?).await?))
}

/// `POST /v1/users`
pub(super) async fn add(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let email = fields.need("email", value::email);
    let name = fields.need("name", value::name);
    let opening = fields.read("opening_balance_cents", value::opening_balance).unwrap_or(USUAL_OPENING_BALANCE);
    fields.done()?;
    let (Some(email), Some(name)) = (email, name) else { return Err(fields.refuse()) };
    let user = admin.store.add_user(&email, &name, opening).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = user.id.0, cents = opening.0, "user added"
    );
    Ok(created(&format!("/v1/users/{}", user.id), &user))
}

/// `GET /v1/users/{id}`
pub(super) async fn show(State(admin): State<AdminState>, Ids([user]): Ids<1>) -> Result<Json<UserRecord>, Problem> {
    let user = admin.store.user(UserId(user)).await?;
    user.map(Json).ok_or_else(|| not_found("user"))
}

/// `PATCH /v1/users/{id}`
pub(super) async fn update(
    State(admin): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Ids([user]): Ids<1>,
    mut fields: Fields,
) -> Result<Json<UserRecord>, Problem> {
    let change = UserChange {
        email: fields.read("email", value::email),
        name: fields.read("name", value::name),
        is_active: fields.read("is_active", value::boolean),
    };
    fields.done()?;
    let (new_email, new_name, is_active) = (change.email.is_some(), change.name.is_some(), change.is_active);
    let user = admin.store.update_user(UserId(user), change).await?;
    tracing::info!(
        target: LOG_TARGET, request_id = %caller.request_id, peer = ?caller.peer,
        user_id = user.id.0, new_email, new_name, is_active, "user changed"
    );
    Ok(Json(user))
}
