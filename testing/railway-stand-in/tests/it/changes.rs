//! Every mutation that is listed is carried out once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::schema;
use crate::support::{StandIn, given, message};

struct Course<'a> {
    stand_in: &'a StandIn,
    carried_out: BTreeSet<String>,
}

impl Course<'_> {
    /// Carries out one mutation with its arguments as they are written, and returns what it gave.
    fn run(&mut self, name: &str, arguments: &str, selection: &str) -> Value {
        let answer = self.stand_in.ask(
            &format!("mutation {{ {name}({arguments}){selection} }}"),
            json!({}),
        );
        self.carried_out.insert(name.to_owned());
        given(&answer, name).clone()
    }

    fn id(&mut self, name: &str, arguments: &str) -> String {
        self.run(name, arguments, " { id }")["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn yes(&mut self, name: &str, arguments: &str) {
        assert_eq!(self.run(name, arguments, ""), json!(true), "{name}");
    }

    fn ask(&self, query: &str) -> Value {
        self.stand_in.ask(query, json!({}))["data"].clone()
    }
}

#[test]
fn every_mutation_that_is_listed_is_carried_out() {
    let stand_in = StandIn::start(&[]);
    let mut course = Course {
        stand_in: &stand_in,
        carried_out: BTreeSet::new(),
    };
    let project = course.id("projectCreate", "input: { name: \"second\" }");
    course.run(
        "projectUpdate",
        &format!("id: \"{project}\", input: {{ name: \"renamed\", isPublic: true }}"),
        " { isPublic }",
    );
    let environment = course.id(
        "environmentCreate",
        &format!("input: {{ name: \"preview\", projectId: \"{project}\" }}"),
    );
    let renamed = course.run(
        "environmentRename",
        &format!("id: \"{environment}\", input: {{ name: \"later\" }}"),
        " { name }",
    );
    assert_eq!(renamed["name"], "later");
    let service = course.id(
        "serviceCreate",
        &format!("input: {{ name: \"web\", projectId: \"{project}\" }}"),
    );
    course.id(
        "serviceUpdate",
        &format!("id: \"{service}\", input: {{ name: \"site\" }}"),
    );
    variables(&mut course, &project, &environment);
    domains(&mut course, (&project, &environment, &service));
    tokens(&mut course, &project, &environment);
    deployments(&mut course);
    volumes(&mut course, (&project, &environment, &service));
    course.yes("serviceDelete", &format!("id: \"{service}\""));
    course.yes("environmentDelete", &format!("id: \"{environment}\""));
    course.yes("projectDelete", &format!("id: \"{project}\""));
    assert_eq!(course.carried_out, schema::names("Mutation"));
    let left = course.ask("{ projects { edges { node { name } } } }");
    assert_eq!(
        left["projects"]["edges"],
        json!([{ "node": { "name": "rental" } }])
    );
}

fn variables(course: &mut Course<'_>, project: &str, environment: &str) {
    let place = format!("projectId: \"{project}\", environmentId: \"{environment}\"");
    let values =
        format!("{{ variables(environmentId: \"{environment}\", projectId: \"{project}\") }}");
    course.yes(
        "variableUpsert",
        &format!("input: {{ {place}, name: \"A\", value: \"1\" }}"),
    );
    course.yes(
        "variableCollectionUpsert",
        &format!("input: {{ {place}, variables: {{ B: \"2\", C: \"3\" }} }}"),
    );
    course.yes(
        "variableDelete",
        &format!("input: {{ {place}, name: \"B\" }}"),
    );
    assert_eq!(
        course.ask(&values)["variables"],
        json!({ "A": "1", "C": "3" })
    );
    course.yes(
        "variableCollectionUpsert",
        &format!("input: {{ {place}, replace: true, variables: {{ D: \"4\" }} }}"),
    );
    assert_eq!(course.ask(&values)["variables"], json!({ "D": "4" }));
}

fn domains(course: &mut Course<'_>, (project, environment, service): (&str, &str, &str)) {
    let place = format!(
        "projectId: \"{project}\", environmentId: \"{environment}\", serviceId: \"{service}\""
    );
    let input = format!("input: {{ {place}, domain: \"shop.rental.example\" }}");
    let domain = course.id("customDomainCreate", &input);
    let taken = course.stand_in.ask(
        &format!("mutation {{ customDomainCreate({input}) {{ id }} }}"),
        json!({}),
    );
    assert_eq!(
        message(&taken),
        "The domain shop.rental.example is not available"
    );
    let list = format!(
        "{{ domains({place}) {{ customDomains {{ id domain status {{ dnsRecords {{ requiredValue }} }} }} }} }}"
    );
    assert_eq!(
        course.ask(&list)["domains"]["customDomains"][0]["id"],
        json!(domain)
    );
    course.yes("customDomainDelete", &format!("id: \"{domain}\""));
    assert_eq!(course.ask(&list)["domains"]["customDomains"], json!([]));
}

fn tokens(course: &mut Course<'_>, project: &str, environment: &str) {
    let me = |course: &Course<'_>, secret: &Value| {
        let header = format!("Authorization: Bearer {}", secret.as_str().unwrap());
        course.stand_in.ask_as(&header, "{ me { id } }", json!({}))
    };
    let secret = course.run("apiTokenCreate", "input: { name: \"second\" }", "");
    assert!(me(course, &secret)["data"]["me"]["id"].is_string());
    let list = course.ask("{ apiTokens { edges { node { id name displayToken } } } }");
    assert!(
        !list.to_string().contains(secret.as_str().unwrap()),
        "lists show no secrets"
    );
    let edges = list["apiTokens"]["edges"].as_array().unwrap();
    let own = edges
        .iter()
        .find(|edge| edge["node"]["name"] == "second")
        .unwrap();
    course.yes("apiTokenDelete", &format!("id: {}", own["node"]["id"]));
    assert_eq!(message(&me(course, &secret)), "Not Authorized");

    let input = format!(
        "input: {{ projectId: \"{project}\", environmentId: \"{environment}\", name: \"narrow\" }}"
    );
    let secret = course.run("projectTokenCreate", &input, "");
    let header = format!("Project-Access-Token: {}", secret.as_str().unwrap());
    let ask = |course: &Course<'_>| {
        course
            .stand_in
            .ask_as(&header, "{ projectToken { id } }", json!({}))
    };
    let id = ask(course)["data"]["projectToken"]["id"].clone();
    course.yes("projectTokenDelete", &format!("id: {id}"));
    assert_eq!(message(&ask(course)), "Not Authorized");
}

/// What stops production's database stops it, and what starts it starts it at its port.
fn deployments(course: &mut Course<'_>) {
    let (environment, service) = (
        course.stand_in.fact("/environments/production"),
        course.stand_in.fact("/services/postgres"),
    );
    let list = format!(
        "{{ deployments(input: {{ environmentId: \"{environment}\", serviceId: \"{service}\" }}) {{ edges {{ node {{ id deploymentStopped }} }} }} }}"
    );
    let id = course.ask(&list)["deployments"]["edges"][0]["node"]["id"].clone();
    let pid_file = course
        .stand_in
        .volume_dir("production")
        .join("pgdata/postmaster.pid");
    course.yes("deploymentStop", &format!("id: {id}"));
    assert!(!pid_file.exists());
    course.yes("deploymentRestart", &format!("id: {id}"));
    assert_eq!(course.stand_in.sql("SELECT 1").as_deref(), Some("1"));
    course.id("deploymentRedeploy", &format!("id: {id}"));
    course.yes("deploymentRemove", &format!("id: {id}"));
    assert!(!pid_file.exists());
    course.yes(
        "serviceInstanceRedeploy",
        &format!("environmentId: \"{environment}\", serviceId: \"{service}\""),
    );
    assert_eq!(course.stand_in.sql("SELECT 1").as_deref(), Some("1"));
}

fn volumes(course: &mut Course<'_>, (project, environment, service): (&str, &str, &str)) {
    let place =
        format!("projectId: \"{project}\", environmentId: \"{environment}\", mountPath: \"/data\"");
    let volume = course.id("volumeCreate", &format!("input: {{ {place} }}"));
    let dir = course.stand_in.root.join("volumes").join(&volume);
    std::fs::write(dir.join("file"), "one").unwrap();
    let named = course.run(
        "volumeUpdate",
        &format!("volumeId: \"{volume}\", input: {{ name: \"files\" }}"),
        " { name }",
    );
    assert_eq!(named["name"], "files");
    course.yes("volumeInstanceUpdate", &format!("volumeId: \"{volume}\", environmentId: \"{environment}\", input: {{ mountPath: \"/srv\", serviceId: \"{service}\" }}"));
    let list = format!(
        "{{ environment(id: \"{environment}\") {{ volumeInstances {{ edges {{ node {{ id mountPath service {{ id }} }} }} }} }} }}"
    );
    let instance = course.ask(&list)["environment"]["volumeInstances"]["edges"][0]["node"].clone();
    assert_eq!(
        (&instance["mountPath"], &instance["service"]["id"]),
        (&json!("/srv"), &json!(service))
    );
    let at = format!("volumeInstanceId: {}", instance["id"]);
    course.run("volumeInstanceBackupCreate", &at, " { workflowId }");
    std::fs::write(dir.join("file"), "two").unwrap();
    std::fs::write(dir.join("more"), "").unwrap();
    let backups = course.ask(&format!("{{ volumeInstanceBackupList({at}) {{ id }} }}"));
    let at = format!(
        "{at}, volumeInstanceBackupId: {}",
        backups["volumeInstanceBackupList"][0]["id"]
    );
    course.run("volumeInstanceBackupRestore", &at, " { workflowId }");
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "one");
    assert!(!dir.join("more").exists());
    course.run("volumeInstanceBackupDelete", &at, " { workflowId }");
    let harmless = format!("environmentId: \"{environment}\", input: {{ services: {{ }} }}");
    course.run("environmentStageChanges", &harmless, " { id }");
    course.run(
        "environmentPatchCommitStaged",
        &format!("environmentId: \"{environment}\""),
        "",
    );
    course.run(
        "environmentPatchCommit",
        &format!("environmentId: \"{environment}\", patch: {{ services: {{ }} }}"),
        "",
    );
    assert!(dir.exists());
    course.yes("volumeDelete", &format!("volumeId: \"{volume}\""));
    assert!(!dir.exists());
}
