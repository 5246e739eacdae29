//! GraphQL as servers speak it: documents are checked against types before anything is carried out.

mod document;
mod literal;
mod schema;

use serde_json::{Map, Value, json};

pub use document::prepare;
pub use schema::Schema;

/// What an operation does: it asks, or it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes.
    Mutation,
    /// Asks.
    Query,
}

/// An operation that fits the types, with its variables put in and its fragments opened.
#[derive(Debug)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its fields at the root, in order.
    pub fields: Vec<Asked>,
}

/// One field that is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The name under which the answer stands: the alias, or the field's own.
    pub key: String,
    /// The field's name in the schema.
    pub name: String,
    /// Its arguments, checked.
    pub arguments: Map<String, Value>,
    /// What is asked of the object that it gives.
    pub selected: Vec<Asked>,
    /// Where it stands in the document.
    pub place: Place,
}

impl Asked {
    /// An argument that is a string, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// An optional argument that is a string.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// The argument `input`.
    pub fn input(&self) -> Map<String, Value> {
        let input = self.arguments.get("input").and_then(Value::as_object);
        input.cloned().unwrap_or_default()
    }
}

/// A place in a document, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// A document that is not carried out.
#[derive(Debug)]
pub struct Invalid {
    /// What is wrong, in the words that GraphQL servers use.
    pub message: String,
    /// `GRAPHQL_PARSE_FAILED`, `GRAPHQL_VALIDATION_FAILED` or `BAD_USER_INPUT`.
    pub code: &'static str,
    /// Where, if one place is to blame.
    pub place: Option<Place>,
}

impl Invalid {
    fn parse(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: "GRAPHQL_PARSE_FAILED",
            place: None,
        }
    }

    fn validation(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: "GRAPHQL_VALIDATION_FAILED",
            place: None,
        }
    }

    fn input(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: "BAD_USER_INPUT",
            place: None,
        }
    }

    fn at(mut self, place: Place) -> Self {
        self.place = self.place.or(Some(place));
        self
    }

    /// The answer that says so.
    pub fn answer(&self) -> Value {
        let mut error = json!({ "message": self.message, "extensions": { "code": self.code } });
        if let (Some(place), Some(error)) = (self.place, error.as_object_mut()) {
            let place = json!([{ "line": place.line, "column": place.column }]);
            error.insert("locations".to_owned(), place);
        }
        json!({ "errors": [error] })
    }
}
