//! Ids in paths.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::AdminState;
use super::problem::no_route;
use crate::http::Problem;

/// The ids of a path, in their order. What is no id names nothing: 404.
pub(super) struct Ids<const N: usize>(pub(super) [i64; N]);

impl<const N: usize> FromRequestParts<AdminState> for Ids<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &AdminState) -> Result<Ids<N>, Problem> {
        let Ok(params) = RawPathParams::from_request_parts(parts, admin).await else { return Err(no_route()) };
        let mut ids = [0; N];
        let mut places = ids.iter_mut();
        for (_, text) in &params {
            let (Some(place), Some(id)) = (places.next(), id(text)) else { return Err(no_route()) };
            *place = id;
        }
        Ok(Ids(ids))
    }
}

/// A positive number, written in the one way that it is written in answers.
fn id(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}
