use std::collections::BTreeMap;

use holdfast_core::{Effect, EvidenceItem, Resource};
use holdfast_wire::http::HttpRequest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::http::{HttpLine, verdict_line};
use crate::policy::Policy;

const CASES: &str = include_str!("../../../../packs/railway/cases.toml");
const OPERATIONS: &str = include_str!("../../../../packs/railway/operations.txt");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    say: String,
    doc: Option<String>,
    vars: Option<String>,
    name: Option<String>,
    body: Option<String>,
    kind: Option<String>,
    method: Option<String>,
    scheme: Option<String>,
    path: Option<String>,
    url_query: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    verdict: String,
    effects: Vec<Effect>,
    #[serde(default)]
    on: Vec<String>,
}

impl Case {
    fn line(&self) -> HttpLine {
        let document = self.doc.as_ref().map(|doc| {
            let mut body = json!({ "query": doc });
            if let Some(vars) = &self.vars {
                body["variables"] = serde_json::from_str(vars).unwrap();
            }
            if let Some(name) = &self.name {
                body["operationName"] = json!(name);
            }
            body.to_string()
        });
        let scheme = self.scheme.as_deref().unwrap_or("https");
        let path = self.path.as_deref().unwrap_or("/graphql/v2");
        let query = self.url_query.as_ref().map(|q| format!("?{q}"));
        let mut headers = self.headers.clone();
        let kind = self.kind.as_deref().unwrap_or("application/json");
        headers.insert("Content-Type".to_owned(), kind.to_owned());
        HttpLine {
            id: json!(self.say),
            method: self.method.clone().unwrap_or("POST".to_owned()),
            url: format!(
                "{scheme}://backboard.railway.app{path}{}",
                query.unwrap_or_default()
            ),
            headers,
            body: document.or_else(|| self.body.clone()),
            body_b64: None,
        }
    }

    fn request(&self) -> HttpRequest {
        let line = self.line();
        let of_path = || self.path.clone().unwrap_or("/graphql/v2".to_owned());
        let headers = line.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_lowercase(), value.clone().into_bytes()));
        HttpRequest {
            method: line.method.clone(),
            scheme: self.scheme.clone().unwrap_or("https".to_owned()),
            host: "backboard.railway.app".to_owned(),
            port: if self.scheme.is_some() { 80 } else { 443 },
            path: of_path(),
            query: self.url_query.clone(),
            headers: headers.collect(),
            body: line.body.unwrap_or_default().into_bytes(),
        }
    }
}

fn post(document: &str, variables: Value) -> HttpRequest {
    HttpRequest {
        method: "POST".to_owned(),
        scheme: "https".to_owned(),
        host: "backboard.railway.app".to_owned(),
        port: 443,
        path: "/graphql/v2".to_owned(),
        query: None,
        headers: Vec::new(),
        body: json!({ "query": document, "variables": variables })
            .to_string()
            .into_bytes(),
    }
}

#[test]
fn every_labelled_railway_case_is_judged_as_labelled() {
    let cases = toml::from_str::<Cases>(CASES).unwrap().cases;
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let (packs, policy) = (Packs::shipped(), Policy::shipped());
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = verdict_line(&case.line(), &packs, &policy);
        let judgement = packs.judge(&case.request());
        let mut on: Vec<String> = Vec::new();
        for impact in judgement
            .effects
            .impacts()
            .iter()
            .filter(|i| i.effect.is_irreversible())
        {
            on.extend(
                impact
                    .resources
                    .iter()
                    .map(|r| format!("{}:{}", r.kind, r.name)),
            );
        }
        on.sort();
        on.dedup();
        let said = (
            answer.verdict,
            answer.effects.clone(),
            judgement.effects.kinds(),
            on,
        );
        let expected = (
            case.verdict.as_str(),
            case.effects.clone(),
            case.effects.clone(),
            case.on.clone(),
        );
        if said != expected {
            wrong.push(format!(
                "{}: {said:?}, not {expected:?}: {:?}",
                case.say, answer.because
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_published_mutation_has_exactly_one_class() {
    let published: Vec<&str> = OPERATIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(published.len(), 230);
    let classified = Packs::shipped().operations("railway");
    let classified: Vec<&str> = classified
        .iter()
        .filter(|(kind, _)| *kind == "mutation")
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(classified, published);
}

/// The provider's published schema is not part of the project; where it lies beside the checkout, the
/// committed list is compared with it.
#[test]
fn the_list_of_operations_is_that_of_the_published_schema() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/railway");
    let Ok(folder) = std::fs::read_dir(beside) else {
        eprintln!("the published schema is not at {beside}: compared with the committed list only");
        return;
    };
    let schemas = folder.map(|entry| entry.unwrap().path());
    let schemas: Vec<_> = schemas
        .filter(|path| path.extension() == Some("json".as_ref()))
        .collect();
    assert!(!schemas.is_empty(), "{beside} has no schema");
    for path in schemas {
        let schema: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let schema = schema
            .pointer("/data/__schema")
            .or(schema.pointer("/__schema"))
            .unwrap();
        let types = schema["types"].as_array().unwrap();
        let mutation = types.iter().find(|one| one["name"] == "Mutation").unwrap();
        let fields = mutation["fields"].as_array().unwrap();
        let mut names: Vec<&str> = fields.iter().map(|f| f["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let listed: Vec<&str> = OPERATIONS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert_eq!(names, listed, "{}", path.display());
    }
}

fn answer(question: &Question, body: Value) -> Answer {
    Answer {
        question: question.clone(),
        body: Ok(body.to_string().into_bytes()),
    }
}

#[test]
fn what_was_staged_is_asked_for_and_then_judged() {
    let packs = Packs::shipped();
    let request = post(
        "mutation($e: String!) { environmentPatchCommitStaged(environmentId: $e) }",
        json!({ "e": "e1" }),
    );
    let judgement = packs.judge(&request);
    let question = judgement.questions.last().unwrap().clone();
    let asked: Value = serde_json::from_str(&question.body).unwrap();
    assert_eq!(asked["variables"], json!({ "environmentId": "e1" }));
    let staged = |patch: Value| {
        let body = json!({ "data": { "environmentStagedChanges": { "id": "x", "patch": patch } } });
        packs
            .learn(judgement.clone(), &[answer(&question, body)])
            .judgement
            .effects
    };
    let deletes = staged(json!({ "volumes": { "v1": { "isDeleted": true } } }));
    assert!(deletes.contains(Effect::Destroy) && !deletes.contains(Effect::Unknown));
    let destroyed = deletes
        .impacts()
        .iter()
        .find(|i| i.effect == Effect::Destroy)
        .unwrap();
    assert_eq!(destroyed.resources, [Resource::new("railway:volume", "v1")]);
    let changes = staged(json!({ "services": { "s": { "deploy": { "numReplicas": 2 } } } }));
    assert_eq!(changes.kinds(), [Effect::Write]);
    let moved = staged(json!({ "services": { "s": { "variables": { "A": { "value": "b" } } } } }));
    assert_eq!(moved.kinds(), [Effect::Redirect]);
    for unread in [json!(null), json!("text"), json!([1])] {
        assert!(staged(unread).contains(Effect::Unknown));
    }
    let failed = Answer {
        question,
        body: Err("no answer".to_owned()),
    };
    let unknown = packs.learn(judgement, &[failed]).judgement.effects;
    assert!(unknown.contains(Effect::Unknown));
}

#[test]
fn the_provider_is_asked_what_an_id_really_is() {
    let packs = Packs::shipped();
    let judgement = packs.judge(&post(
        r#"mutation { volumeDelete(volumeId: "v1") }"#,
        json!({}),
    ));
    assert_eq!(judgement.summary, "railway volumeDelete v1");
    assert_eq!(judgement.advice.len(), 2);
    let [question] = &judgement.questions.clone()[..] else {
        panic!("{:?}", judgement.questions);
    };
    let volume = |id: &str| {
        let instances = json!({ "edges": [{ "node": { "environment": { "name": "staging" } } },
            { "node": { "environment": { "name": "production" } } }] });
        json!({ "node": { "id": id, "name": format!("{id}-data"), "volumeInstances": instances } })
    };
    let projects = json!({ "data": { "projects": { "edges": [
        { "node": { "id": "p1", "name": "other", "volumes": { "edges": [volume("v0")] } } },
        { "node": { "id": "p2", "name": "rental", "volumes": { "edges": [volume("v2"), volume("v1")] } } },
    ] } } });
    let learnt = packs.learn(judgement.clone(), &[answer(question, projects)]);
    let values: Vec<&str> = learnt
        .evidence
        .items
        .iter()
        .map(|i: &EvidenceItem| i.value.as_str())
        .collect();
    assert_eq!(values, ["rental", "v1-data", "production, staging"]);
    assert_eq!(learnt.judgement.effects, judgement.effects);
    let nothing = packs.learn(judgement, &[answer(question, json!({ "errors": [] }))]);
    assert!(nothing.evidence.items[0].value.starts_with("not known"));
}

#[test]
fn secrets_in_arguments_are_not_in_the_summary() {
    let document = r#"mutation { variableUpsert(input: { name: "DATABASE_URL", value: "postgres://u:hunter2@h/d" }) }"#;
    let judgement = Packs::shipped().judge(&post(document, json!({})));
    assert!(
        !format!("{judgement:?}").contains("hunter2"),
        "{judgement:?}"
    );
}

#[test]
fn hosts_without_a_pack_are_judged_by_method() {
    let packs = Packs::shipped();
    let of = |method: &str, host: &str| {
        let mut request = post("{ me }", json!({}));
        (request.method, request.host) = (method.to_owned(), host.to_owned());
        if method != "POST" {
            request.body.clear();
        }
        packs.judge(&request).effects.kinds()
    };
    assert_eq!(of("GET", "api.example"), [Effect::Read]);
    assert_eq!(of("POST", "api.example"), [Effect::Unknown]);
    assert_eq!(of("DELETE", "api.example"), [Effect::Unknown]);
    assert_eq!(of("BREW", "api.example"), [Effect::Unknown]);
    for metadata in [
        "169.254.169.254",
        "[fe80::1]",
        "metadata.google.internal",
        "[::ffff:169.254.169.254]",
    ] {
        assert!(of("GET", metadata).contains(&Effect::Unknown), "{metadata}");
    }
}

#[test]
fn a_pack_that_contradicts_itself_is_refused() {
    let good = Packs::shipped_texts()[0].1;
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        Packs::parse(&[("railway", &good.replacen(from, to, 1))]).map(|_| ())
    };
    for (from, to, why) in [
        ("format = 1", "format = 2", "format 2"),
        ("title =", "colour = 1\ntitle =", "unknown field"),
        (
            "effect = \"destroy\"",
            "effect = \"delete\"",
            "not an effect",
        ),
        (
            "\"bucketUpdate\",",
            "\"bucketUpdate\", \"volumeDelete\",",
            "stands twice",
        ),
        (
            "question = \"staged\"",
            "question = \"stage\"",
            "answers nothing",
        ),
        (
            "judge_as = \"environmentPatchCommit\"",
            "judge_as = \"x\"",
            "not listed",
        ),
        (
            "captured = \"id\"",
            "captured = \"x\"",
            "nothing is captured",
        ),
        ("at = \"/volumeId\"", "at = \"volumeId\"", "does not begin"),
        ("test = \"absent\"", "test = \"gone\"", "has one of"),
        (
            "\"backboard.railway.app\"",
            "\"https://Railway\"",
            "lower case",
        ),
        ("shape = \"uuid\"", "shape = \"any\"", "shape"),
        ("reach = [\"whoami\"", "reach = [\"x\"", "no question"),
    ] {
        let error = changed(from, to).unwrap_err().to_string();
        assert!(error.contains(why), "{to}: {error}");
    }
    let twice = Packs::parse(&[("railway", good), ("other", good)]).unwrap_err();
    assert!(twice.to_string().contains("claims"));
}

#[test]
fn a_credential_can_destroy_what_the_pack_says() {
    let known = Packs::shipped().credentials();
    assert!(known[0].destroys.len() >= 20, "{:?}", known[0].destroys);
    for name in [
        "volumeDelete",
        "environmentPatchCommit",
        "volumeInstanceUpdate",
    ] {
        assert!(known[0].destroys.iter().any(|one| one == name));
    }
    let places = Packs::shipped().credential_places("backboard.railway.com");
    assert_eq!(places[0].header, "authorization");
}
