//! The same seed and day give the same rows.

use holdfast_testing::postgres;

use crate::office::Office;

/// One number over all rows of all tables; columns that hold the time of writing are left out.
const DIGEST: &str = "
    SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
        SELECT 'v' || md5(v::text) FROM vehicles v
        UNION ALL SELECT 'c' || id || full_name || email FROM customers
        UNION ALL SELECT 'r' || id || vehicle_id || customer_id || during || status || total_cents FROM reservations
        UNION ALL SELECT 'p' || id || reservation_id || amount_cents || method FROM payments
        UNION ALL SELECT 'h' || vehicle_id || happened_at || kind || note || details FROM vehicle_history
    ) AS lines (line)";

fn rows(installation: &postgres::Installation, seed: &str, day: &str) -> String {
    let office = Office::empty(installation);
    let arguments = ["--seed", seed, "--companies", "1", "--today", day, "--json"];
    let summary = office.run("seed", &arguments);
    assert!(summary["reservations"].as_u64().unwrap() > 0, "{summary}");
    office.sql(&format!("SET timezone = 'UTC'; {DIGEST}"))[0][0].clone()
}

#[test]
fn the_same_seed_and_day_give_the_same_rows_on_every_postgresql() {
    let [oldest, newest] = postgres::all().unwrap();
    let first = rows(&oldest, "7", "2026-04-24");
    assert_eq!(first, rows(&oldest, "7", "2026-04-24"));
    assert_eq!(first, rows(&newest, "7", "2026-04-24"));
    assert_ne!(first, rows(&oldest, "8", "2026-04-24"));
    assert_ne!(first, rows(&oldest, "7", "2026-04-25"));
}
