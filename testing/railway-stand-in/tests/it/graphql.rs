//! GraphQL in all the forms in which a request can be written, and those that are refused.

use holdfast_testing::signals;
use serde_json::{Value, json};

use crate::support::{StandIn, given, message};

fn volumes(stand_in: &StandIn) -> usize {
    let answer = stand_in.ask(
        "{ projects { edges { node { volumes { edges { cursor } } } } } }",
        json!({}),
    );
    given(&answer, "projects/edges/0/node/volumes/edges")
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn a_deletion_is_carried_out_in_every_form_in_which_it_can_be_written() {
    let stand_in = StandIn::start(&[]);
    let fresh = || {
        let create = "mutation($input: VolumeCreateInput!) { volumeCreate(input: $input) { id } }";
        let input = json!({
            "projectId": stand_in.fact("/project_id"),
            "environmentId": stand_in.fact("/environments/staging"),
            "mountPath": "/data",
        });
        let answer = stand_in.ask(create, json!({ "input": input }));
        given(&answer, "volumeCreate/id")
            .as_str()
            .unwrap()
            .to_owned()
    };
    let environment = stand_in.fact("/environments/staging");
    let forms: [&dyn Fn(&str) -> Value; 9] = [
        &|id| json!({ "query": format!("mutation{{volumeDelete(volumeId:\"{id}\")}}") }),
        &|id| json!({ "query": "mutation D($v: String!) { volumeDelete(volumeId: $v) }", "variables": { "v": id } }),
        &|id| json!({ "query": format!("mutation($v: String! = \"{id}\") {{ harmless: volumeDelete(volumeId: $v) }}") }),
        &|id| json!({ "query": format!("mutation {{ ...f }} fragment f on Mutation {{ volumeDelete(volumeId: \"{id}\") }}") }),
        &|id| json!({ "query": format!("mutation {{ ... on Mutation {{ ... {{ volumeDelete(volumeId: \"\"\"{id}\"\"\") }} }} }}") }),
        &|id| {
            json!({
                "query": format!("query A {{ me {{ id }} }} mutation B {{ volumeDelete(volumeId: \"{id}\") }}"),
                "operationName": "B",
            })
        },
        &|id| json!([{ "query": "{ me { id } }" }, { "query": format!("mutation {{ volumeDelete(volumeId: \"{id}\") }}") }]),
        &|id| json!({ "query": format!("mutation {{ volumeInstanceUpdate(volumeId: \"{id}\", input: {{ state: DELETED }}) }}") }),
        &|id| {
            json!({
                "query": "mutation($e: String!, $p: EnvironmentConfig) { environmentPatchCommit(environmentId: $e, patch: $p) }",
                "variables": { "e": environment, "p": { "volumes": { id: { "isDeleted": true } } } },
            })
        },
    ];
    for form in forms {
        let id = fresh();
        let dir = stand_in.root.join("volumes").join(&id);
        assert!(dir.is_dir());
        let body = form(&id).to_string();
        let answer = stand_in.post(&stand_in.account(), &body);
        assert_eq!(answer.status, 200, "{body} {}", answer.body);
        assert!(
            !answer.body.to_string().contains("errors"),
            "{body} {}",
            answer.body
        );
        assert!(!dir.exists(), "{body}");
    }
    assert_eq!(volumes(&stand_in), 2);
}

#[test]
fn a_staged_deletion_waits_for_the_commit_that_names_nothing() {
    let stand_in = StandIn::start(&[]);
    let environment = json!({ "e": stand_in.fact("/environments/production") });
    let stage = "mutation($e: String!, $p: EnvironmentConfig!) { environmentStageChanges(environmentId: $e, input: $p) { id status } }";
    let commit = "mutation($e: String!) { environmentPatchCommitStaged(environmentId: $e) }";
    assert_eq!(
        message(&stand_in.ask(commit, environment.clone())),
        "No patch to apply"
    );

    let volume = stand_in.fact("/volumes/production");
    let patch = json!({ "volumes": { volume.clone(): { "isDeleted": true } } });
    let variables = json!({ "e": environment["e"], "p": patch });
    assert_eq!(
        given(
            &stand_in.ask(stage, variables),
            "environmentStageChanges/status"
        ),
        "STAGED"
    );
    let staged = "query($e: String!) { environmentStagedChanges(environmentId: $e) { patch environment { name } } }";
    let answer = stand_in.ask(staged, environment.clone());
    assert_eq!(given(&answer, "environmentStagedChanges/patch"), &patch);
    assert_eq!(
        given(&answer, "environmentStagedChanges/environment/name"),
        "production"
    );
    assert!(signals::is_running(stand_in.postgres_pid()));

    given(
        &stand_in.ask(commit, environment),
        "environmentPatchCommitStaged",
    );
    assert!(!signals::is_running(stand_in.postgres_pid()));
    assert!(!stand_in.volume_dir("production").exists());
}

#[test]
fn what_servers_refuse_is_refused_in_their_words_and_nothing_is_carried_out() {
    let stand_in = StandIn::start(&[]);
    for &(query, expected) in REFUSED {
        let body = json!({ "query": query }).to_string();
        let answer = stand_in.post(&stand_in.account(), &body);
        assert_eq!(
            (answer.status, message(&answer.body)),
            (400, expected),
            "{query}"
        );
        assert!(answer.body.get("data").is_none(), "{query}");
    }
    // Each fragment spreads the next twice: 2^20 fields in a short text.
    let next = |n: u32| format!("fragment f{n} on User {{ ...f{0} ...f{0} }} ", n + 1);
    let bomb: String = (0..20).map(next).collect();
    let bomb = format!("{{ me {{ ...f0 }} }} {bomb} fragment f20 on User {{ id }}");
    let answer = stand_in.ask(&bomb, json!({}));
    assert_eq!(message(&answer), "The operation asks for too many fields.");
    let cut = stand_in.post(
        &stand_in.account(),
        r#"{"query":"mutation { volumeDelete(volumeId: \"x\""}"#,
    );
    assert_eq!(cut.status, 400);
    assert!(
        message(&cut.body).starts_with("Syntax Error:"),
        "{}",
        cut.body
    );
    assert_eq!(volumes(&stand_in), 2);
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let stand_in = StandIn::start(&[]);
    let account = stand_in.account();
    for body in [
        "",
        "{",
        "[]",
        "7",
        "{\"query\":7}",
        "{\"query\":\"{ me { id } }\",\"variables\":[]}",
        "{\"id\":\"persisted\"}",
    ] {
        let answer = stand_in.post(&account, body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(!message(&answer.body).is_empty());
    }
    let large = format!(
        "{{\"query\":\"{{ me {{ id }} }}{}\"}}",
        " ".repeat(1024 * 1024)
    );
    assert_eq!(stand_in.post(&account, &large).status, 413);
    let many = Value::Array(vec![json!({ "query": "{ me { id } }" }); 11]);
    assert_eq!(stand_in.post(&account, &many.to_string()).status, 400);
    let json = "Content-Type: application/json";
    let text = [
        "-X",
        "POST",
        "-H",
        account.as_str(),
        "-H",
        "Content-Type: text/plain",
        "-d",
        "{}",
    ];
    assert_eq!(
        stand_in
            .curl(&text, "https://backboard.railway.com/graphql/v2")
            .status,
        400
    );
    let get = ["-H", account.as_str()];
    assert_eq!(
        stand_in
            .curl(
                &get,
                "https://backboard.railway.com/graphql/v2?query=%7Bme%7Bid%7D%7D"
            )
            .status,
        405
    );
    let post = ["-X", "POST", "-H", account.as_str(), "-H", json, "-d", "{}"];
    assert_eq!(
        stand_in
            .curl(&post, "https://backboard.railway.com/graphql/internal")
            .status,
        404
    );
}

#[test]
fn answers_have_the_shape_that_was_asked_for() {
    let stand_in = StandIn::start(&[]);
    let query = "query Q($deep: Boolean!) {
        who: me { __typename id ...rest }
        projects(first: 1) { edges { node { name
            volumes(last: 1) { edges { node { name project { name } } } pageInfo { hasNextPage hasPreviousPage } }
            environments @include(if: $deep) { edges { node { name } } }
            services @skip(if: $deep) { edges { node { name } } }
        } } }
        environment(id: \"nowhere\") @skip(if: true) { id }
    }
    fragment rest on User { email }";
    let answer = stand_in.ask(query, json!({ "deep": true }));
    assert_eq!(given(&answer, "who/__typename"), "User");
    assert_eq!(given(&answer, "who/email"), "owner@rental.example");
    let project = given(&answer, "projects/edges/0/node");
    assert_eq!(project["volumes"]["edges"].as_array().unwrap().len(), 1);
    assert_eq!(
        project["volumes"]["edges"][0]["node"]["project"]["name"],
        "rental"
    );
    assert_eq!(
        project["volumes"]["pageInfo"],
        json!({ "hasNextPage": false, "hasPreviousPage": true })
    );
    assert_eq!(
        project["environments"]["edges"].as_array().unwrap().len(),
        2
    );
    assert!(project.get("services").is_none());

    // A refusal inside says where; nothing else is given.
    let nowhere = stand_in.ask(
        "{ me { id } gone: environment(id: \"nowhere\") { id } }",
        json!({}),
    );
    assert_eq!(message(&nowhere), "Not Authorized");
    assert_eq!(nowhere["errors"][0]["path"], json!(["gone"]));
    assert_eq!(
        nowhere["errors"][0]["locations"],
        json!([{ "line": 1, "column": 13 }])
    );
    assert_eq!(nowhere["data"], json!(null));
}

#[test]
fn a_mutation_stops_at_the_first_field_that_is_refused() {
    let stand_in = StandIn::start(&[]);
    let query = format!(
        "mutation {{ a: volumeUpdate(volumeId: \"{0}\", input: {{ name: \"renamed\" }}) {{ name }}
            b: volumeDelete(volumeId: \"nowhere\") c: volumeDelete(volumeId: \"{0}\") }}",
        stand_in.fact("/volumes/staging")
    );
    let answer = stand_in.ask(&query, json!({}));
    assert_eq!(message(&answer), "Not Authorized");
    assert_eq!(answer["errors"][0]["path"], json!(["b"]));
    assert!(stand_in.volume_dir("staging").exists());
    let names = stand_in.ask(
        "{ projects { edges { node { volumes { edges { node { name } } } } } } }",
        json!({}),
    );
    assert!(names.to_string().contains("renamed"), "{names}");
}

/// Documents and the words in which they are refused.
const REFUSED: &[(&str, &str)] = &[
    (
        "{ volumes { id } }",
        "Cannot query field \"volumes\" on type \"Query\".",
    ),
    (
        "mutation { volumeWipe(volumeId: \"x\") }",
        "Cannot query field \"volumeWipe\" on type \"Mutation\".",
    ),
    (
        "{ me { id password } }",
        "Cannot query field \"password\" on type \"User\".",
    ),
    (
        "mutation { volumeDelete }",
        "Field \"volumeDelete\" argument \"volumeId\" of type \"String!\" is required, but it was not provided.",
    ),
    (
        "mutation { volumeDelete(volumeId: \"x\", force: true) }",
        "Unknown argument \"force\" on field \"volumeDelete\".",
    ),
    (
        "mutation { volumeDelete(volumeId: 7) }",
        "String cannot represent value: 7",
    ),
    (
        "mutation { volumeDelete(volumeId: null) }",
        "Expected value of type \"String!\", found null.",
    ),
    (
        "mutation { volumeDelete(volumeId: \"x\") { id } }",
        "Field \"volumeDelete\" must not have a selection since type \"Boolean!\" has no subfields.",
    ),
    (
        "{ me }",
        "Field \"me\" of type \"User!\" must have a selection of subfields. Did you mean \"me { ... }\"?",
    ),
    (
        "mutation { volumeDelete(volumeId: $v) }",
        "Variable \"$v\" is not defined.",
    ),
    (
        "mutation($v: ID!) { volumeDelete(volumeId: $v) }",
        "Variable \"$v\" of required type \"ID!\" was not provided.",
    ),
    (
        "mutation($v: String = \"x\") { volumeDelete(volumeId: $v) }",
        "Variable \"$v\" of type \"String\" used in position expecting type \"String!\".",
    ),
    (
        "{ ...f } fragment f on Mutation { __typename }",
        "Fragment cannot be spread here as objects of type \"Query\" can never be of type \"Mutation\".",
    ),
    ("{ ...f }", "Unknown fragment \"f\"."),
    (
        "{ me { ...f } } fragment f on User { id ...f ...f }",
        "Cannot spread fragment \"f\" within itself.",
    ),
    (
        "{ __schema { types { name } } }",
        "GraphQL introspection is not allowed by the stand-in",
    ),
    (
        "subscription { deploymentLogs { message } }",
        "Subscriptions are not supported over HTTP.",
    ),
    (
        "query A { me { id } } query B { me { id } }",
        "Must provide operation name if query contains multiple operations.",
    ),
    ("{ me @later { id } }", "Unknown directive \"@later\"."),
    (
        "{ me { a: id a: email } }",
        "Fields \"a\" conflict. Use different aliases on the fields to fetch both if this was intentional.",
    ),
];
