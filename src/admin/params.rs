//! Queries: every parameter known, given once and right, and all that is wrong said at once.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;

use super::AdminState;
use super::problem::{FieldError, invalid, invalid_fields};
use crate::http::Problem;
use crate::model::Timestamp;
use crate::store::PageRequest;

/// The parameters of a query, taken out one by one.
pub(super) struct Params {
    left: Vec<(String, String)>,
    mistakes: Vec<FieldError>,
}

impl Params {
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, Cow<'static, str>>) -> Option<T> {
        let found: Vec<String> = self.left.extract_if(.., |(given, _)| given == name).map(|(_, text)| text).collect();
        let value = match found.as_slice() {
            [] => return None,
            [text] => read(text),
            [..] => Err("is given more than once".into()),
        };
        value.map_err(|message| self.mistakes.push(FieldError { field: name.to_owned(), message })).ok()
    }

    /// `user_id`, `key_id`: a positive number.
    pub(super) fn id(&mut self, name: &str) -> Option<i64> {
        self.read(name, |text| match text.parse() {
            Ok(id) if id > 0 => Ok(id),
            Ok(_) | Err(_) => Err("must be an id: a positive whole number".into()),
        })
    }

    /// `api_name`: any text; an API that is configured no more has its keys and charges still.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, |text| Ok(text.to_owned()))
    }

    /// `from`, `to`: RFC 3339.
    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.read(name, |text| {
            Timestamp::parse_rfc3339(text).ok_or("must be an RFC 3339 time, as 2026-01-31T12:00:00Z".into())
        })
    }

    /// The last thing to be read: `limit` and `cursor`; refuses what is left over.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub(super) fn page(mut self) -> Result<PageRequest, Problem> {
        let limit = self.read("limit", |text| match text.parse() {
            Ok(limit) if (1..=PageRequest::MOST).contains(&limit) => Ok(limit),
            Ok(_) | Err(_) => Err(format!("must be a whole number from 1 to {}", PageRequest::MOST).into()),
        });
        let cursor =
            self.read("cursor", |text| text.parse().map_err(|_| "must be the next_cursor of the page before".into()));
        for (field, _) in self.left {
            self.mistakes.push(FieldError { field, message: "is not a parameter of this list".into() });
        }
        if !self.mistakes.is_empty() {
            return Err(invalid_fields(&self.mistakes));
        }
        Ok(PageRequest { limit: limit.unwrap_or(PageRequest::USUAL), cursor })
    }
}

impl FromRequestParts<AdminState> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AdminState) -> Result<Params, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(left)) => Ok(Params { left, mistakes: Vec::new() }),
            Err(_) => Err(invalid("", "the query must be NAME=VALUE pairs")),
        }
    }
}
