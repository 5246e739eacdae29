//! What was acknowledged stands in the journal, and what is lost is counted exactly.

use holdfast_testing::postgres;
use holdfast_testing::signals;
use serde_json::json;

use crate::office::{LIMIT, Office};

fn lines(office: &Office) -> usize {
    std::fs::read_to_string(office.journal())
        .unwrap_or_default()
        .lines()
        .count()
}

#[test]
fn a_server_killed_in_mid_traffic_loses_nothing_that_was_acknowledged() {
    for installation in postgres::all().unwrap() {
        let mut office = Office::seeded(&installation);
        let journal = office.journal();
        let log = office.dir.path().join("traffic.log");
        let arguments = ["--journal", journal.to_str().unwrap(), "--workers", "6"];
        let mut traffic = office.spawn("traffic", &arguments, &log);
        signals::wait_until(LIMIT, || lines(&office) > 150).unwrap();
        office.server.kill_9().unwrap();
        office.server.restart().unwrap();
        let after = lines(&office);
        signals::wait_until(LIMIT, || lines(&office) > after + 100).unwrap();
        assert!(
            traffic.terminate(LIMIT).unwrap().success(),
            "{}",
            traffic.log_tail()
        );

        let found = office.verify();
        assert!(found["acknowledged"].as_u64().unwrap() > 50, "{found}");
        for kind in [&found, &found["payments"], &found["cancellations"]] {
            assert_eq!(
                (&kind["lost"], &kind["missing"]),
                (&json!(0), &json!([])),
                "{found}"
            );
            assert_eq!(kind["present"], kind["acknowledged"], "{found}");
        }
        assert_eq!(
            found["invariants"],
            json!({ "double_booked": 0, "payments_without_reservation": 0 })
        );
    }
}

#[test]
fn rows_that_are_deleted_are_counted_as_lost_one_by_one() {
    for installation in postgres::all().unwrap() {
        let office = Office::seeded(&installation);
        let journal = office.journal();
        let arguments = [
            "--journal",
            journal.to_str().unwrap(),
            "--for",
            "3",
            "--seed",
            "3",
            "--json",
        ];
        let totals = office.run("traffic", &arguments);
        let found = office.verify();
        let booked = found["acknowledged"].as_u64().unwrap();
        assert!(booked > 10, "{found}");
        assert_eq!(
            (totals["bookings"]["acknowledged"].as_u64(), &found["lost"]),
            (Some(booked), &json!(0))
        );

        let text = std::fs::read_to_string(&journal).unwrap();
        let entries = text
            .lines()
            .skip(1)
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let bookings = entries
            .filter(|entry| entry["kind"] == "booking" && entry["outcome"] == "acknowledged");
        let mut gone: Vec<_> = bookings
            .take(3)
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect();
        let list = gone.join("','");
        office.sql(&format!(
            "
            DELETE FROM outbox WHERE reservation_id IN ('{list}');
            DELETE FROM payments WHERE reservation_id IN ('{list}');
            DELETE FROM reservations WHERE id IN ('{list}')"
        ));
        let found = office.verify();
        gone.sort();
        assert_eq!(found["lost"], json!(3), "{found}");
        assert_eq!(found["present"], json!(booked - 3), "{found}");
        let mut missing: Vec<_> = found["missing"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        missing.sort();
        assert_eq!(missing, gone);

        office.sql("DROP TABLE outbox, payments, reservations CASCADE");
        let found = office.verify();
        assert_eq!(
            (&found["lost"], &found["present"]),
            (&json!(booked), &json!(0)),
            "{found}"
        );
    }
}

#[test]
fn no_vehicle_is_booked_twice_however_many_clerks_ask_at_once() {
    for installation in postgres::all().unwrap() {
        let office = Office::seeded(&installation);
        let vehicle = &office
            .sql("SELECT id, location_id, (SELECT min(id) FROM customers) FROM vehicles LIMIT 1")
            [0];
        let insert = format!(
            "INSERT INTO reservations (id, vehicle_id, location_id, customer_id, during, total_cents)
             VALUES (gen_random_uuid(), {}, {}, {}, '[2040-01-01, 2040-01-05)', 100)",
            vehicle[0], vehicle[1], vehicle[2]
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let outcomes = runtime.block_on(async {
            let mut asked = Vec::new();
            for _ in 0..12 {
                let client = office.server.connect_to("rental").await.unwrap();
                let insert = insert.clone();
                asked.push(tokio::spawn(
                    async move { client.execute(&insert, &[]).await },
                ));
            }
            let mut outcomes = Vec::new();
            for one in asked {
                outcomes.push(one.await.unwrap());
            }
            outcomes
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for error in outcomes.into_iter().filter_map(Result::err) {
            let state = error.code().map(tokio_postgres::error::SqlState::code);
            // An exclusion violation, or the victim of two that wait for each other.
            assert!(matches!(state, Some("23P01" | "40P01")), "{error:?}");
        }
    }
}
