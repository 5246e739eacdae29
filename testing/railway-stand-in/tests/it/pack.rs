//! Every question of the guard's pack is answered, and its places hold what the pack looks for.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{StandIn, message};

fn questions() -> Vec<toml::Table> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let text = std::fs::read_to_string(root.join("packs/railway/pack.toml")).unwrap();
    let pack: toml::Table = text.parse().unwrap();
    let questions = pack["question"].as_array().unwrap();
    questions
        .iter()
        .map(|one| one.as_table().unwrap().clone())
        .collect()
}

/// The values at a place of the answer; `*` and `{name}` stand for any one step.
fn found<'a>(value: &'a Value, place: &str) -> Vec<&'a Value> {
    let mut values = vec![value];
    for step in place.split('/').skip(1) {
        let any = step == "*" || step.starts_with('{');
        let next = values.into_iter().flat_map(|value| -> Vec<&Value> {
            match value {
                Value::Array(many) if any => many.iter().collect(),
                Value::Array(many) => step
                    .parse()
                    .ok()
                    .and_then(|at: usize| many.get(at))
                    .into_iter()
                    .collect(),
                Value::Object(fields) if any => fields.values().collect(),
                other => other.get(step).into_iter().collect(),
            }
        });
        values = next.collect();
    }
    values
}

#[test]
fn every_question_of_the_pack_is_answered_with_what_it_looks_for() {
    let stand_in = StandIn::start(&["--scenario", "shared"]);
    let questions = questions();
    assert!(questions.len() >= 8, "{}", questions.len());
    for question in &questions {
        let text = |key: &str| question.get(key).and_then(|value| value.as_str());
        let id = text("id").unwrap();
        let own = match id {
            "environment" => stand_in.fact("/environments/production"),
            "project" => stand_in.fact("/project_id"),
            "service" => stand_in.fact("/services/postgres"),
            "volume" => stand_in.fact("/volumes/production"),
            "volume-instance" => stand_in.fact("/volume_instances/production"),
            _ => String::new(),
        };
        let given = question.get("variables").and_then(|value| value.as_table());
        let variables = given.into_iter().flatten().map(|(name, value)| {
            let value = match value.as_str().unwrap() {
                "{name}" => own.clone(),
                _ => stand_in.fact("/environments/production"),
            };
            (name.clone(), json!(value))
        });
        let answer = stand_in.ask(text("query").unwrap(), Value::Object(variables.collect()));
        assert!(answer.get("errors").is_none(), "{id}: {answer}");
        if let Some(place) = text("find") {
            let ids: Vec<_> = found(&answer, place);
            assert!(
                ids.contains(&&json!(own)),
                "{id}: {own} is not at {place} of {answer}"
            );
        }
        if let Some(place) = text("answer") {
            assert_eq!(found(&answer, place), [&json!({})], "{id}");
        }
        for key in ["fact", "also"] {
            let more = question.get(key).and_then(|value| value.as_array());
            for one in more.into_iter().flatten() {
                let place = one["at"].as_str().unwrap();
                let place = place.replace("{p}", "*").replace("{v}", "*");
                let values = found(&answer, &place);
                assert!(!values.is_empty(), "{id}: nothing at {place} of {answer}");
                assert!(
                    values.iter().all(|value| value.is_string()),
                    "{id}: {place}"
                );
            }
        }
    }
    let volume = questions
        .iter()
        .find(|one| one["id"].as_str() == Some("volume"))
        .unwrap();
    let answer = stand_in.ask(volume["query"].as_str().unwrap(), json!({}));
    let place = "/data/projects/edges/*/node/volumes/edges/*/node/volumeInstances/edges/*/node/environment/name";
    let mut environments: Vec<_> = found(&answer, place)
        .into_iter()
        .filter_map(Value::as_str)
        .collect();
    environments.sort_unstable();
    assert_eq!(
        environments,
        ["production", "staging"],
        "both share the one volume"
    );
}

#[test]
fn a_project_token_sees_its_own_environment_and_asks_nothing_of_the_account() {
    let stand_in = StandIn::start(&[]);
    let staging = stand_in.project_token("staging");
    for question in [
        "{ me { id } }",
        "{ projects { edges { cursor } } }",
        "{ apiTokens { edges { cursor } } }",
    ] {
        assert_eq!(
            message(&stand_in.ask_as(&staging, question, json!({}))),
            "Not Authorized",
            "{question}"
        );
    }
    let project = "query($id: String!) { project(id: $id) {
        environments { edges { node { name } } } volumes { edges { node { name } } } } }";
    let answer = stand_in.ask_as(
        &staging,
        project,
        json!({ "id": stand_in.fact("/project_id") }),
    );
    let names = |place: &str| {
        found(&answer, place)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("/data/project/environments/edges/*/node/name"),
        [json!("staging")]
    );
    assert_eq!(
        names("/data/project/volumes/edges/*/node/name"),
        [json!("postgres-volume-staging")]
    );
    let instance = "query($id: String!) { volumeInstance(id: $id) { id } }";
    let production = json!({ "id": stand_in.fact("/volume_instances/production") });
    assert_eq!(
        message(&stand_in.ask_as(&staging, instance, production)),
        "Not Authorized"
    );
    let token = stand_in.ask_as(
        &staging,
        "{ projectToken { projectId environmentId } }",
        json!({}),
    );
    assert_eq!(
        token["data"]["projectToken"]["environmentId"],
        json!(stand_in.fact("/environments/staging"))
    );
}
