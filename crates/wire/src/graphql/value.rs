//! From a literal of GraphQL to JSON, with variables put in.

use std::collections::BTreeMap;

use apollo_parser::cst::{self, CstNode};
use serde_json::{Map, Value};

use super::GraphqlError;
use crate::limits::GRAPHQL_DEPTH_MAX;

/// A value where a variable may be absent.
pub(super) enum Inserted {
    Absent,
    Present(Value),
}

const CUT: GraphqlError = GraphqlError::Malformed("a value is not GraphQL");

pub(super) fn resolve(
    given: &cst::Value,
    variables: &BTreeMap<String, Value>,
    depth: usize,
) -> Result<Inserted, GraphqlError> {
    if depth > GRAPHQL_DEPTH_MAX {
        return Err(GraphqlError::TooLarge("the nesting of a value"));
    }
    let deeper = depth.saturating_add(1);
    let value = match given {
        cst::Value::Variable(variable) => {
            let name = variable.name().ok_or(CUT)?.text().to_string();
            return Ok(match variables.get(&name) {
                Some(value) => Inserted::Present(value.clone()),
                None => Inserted::Absent,
            });
        }
        cst::Value::StringValue(text) => Value::String(String::from(text)),
        cst::Value::IntValue(_) | cst::Value::FloatValue(_) => number(given)?,
        cst::Value::BooleanValue(value) => Value::Bool(value.true_token().is_some()),
        cst::Value::NullValue(_) => Value::Null,
        cst::Value::EnumValue(value) => Value::String(value.name().ok_or(CUT)?.text().to_string()),
        cst::Value::ListValue(list) => {
            let mut values = Vec::new();
            for item in list.values() {
                values.push(match resolve(&item, variables, deeper)? {
                    Inserted::Present(value) => value,
                    Inserted::Absent => Value::Null,
                });
            }
            Value::Array(values)
        }
        cst::Value::ObjectValue(object) => {
            let mut fields = Map::new();
            let mut names = std::collections::BTreeSet::new();
            for field in object.object_fields() {
                let name = field.name().ok_or(CUT)?.text().to_string();
                if !names.insert(name.clone()) {
                    return Err(GraphqlError::Ambiguous("a field of a value stands twice"));
                }
                let given = field.value().ok_or(CUT)?;
                if let Inserted::Present(value) = resolve(&given, variables, deeper)? {
                    fields.insert(name, value);
                }
            }
            Value::Object(fields)
        }
    };
    Ok(Inserted::Present(value))
}

/// A number as JSON has it; one that JSON cannot hold stays as text.
fn number(given: &cst::Value) -> Result<Value, GraphqlError> {
    let text = given.syntax().text().to_string();
    let text = text.trim_matches([' ', '\t', '\r', '\n', ',', '\u{feff}']);
    match serde_json::from_str::<serde_json::Number>(text) {
        Ok(number) => Ok(Value::Number(number)),
        Err(_) if text.bytes().any(|byte| byte.is_ascii_digit()) => {
            Ok(Value::String(text.to_owned()))
        }
        Err(_) => Err(CUT),
    }
}
