//! From the body of a request to the answer, and to the line in the log.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::execute;
use crate::graphql::{self, Invalid, Kind, Operation, Schema};
use crate::limits;
use crate::names;
use crate::world::{Caller, Header, World};

/// Takes requests one after the other.
#[derive(Debug)]
pub struct Desk {
    schema: Schema,
    world: Mutex<World>,
    log: Mutex<File>,
}

/// The token of a request and the header in which it came.
pub type Credential = Option<(Header, String)>;

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Desk {
    /// Opens the log of requests in `root`.
    ///
    /// # Errors
    /// When the log cannot be written, or the types cannot be read.
    pub fn open(world: World, root: &Path) -> Result<Self> {
        let path = root.join("requests.jsonl");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("write {}", path.display()))?;
        Ok(Self {
            schema: Schema::read()?,
            world: Mutex::new(world),
            log: Mutex::new(log),
        })
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers the body of a request to the GraphQL endpoint.
    pub fn answer(&self, credential: &Credential, body: &[u8]) -> Reply {
        let parsed = serde_json::from_slice::<Value>(body);
        let requests = match parsed {
            Ok(Value::Array(many)) if !many.is_empty() && many.len() <= limits::BATCH_MAX => many,
            Ok(one @ Value::Object(_)) => {
                let (status, body) = self.one(credential, &one);
                return Reply { status, body };
            }
            Ok(_) => return self.refuse("POST body must be a GraphQL request or a short batch"),
            Err(error) => return self.refuse(&format!("POST body is not JSON: {error}")),
        };
        let answers = requests.iter().map(|one| self.one(credential, one).1);
        Reply {
            status: 200,
            body: Value::Array(answers.collect()),
        }
    }

    /// Notes a request that never became an operation.
    pub fn refuse(&self, message: &str) -> Reply {
        let body =
            json!({ "errors": [{ "message": message, "extensions": { "code": "BAD_REQUEST" } }] });
        self.note(json!({ "operation": null, "fields": [], "status": 400, "errors": [message] }));
        Reply { status: 400, body }
    }

    /// Notes a request to anything but the endpoint.
    pub fn note_other(&self, method: &str, path: &str, status: u16) {
        self.note(json!({ "method": method, "path": path, "operation": null, "fields": [], "status": status }));
    }

    fn one(&self, credential: &Credential, request: &Value) -> (u16, Value) {
        let operation = match self.prepare(request) {
            Ok(operation) => operation,
            Err(invalid) => {
                let line = json!({ "operation": null, "fields": [], "status": 400, "errors": [invalid.message] });
                self.note(line);
                return (400, invalid.answer());
            }
        };
        let (who, body, done) = self.with(|world| {
            let caller = credential.as_ref();
            let caller = caller.and_then(|(header, secret)| world.caller(secret, *header));
            let body = match &caller {
                Some(who) => execute::execute(&self.schema, world, who, &operation),
                None => execute::unauthorized(&operation),
            };
            (
                describe(world, caller.as_ref()),
                body,
                std::mem::take(&mut world.done),
            )
        });
        self.note(line(&operation, &who, &body, done));
        (200, body)
    }

    fn prepare(&self, request: &Value) -> Result<Operation, Invalid> {
        let bad = |message: &str| Invalid {
            message: message.to_owned(),
            code: "BAD_REQUEST",
            place: None,
        };
        let text = request.get("query").and_then(Value::as_str);
        let text =
            text.ok_or_else(|| bad("GraphQL operations must contain a non-empty `query`."))?;
        let none = Map::new();
        let variables = match request.get("variables") {
            None | Some(Value::Null) => &none,
            Some(Value::Object(given)) => given,
            Some(_) => return Err(bad("`variables` in a POST body should be an object.")),
        };
        let name = match request.get("operationName") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err(bad("`operationName` in a POST body should be a string.")),
        };
        graphql::prepare(&self.schema, text, variables, name)
    }

    fn note(&self, mut line: Value) {
        if let Some(line) = line.as_object_mut() {
            line.insert("at".to_owned(), json!(names::now()));
            line.entry("method").or_insert(json!("POST"));
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(log, "{line}") {
            tracing::error!("write the log of requests: {error}");
        }
    }
}

/// Who asked, without the token.
fn describe(world: &World, caller: Option<&Caller>) -> String {
    match caller {
        None => "nobody".to_owned(),
        Some(Caller::Account) => "account".to_owned(),
        Some(Caller::Project { environment, .. }) => {
            let name = world
                .environments
                .get(environment)
                .map(|one| one.name.as_str());
            format!(
                "project token of {}",
                name.unwrap_or("an environment that is gone")
            )
        }
    }
}

fn line(operation: &Operation, who: &str, body: &Value, done: Vec<String>) -> Value {
    let fields = operation.fields.iter().map(|asked| asked.name.as_str());
    let kind = match operation.kind {
        Kind::Mutation => "mutation",
        Kind::Query => "query",
    };
    let errors = body.get("errors").and_then(Value::as_array);
    let errors = errors
        .into_iter()
        .flatten()
        .filter_map(|error| error.get("message"));
    json!({
        "operation": operation.name,
        "kind": kind,
        "fields": fields.collect::<Vec<_>>(),
        "who": who,
        "effect": done,
        "status": 200,
        "errors": errors.collect::<Vec<_>>(),
    })
}
