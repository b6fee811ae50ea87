//! JSON in which no object has the same key twice.
//!
//! `serde_json` keeps the last of several values with the same key, other readers the first (RFC 8259 §4): such a body
//! means different things to different programs, and is refused. Keys are compared after their escapes are decoded.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How many characters of a repeated key are shown.
const SHOWN_CHARS: usize = 100;

/// Why a body is not read.
#[derive(Debug)]
pub(super) enum JsonError {
    /// It is not JSON.
    Syntax(serde_json::Error),
    /// An object, at any depth, has this key more than once. A long key is cut.
    RepeatedKey(String),
}

/// Reads one JSON value.
///
/// # Errors
/// See [`JsonError`].
pub(super) fn from_slice(bytes: &[u8]) -> Result<Value, JsonError> {
    let repeated = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = UniqueKeys(&repeated).deserialize(&mut deserializer);
    let read = read.and_then(|value| deserializer.end().map(|()| value));
    read.map_err(|error| match repeated.into_inner() {
        Some(key) => JsonError::RepeatedKey(key),
        None => JsonError::Syntax(error),
    })
}

/// Reads a value as `serde_json::Value` does, and stops at the first repeated key, which it leaves in the cell.
#[derive(Clone, Copy)]
struct UniqueKeys<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for UniqueKeys<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                *self.0.borrow_mut() = Some(key.chars().take(SHOWN_CHARS).collect());
                return Err(A::Error::custom("a key is repeated"));
            }
            let value = entries.next_value_seed(self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn repeated(text: &str) -> Option<String> {
        match from_slice(text.as_bytes()) {
            Err(JsonError::RepeatedKey(key)) => Some(key),
            Ok(_) | Err(JsonError::Syntax(_)) => None,
        }
    }

    #[test]
    fn a_repeated_key_is_found_at_any_depth_and_in_any_spelling() {
        for (text, key) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"a":1,"b":2,"a":null}"#, "a"),
            (r#"{"":1,"":2}"#, ""),
            (r#"{"amount_cents":1,"a\u006dount_cents":1000}"#, "amount_cents"),
            (r#"{"a\/b":1,"a/b":2}"#, "a/b"),
            (r#"{"\ud83d\ude00":1,"😀":2}"#, "😀"),
            (r#"{"x":{"y":[1,{"z":1,"z":2}]}}"#, "z"),
            (r#"[{"a":1},{"a":1,"a":2}]"#, "a"),
            // Found before the end, so also where the end is broken.
            (r#"{"a":1,"a":2"#, "a"),
        ] {
            assert_eq!(repeated(text).as_deref(), Some(key), "{text}");
        }
        let long = "k".repeat(5000);
        assert_eq!(repeated(&format!("{{\"{long}\":1,\"{long}\":1}}")), Some("k".repeat(100)));
    }

    #[test]
    fn the_same_key_in_different_objects_is_not_repeated() {
        let text = r#"{"a":{"a":1},"b":[{"a":1},{"a":2}],"A":3}"#;
        assert_eq!(from_slice(text.as_bytes()).unwrap(), json!({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "A": 3}));
    }

    #[test]
    fn what_is_not_json_is_refused_as_serde_json_refuses_it() {
        let deep = "[".repeat(1000);
        for text in ["", "{", "{\"a\":}", "{} {}", "1e999", "nul", "\"\u{1}\"", "{1:2}", &deep] {
            let ours = from_slice(text.as_bytes());
            let Err(JsonError::Syntax(ours)) = ours else { panic!("{text:?}: {ours:?}") };
            let theirs = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(ours.to_string(), theirs.to_string(), "{text:?}");
        }
        assert!(matches!(from_slice(b"\"\xff\""), Err(JsonError::Syntax(_))));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let array = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let object = prop::collection::hash_map(any::<String>(), inner, 0..4);
            prop_oneof![array, object.prop_map(|entries| Value::Object(entries.into_iter().collect()))]
        })
    }

    proptest! {
        #[test]
        fn any_other_value_is_read_as_serde_json_reads_it(value in value()) {
            let text = value.to_string();
            let theirs: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(from_slice(text.as_bytes()).unwrap(), theirs);
        }
    }
}
