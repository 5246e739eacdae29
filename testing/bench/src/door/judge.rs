//! What parsing and judging one statement costs that was never seen before.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};
use holdfast_judge::sql::{SqlContext, judge};
use serde_json::{Value, json};

use super::Scene;
use crate::table::{Spread, Table};

const TIMES: u32 = 2000;

pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let ctx = SqlContext::default();
    let mut table = Table::new(&["statement", "bytes", "us each"]);
    let mut found = Vec::new();
    for (name, text) in [
        (
            "pgbench -S",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;".to_owned(),
        ),
        (
            "pgbench TPC-B",
            "UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE aid = 4711;".to_owned(),
        ),
        ("ORM", orm()),
    ] {
        ensure!(judge(text.as_bytes(), &ctx).statements.len() == 1, "{name}");
        let mut each = Vec::new();
        for _ in 0..scene.options.repetitions.max(5) {
            let begun = Instant::now();
            for _ in 0..TIMES {
                std::hint::black_box(judge(std::hint::black_box(text.as_bytes()), &ctx));
            }
            each.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
        }
        let spread = Spread::of(each);
        table.row(vec![name.to_owned(), text.len().to_string(), spread.text()]);
        found.push(json!({"statement": name, "bytes": text.len(), "us": spread}));
    }
    scene.options.say(&table.text());
    Ok(Value::Array(found))
}

/// A query as object-relational mappers write them: every column named, joins, a long list.
fn orm() -> String {
    let mut text = "SELECT ".to_owned();
    for column in 0..24 {
        let _ = write!(
            text,
            "\"reservations\".\"column_{column}\" AS \"t0_r{column}\", "
        );
    }
    text += "\"customers\".\"name\" FROM \"reservations\" \
             INNER JOIN \"customers\" ON \"customers\".\"id\" = \"reservations\".\"customer_id\" \
             LEFT OUTER JOIN \"cars\" ON \"cars\".\"id\" = \"reservations\".\"car_id\" \
             WHERE \"reservations\".\"status\" IN ('open', 'paid') AND \"reservations\".\"id\" IN (";
    for id in 0..100 {
        let _ = write!(text, "{}, ", 4000 + id);
    }
    text + "5000) ORDER BY \"reservations\".\"begins_at\" DESC LIMIT 20 OFFSET 40"
}
