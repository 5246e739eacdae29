//! JSON that has one meaning: no key twice, nothing after the end.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::GraphqlError;
use crate::limits::JSON_DEPTH_MAX;

const TWICE: &str = "a JSON key stands twice";
const DEEP: &str = "JSON is nested too deep";

/// Reads JSON and refuses objects that have one key twice.
///
/// In the outermost object, and in the objects of an outermost array, two keys that differ only in
/// case count as one: there are servers that do not look at the case.
///
/// # Errors
/// [`GraphqlError::Ambiguous`] for a key that stands twice, [`GraphqlError::TooLarge`] for deep
/// nesting, [`GraphqlError::Malformed`] for the rest.
pub fn strict_json(bytes: &[u8]) -> Result<Value, GraphqlError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict {
        depth: 0,
        fold: true,
    }
    .deserialize(&mut reader)
    .and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| {
        let text = error.to_string();
        if text.starts_with(TWICE) {
            GraphqlError::Ambiguous(TWICE)
        } else if text.starts_with(DEEP) || text.starts_with("recursion limit") {
            GraphqlError::TooLarge(DEEP)
        } else {
            GraphqlError::Malformed("not JSON")
        }
    })
}

struct Strict {
    depth: usize,
    fold: bool,
}

impl Strict {
    fn deeper<E: Error>(&self, fold: bool) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(DEEP));
        }
        Ok(Self {
            depth: self.depth.saturating_add(1),
            fold,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self.deeper(self.fold && self.depth == 0)?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let same = if self.fold {
                key.to_lowercase()
            } else {
                key.clone()
            };
            if !seen.insert(same) {
                return Err(A::Error::custom(TWICE));
            }
            let value = map.next_value_seed(self.deeper(false)?)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
