//! Bodies: one JSON object, every field of it known and right, and all that is wrong said at once.

use std::borrow::Cow;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::AdminState;
use super::json::{self, JsonError};
use super::problem::{FieldError, invalid, invalid_fields, repeated_key};
use crate::http::{Problem, ProblemKind, body_too_large};

/// The fields of a body, taken out one by one.
pub(super) struct Fields {
    left: Map<String, Value>,
    mistakes: Vec<FieldError>,
}

/// What a field's value is, or what is wrong with it.
pub(super) type Read<T> = Result<T, Cow<'static, str>>;

impl Fields {
    /// Takes a field that may be left out.
    pub(super) fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        let value = self.left.remove(name)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistakes.push(FieldError { field: name.to_owned(), message });
                None
            }
        }
    }

    /// Takes a field that must be there.
    pub(super) fn need<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Read<T>) -> Option<T> {
        if !self.left.contains_key(name) {
            self.mistakes.push(FieldError { field: name.to_owned(), message: "is missing".into() });
        }
        self.read(name, read)
    }

    /// After the last field: refuses what is left over.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub(super) fn done(&mut self) -> Result<(), Problem> {
        for (field, _) in std::mem::take(&mut self.left) {
            self.mistakes.push(FieldError { field, message: "is not a field of this request".into() });
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.refuse()) }
    }

    /// Every mistake that was found, as a problem.
    pub(super) fn refuse(&mut self) -> Problem {
        invalid_fields(&std::mem::take(&mut self.mistakes))
    }
}

impl FromRequest<AdminState> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &AdminState) -> Result<Fields, Problem> {
        if !says_json(request.headers()) {
            return Err(ProblemKind::WrongType.into());
        }
        let gathered = gather(request.into_body(), admin.settings.body_bytes);
        let bytes = tokio::time::timeout(admin.settings.body_timeout, gathered).await;
        let bytes = bytes.map_err(|_| ProblemKind::BodyTimeout)??;
        match json::from_slice(&bytes) {
            Ok(Value::Object(left)) => Ok(Fields { left, mistakes: Vec::new() }),
            Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                Err(invalid("", "the body must be a JSON object"))
            }
            Err(JsonError::Syntax(error)) => {
                Err(ProblemKind::BadJson.with_detail(format!("The request body is not JSON: {error}.")))
            }
            Err(JsonError::RepeatedKey(key)) => Err(repeated_key(&key)),
        }
    }
}

/// The fields of a body that may be left out: a request without a body has no fields.
pub(super) struct OptionalFields(pub(super) Fields);

impl FromRequest<AdminState> for OptionalFields {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &AdminState) -> Result<OptionalFields, Problem> {
        if request.body().size_hint().exact() == Some(0) {
            return Ok(OptionalFields(Fields { left: Map::new(), mistakes: Vec::new() }));
        }
        Fields::from_request(request, admin).await.map(OptionalFields)
    }
}

async fn gather(body: Body, limit_bytes: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || body_too_large(limit_bytes as u64);
    // One that announces too much is not waited for.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced <= limit_bytes) {
        match Limited::new(body, limit_bytes).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(_) => Err(ProblemKind::BadRequest.with_detail("The request body broke off.")),
        }
    } else {
        Err(too_large())
    }
}

/// `application/json`, or a type with `+json` at its end (RFC 6839 §3.1), with or without parameters.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(line) = headers.get(CONTENT_TYPE).and_then(|line| line.to_str().ok()) else { return false };
    let media = line.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}
