//! `rental seed`: the same rows from the same seed, about the size asked for, only into an empty database.

use holdfast_testing::postgres;
use serde_json::Value;

use super::office::{Office, text};

const TABLES: [&str; 8] = [
    "companies",
    "customers",
    "locations",
    "outbox",
    "payments",
    "reservations",
    "vehicle_history",
    "vehicles",
];

/// Digests of all rows of all tables.
fn rows(office: &Office) -> Vec<String> {
    let digest = |table: &&str| {
        let sql = format!(
            "SET timezone = 'UTC'; SELECT count(*) || ' ' ||
             md5(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\")) FROM {table} t"
        );
        office.one(&sql)
    };
    TABLES.iter().map(digest).collect()
}

fn seeded(installation: &postgres::Installation, seed: &str, day: &str) -> Vec<String> {
    let office = Office::fast(installation);
    let arguments = ["seed", "--seed", seed, "--today", day];
    let output = office.rental(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    rows(&office)
}

#[test]
fn the_same_seed_and_day_give_the_same_rows_on_both_majors() {
    let [old, new] = postgres::all().unwrap();
    let first = seeded(&old, "7", "2026-11-24");
    assert_eq!(first, seeded(&new, "7", "2026-11-24"));
    let other_seed = seeded(&old, "8", "2026-11-24");
    let other_day = seeded(&old, "7", "2026-11-25");
    for (at, table) in TABLES.iter().enumerate() {
        let count: u64 = first[at].split(' ').next().unwrap().parse().unwrap();
        assert!(count > 0, "{table} is empty");
        // Companies, counters and cars are the same in every office; people and what they did are not.
        let is_drawn = !["companies", "locations", "vehicles"].contains(table);
        assert!(!is_drawn || first[at] != other_seed[at], "{table}");
    }
    assert_ne!(first, other_day);
}

#[test]
fn gigabytes_make_a_database_of_about_that_size() {
    let office = Office::fast(&postgres::newest().unwrap());
    let arguments = ["seed", "--gigabytes", "0.1", "--json"];
    let output = office.rental(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = summary["bytes"].as_u64().unwrap();
    assert!((85_000_000..115_000_000).contains(&bytes), "{bytes} bytes");
    for table in ["vehicles", "reservations", "payments", "customers"] {
        let counted = office.one(&format!("SELECT count(*) FROM {table}"));
        assert_eq!(summary[table].to_string(), counted, "{table}");
    }
}

#[test]
fn a_second_seeding_and_a_senseless_plan_change_nothing() {
    let office = Office::fast(&postgres::oldest().unwrap());
    for (arguments, part) in [
        (["--companies", "0"], "--companies"),
        (["--companies", "501"], "--companies"),
        (["--gigabytes", "-1"], "--gigabytes"),
        (["--gigabytes", "2001"], "--gigabytes"),
        (["--gigabytes", "NaN"], "--gigabytes"),
    ] {
        let arguments = ["seed".to_owned(), arguments.join("=")];
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = office.rental(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = text(&output);
        assert!(
            said.contains(part) && said.contains("nothing was changed"),
            "{said}"
        );
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(office.one(tables), "0");
    let office = office.filled();
    let before = rows(&office);
    let again = office.rental(&["seed", "--seed", "9"]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("already holds an office"));
    assert_eq!(rows(&office), before);
}
