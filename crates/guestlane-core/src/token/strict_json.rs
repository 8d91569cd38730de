//! Parses JSON objects and rejects duplicate member names (RFC 7515, section 4; RFC 7519, section
//! 4).
//!
//! Of two equal names, one parser uses the first and another the last.

use std::cell::RefCell;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Why a text is not a JSON object with unique names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StrictJsonError {
    /// The text is not a JSON object.
    NotAnObject,
    /// This name occurs twice in the object or in a nested one.
    DuplicateName(String),
}

/// Parses one JSON object.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, StrictJsonError> {
    let twice = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = Unique(&twice)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match (read, twice.into_inner()) {
        (Ok(Value::Object(object)), _) => Ok(object),
        // A duplicate name is only reported if the text is JSON otherwise.
        (Err(_), Some(name)) if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
            Err(StrictJsonError::DuplicateName(name))
        }
        _ => Err(StrictJsonError::NotAnObject),
    }
}

/// Deserializes any value, and records a name that occurs twice.
#[derive(Clone, Copy)]
struct Unique<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                self.0.replace(Some(name));
                return Err(A::Error::custom("duplicate name"));
            }
            let value = members.next_value_seed(self)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_parses_as_with_serde_json() {
        let text =
            r#"{"a":1,"b":[true,null,{"a":-2.5}],"c":"\u00e4","d":{},"e":18446744073709551615}"#;
        assert_eq!(
            Value::from(object(text.as_bytes()).unwrap()),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn duplicate_name_is_rejected_at_any_depth_and_escaping() {
        let twice = |text: &str| object(text.as_bytes()).unwrap_err();
        assert_eq!(
            twice(r#"{"a":1,"b":2,"a":1}"#),
            StrictJsonError::DuplicateName("a".into())
        );
        assert_eq!(
            twice(r#"{"a":1,"\u0061":2}"#),
            StrictJsonError::DuplicateName("a".into())
        );
        assert_eq!(
            twice(r#"{"x":[{"y":{"a":1,"a":2}}]}"#),
            StrictJsonError::DuplicateName("a".into())
        );
        for text in [
            "",
            "[]",
            "1",
            "{",
            r#"{"a":1}{"#,
            r#"{"a":1}{}"#,
            r#"{"a":1,"a":2"#,
            r#"{"a":1e999}"#,
        ] {
            assert_eq!(twice(text), StrictJsonError::NotAnObject, "{text}");
        }
    }
}
