//! Values in documents and variables, as the types want them.

use std::collections::BTreeMap;

use apollo_parser::cst::{self, CstNode};
use serde_json::{Map, Value};

use super::Invalid;
use super::schema::{Definite, Schema, Type};
use crate::limits;

/// The variables of one operation: their types and the values that were given.
pub(super) type Variables = BTreeMap<String, (Type, Option<Value>)>;

/// Checks a value that was given as JSON.
pub(super) fn json(schema: &Schema, wanted: &Type, given: &Value) -> Result<Value, String> {
    match (wanted, given) {
        (Type::NonNull(_), Value::Null) => Err(format!(
            "Expected non-nullable type \"{wanted}\" not to be null."
        )),
        (_, Value::Null) => Ok(Value::Null),
        (Type::NonNull(inner), _) => json(schema, inner, given),
        (Type::List(inner), Value::Array(many)) => {
            let many = many.iter().map(|one| json(schema, inner, one));
            Ok(Value::Array(many.collect::<Result<_, _>>()?))
        }
        (Type::List(inner), _) => Ok(Value::Array(vec![json(schema, inner, given)?])),
        (Type::Named(name), _) => match schema.find(name) {
            Some(Definite::Enum(words)) => match given.as_str() {
                Some(word) if words.contains(word) => Ok(given.clone()),
                _ => Err(format!("Value {given} does not exist in \"{name}\" enum.")),
            },
            Some(Definite::Input(fields)) => {
                let given = given.as_object();
                let given =
                    given.ok_or_else(|| format!("Expected type \"{name}\" to be an object."))?;
                let each = |at: &str, wanted: &Type| {
                    given
                        .get(at)
                        .map(|one| json(schema, wanted, one))
                        .transpose()
                };
                object(name, fields, given.keys(), each)
            }
            _ => scalar(name, given),
        },
    }
}

/// Reads a literal; `None` is a variable that was not given.
pub(super) fn literal(
    schema: &Schema,
    wanted: &Type,
    given: &cst::Value,
    variables: &Variables,
) -> Result<Option<Value>, Invalid> {
    if let cst::Value::Variable(variable) = given {
        return variable_value(wanted, variable, variables);
    }
    let wrong = || {
        let text = given.syntax().text().to_string();
        Invalid::validation(format!(
            "Expected value of type \"{wanted}\", found {}.",
            text.trim()
        ))
    };
    let inner = match wanted {
        Type::NonNull(_) if matches!(given, cst::Value::NullValue(_)) => return Err(wrong()),
        Type::NonNull(inner) => return literal(schema, inner, given, variables),
        Type::List(inner) => inner,
        Type::Named(name) => return named(schema, name, given, variables).map(Some),
    };
    match given {
        cst::Value::ListValue(list) => {
            let mut many = Vec::new();
            for one in list.values() {
                many.push(literal(schema, inner, &one, variables)?.unwrap_or(Value::Null));
            }
            Ok(Some(Value::Array(many)))
        }
        cst::Value::NullValue(_) => Ok(Some(Value::Null)),
        _ => Ok(literal(schema, inner, given, variables)?.map(|one| Value::Array(vec![one]))),
    }
}

fn variable_value(
    wanted: &Type,
    variable: &cst::Variable,
    variables: &Variables,
) -> Result<Option<Value>, Invalid> {
    let name = variable
        .name()
        .map(|name| name.text().to_string())
        .unwrap_or_default();
    let Some((own, value)) = variables.get(&name) else {
        return Err(Invalid::validation(format!(
            "Variable \"${name}\" is not defined."
        )));
    };
    if !own.fits(wanted) {
        let text = format!(
            "Variable \"${name}\" of type \"{own}\" used in position expecting type \"{wanted}\"."
        );
        return Err(Invalid::validation(text));
    }
    Ok(value.clone())
}

fn named(
    schema: &Schema,
    name: &str,
    given: &cst::Value,
    variables: &Variables,
) -> Result<Value, Invalid> {
    let wrong = |text: String| Invalid::validation(text);
    match (schema.find(name), given) {
        (_, cst::Value::NullValue(_)) => Ok(Value::Null),
        (Some(Definite::Enum(words)), cst::Value::EnumValue(word)) => {
            let word = word
                .name()
                .map(|name| name.text().to_string())
                .unwrap_or_default();
            match words.contains(&word) {
                true => Ok(Value::String(word)),
                false => Err(wrong(format!(
                    "Value \"{word}\" does not exist in \"{name}\" enum."
                ))),
            }
        }
        (Some(Definite::Input(fields)), cst::Value::ObjectValue(object)) => {
            input(schema, (name, fields), object, variables)
        }
        (Some(Definite::Scalar), _) => scalar(name, &free(given, variables, 0)?).map_err(wrong),
        _ => {
            let text = given.syntax().text().to_string();
            Err(wrong(format!(
                "Expected value of type \"{name}\", found {}.",
                text.trim()
            )))
        }
    }
}

fn input(
    schema: &Schema,
    (name, fields): (&str, &BTreeMap<String, Type>),
    given: &cst::ObjectValue,
    variables: &Variables,
) -> Result<Value, Invalid> {
    let mut values = BTreeMap::new();
    for field in given.object_fields() {
        let at = field
            .name()
            .map(|name| name.text().to_string())
            .unwrap_or_default();
        let (Some(wanted), Some(value)) = (fields.get(&at), field.value()) else {
            let text = format!("Field \"{at}\" is not defined by type \"{name}\".");
            return Err(Invalid::validation(text));
        };
        let value = literal(schema, wanted, &value, variables)?;
        if values.insert(at.clone(), value).is_some() {
            let text = format!("There can be only one input field named \"{at}\".");
            return Err(Invalid::validation(text));
        }
    }
    let each = |at: &str, _: &Type| Ok(values.get(at).cloned().flatten());
    object(name, fields, values.keys(), each).map_err(Invalid::validation)
}

fn object<'a>(
    name: &str,
    fields: &BTreeMap<String, Type>,
    given: impl Iterator<Item = &'a String>,
    mut each: impl FnMut(&str, &Type) -> Result<Option<Value>, String>,
) -> Result<Value, String> {
    for at in given {
        if !fields.contains_key(at) {
            return Err(format!("Field \"{at}\" is not defined by type \"{name}\"."));
        }
    }
    let mut object = Map::new();
    for (at, wanted) in fields {
        match (each(at, wanted)?, wanted) {
            (Some(value), _) => {
                object.insert(at.clone(), value);
            }
            (None, Type::NonNull(_)) => {
                return Err(format!(
                    "Field \"{name}.{at}\" of required type \"{wanted}\" was not provided."
                ));
            }
            (None, _) => {}
        }
    }
    Ok(Value::Object(object))
}

fn scalar(name: &str, given: &Value) -> Result<Value, String> {
    let fits = match name {
        "Boolean" => given.is_boolean(),
        "DateTime" | "String" => given.is_string(),
        "Float" => given.is_number(),
        "ID" => given.is_string() || given.is_i64(),
        "Int" => given
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        // The remaining ones are objects of any shape.
        _ => true,
    };
    match (fits, given) {
        (true, Value::Number(number)) if name == "ID" => Ok(Value::String(number.to_string())),
        (true, _) => Ok(given.clone()),
        (false, _) => Err(format!("{name} cannot represent value: {given}")),
    }
}

/// A literal of any shape.
fn free(given: &cst::Value, variables: &Variables, depth: usize) -> Result<Value, Invalid> {
    if depth > limits::DEPTH_MAX {
        return Err(Invalid::parse(
            "Syntax Error: the value is nested too deeply.",
        ));
    }
    let deeper = depth.saturating_add(1);
    Ok(match given {
        cst::Value::Variable(variable) => {
            let name = variable
                .name()
                .map(|name| name.text().to_string())
                .unwrap_or_default();
            let known = variables.get(&name);
            let known = known.ok_or_else(|| {
                Invalid::validation(format!("Variable \"${name}\" is not defined."))
            })?;
            known.1.clone().unwrap_or(Value::Null)
        }
        cst::Value::StringValue(text) => Value::String(String::from(text)),
        cst::Value::IntValue(_) | cst::Value::FloatValue(_) => {
            let text = given.syntax().text().to_string();
            let number = serde_json::from_str(text.trim_matches([' ', '\t', '\r', '\n', ',']));
            Value::Number(number.map_err(|_| Invalid::parse("Syntax Error: a number is not one."))?)
        }
        cst::Value::BooleanValue(value) => Value::Bool(value.true_token().is_some()),
        cst::Value::NullValue(_) => Value::Null,
        cst::Value::EnumValue(_) => {
            let text = given.syntax().text().to_string();
            return Err(Invalid::validation(format!(
                "Expected a value, found {}.",
                text.trim()
            )));
        }
        cst::Value::ListValue(list) => {
            let many = list.values().map(|one| free(&one, variables, deeper));
            Value::Array(many.collect::<Result<_, _>>()?)
        }
        cst::Value::ObjectValue(object) => {
            let mut fields = Map::new();
            for field in object.object_fields() {
                let name = field.name().map(|name| name.text().to_string());
                let (Some(name), Some(value)) = (name, field.value()) else {
                    return Err(Invalid::parse("Syntax Error: a field has no value."));
                };
                fields.insert(name, free(&value, variables, deeper)?);
            }
            Value::Object(fields)
        }
    })
}
