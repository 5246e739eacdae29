//! The cases of `cases.txt`, hostile texts, and what must hold for every text.

mod properties;
mod speed;

use super::*;

const CASES: &str = include_str!("cases.txt");

#[derive(Debug, PartialEq, Eq)]
struct Openly {
    effects: Vec<&'static str>,
    flags: Vec<&'static str>,
}

fn openly(sql: &str) -> Openly {
    let judgement = judge(sql.as_bytes(), &SqlContext::default());
    let all = &judgement.statements;
    let flags = [
        ("ro", all.iter().all(|x| x.openly_reads)),
        ("hidden", all.iter().any(|x| x.static_only)),
        ("stop", all.iter().any(|x| x.stop_before)),
        ("adds", all.iter().all(|x| x.additive)),
        ("alone", all.iter().any(|x| x.needs_no_block)),
    ];
    Openly {
        effects: judgement
            .effects()
            .kinds()
            .iter()
            .map(|x| x.word())
            .collect(),
        flags: flags
            .iter()
            .filter(|(_, is)| *is)
            .map(|(word, _)| *word)
            .collect(),
    }
}

fn expected(words: &str) -> Openly {
    const FLAGS: [&str; 5] = ["ro", "hidden", "stop", "adds", "alone"];
    let words: Vec<&str> = words.split_whitespace().collect();
    let known = |word: &&str| {
        FLAGS.contains(word) || Effect::ALL.iter().any(|effect| effect.word() == *word)
    };
    assert!(
        words.iter().all(known),
        "a word of a case is unknown: {words:?}"
    );
    Openly {
        effects: Effect::ALL
            .map(Effect::word)
            .into_iter()
            .filter(|x| words.contains(x))
            .collect(),
        flags: FLAGS.into_iter().filter(|x| words.contains(x)).collect(),
    }
}

fn cases() -> Vec<(&'static str, String)> {
    CASES
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(":: ").unwrap())
        .map(|(words, sql)| (words, sql.replace('~', "\n")))
        .collect()
}

#[test]
fn every_case_is_judged_as_it_says() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter(|(words, sql)| expected(words) != openly(sql))
        .map(|(words, sql)| format!("{sql}\n    said {words}\n    came {:?}", openly(sql)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn no_case_is_unparsed_by_accident() {
    for (words, sql) in cases() {
        let judgement = judge(sql.as_bytes(), &SqlContext::default());
        let unparsed = judgement
            .statements
            .iter()
            .any(|x| x.kind == StatementKind::Unparsed);
        assert!(!unparsed || words.contains("unknown"), "{sql}");
    }
}

#[test]
fn the_second_statement_of_a_text_is_seen() {
    let sql = "COMMIT; DROP SCHEMA public CASCADE";
    let judgement = judge(sql.as_bytes(), &SqlContext::default());
    let [commit, drop] = judgement.statements.as_slice() else {
        panic!("{judgement:?}");
    };
    assert_eq!(commit.control, Some(Control::Commit { chain: false }));
    assert_eq!(drop.effects.worst(), Some(Effect::Destroy));
    assert_eq!(&sql[drop.range.clone()], "DROP SCHEMA public CASCADE");
}

#[test]
fn no_nesting_exhausts_the_stack() {
    let rows = [
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT 1{}", "+1".repeat(300_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(50_000)),
        format!("SELECT {} true", "NOT ".repeat(9_000)),
        format!("DELETE FROM t WHERE {} true", "NOT ".repeat(9_000)),
        format!("SELECT {}1{}", "f(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1{}", "(SELECT ".repeat(9_000), ")".repeat(9_000)),
    ];
    for sql in rows {
        let judgement = judge(sql.as_bytes(), &SqlContext::default());
        assert_eq!(judgement.statements.len(), 1);
        assert!(judgement.effects().worst().is_some());
    }
}

#[test]
fn what_the_server_may_read_otherwise_is_unknown() {
    let off = SqlContext {
        standard_conforming_strings: false,
    };
    let smuggled = b"SELECT 'a\\'; DROP TABLE t; --'";
    let too_long = format!("SELECT '{}'", "x".repeat(LIMIT_TEXT_BYTES));
    let rows: [(&[u8], SqlContext, Option<Effect>); 8] = [
        (smuggled, off, Some(Effect::Unknown)),
        (b"SELECT 'a'", off, Some(Effect::Read)),
        (
            b"SELECT 1\0; DROP TABLE t",
            SqlContext::default(),
            Some(Effect::Unknown),
        ),
        (
            b"SELECT '\xff'",
            SqlContext::default(),
            Some(Effect::Unknown),
        ),
        (
            b"SELECT E'\\xff'",
            SqlContext::default(),
            Some(Effect::Unknown),
        ),
        (
            too_long.as_bytes(),
            SqlContext::default(),
            Some(Effect::Unknown),
        ),
        (b"SELEC 1", SqlContext::default(), Some(Effect::Unknown)),
        (b" -- nothing\n ; ", SqlContext::default(), None),
    ];
    for (text, ctx, worst) in rows {
        assert_eq!(judge(text, &ctx).effects().worst(), worst, "{ctx:?}");
    }
}
