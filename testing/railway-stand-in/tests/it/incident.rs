//! What happened on the day: one request, and the database and all its backups are gone.

use holdfast_testing::signals;
use serde_json::json;

use crate::support::{START, STOP, StandIn, given, listed, message};

fn delete(volume: &str) -> String {
    json!({ "query": format!("mutation {{ volumeDelete(volumeId: \"{volume}\") }}") }).to_string()
}

#[test]
fn one_request_kills_the_database_and_removes_its_volume_with_the_backups() {
    let stand_in = StandIn::start(&[]);
    let volume = stand_in.volume_dir("production");
    stand_in.sql("CREATE TABLE booking (id int); INSERT INTO booking VALUES (1)");
    let backup = stand_in.ask(
        "mutation($id: String!) { volumeInstanceBackupCreate(volumeInstanceId: $id) { workflowId } }",
        json!({ "id": stand_in.fact("/volume_instances/production") }),
    );
    given(&backup, "volumeInstanceBackupCreate");
    assert_eq!(listed(&volume), [".backups", "pgdata"]);
    let postmaster = stand_in.postgres_pid();
    let children = signals::descendants(postmaster).unwrap();
    assert!(signals::is_running(postmaster) && children.len() > 2);

    let answer = stand_in.post(
        &stand_in.account(),
        &delete(&stand_in.fact("/volumes/production")),
    );

    assert_eq!(
        (answer.status, answer.body),
        (200, json!({ "data": { "volumeDelete": true } }))
    );
    assert!(!volume.exists());
    let alive: Vec<_> = children
        .into_iter()
        .chain([postmaster])
        .filter(|&pid| signals::is_running(pid))
        .collect();
    assert_eq!(alive, Vec::<u32>::new());
    let projects = stand_in.ask(
        "{ projects { edges { node { volumes { edges { node { name } } } } } } }",
        json!({}),
    );
    let left = given(&projects, "projects/edges/0/node/volumes/edges");
    assert_eq!(
        left,
        &json!([{ "node": { "name": "postgres-volume-staging" } }])
    );
    let effects: Vec<_> = stand_in
        .requests()
        .into_iter()
        .map(|line| line["effect"].to_string())
        .collect();
    assert!(
        effects
            .iter()
            .any(|effect| effect.contains("deleted with 1 backups")),
        "{effects:?}"
    );
}

#[test]
fn in_the_shared_scenario_the_volume_of_staging_is_that_of_production() {
    let mut stand_in = StandIn::start(&["--scenario", "shared"]);
    assert_eq!(
        stand_in.fact("/volumes/staging"),
        stand_in.fact("/volumes/production")
    );
    let volume = stand_in.volume_dir("staging");
    assert!(volume.join("pgdata/PG_VERSION").exists());

    // The narrow token of staging cannot do what would hit production.
    let refused = stand_in.post(
        &stand_in.project_token("staging"),
        &delete(&stand_in.fact("/volumes/staging")),
    );
    assert_eq!(message(&refused.body), "Not Authorized");
    assert!(signals::is_running(stand_in.postgres_pid()));

    let answer = stand_in.post(
        &stand_in.account(),
        &delete(&stand_in.fact("/volumes/staging")),
    );
    assert_eq!(answer.body, json!({ "data": { "volumeDelete": true } }));
    assert!(!volume.exists());
    assert!(!signals::is_running(stand_in.postgres_pid()));
    assert!(stand_in.process.terminate(STOP).unwrap().success());
}

#[test]
fn the_volume_of_staging_alone_leaves_production_as_it_is() {
    let stand_in = StandIn::start(&[]);
    let answer = stand_in.post(
        &stand_in.project_token("staging"),
        &delete(&stand_in.fact("/volumes/staging")),
    );
    assert_eq!(answer.body, json!({ "data": { "volumeDelete": true } }));
    assert!(!stand_in.volume_dir("staging").exists());
    assert_eq!(stand_in.sql("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn nothing_happens_without_a_token_that_may() {
    let stand_in = StandIn::start(&[]);
    let body = delete(&stand_in.fact("/volumes/production"));
    let project = stand_in.fact("/project_tokens/production");
    let account = stand_in.fact("/account_token");
    for header in [
        "Authorization: Bearer 00000000-0000-4000-8000-000000000000".to_owned(),
        "Authorization: Bearer".to_owned(),
        format!("Authorization: Basic {account}"),
        // Each kind of token counts in its own header only.
        format!("Authorization: Bearer {project}"),
        format!("Project-Access-Token: {account}"),
        stand_in.project_token("staging"),
        "X-Nothing: 1".to_owned(),
    ] {
        let answer = stand_in.post(&header, &body);
        assert_eq!(message(&answer.body), "Not Authorized", "{header}");
        assert_eq!(answer.body["data"], json!(null));
        assert_eq!(answer.body["errors"][0]["path"], json!(["volumeDelete"]));
    }
    assert!(stand_in.volume_dir("production").join("pgdata").exists());
    assert_eq!(stand_in.sql("SELECT 1").as_deref(), Some("1"));
    let log = std::fs::read_to_string(stand_in.root.join("requests.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 7);
    assert!(!log.contains(&account) && !log.contains(&project), "{log}");
}

#[test]
fn the_database_is_set_up_as_a_provider_does_and_ends_with_the_stand_in() {
    for installation in holdfast_testing::postgres::all().unwrap() {
        let mut stand_in = StandIn::start(&["--postgres-major", &installation.major.to_string()]);
        assert_eq!(stand_in.sql("SHOW wal_level").as_deref(), Some("replica"));
        assert_eq!(stand_in.sql("SHOW max_wal_senders").as_deref(), Some("10"));
        assert_eq!(
            stand_in.sql("SELECT current_database()").as_deref(),
            Some("rental")
        );
        let major = stand_in.sql("SELECT current_setting('server_version_num')::int / 10000");
        assert_eq!(major, Some(installation.major.to_string()));
        let files = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'";
        assert_eq!(stand_in.sql(files).as_deref(), Some("0"));
        let postmaster = stand_in.postgres_pid();
        assert!(stand_in.process.terminate(STOP).unwrap().success());
        assert!(!signals::is_running(postmaster));
        assert!(
            !stand_in
                .volume_dir("production")
                .join("pgdata/postmaster.pid")
                .exists()
        );
    }
}

#[test]
fn a_killed_stand_in_leaves_no_database_running() {
    let mut stand_in = StandIn::start(&[]);
    let postmaster = stand_in.postgres_pid();
    stand_in.process.kill_9().unwrap();
    signals::wait_until(START, || !signals::is_running(postmaster)).unwrap();
}

#[test]
fn an_environment_takes_its_volumes_with_it_and_a_project_everything() {
    let stand_in = StandIn::start(&[]);
    let environment = "mutation($id: String!) { environmentDelete(id: $id) }";
    given(
        &stand_in.ask(
            environment,
            json!({ "id": stand_in.fact("/environments/staging") }),
        ),
        "environmentDelete",
    );
    assert!(!stand_in.volume_dir("staging").exists());
    assert_eq!(stand_in.sql("SELECT 1").as_deref(), Some("1"));
    let token = stand_in.ask_as(
        &stand_in.project_token("staging"),
        "{ projectToken { id } }",
        json!({}),
    );
    assert_eq!(message(&token), "Not Authorized");

    let project = "mutation($id: String!) { projectDelete(id: $id) }";
    given(
        &stand_in.ask(project, json!({ "id": stand_in.fact("/project_id") })),
        "projectDelete",
    );
    assert_eq!(listed(&stand_in.root.join("volumes")), Vec::<String>::new());
    assert!(!signals::is_running(stand_in.postgres_pid()));
}
