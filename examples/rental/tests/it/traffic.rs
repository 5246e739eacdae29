//! `rental traffic` and `rental verify`: what was acknowledged is journalled, what is lost is counted.

use std::io::Write;
use std::path::Path;

use holdfast_testing::postgres;
use holdfast_testing::process::Process;
use serde_json::Value;

use super::office::{LIMIT, Office, text, until};

fn start(office: &Office, journal: &str) -> Process {
    let mut traffic = office.rental(&["traffic", "--json", "--workers", "4", "--rate", "400"]);
    traffic.arg("--journal").arg(office.path(journal));
    Process::spawn(traffic, &office.path("traffic.log")).unwrap()
}

/// Runs traffic for a while and returns its totals.
fn run(office: &Office, journal: &str, seconds: &str) -> Value {
    let mut traffic = office.rental(&["traffic", "--json", "--for", seconds]);
    let output = traffic.arg("--journal").arg(office.path(journal)).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The ids in the journal, of one kind and outcome.
fn ids(journal: &Path, kind: &str, outcome: &str) -> Vec<String> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let entries = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let wanted = entries.filter(|e| e["kind"] == kind && e["outcome"] == outcome);
    wanted
        .map(|entry| entry["id"].as_str().unwrap().to_owned())
        .collect()
}

fn acknowledged(office: &Office, kind: &str) -> usize {
    ids(&office.path("journal"), kind, "acknowledged").len()
}

fn list(ids: &[String]) -> String {
    let quoted: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    quoted.join(",")
}

#[test]
fn after_a_kill_9_of_the_server_every_acknowledged_booking_is_present() {
    for installation in postgres::all().unwrap() {
        let mut office = Office::empty(&installation).filled();
        let mut traffic = start(&office, "journal");
        for round in 1..=2 {
            let before = acknowledged(&office, "booking");
            until("bookings go on", || {
                acknowledged(&office, "booking") > before + 40
            });
            office.server.kill_9().unwrap();
            office.server.restart().unwrap();
            let crashed = acknowledged(&office, "booking");
            until("bookings are acknowledged again", || {
                acknowledged(&office, "booking") > crashed + 20
            });
            assert!(traffic.is_running(), "round {round}: {}", traffic.log());
        }
        assert!(traffic.terminate(LIMIT).unwrap().success());
        let totals: Value = serde_json::from_str(traffic.log().trim()).unwrap();
        let found = office.verify_with("journal");
        // What the workers counted, what the journal holds and what the database has are one number.
        for (kind, totals, found) in [
            ("booking", &totals["bookings"], &found),
            ("payment", &totals["payments"], &found["payments"]),
            (
                "cancellation",
                &totals["cancellations"],
                &found["cancellations"],
            ),
        ] {
            let counted = acknowledged(&office, kind) as u64;
            assert_eq!(totals["acknowledged"], counted, "{kind}");
            assert_eq!(found["acknowledged"], counted, "{kind}");
            assert_eq!(found["present"], counted, "{kind}: {found}");
            assert_eq!(found["lost"], 0, "{kind}: {found}");
        }
        assert_eq!(found["invariants"]["double_booked"], 0);
        assert_eq!(found["invariants"]["payments_without_reservation"], 0);
        assert_eq!(found["journal"]["torn_tail"], false);
        assert!(totals["longest_gap_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn what_is_removed_by_hand_is_counted_as_lost_exactly() {
    let office = Office::fast(&postgres::newest().unwrap()).filled();
    let totals = run(&office, "journal", "2");
    assert!(totals["payments"]["acknowledged"].as_u64().unwrap() > 10);
    let journal = office.path("journal");
    let cancelled = ids(&journal, "cancellation", "acknowledged");
    let mut bookings = ids(&journal, "booking", "acknowledged");
    bookings.retain(|id| !cancelled.contains(id));
    let mut gone: Vec<String> = bookings.iter().step_by(9).take(7).cloned().collect();
    let payments = ids(&journal, "payment", "acknowledged");
    // Without triggers and foreign keys, as damage removes rows.
    office.sql(&format!(
        "SET session_replication_role = replica;
         DELETE FROM reservations WHERE id IN ({});
         DELETE FROM payments WHERE id IN ({});",
        list(&gone),
        list(&payments[..3]),
    ));
    let orphans = office.one(
        "SELECT count(*) FROM payments WHERE reservation_id NOT IN (SELECT id FROM reservations)",
    );
    let found = office.verify_with("journal");
    assert_eq!((gone.len(), &found["lost"]), (7, &Value::from(7)));
    gone.sort();
    assert_eq!(found["missing"], serde_json::json!(gone));
    assert_eq!(found["payments"]["lost"], 3);
    assert_eq!(found["cancellations"]["lost"], 0);
    let counted = &found["invariants"]["payments_without_reservation"];
    assert_eq!(counted.to_string(), orphans);
    // A cancellation that came undone is lost work, too.
    office.sql(&format!(
        "SET session_replication_role = replica;
         UPDATE reservations SET status = 'booked', during = tstzrange('2200-01-01', '2200-01-02')
         WHERE id = '{}'",
        cancelled[0]
    ));
    assert_eq!(office.verify_with("journal")["cancellations"]["lost"], 1);
}

#[test]
fn two_bookings_of_one_vehicle_that_overlap_are_counted() {
    let office = Office::fast(&postgres::oldest().unwrap()).filled();
    run(&office, "journal", "0.5");
    assert_eq!(
        office.verify_with("journal")["invariants"]["double_booked"],
        0
    );
    office.sql(
        "ALTER TABLE reservations DROP CONSTRAINT reservations_no_double_booking;
         INSERT INTO reservations (id, vehicle_id, location_id, customer_id, during, total_cents)
         SELECT gen_random_uuid(), vehicle_id, location_id, customer_id, during, 1
         FROM reservations WHERE status <> 'cancelled' LIMIT 1",
    );
    assert_eq!(
        office.verify_with("journal")["invariants"]["double_booked"],
        1
    );
}

#[test]
fn when_tables_or_the_server_are_gone_everything_is_lost_or_nothing_is_said() {
    let mut office = Office::fast(&postgres::newest().unwrap()).filled();
    run(&office, "journal", "0.5");
    let acknowledged = acknowledged(&office, "booking") as u64;
    assert!(acknowledged > 5);
    office.sql("DROP TABLE payments CASCADE");
    let found = office.verify_with("journal");
    assert_eq!(
        (&found["lost"], &found["present"]),
        (&0.into(), &acknowledged.into())
    );
    assert_eq!(found["payments"]["present"], 0);
    assert!(found["note"].as_str().unwrap().contains("payments is gone"));
    office.sql("DROP SCHEMA public CASCADE");
    let found = office.verify_with("journal");
    assert_eq!(
        (&found["lost"], &found["present"]),
        (&acknowledged.into(), &0.into())
    );
    assert!(found["note"].as_str().unwrap().contains("gone"), "{found}");
    office.sql_in("postgres", "DROP DATABASE rental");
    assert_eq!(office.verify_with("journal")["lost"], acknowledged);
    office.server.stop_fast().unwrap();
    let journal = office.path("journal");
    let verify = |more: &[&str]| {
        let mut verify = office.rental(&["verify", "--json"]);
        verify.args(more).arg("--journal").arg(&journal);
        verify.output().unwrap()
    };
    let unknown = verify(&[]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = text(&unknown);
    assert!(said.contains("nothing was compared"), "{said}");
    assert!(!said.contains(office.server.password()), "{said}");
    let gone = verify(&["--gone-is-lost"]);
    let found: Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!(found["lost"], acknowledged);
}

#[test]
fn a_journal_that_its_killed_writer_tore_is_read_and_goes_on() {
    let office = Office::fast(&postgres::oldest().unwrap()).filled();
    let mut traffic = start(&office, "journal");
    until("bookings are acknowledged", || {
        acknowledged(&office, "booking") > 20
    });
    traffic.kill_9().unwrap();
    let journal = office.path("journal");
    let whole = acknowledged(&office, "booking");
    let mut file = std::fs::File::options()
        .append(true)
        .open(&journal)
        .unwrap();
    file.write_all(br#"{"at":"2026-11-24T14:45:23Z","kind":"boo"#)
        .unwrap();
    let found = office.verify_with("journal");
    assert_eq!(found["journal"]["torn_tail"], true);
    assert_eq!(found["acknowledged"], whole as u64);
    assert_eq!(found["lost"], 0);
    let totals = run(&office, "journal", "0.5");
    let more = totals["bookings"]["acknowledged"].as_u64().unwrap();
    let found = office.verify_with("journal");
    assert_eq!(found["journal"]["torn_tail"], false);
    assert_eq!(found["acknowledged"], whole as u64 + more);
    assert_eq!(found["lost"], 0);
}

#[test]
fn traffic_needs_an_office_a_server_and_a_sensible_plan() {
    let office = Office::fast(&postgres::oldest().unwrap());
    let journal = office.path("journal");
    let said = |arguments: &[&str]| {
        let mut traffic = office.rental(&["traffic", "--for", "1"]);
        let output = traffic.args(arguments).arg("--journal").arg(&journal);
        let output = output.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    assert!(said(&["--workers", "0"]).contains("--workers"));
    assert!(said(&["--workers", "65"]).contains("--workers"));
    assert!(said(&["--rate", "0"]).contains("--rate"));
    let office = office.filled();
    office.sql("TRUNCATE vehicles CASCADE");
    let mut traffic = office.rental(&["traffic", "--journal"]);
    let output = traffic.arg(office.path("other")).output().unwrap();
    assert!(text(&output).contains("run `rental seed` first"));
    std::fs::write(office.path("letter"), "Dear Ann\n").unwrap();
    let mut traffic = office.rental(&["traffic", "--journal"]);
    let output = traffic.arg(office.path("letter")).output().unwrap();
    assert!(text(&output).contains("not a rental journal"));
    let letter = std::fs::read_to_string(office.path("letter")).unwrap();
    assert_eq!(letter, "Dear Ann\n");
}
