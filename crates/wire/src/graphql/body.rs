//! From the bytes of a request to documents: JSON, a query string, a form, or the bare document.

use serde_json::{Map, Value};

use super::{Asked, GraphqlError, strict_json};
use crate::http::{HttpRequest, query_pairs};
use crate::limits::{GRAPHQL_BATCH_MAX, GRAPHQL_BODY_BYTES_MAX};

/// The parameters that a request of GraphQL has.
const PARAMETERS: [&str; 4] = ["query", "operationname", "variables", "extensions"];

/// Parameters under which servers take the name of a stored document.
const STORED: [&str; 7] = [
    "documentid",
    "document_id",
    "doc_id",
    "id",
    "queryid",
    "hash",
    "sha256hash",
];

/// What a body is, by what it says about itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Form,
    Json,
}

pub(super) fn asked(request: &HttpRequest) -> Result<Vec<Asked>, GraphqlError> {
    if request.body.len() > GRAPHQL_BODY_BYTES_MAX {
        return Err(GraphqlError::TooLarge("the body"));
    }
    let pairs = query_pairs(request.query.as_deref().unwrap_or_default())
        .ok_or(GraphqlError::Malformed("the query string"))?;
    match request.method.as_str() {
        "GET" | "HEAD" if request.body.is_empty() => Ok(vec![of_pairs(pairs)?]),
        "GET" | "HEAD" => Err(GraphqlError::Ambiguous("a body comes with GET")),
        "POST" => {
            let known = |name: &str| {
                let name = name.to_lowercase();
                PARAMETERS.contains(&name.as_str()) || STORED.contains(&name.as_str())
            };
            if pairs.iter().any(|(name, _)| known(name)) {
                return Err(GraphqlError::Ambiguous(
                    "parameters stand in the body and in the URL",
                ));
            }
            of_body(request)
        }
        _ => Err(GraphqlError::Encoding("GraphQL is sent by POST or GET")),
    }
}

fn of_body(request: &HttpRequest) -> Result<Vec<Asked>, GraphqlError> {
    let text = std::str::from_utf8(&request.body)
        .map_err(|_| GraphqlError::Malformed("the body is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match kind(request)? {
        Kind::Document => Ok(vec![Asked {
            document: text.to_owned(),
            operation_name: None,
            variables: Map::new(),
        }]),
        Kind::Form if !text.trim_start().starts_with(['{', '[']) => {
            let pairs = query_pairs(text).ok_or(GraphqlError::Malformed("the form"))?;
            Ok(vec![of_pairs(pairs)?])
        }
        Kind::Form | Kind::Json => of_json(strict_json(text.as_bytes())?),
    }
}

/// What curl sends by default, `application/x-www-form-urlencoded`, may be JSON all the same.
fn kind(request: &HttpRequest) -> Result<Kind, GraphqlError> {
    if request.has("content-encoding") {
        let coding = request.header("content-encoding").unwrap_or_default();
        if !coding.trim().eq_ignore_ascii_case("identity") {
            return Err(GraphqlError::Encoding("the body is compressed"));
        }
    }
    if !request.has("content-type") {
        return Ok(Kind::Json);
    }
    let stated = request
        .header("content-type")
        .ok_or(GraphqlError::Ambiguous("the content type stands twice"))?
        .to_ascii_lowercase();
    let mut parts = stated.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_owned();
    for parameter in parts {
        let value = parameter
            .strip_prefix("charset=")
            .map(|v| v.trim_matches('"'));
        if !matches!(value, None | Some("utf-8" | "utf8" | "us-ascii")) {
            return Err(GraphqlError::Encoding("the charset is not UTF-8"));
        }
    }
    match media.as_str() {
        "application/json" | "text/plain" | "text/json" | "application/graphql+json" | "" => {
            Ok(Kind::Json)
        }
        "application/graphql" => Ok(Kind::Document),
        "application/x-www-form-urlencoded" => Ok(Kind::Form),
        "multipart/form-data" => Err(GraphqlError::Encoding("multipart")),
        _ => Err(GraphqlError::Encoding("the content type is not known")),
    }
}

fn of_json(json: Value) -> Result<Vec<Asked>, GraphqlError> {
    match json {
        Value::Array(batch) if batch.len() > GRAPHQL_BATCH_MAX => {
            Err(GraphqlError::TooLarge("the batch"))
        }
        Value::Array(batch) if batch.is_empty() => Err(GraphqlError::Malformed("an empty batch")),
        Value::Array(batch) => batch.into_iter().map(of_object).collect(),
        object => Ok(vec![of_object(object)?]),
    }
}

fn of_pairs(pairs: Vec<(String, String)>) -> Result<Asked, GraphqlError> {
    let mut object = Map::new();
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in pairs {
        if !seen.insert(name.to_lowercase()) {
            return Err(GraphqlError::Ambiguous("a parameter stands twice"));
        }
        let value = match name.as_str() {
            "variables" | "extensions" if !value.is_empty() => strict_json(value.as_bytes())?,
            "variables" | "extensions" => Value::Null,
            _ => Value::String(value),
        };
        object.insert(name, value);
    }
    of_object(Value::Object(object))
}

fn of_object(object: Value) -> Result<Asked, GraphqlError> {
    let Value::Object(mut object) = object else {
        return Err(GraphqlError::Malformed("the body is not a JSON object"));
    };
    let spelled = |key: &String| {
        let key = key.to_lowercase();
        PARAMETERS.contains(&key.as_str()) && !object.contains_key(canonical(&key))
    };
    if object.keys().any(spelled) {
        return Err(GraphqlError::Ambiguous(
            "a parameter is spelled differently",
        ));
    }
    let stored = object
        .iter()
        .any(|(key, value)| !value.is_null() && STORED.contains(&key.to_lowercase().as_str()));
    let persisted = match object.get("extensions") {
        None | Some(Value::Null) => false,
        Some(Value::Object(extensions)) => extensions
            .keys()
            .any(|key| key.to_lowercase().contains("persisted")),
        Some(_) => return Err(GraphqlError::Ambiguous("extensions are not an object")),
    };
    let document = match object.remove("query") {
        Some(Value::String(document)) if !document.trim().is_empty() => document,
        Some(Value::String(_) | Value::Null) | None if stored || persisted => {
            return Err(GraphqlError::Stored);
        }
        Some(Value::String(_) | Value::Null) | None => {
            return Err(GraphqlError::Malformed("there is no document"));
        }
        Some(_) => return Err(GraphqlError::Ambiguous("the document is not a string")),
    };
    if stored || persisted {
        return Err(GraphqlError::Ambiguous(
            "a document comes with the name of a stored one",
        ));
    }
    Ok(Asked {
        document,
        operation_name: operation_name(object.remove("operationName"))?,
        variables: variables(object.remove("variables"))?,
    })
}

fn canonical(folded: &str) -> &str {
    match folded {
        "operationname" => "operationName",
        other => other,
    }
}

fn operation_name(value: Option<Value>) -> Result<Option<String>, GraphqlError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(_) => Err(GraphqlError::Ambiguous("operationName is not a string")),
    }
}

/// Some servers take variables as a string of JSON.
fn variables(value: Option<Value>) -> Result<Map<String, Value>, GraphqlError> {
    let value = match value {
        Some(Value::String(text)) if text.trim().is_empty() => Value::Null,
        Some(Value::String(text)) => strict_json(text.as_bytes())?,
        other => other.unwrap_or(Value::Null),
    };
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(variables) => Ok(variables),
        _ => Err(GraphqlError::Ambiguous("variables are not an object")),
    }
}
