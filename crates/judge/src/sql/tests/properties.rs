//! What must hold for every text, tried with random ones and with all pairs of cases.

use proptest::prelude::*;

use super::super::*;
use super::cases;

/// Words that texts are thrown together from.
const SOUP: &[&str] = &[
    "SELECT",
    "DELETE",
    "FROM",
    "WHERE",
    "UPDATE",
    "SET",
    "INSERT",
    "INTO",
    "VALUES",
    "DROP",
    "TABLE",
    "ALTER",
    "ADD",
    "COLUMN",
    "CREATE",
    "FUNCTION",
    "AS",
    "$$",
    "$a$",
    "'",
    "''",
    "\"",
    "(",
    ")",
    ";",
    ",",
    ".",
    "*",
    "=",
    "1",
    "$1",
    "x",
    "orders",
    "--",
    "/*",
    "*/",
    "\n",
    "E'\\",
    "WITH",
    "RETURNING",
    "COPY",
    "PROGRAM",
    "EXPLAIN",
    "ANALYZE",
    "DO",
    "BEGIN",
    "END",
    "COMMIT",
    "GRANT",
    "ON",
    "TO",
    "é",
    "\u{1f980}",
    "UNION",
    "EXECUTE",
    "PREPARE",
    "LOOP",
    "IF",
    "THEN",
    "PERFORM",
    "lo_export",
    "dblink",
    "[",
    "]",
    ":",
    "::",
    "json_table",
    "XMLTABLE",
    "OVER",
    "U&'",
    "\\",
    "PARTITION",
    "TRUNCATE",
    "MERGE",
    "USING",
    "MATCHED",
    "NULL",
    "CASE",
    "WHEN",
];

fn judged(text: &str) -> SqlJudgement {
    judge(text.as_bytes(), &SqlContext::default())
}

fn is_well_formed(text: &str, judgement: &SqlJudgement) {
    let mut end = 0;
    for statement in &judgement.statements {
        assert!(statement.range.start >= end && statement.range.end <= text.len());
        assert!(text.get(statement.range.clone()).is_some(), "{text}");
        end = statement.range.end;
        let worst = statement.effects.worst();
        assert!(
            !statement.openly_reads || worst <= Some(Effect::Read),
            "{text}"
        );
        assert!(
            !statement.additive || worst == Some(Effect::Write),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_soup_of_words_breaks_the_judge(words in prop::collection::vec(prop::sample::select(SOUP), 0..40)) {
        let text = words.join(" ");
        is_well_formed(&text, &judged(&text));
        let block = format!("DO $body${text}$body$");
        is_well_formed(&block, &judged(&block));
    }

    #[test]
    fn no_cut_or_changed_case_breaks_the_judge(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        word in prop::sample::select(SOUP),
    ) {
        let all = cases();
        let (_, sql) = which.get(&all);
        let places: Vec<usize> = sql.char_indices().map(|(place, _)| place).collect();
        if !places.is_empty() {
            let (head, tail) = sql.split_at(*at.get(&places));
            let changed = format!("{head} {word} {tail}");
            is_well_formed(&changed, &judged(&changed));
            is_well_formed(head, &judged(head));
        }
    }

    #[test]
    fn no_bytes_break_the_judge(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let judgement = judge(&bytes, &SqlContext::default());
        prop_assert!(judgement.statements.iter().all(|x| x.range.end <= bytes.len()));
    }
}

/// Cases that parse and do not end inside of a comment.
fn sound() -> Vec<(String, SqlJudgement)> {
    let all = cases().into_iter().map(|(_, sql)| (judged(&sql), sql));
    all.filter(|(judgement, _)| {
        judgement
            .statements
            .iter()
            .all(|x| x.kind != StatementKind::Unparsed)
    })
    .map(|(judgement, sql)| (sql, judgement))
    .collect()
}

#[test]
fn two_statements_do_what_both_do() {
    let all = sound();
    for (shift, (first, one)) in all.iter().enumerate() {
        for (second, other) in all.iter().cycle().skip(shift * 7).take(24) {
            let both = judged(&format!("{first}\n;\n{second}")).effects();
            let makes = one
                .statements
                .iter()
                .any(|x| x.kind == StatementKind::Create);
            for effect in one
                .effects()
                .kinds()
                .into_iter()
                .chain(other.effects().kinds())
            {
                // An index on a table that the same text made blocks nobody.
                let excused = makes && effect == Effect::Interrupt;
                assert!(excused || both.contains(effect), "{first} ; {second}");
            }
        }
    }
}

#[test]
fn no_wrapping_hides_what_a_statement_does() {
    let plain = [
        StatementKind::Delete,
        StatementKind::Insert,
        StatementKind::Merge,
        StatementKind::Select,
        StatementKind::Update,
    ];
    let wraps = [
        ("EXPLAIN ANALYZE ", ""),
        ("EXPLAIN (ANALYZE, FORMAT json) ", ""),
        ("PREPARE wrapped AS ", ""),
        ("/* ; */ ", " -- ;"),
        ("DO $wrap$ BEGIN ", "; END $wrap$"),
        ("DO $wrap$ BEGIN IF true THEN ", "; END IF; END $wrap$"),
        (
            "DO $wrap$ BEGIN FOR i IN 1..2 LOOP ",
            "; END LOOP; END $wrap$",
        ),
    ];
    let mut tried = 0;
    for (sql, judgement) in sound() {
        let [one] = judgement.statements.as_slice() else {
            continue;
        };
        let is_last_comment = sql.contains("--");
        if !plain.contains(&one.kind) || is_last_comment || sql.contains(" INTO copy") {
            continue;
        }
        for (before, after) in wraps {
            let wrapped = format!("{before}{sql}{after}");
            let effects = judged(&wrapped).effects();
            for effect in judgement.effects().kinds() {
                assert!(effects.contains(effect), "{wrapped}: {effect} is not seen");
            }
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_statement_inside_of_with_is_seen() {
    for (sql, judgement) in sound() {
        let [one] = judgement.statements.as_slice() else {
            continue;
        };
        let writes = [
            StatementKind::Delete,
            StatementKind::Insert,
            StatementKind::Update,
        ];
        if !writes.contains(&one.kind) || sql.starts_with("WITH") {
            continue;
        }
        let returning = if sql.contains("RETURNING") {
            ""
        } else {
            " RETURNING 1"
        };
        for wrapped in [
            format!("WITH a AS ({sql}{returning}) SELECT * FROM a"),
            format!(
                "WITH b AS (WITH a AS (SELECT 1) SELECT * FROM a), c AS ({sql}{returning}) SELECT 1 FROM b, c"
            ),
            format!("COPY ({sql}{returning}) TO STDOUT"),
        ] {
            let effects = judged(&wrapped).effects();
            for effect in judgement.effects().kinds() {
                assert!(effects.contains(effect), "{wrapped}: {effect} is not seen");
            }
        }
    }
}
