//! `/v1/charges`.

use axum::Json;
use axum::extract::State;

use super::AdminState;
use super::params::Params;
use super::path::Ids;
use super::problem::not_found;
use crate::http::Problem;
use crate::model::{ChargeId, KeyId, UserId};
use crate::store::{ChargeFilter, ChargeRecord, Page};

/// `GET /v1/charges`. A page may hold fewer than `limit` and still have a `next_cursor`.
pub(super) async fn list(
    State(admin): State<AdminState>,
    mut params: Params,
) -> Result<Json<Page<ChargeRecord>>, Problem> {
    let filter = ChargeFilter {
        user_id: params.id("user_id").map(UserId),
        key_id: params.id("key_id").map(KeyId),
        api_name: params.text("api_name"),
        from: params.time("from"),
        to: params.time("to"),
    };
    Ok(Json(admin.store.charges(filter, params.page()?).await?))
}

/// `GET /v1/charges/{id}`
pub(super) async fn show(
    State(admin): State<AdminState>,
    Ids([charge]): Ids<1>,
) -> Result<Json<ChargeRecord>, Problem> {
    admin.store.charge(ChargeId(charge)).await?.map(Json).ok_or_else(|| not_found("charge"))
}
