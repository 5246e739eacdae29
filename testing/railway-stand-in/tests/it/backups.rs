//! Backups lie on the volume that they are of, and bring back what was there.

use serde_json::{Value, json};

use crate::support::{StandIn, given, listed, message};

const CREATE: &str = "mutation($id: String!, $name: String) {
    volumeInstanceBackupCreate(volumeInstanceId: $id, name: $name) { workflowId } }";
const LIST: &str = "query($id: String!) {
    volumeInstanceBackupList(volumeInstanceId: $id) { id name externalId createdAt usedMB } }";
const RESTORE: &str = "mutation($id: String!, $backup: String!) {
    volumeInstanceBackupRestore(volumeInstanceId: $id, volumeInstanceBackupId: $backup) { workflowId } }";
const DELETE: &str = "mutation($id: String!, $backup: String!) {
    volumeInstanceBackupDelete(volumeInstanceId: $id, volumeInstanceBackupId: $backup) { workflowId } }";

fn production(stand_in: &StandIn) -> String {
    stand_in.fact("/volume_instances/production")
}

/// Waits for nothing: the work is over when its id is given out, and this says how it ended.
fn ended(stand_in: &StandIn, answer: &Value, field: &str) -> Value {
    let id = given(answer, &format!("{field}/workflowId"));
    let question = "query($id: String!) { workflowStatus(workflowId: $id) { status error } }";
    given(
        &stand_in.ask(question, json!({ "id": id })),
        "workflowStatus",
    )
    .clone()
}

fn back_up(stand_in: &StandIn, name: &str) -> String {
    let answer = stand_in.ask(CREATE, json!({ "id": production(stand_in), "name": name }));
    let status = ended(stand_in, &answer, "volumeInstanceBackupCreate");
    assert_eq!(status, json!({ "status": "Complete", "error": null }));
    let list = stand_in.ask(LIST, json!({ "id": production(stand_in) }));
    let all = given(&list, "volumeInstanceBackupList").as_array().unwrap();
    let own = all.iter().find(|one| one["name"] == name).unwrap();
    own["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_brings_back_in_place_what_was_on_the_volume() {
    for installation in holdfast_testing::postgres::all().unwrap() {
        let stand_in = StandIn::start(&["--postgres-major", &installation.major.to_string()]);
        stand_in.sql("CREATE TABLE booking AS SELECT generate_series(1, 5000) AS id");
        let backup = back_up(&stand_in, "before");
        let copy = stand_in
            .volume_dir("production")
            .join(".backups")
            .join(&backup);
        assert_eq!(listed(&copy), ["pgdata"]);
        let version = std::fs::read_to_string(copy.join("pgdata/PG_VERSION")).unwrap();
        assert_eq!(version.trim(), installation.major.to_string());
        stand_in.sql("DELETE FROM booking WHERE id > 10; CREATE TABLE later (id int)");

        let answer = stand_in.ask(
            RESTORE,
            json!({ "id": production(&stand_in), "backup": backup }),
        );
        let status = ended(&stand_in, &answer, "volumeInstanceBackupRestore");
        assert_eq!(status, json!({ "status": "Complete", "error": null }));

        // The server has its port and its password again.
        assert_eq!(
            stand_in.sql("SELECT count(*) FROM booking").as_deref(),
            Some("5000")
        );
        assert_eq!(
            stand_in
                .sql("SELECT to_regclass('later') IS NULL")
                .as_deref(),
            Some("t")
        );
        assert!(copy.exists(), "a restore keeps the backup");
    }
}

#[test]
fn a_backup_taken_while_rows_are_written_starts_and_holds_every_acknowledged_row() {
    let stand_in = StandIn::start(&[]);
    stand_in.sql("CREATE TABLE booking (id int PRIMARY KEY, note text)");
    let (mut acknowledged, mut at_backup) = (0_u32, 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let backup = std::thread::scope(|scope| {
        let taking = scope.spawn(|| back_up(&stand_in, "under load"));
        runtime.block_on(async {
            let url = stand_in.fact("/database_url");
            let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
            let (client, connection) = connected.unwrap();
            tokio::spawn(connection);
            while !taking.is_finished() {
                let sql = format!(
                    "INSERT INTO booking VALUES ({}, repeat('x', 900))",
                    acknowledged + 1
                );
                client.simple_query(&sql).await.unwrap();
                acknowledged += 1;
                let backups = stand_in.volume_dir("production").join(".backups");
                if at_backup == 0 && backups.exists() {
                    at_backup = acknowledged - 1;
                }
            }
        });
        taking.join().unwrap()
    });
    stand_in.sql("TRUNCATE booking");
    let answer = stand_in.ask(
        RESTORE,
        json!({ "id": production(&stand_in), "backup": backup }),
    );
    let status = ended(&stand_in, &answer, "volumeInstanceBackupRestore");
    assert_eq!(status, json!({ "status": "Complete", "error": null }));
    let text = stand_in
        .sql("SELECT count(*) || ' ' || coalesce(max(id), 0) FROM booking")
        .unwrap();
    let (count, highest) = text.split_once(' ').unwrap();
    let count: u32 = count.parse().unwrap();
    assert_eq!(
        highest.parse::<u32>().unwrap(),
        count,
        "no row is missing in between"
    );
    assert!(
        (at_backup.saturating_sub(1)..=acknowledged).contains(&count),
        "{at_backup} {count} {acknowledged}"
    );
}

#[test]
fn a_deleted_backup_is_gone_from_the_list_and_from_the_volume() {
    let stand_in = StandIn::start(&[]);
    let (kept, gone) = (back_up(&stand_in, "kept"), back_up(&stand_in, "gone"));
    let answer = stand_in.ask(
        DELETE,
        json!({ "id": production(&stand_in), "backup": gone }),
    );
    assert_eq!(
        ended(&stand_in, &answer, "volumeInstanceBackupDelete")["status"],
        "Complete"
    );
    assert_eq!(
        listed(&stand_in.volume_dir("production").join(".backups")),
        std::slice::from_ref(&kept)
    );
    let list = stand_in.ask(LIST, json!({ "id": production(&stand_in) }));
    let all = given(&list, "volumeInstanceBackupList").as_array().unwrap();
    assert_eq!(
        all.iter()
            .map(|one| one["id"].as_str().unwrap())
            .collect::<Vec<_>>(),
        [kept]
    );

    let again = stand_in.ask(
        RESTORE,
        json!({ "id": production(&stand_in), "backup": gone }),
    );
    assert_eq!(message(&again), "Backup not found");
    assert_eq!(stand_in.sql("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_backup_is_reached_only_from_its_own_volume_and_with_a_token_that_may() {
    let stand_in = StandIn::start(&[]);
    let backup = back_up(&stand_in, "one");
    let staging = stand_in.fact("/volume_instances/staging");
    let elsewhere = stand_in.ask(DELETE, json!({ "id": staging, "backup": backup }));
    assert_eq!(message(&elsewhere), "Backup not found");
    let variables = json!({ "id": production(&stand_in), "backup": backup });
    let refused = stand_in.ask_as(&stand_in.project_token("staging"), DELETE, variables);
    assert_eq!(message(&refused), "Not Authorized");
    assert_eq!(
        listed(&stand_in.volume_dir("production").join(".backups")),
        [backup]
    );
}
