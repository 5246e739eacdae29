//! A request of GraphQL over HTTP: which operations it would run, with which arguments.
//!
//! The answer is for judging, so it errs on the strict side: fragments are put in place, aliases are
//! taken off, directives are not believed (`@skip` skips nothing), variables are put in, and whatever
//! two servers could read differently is refused as [`GraphqlError::Ambiguous`].

mod body;
mod document;
mod json;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::HttpRequest;

pub use json::strict_json;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// Changes something.
    Mutation,
    /// Reads.
    Query,
    /// Reads, and goes on.
    Subscription,
}

/// One operation that the request would run.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What it is.
    pub kind: OperationKind,
    /// Its name in the document.
    pub name: Option<String>,
    /// The fields of its root, fragments put in place, in the order they would run.
    pub fields: Vec<Field>,
}

/// One field, without its alias.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name in the provider's schema.
    pub name: String,
    /// The arguments with variables put in; an absent variable is an absent argument.
    pub arguments: BTreeMap<String, Value>,
    /// The fields selected below, fragments put in place.
    pub fields: Vec<Field>,
}

impl Field {
    /// Returns the arguments as one JSON object.
    pub fn arguments_json(&self) -> Value {
        Value::Object(
            self.arguments
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// Tells whether a field of this name is selected here or anywhere below.
    pub fn mentions(&self, name: &str) -> bool {
        self.name == name || self.fields.iter().any(|field| field.mentions(name))
    }
}

/// Why it cannot be told what a request would run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphqlError {
    /// Two servers could run different things.
    #[error("two servers could read it differently: {0}")]
    Ambiguous(&'static str),
    /// Compressed, multipart or of another kind than GraphQL is sent in.
    #[error("its encoding is not looked into: {0}")]
    Encoding(&'static str),
    /// Not GraphQL, or not JSON.
    #[error("it cannot be parsed: {0}")]
    Malformed(&'static str),
    /// It names a document that the server has stored.
    #[error("it names a stored document instead of sending one")]
    Stored,
    /// Larger or deeper than is looked at.
    #[error("it is larger than is looked at: {0}")]
    TooLarge(&'static str),
}

/// Returns the operations that a request to a GraphQL endpoint would run, of all requests of a batch.
///
/// # Errors
/// [`GraphqlError`]; the request must then be treated as one whose effect is unknown.
///
/// # Source
/// <https://spec.graphql.org/September2025/>, GraphQL over HTTP draft of 2025, section 5.
pub fn operations(request: &HttpRequest) -> Result<Vec<Operation>, GraphqlError> {
    let mut operations = Vec::new();
    for asked in body::asked(request)? {
        operations.push(document::operation(&asked)?);
    }
    Ok(operations)
}

/// One request of a batch, before its document is parsed.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    document: String,
    operation_name: Option<String>,
    variables: serde_json::Map<String, Value>,
}
