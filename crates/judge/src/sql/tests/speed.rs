//! How long judging takes; printed, with a bound that only a lost order of growth can break.

use std::time::Instant;

use super::super::*;

fn micros(name: &str, text: &str, times: u32) -> f64 {
    let begun = Instant::now();
    for _ in 0..times {
        let judgement = judge(text.as_bytes(), &SqlContext::default());
        assert!(!judgement.effects().impacts().is_empty());
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(times);
    println!("{name:<28} {:>9} bytes {each:>12.1} us", text.len());
    each
}

/// A select as object-relational mappers write it.
fn mapped() -> String {
    let columns: Vec<String> = (0..40)
        .map(|n| format!("\"orders\".\"column_{n}\""))
        .collect();
    let conditions: Vec<String> = (0..12)
        .map(|n| {
            format!("(\"orders\".\"column_{n}\" = {n} OR lower(\"orders\".\"name\") LIKE 'a{n}%')")
        })
        .collect();
    format!(
        "SELECT {} FROM \"orders\" INNER JOIN \"customers\" ON \"customers\".\"id\" = \"orders\".\"customer_id\" WHERE {} ORDER BY \"orders\".\"id\" DESC LIMIT 21",
        columns.join(", "),
        conditions.join(" AND "),
    )
}

#[test]
fn judging_grows_with_the_text_and_no_faster() {
    let numbers: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    let many = format!("SELECT * FROM orders WHERE id IN ({})", numbers.join(","));
    let inserts = "INSERT INTO orders (a, b) VALUES (1, 'x');\n".repeat(15_000);
    let block = format!(
        "DO $$ BEGIN {} END $$",
        "UPDATE t SET a = 1 WHERE id = 2; ".repeat(500)
    );
    let hostile = format!("DO $$ {} $$", "begin select ".repeat(50_000));
    let quoted = format!("DO $$ BEGIN EXECUTE x; {} END $$", "'drop ".repeat(50_000));
    micros(
        "small",
        "UPDATE orders SET paid = true WHERE id = $1",
        2_000,
    );
    micros("mapped", &mapped(), 200);
    micros("code block", &block, 2);
    let tables: Vec<String> = (0..80_000).map(|n| format!("t{n}")).collect();
    let drops = format!("DROP TABLE {}", tables.join(","));
    let joins = format!("SELECT * FROM {}", tables.join(","));
    let others: String = (0..15_000)
        .map(|n| format!("DELETE FROM t{n} WHERE id = 1;"))
        .collect();
    let rows = [
        micros("80,000 tables dropped", &drops, 1),
        micros("80,000 tables joined", &joins, 1),
        micros("15,000 other statements", &others, 1),
        micros("100,000 constants", &many, 1),
        micros("15,000 statements", &inserts, 1),
        micros("statements without an end", &hostile, 1),
        micros("quotes without an end", &quoted, 1),
        micros(
            "300,000 additions",
            &format!("SELECT 1{}", "+1".repeat(300_000)),
            1,
        ),
        micros(
            "50,000 unions",
            &format!("SELECT 1{}", " UNION SELECT 1".repeat(50_000)),
            1,
        ),
    ];
    for each in rows {
        assert!(each < 5e6, "judging a text of a megabyte took {each} us");
    }
}
