//! From a document to an operation that fits the types.

use std::collections::BTreeMap;

use apollo_parser::Parser;
use apollo_parser::cst::{self, CstNode, Definition, Selection};
use serde_json::{Map, Value};

use super::literal::{self, Variables};
use super::schema::{Definite, Field, Schema, Type};
use super::{Asked, Invalid, Kind, Operation, Place};
use crate::limits;

/// Checks a document against the types and chooses the operation that runs.
///
/// # Errors
/// When it is no GraphQL, does not fit the types, or it is unclear which operation is meant.
pub fn prepare(
    schema: &Schema,
    text: &str,
    given: &Map<String, Value>,
    name: Option<&str>,
) -> Result<Operation, Invalid> {
    let tree = Parser::new(text)
        .token_limit(limits::TOKENS_MAX)
        .recursion_limit(limits::DEPTH_MAX)
        .parse();
    if let Some(error) = tree.errors().next() {
        let place = place(text, error.index());
        return Err(Invalid::parse(format!("Syntax Error: {}", error.message())).at(place));
    }
    let mut operations = Vec::new();
    let mut fragments = BTreeMap::new();
    for definition in tree.document().definitions() {
        match definition {
            Definition::OperationDefinition(operation) => operations.push(operation),
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name());
                let name = name.map(|name| name.text().to_string()).unwrap_or_default();
                if fragments.insert(name.clone(), fragment).is_some() {
                    let text = format!("There can be only one fragment named \"{name}\".");
                    return Err(Invalid::validation(text));
                }
            }
            _ => return Err(Invalid::validation("The definition is not executable.")),
        }
    }
    let chosen = choose(&operations, name)?;
    let (kind, root) = match chosen.operation_type() {
        Some(stated) if stated.mutation_token().is_some() => (Kind::Mutation, "Mutation"),
        Some(stated) if stated.subscription_token().is_some() => {
            return Err(Invalid::validation(
                "Subscriptions are not supported over HTTP.",
            ));
        }
        _ => (Kind::Query, "Query"),
    };
    let mut reading = Reading {
        schema,
        text,
        variables: variables(schema, chosen, given)?,
        fragments,
        selections: 0,
        open: Vec::new(),
    };
    let mut fields = Vec::new();
    if let Some(selection) = chosen.selection_set() {
        reading.select(root, &selection, &mut fields, 0)?;
    }
    Ok(Operation {
        kind,
        name: chosen.name().map(|name| name.text().to_string()),
        fields,
    })
}

fn choose<'a>(
    operations: &'a [cst::OperationDefinition],
    name: Option<&str>,
) -> Result<&'a cst::OperationDefinition, Invalid> {
    let named = |one: &&cst::OperationDefinition| {
        one.name()
            .is_some_and(|own| Some(own.text().as_str()) == name)
    };
    match (name, operations) {
        (None, [one]) => Ok(one),
        (None, []) => Err(Invalid::validation("Must provide an operation.")),
        (None, _) => Err(Invalid::validation(
            "Must provide operation name if query contains multiple operations.",
        )),
        (Some(name), _) => operations
            .iter()
            .find(named)
            .ok_or_else(|| Invalid::validation(format!("Unknown operation named \"{name}\"."))),
    }
}

fn variables(
    schema: &Schema,
    operation: &cst::OperationDefinition,
    given: &Map<String, Value>,
) -> Result<Variables, Invalid> {
    let mut variables = Variables::new();
    let definitions = operation.variable_definitions();
    let definitions = definitions
        .iter()
        .flat_map(cst::VariableDefinitions::variable_definitions);
    for definition in definitions {
        let name = definition.variable().and_then(|variable| variable.name());
        let name = name.map(|name| name.text().to_string()).unwrap_or_default();
        let written = definition.ty().and_then(|ty| Type::read(&ty));
        let wanted =
            written.ok_or_else(|| Invalid::parse("Syntax Error: a variable has no type."))?;
        if matches!(schema.find(wanted.base()), None | Some(Definite::Object(_))) {
            let text = format!("Unknown type \"{}\".", wanted.base());
            return Err(Invalid::validation(text));
        }
        let default = definition
            .default_value()
            .and_then(|default| default.value());
        let value = match (given.get(&name), default) {
            (Some(value), _) => Some(literal::json(schema, &wanted, value).map_err(|why| {
                Invalid::input(format!(
                    "Variable \"${name}\" got invalid value {value}; {why}"
                ))
            })?),
            (None, Some(default)) => {
                literal::literal(schema, &wanted, &default, &Variables::new())?
            }
            (None, None) => None,
        };
        if value.is_none() && matches!(wanted, Type::NonNull(_)) {
            let text =
                format!("Variable \"${name}\" of required type \"{wanted}\" was not provided.");
            return Err(Invalid::input(text));
        }
        variables.insert(name, (wanted, value));
    }
    Ok(variables)
}

struct Reading<'a> {
    schema: &'a Schema,
    text: &'a str,
    variables: Variables,
    fragments: BTreeMap<String, cst::FragmentDefinition>,
    selections: usize,
    /// The fragments that are being read, the outermost first.
    open: Vec<String>,
}

impl Reading<'_> {
    fn select(
        &mut self,
        parent: &str,
        selection: &cst::SelectionSet,
        into: &mut Vec<Asked>,
        depth: usize,
    ) -> Result<(), Invalid> {
        if depth > limits::DEPTH_MAX {
            return Err(Invalid::validation("The selection is nested too deeply."));
        }
        let deeper = depth.saturating_add(1);
        for one in selection.selections() {
            // Spreads count too: fragments that spread others twice grow without bounds.
            self.selections = self.selections.saturating_add(1);
            if self.selections > limits::FIELDS_MAX {
                return Err(Invalid::validation(
                    "The operation asks for too many fields.",
                ));
            }
            match &one {
                Selection::Field(field) => {
                    if self.is_wanted(field.directives())? {
                        let asked = self.field(parent, field, deeper)?;
                        merge(into, asked)?;
                    }
                }
                Selection::FragmentSpread(spread) => {
                    if self.is_wanted(spread.directives())? {
                        self.spread(parent, spread, into, deeper)?;
                    }
                }
                Selection::InlineFragment(inline) => {
                    if self.is_wanted(inline.directives())? {
                        fits(parent, inline.type_condition())?;
                        if let Some(selection) = inline.selection_set() {
                            self.select(parent, &selection, into, deeper)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn spread(
        &mut self,
        parent: &str,
        spread: &cst::FragmentSpread,
        into: &mut Vec<Asked>,
        depth: usize,
    ) -> Result<(), Invalid> {
        let name = spread.fragment_name().and_then(|name| name.name());
        let name = name.map(|name| name.text().to_string()).unwrap_or_default();
        let Some(fragment) = self.fragments.get(&name).cloned() else {
            return Err(Invalid::validation(format!("Unknown fragment \"{name}\".")));
        };
        if self.open.contains(&name) {
            let text = format!("Cannot spread fragment \"{name}\" within itself.");
            return Err(Invalid::validation(text));
        }
        fits(parent, fragment.type_condition())?;
        self.open.push(name);
        if let Some(selection) = fragment.selection_set() {
            self.select(parent, &selection, into, depth)?;
        }
        self.open.pop();
        Ok(())
    }

    fn field(&mut self, parent: &str, field: &cst::Field, depth: usize) -> Result<Asked, Invalid> {
        let place = place(self.text, usize::from(field.syntax().text_range().start()));
        let name = field
            .name()
            .map(|name| name.text().to_string())
            .unwrap_or_default();
        let alias = field.alias().and_then(|alias| alias.name());
        let key = alias.map_or_else(|| name.clone(), |alias| alias.text().to_string());
        let mut asked = Asked {
            key,
            name,
            arguments: Map::new(),
            selected: Vec::new(),
            place,
        };
        if asked.name == "__typename" {
            return Ok(asked);
        }
        if asked.name.starts_with("__") {
            let text = "GraphQL introspection is not allowed by the stand-in";
            return Err(Invalid::validation(text).at(place));
        }
        let known = self
            .schema
            .object(parent)
            .and_then(|fields| fields.get(&asked.name));
        let unknown = || {
            format!(
                "Cannot query field \"{}\" on type \"{parent}\".",
                asked.name
            )
        };
        let known = known.ok_or_else(|| Invalid::validation(unknown()).at(place))?;
        asked.arguments = self
            .arguments(known, field)
            .map_err(|error| error.at(place))?;
        let gives = known.gives.base();
        match (self.schema.object(gives), field.selection_set()) {
            (Some(_), Some(selection)) => {
                self.select(gives, &selection, &mut asked.selected, depth)?
            }
            (Some(_), None) => {
                let text = format!(
                    "Field \"{}\" of type \"{}\" must have a selection of subfields. Did you mean \"{} {{ ... }}\"?",
                    asked.name, known.gives, asked.name
                );
                return Err(Invalid::validation(text).at(place));
            }
            (None, Some(_)) => {
                let text = format!(
                    "Field \"{}\" must not have a selection since type \"{}\" has no subfields.",
                    asked.name, known.gives
                );
                return Err(Invalid::validation(text).at(place));
            }
            (None, None) => {}
        }
        Ok(asked)
    }

    fn arguments(&self, known: &Field, field: &cst::Field) -> Result<Map<String, Value>, Invalid> {
        let mut arguments = Map::new();
        let own = field
            .name()
            .map(|name| name.text().to_string())
            .unwrap_or_default();
        let given = field.arguments();
        for argument in given.iter().flat_map(cst::Arguments::arguments) {
            let name = argument
                .name()
                .map(|name| name.text().to_string())
                .unwrap_or_default();
            let (Some(wanted), Some(value)) = (known.arguments.get(&name), argument.value()) else {
                let text = format!("Unknown argument \"{name}\" on field \"{own}\".");
                return Err(Invalid::validation(text));
            };
            if arguments.contains_key(&name) {
                let text = format!("There can be only one argument named \"{name}\".");
                return Err(Invalid::validation(text));
            }
            if let Some(value) = literal::literal(self.schema, wanted, &value, &self.variables)? {
                arguments.insert(name, value);
            }
        }
        for (name, wanted) in &known.arguments {
            if matches!(wanted, Type::NonNull(_)) && !arguments.contains_key(name) {
                let text = format!(
                    "Field \"{own}\" argument \"{name}\" of type \"{wanted}\" is required, but it was not provided."
                );
                return Err(Invalid::validation(text));
            }
        }
        Ok(arguments)
    }

    /// Looks at `@include` and `@skip`.
    fn is_wanted(&self, directives: Option<cst::Directives>) -> Result<bool, Invalid> {
        let mut wanted = true;
        for directive in directives.iter().flat_map(cst::Directives::directives) {
            let name = directive
                .name()
                .map(|name| name.text().to_string())
                .unwrap_or_default();
            let includes = match name.as_str() {
                "include" => true,
                "skip" => false,
                _ => {
                    return Err(Invalid::validation(format!(
                        "Unknown directive \"@{name}\"."
                    )));
                }
            };
            let given = directive
                .arguments()
                .and_then(|given| given.arguments().next());
            let condition = given.and_then(|given| given.value());
            let boolean = Type::NonNull(Box::new(Type::Named("Boolean".to_owned())));
            let condition = match condition {
                Some(value) => literal::literal(self.schema, &boolean, &value, &self.variables)?,
                None => None,
            };
            let Some(Value::Bool(condition)) = condition else {
                let text = format!("Directive \"@{name}\" argument \"if\" is required.");
                return Err(Invalid::validation(text));
            };
            wanted &= condition == includes;
        }
        Ok(wanted)
    }
}

/// Whether a fragment is about the type at hand; there are no types in common.
fn fits(parent: &str, condition: Option<cst::TypeCondition>) -> Result<(), Invalid> {
    let named = condition
        .and_then(|on| on.named_type())
        .and_then(|named| named.name());
    match named.filter(|named| named.text().as_str() != parent) {
        None => Ok(()),
        Some(named) => Err(Invalid::validation(format!(
            "Fragment cannot be spread here as objects of type \"{parent}\" can never be of type \"{}\".",
            named.text()
        ))),
    }
}

/// Two askings under one key are one, or a contradiction.
fn merge(into: &mut Vec<Asked>, asked: Asked) -> Result<(), Invalid> {
    let Some(same) = into.iter_mut().find(|same| same.key == asked.key) else {
        into.push(asked);
        return Ok(());
    };
    if same.name != asked.name || same.arguments != asked.arguments {
        let text = format!(
            "Fields \"{}\" conflict. Use different aliases on the fields to fetch both if this was intentional.",
            asked.key
        );
        return Err(Invalid::validation(text).at(asked.place));
    }
    for one in asked.selected {
        merge(&mut same.selected, one)?;
    }
    Ok(())
}

fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    Place {
        line: before.matches('\n').count().saturating_add(1),
        column: line.chars().count().saturating_add(1),
    }
}
