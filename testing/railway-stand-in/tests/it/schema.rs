//! Our names, arguments and types are the provider's, and what we list we answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use apollo_parser::Parser;
use apollo_parser::cst::{self, CstNode, Definition};
use serde_json::{Value, json};

use crate::support::{StandIn, given};

/// Types by name; fields by name with their type and arguments as GraphQL writes them.
type Types = BTreeMap<String, BTreeMap<String, Field>>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Field {
    gives: String,
    arguments: BTreeMap<String, String>,
}

const OURS: &str = include_str!("../../src/schema.graphql");
const PUBLISHED: &str = "../shared/data/railway/schema-2026-08-21.json";

#[test]
fn our_schema_is_a_part_of_the_published_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let Ok(text) = std::fs::read(root.join(PUBLISHED)) else {
        println!("not compared: {PUBLISHED} is not beside the workspace");
        return;
    };
    let published = published(&serde_json::from_slice(&text).unwrap());
    let ours = ours();
    assert!(ours["Mutation"].len() >= 30 && published["Mutation"].len() >= 200);
    let mut wrong = Vec::new();
    for (name, fields) in &ours {
        let Some(theirs) = published.get(name) else {
            wrong.push(format!("{name} is not published"));
            continue;
        };
        for (at, field) in fields {
            wrong.extend(differences(&format!("{name}.{at}"), field, theirs.get(at)));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_difference_to_the_published_schema_would_be_found() {
    let field = |gives: &str, arguments: &[(&str, &str)]| Field {
        gives: gives.to_owned(),
        arguments: arguments
            .iter()
            .map(|(name, ty)| ((*name).to_owned(), (*ty).to_owned()))
            .collect(),
    };
    let theirs = field("Boolean!", &[("id", "String!"), ("force", "Boolean")]);
    assert_eq!(
        differences("f", &field("Boolean!", &[("id", "String!")]), Some(&theirs)).len(),
        0
    );
    for (ours, theirs) in [
        (field("Boolean", &[("id", "String!")]), Some(&theirs)),
        (field("Boolean!", &[("id", "ID!")]), Some(&theirs)),
        (
            field("Boolean!", &[("name", "String!"), ("id", "String!")]),
            Some(&theirs),
        ),
        (field("Boolean!", &[]), Some(&theirs)),
        (field("Boolean!", &[]), None),
    ] {
        assert_ne!(differences("f", &ours, theirs).len(), 0, "{ours:?}");
    }
}

fn differences(place: &str, ours: &Field, theirs: Option<&Field>) -> Vec<String> {
    let Some(theirs) = theirs else {
        return vec![format!("{place} is not published")];
    };
    let mut wrong = Vec::new();
    if ours.gives != theirs.gives {
        wrong.push(format!(
            "{place} is {} and not {}",
            theirs.gives, ours.gives
        ));
    }
    for (name, ty) in &ours.arguments {
        if theirs.arguments.get(name) != Some(ty) {
            wrong.push(format!(
                "{place}({name}: {ty}) is {:?}",
                theirs.arguments.get(name)
            ));
        }
    }
    let needed = theirs.arguments.iter().filter(|(_, ty)| ty.ends_with('!'));
    for (name, _) in needed.filter(|(name, _)| !ours.arguments.contains_key(*name)) {
        wrong.push(format!("{place} lacks the argument {name}"));
    }
    wrong
}

#[test]
fn every_field_of_every_type_is_answered() {
    let stand_in = StandIn::start(&[]);
    let types = ours();
    let fact = |pointer: &str| json!(stand_in.fact(pointer));
    let instance = fact("/volume_instances/production");
    let backup = "mutation($id: String!) { volumeInstanceBackupCreate(volumeInstanceId: $id) { workflowId } }";
    let backup = stand_in.ask(backup, json!({ "id": instance }));
    let workflow = given(&backup, "volumeInstanceBackupCreate/workflowId");
    let domain = "{ projects { edges { node { deployments { edges { node { id } } } } } } }";
    let deployments = stand_in.ask(domain, json!({}));
    let deployment = given(
        &deployments,
        "projects/edges/0/node/deployments/edges/0/node/id",
    );
    let place = json!({
        "environmentId": fact("/environments/production"),
        "projectId": fact("/project_id"), "serviceId": fact("/services/web"),
    });
    let all = "query($environmentId: String!, $projectId: String!, $serviceId: String!) {
        domains(environmentId: $environmentId, projectId: $projectId, serviceId: $serviceId) { customDomains { id } } }";
    let domains = stand_in.ask(all, place.clone());
    let domain = given(&domains, "domains/customDomains/0/id");
    for (name, field) in &types["Query"] {
        let value = |argument: &str| match (name.as_str(), argument) {
            (_, "environmentId" | "projectId" | "serviceId") => place[argument].clone(),
            ("customDomain", "id") => domain.clone(),
            ("deployment", "id") => deployment.clone(),
            ("deployments", "input") => json!({ "projectId": place["projectId"] }),
            ("environment", "id") => place["environmentId"].clone(),
            ("project", "id") => place["projectId"].clone(),
            ("service", "id") => place["serviceId"].clone(),
            ("volumeInstance", "id") | (_, "volumeInstanceId") => instance.clone(),
            ("workflowStatus", _) => workflow.clone(),
            _ => Value::Null,
        };
        let needed = field.arguments.iter().filter(|(_, ty)| ty.ends_with('!'));
        let needed: Vec<_> = needed.collect();
        let declared: String = needed
            .iter()
            .map(|(name, ty)| format!("${name}: {ty} "))
            .collect();
        let passed: String = needed
            .iter()
            .map(|(name, _)| format!("{name}: ${name} "))
            .collect();
        let wrap = |text: String| {
            if text.is_empty() {
                text
            } else {
                format!("({text})")
            }
        };
        let selection = selection(&types, &field.gives, &mut Vec::new());
        let query = format!(
            "query{} {{ {name}{}{selection} }}",
            wrap(declared),
            wrap(passed)
        );
        let variables: BTreeMap<_, _> =
            needed.iter().map(|(name, _)| (name, value(name))).collect();
        let header = match name.as_str() {
            "projectToken" => stand_in.project_token("production"),
            _ => stand_in.account(),
        };
        let answer = stand_in.ask_as(&header, &query, json!(variables));
        let answer = given(&answer, name);
        check_type(&types, &field.gives, answer, name);
    }
}

/// Asks for all fields, down to types that were asked for further up.
fn selection(types: &Types, gives: &str, above: &mut Vec<String>) -> String {
    let base = base(gives);
    let Some(fields) = types
        .get(base)
        .filter(|fields| !fields.values().all(|f| f.gives.is_empty()))
    else {
        return String::new();
    };
    if above.iter().any(|one| one == base) || above.len() > 5 {
        return " { __typename }".to_owned();
    }
    above.push(base.to_owned());
    let asked = fields
        .iter()
        .map(|(name, field)| format!("{name}{}", selection(types, &field.gives, above)));
    let asked: Vec<_> = asked.collect();
    above.pop();
    format!(" {{ {} }}", asked.join(" "))
}

/// Checks that what is never null is there, and that lists are lists.
fn check_type(types: &Types, gives: &str, value: &Value, place: &str) {
    let inner = gives.strip_suffix('!');
    assert!(
        !value.is_null() || inner.is_none(),
        "{place} of type {gives} is null"
    );
    let inner = inner.unwrap_or(gives);
    if value.is_null() {
        return;
    }
    if let Some(inner) = inner
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        for one in value
            .as_array()
            .unwrap_or_else(|| panic!("{place} is no list"))
        {
            check_type(types, inner, one, place);
        }
        return;
    }
    match inner {
        "Boolean" => assert!(value.is_boolean(), "{place} {value}"),
        "DateTime" | "ID" | "String" => assert!(value.is_string(), "{place} {value}"),
        "Float" | "Int" => assert!(value.is_number(), "{place} {value}"),
        _ => {}
    }
    let Some(fields) = types.get(inner) else {
        return;
    };
    if fields.is_empty() {
        // A scalar of any shape.
        return;
    }
    if fields.values().all(|field| field.gives.is_empty()) {
        assert!(
            fields.contains_key(value.as_str().unwrap()),
            "{place} {value}"
        );
    }
    for (name, one) in value.as_object().into_iter().flatten() {
        if name != "__typename" {
            check_type(types, &fields[name].gives, one, &format!("{place}.{name}"));
        }
    }
}

fn base(gives: &str) -> &str {
    gives.trim_matches(['[', ']', '!'])
}

fn ours() -> Types {
    let tree = Parser::new(OURS).parse();
    assert_eq!(tree.errors().len(), 0);
    let mut types = Types::new();
    let text = |ty: Option<cst::Type>| ty.unwrap().syntax().text().to_string().trim().to_owned();
    let name = |name: Option<cst::Name>| name.unwrap().text().to_string();
    let given = |values: cst::CstChildren<cst::InputValueDefinition>| {
        values
            .map(|value| (name(value.name()), text(value.ty())))
            .collect::<BTreeMap<_, _>>()
    };
    for definition in tree.document().definitions() {
        let (own, fields) = match definition {
            Definition::EnumTypeDefinition(one) => {
                let words = one
                    .enum_values_definition()
                    .unwrap()
                    .enum_value_definitions();
                let words =
                    words.map(|word| (name(word.enum_value().unwrap().name()), Field::default()));
                (name(one.name()), words.collect())
            }
            Definition::InputObjectTypeDefinition(one) => {
                let fields = given(
                    one.input_fields_definition()
                        .unwrap()
                        .input_value_definitions(),
                );
                let field = |gives| Field {
                    gives,
                    arguments: BTreeMap::new(),
                };
                (
                    name(one.name()),
                    fields
                        .into_iter()
                        .map(|(at, gives)| (at, field(gives)))
                        .collect(),
                )
            }
            Definition::ObjectTypeDefinition(one) => {
                let fields = one.fields_definition().unwrap().field_definitions();
                let field = |field: cst::FieldDefinition| {
                    let arguments = field.arguments_definition();
                    let arguments = arguments.map(|some| given(some.input_value_definitions()));
                    let gives = text(field.ty());
                    (
                        name(field.name()),
                        Field {
                            gives,
                            arguments: arguments.unwrap_or_default(),
                        },
                    )
                };
                (name(one.name()), fields.map(field).collect())
            }
            Definition::ScalarTypeDefinition(one) => (name(one.name()), BTreeMap::new()),
            other => panic!("{other:?}"),
        };
        assert!(types.insert(own, fields).is_none());
    }
    types
}

fn published(schema: &Value) -> Types {
    let schema = schema
        .pointer("/data/__schema")
        .or_else(|| schema.get("__schema"))
        .unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let given = |value: &Value| {
        let arguments = list(value).into_iter();
        arguments
            .map(|one| (name(&one), written(&one["type"])))
            .collect::<BTreeMap<_, _>>()
    };
    let all = list(&schema["types"]).into_iter().map(|one| {
        let mut fields = BTreeMap::new();
        for field in list(&one["fields"])
            .iter()
            .chain(&list(&one["inputFields"]))
        {
            let gives = written(&field["type"]);
            fields.insert(
                name(field),
                Field {
                    gives,
                    arguments: given(&field["args"]),
                },
            );
        }
        for word in list(&one["enumValues"]) {
            fields.insert(name(&word), Field::default());
        }
        (name(&one), fields)
    });
    all.collect()
}

fn written(ty: &Value) -> String {
    match ty["kind"].as_str().unwrap() {
        "LIST" => format!("[{}]", written(&ty["ofType"])),
        "NON_NULL" => format!("{}!", written(&ty["ofType"])),
        _ => ty["name"].as_str().unwrap().to_owned(),
    }
}

/// The root fields of one kind.
pub fn names(kind: &str) -> BTreeSet<String> {
    ours()[kind].keys().cloned().collect()
}
