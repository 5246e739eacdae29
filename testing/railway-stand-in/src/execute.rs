//! Carries out an operation field by field and writes the answer.

use serde_json::{Map, Value, json};

use crate::ask::ask;
use crate::change::change;
use crate::graphql::{Asked, Kind, Operation, Place, Schema};
use crate::limits;
use crate::names;
use crate::node::{Found, Node};
use crate::world::{Caller, Refusal, World};

/// Carries out an operation; a mutation's fields one after the other, until one is refused.
pub fn execute(schema: &Schema, world: &mut World, who: &Caller, operation: &Operation) -> Value {
    let root = match operation.kind {
        Kind::Mutation => "Mutation",
        Kind::Query => "Query",
    };
    let mut data = Map::new();
    let mut budget = limits::ANSWER_NODES_MAX;
    for asked in &operation.fields {
        if asked.name == "__typename" {
            data.insert(asked.key.clone(), json!(root));
            continue;
        }
        let found = match operation.kind {
            Kind::Mutation => change(world, who, asked),
            Kind::Query => ask(world, who, asked),
        };
        let mut answering = Answering {
            schema,
            world,
            who,
            budget,
        };
        let value = found
            .map_err(|refusal| Failure::new(refusal, asked))
            .and_then(|found| answering.value(root, asked, found));
        budget = answering.budget;
        match value {
            Ok(value) => {
                data.insert(asked.key.clone(), value);
            }
            Err(failure) => return failure.answer(),
        }
    }
    json!({ "data": data })
}

/// The answer when nobody is known by the token, at the first field.
pub fn unauthorized(operation: &Operation) -> Value {
    match operation.fields.first() {
        Some(asked) => Failure::new(Refusal::unauthorized(), asked).answer(),
        None => json!({ "data": {} }),
    }
}

/// A refusal and where it happened.
struct Failure {
    refusal: Refusal,
    place: Place,
    /// From the inside to the outside.
    path: Vec<Value>,
}

impl Failure {
    fn new(refusal: Refusal, asked: &Asked) -> Self {
        Self {
            refusal,
            place: asked.place,
            path: vec![json!(asked.key)],
        }
    }

    fn within(mut self, step: Value) -> Self {
        self.path.push(step);
        self
    }

    fn answer(mut self) -> Value {
        self.path.reverse();
        json!({
            "errors": [{
                "message": self.refusal.0,
                "locations": [{ "line": self.place.line, "column": self.place.column }],
                "path": self.path,
                "extensions": { "code": "INTERNAL_SERVER_ERROR" },
                "traceId": names::uuid(),
            }],
            "data": null,
        })
    }
}

struct Answering<'a> {
    schema: &'a Schema,
    world: &'a World,
    who: &'a Caller,
    budget: usize,
}

impl Answering<'_> {
    fn value(&mut self, parent: &str, asked: &Asked, found: Found) -> Result<Value, Failure> {
        let gives = self
            .schema
            .object(parent)
            .and_then(|fields| fields.get(&asked.name));
        let gives = gives
            .map(|field| field.gives.base().to_owned())
            .unwrap_or_default();
        match found {
            Found::Value(value) => Ok(value),
            Found::Node(node) => self
                .object(&gives, asked, &node)
                .map_err(|failure| failure.within(json!(asked.key))),
            Found::Nodes(nodes) => {
                let mut many = Vec::new();
                for (at, node) in nodes.iter().enumerate() {
                    let one = self.object(&gives, asked, node);
                    let one =
                        one.map_err(|failure| failure.within(json!(at)).within(json!(asked.key)));
                    many.push(one?);
                }
                Ok(Value::Array(many))
            }
        }
    }

    fn object(&mut self, own: &str, asked: &Asked, node: &Node) -> Result<Value, Failure> {
        let Some(budget) = self.budget.checked_sub(1) else {
            let refusal = Refusal("Query is too complex".to_owned());
            return Err(Failure {
                refusal,
                place: asked.place,
                path: Vec::new(),
            });
        };
        self.budget = budget;
        let mut object = Map::new();
        for one in &asked.selected {
            let value = if one.name == "__typename" {
                json!(own)
            } else {
                let found = node.field(self.world, self.who, one);
                let found = found.map_err(|refusal| Failure::new(refusal, one))?;
                self.value(own, one, found)?
            };
            object.insert(one.key.clone(), value);
        }
        Ok(Value::Object(object))
    }
}
