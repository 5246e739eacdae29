//! From a document to the operation that would run.

use std::collections::{BTreeMap, BTreeSet};

use apollo_parser::Parser;
use apollo_parser::cst::{self, Definition, Selection};
use serde_json::{Map, Value};

use super::value::{self, Inserted};
use super::{Asked, Field, GraphqlError, Operation, OperationKind};
use crate::limits::{
    GRAPHQL_DEPTH_MAX, GRAPHQL_DOCUMENT_BYTES_MAX, GRAPHQL_FIELDS_MAX, GRAPHQL_TOKENS_MAX,
};

const CUT: GraphqlError = GraphqlError::Malformed("the document is not GraphQL");

pub(super) fn operation(asked: &Asked) -> Result<Operation, GraphqlError> {
    if asked.document.len() > GRAPHQL_DOCUMENT_BYTES_MAX {
        return Err(GraphqlError::TooLarge("the document"));
    }
    let tree = Parser::new(&asked.document)
        .token_limit(GRAPHQL_TOKENS_MAX)
        .recursion_limit(GRAPHQL_DEPTH_MAX)
        .parse();
    if tree.errors().len() > 0 {
        let limit = tree.errors().any(apollo_parser::Error::is_limit);
        return Err(if limit {
            GraphqlError::TooLarge("the document")
        } else {
            CUT
        });
    }
    let (operations, fragments) = definitions(&tree.document())?;
    let chosen = choose(&operations, asked.operation_name.as_deref())?;
    let mut reading = Reading {
        variables: variables(chosen, &asked.variables)?,
        fragments,
        fields: 0,
    };
    let selection = chosen.selection_set().ok_or(CUT)?;
    Ok(Operation {
        kind: kind(chosen),
        name: name_of(chosen),
        fields: reading.selected(&selection, &mut Vec::new(), 0)?,
    })
}

type Fragments = BTreeMap<String, cst::FragmentDefinition>;

fn definitions(
    document: &cst::Document,
) -> Result<(Vec<cst::OperationDefinition>, Fragments), GraphqlError> {
    let mut operations = Vec::new();
    let mut fragments = BTreeMap::new();
    for definition in document.definitions() {
        match definition {
            Definition::OperationDefinition(operation) => operations.push(operation),
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name());
                let name = name.ok_or(CUT)?.text().to_string();
                if fragments.insert(name, fragment).is_some() {
                    return Err(GraphqlError::Ambiguous("two fragments have one name"));
                }
            }
            _ => return Err(GraphqlError::Malformed("the document defines types")),
        }
    }
    Ok((operations, fragments))
}

/// The one operation that runs, or a refusal where servers could choose differently.
fn choose<'a>(
    operations: &'a [cst::OperationDefinition],
    name: Option<&str>,
) -> Result<&'a cst::OperationDefinition, GraphqlError> {
    let mut names = BTreeSet::new();
    if !operations.iter().all(|one| names.insert(name_of(one))) {
        return Err(GraphqlError::Ambiguous("two operations have one name"));
    }
    if operations.len() > 1 && names.contains(&None) {
        return Err(GraphqlError::Ambiguous(
            "an operation without a name is not alone",
        ));
    }
    let found = match name {
        None if operations.len() > 1 => {
            return Err(GraphqlError::Ambiguous("it names none of its operations"));
        }
        None => operations.first(),
        Some(name) => {
            let named = |one: &&cst::OperationDefinition| name_of(one).as_deref() == Some(name);
            match operations.iter().find(named) {
                Some(found) => Some(found),
                None => {
                    return Err(GraphqlError::Ambiguous(
                        "operationName is not in the document",
                    ));
                }
            }
        }
    };
    found.ok_or(GraphqlError::Malformed("the document runs nothing"))
}

fn kind(operation: &cst::OperationDefinition) -> OperationKind {
    match operation.operation_type() {
        Some(stated) if stated.mutation_token().is_some() => OperationKind::Mutation,
        Some(stated) if stated.subscription_token().is_some() => OperationKind::Subscription,
        _ => OperationKind::Query,
    }
}

fn name_of(operation: &cst::OperationDefinition) -> Option<String> {
    operation.name().map(|name| name.text().to_string())
}

/// The variables as the operation would see them: given, or by default, or absent.
fn variables(
    operation: &cst::OperationDefinition,
    given: &Map<String, Value>,
) -> Result<BTreeMap<String, Value>, GraphqlError> {
    let mut variables = BTreeMap::new();
    let definitions = operation.variable_definitions();
    for definition in definitions
        .iter()
        .flat_map(cst::VariableDefinitions::variable_definitions)
    {
        let name = definition.variable().and_then(|variable| variable.name());
        let name = name.ok_or(CUT)?.text().to_string();
        let default = definition
            .default_value()
            .and_then(|default| default.value());
        let seen = match (given.get(&name), default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => match value::resolve(&default, &BTreeMap::new(), 0)? {
                Inserted::Present(value) => Some(value),
                Inserted::Absent => None,
            },
            (None, None) => None,
        };
        let twice = match seen {
            Some(value) => variables.insert(name, value).is_some(),
            None => variables.contains_key(&name),
        };
        if twice {
            return Err(GraphqlError::Ambiguous("a variable is defined twice"));
        }
    }
    Ok(variables)
}

struct Reading {
    variables: BTreeMap<String, Value>,
    fragments: Fragments,
    fields: usize,
}

impl Reading {
    fn selected(
        &mut self,
        set: &cst::SelectionSet,
        within: &mut Vec<String>,
        depth: usize,
    ) -> Result<Vec<Field>, GraphqlError> {
        if depth > GRAPHQL_DEPTH_MAX {
            return Err(GraphqlError::TooLarge("the nesting of selections"));
        }
        let deeper = depth.saturating_add(1);
        let mut fields = Vec::new();
        for selection in set.selections() {
            match selection {
                Selection::Field(field) => fields.push(self.field(&field, within, deeper)?),
                Selection::InlineFragment(inline) => {
                    let set = inline.selection_set().ok_or(CUT)?;
                    fields.extend(self.selected(&set, within, deeper)?);
                }
                Selection::FragmentSpread(spread) => {
                    fields.extend(self.spread(&spread, within, deeper)?);
                }
            }
        }
        Ok(fields)
    }

    fn spread(
        &mut self,
        spread: &cst::FragmentSpread,
        within: &mut Vec<String>,
        depth: usize,
    ) -> Result<Vec<Field>, GraphqlError> {
        let name = spread.fragment_name().and_then(|name| name.name());
        let name = name.ok_or(CUT)?.text().to_string();
        if within.contains(&name) {
            return Err(GraphqlError::Malformed("a fragment contains itself"));
        }
        let fragment = self.fragments.get(&name).cloned();
        let fragment = fragment.ok_or(GraphqlError::Malformed("a fragment is missing"))?;
        let set = fragment.selection_set().ok_or(CUT)?;
        within.push(name);
        let fields = self.selected(&set, within, depth);
        within.pop();
        fields
    }

    fn field(
        &mut self,
        field: &cst::Field,
        within: &mut Vec<String>,
        depth: usize,
    ) -> Result<Field, GraphqlError> {
        self.fields = self.fields.saturating_add(1);
        if self.fields > GRAPHQL_FIELDS_MAX {
            return Err(GraphqlError::TooLarge("the number of fields"));
        }
        let mut arguments = BTreeMap::new();
        let mut names = BTreeSet::new();
        for argument in field.arguments().iter().flat_map(cst::Arguments::arguments) {
            let name = argument.name().ok_or(CUT)?.text().to_string();
            if !names.insert(name.clone()) {
                return Err(GraphqlError::Ambiguous("an argument stands twice"));
            }
            let given = argument.value().ok_or(CUT)?;
            if let Inserted::Present(value) = value::resolve(&given, &self.variables, 0)? {
                arguments.insert(name, value);
            }
        }
        let fields = match field.selection_set() {
            Some(set) => self.selected(&set, within, depth)?,
            None => Vec::new(),
        };
        Ok(Field {
            name: field.name().ok_or(CUT)?.text().to_string(),
            arguments,
            fields,
        })
    }
}
