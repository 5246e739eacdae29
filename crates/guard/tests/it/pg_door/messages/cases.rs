//! What a raw client sends.

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

pub fn q(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn p(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn b(portal: &str, name: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn e(portal: &str, rows: u32) -> Vec<u8> {
    let body = [portal.as_bytes(), &[0], &rows.to_be_bytes()].concat();
    message(b'E', &body)
}

fn d(kind: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{kind}{name}\0").as_bytes())
}

fn c(kind: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{kind}{name}\0").as_bytes())
}

/// A call of a function by its number, with numbers in binary.
pub fn f(oid: u32, arguments: &[i32]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        body.extend(4_u32.to_be_bytes());
        body.extend(argument.to_be_bytes());
    }
    body.extend([0, 1]);
    message(b'F', &body)
}

pub fn s() -> Vec<u8> {
    message(b'S', b"")
}

fn h() -> Vec<u8> {
    message(b'H', b"")
}

/// `Parse`, `Bind` and `Execute` of the unnamed ones.
pub fn run(text: &str) -> Vec<u8> {
    [p("", text), b("", ""), e("", 0)].concat()
}

/// What is sent, and how often the server is then ready.
pub type Case = (&'static str, Vec<u8>, usize);

const SOME: &str = "SELECT n FROM generate_series(1, 10) n";
const BAD: &str = "SELECT 1 / 0";

pub fn cases() -> Vec<Case> {
    [
        simple(),
        batches(),
        named(),
        blocks(),
        copies(),
        shapes(),
        writes(),
        portals(),
        numbers(),
    ]
    .concat()
}

/// Simple queries.
fn simple() -> Vec<Case> {
    vec![
        ("simple", q("SELECT 1"), 1),
        ("several", q("SELECT 1; SELECT 2"), 1),
        ("empty", q(""), 1),
        ("blank", q(" ; "), 1),
        ("garbage", q("SELEC 1"), 1),
        (
            "failing in the middle",
            q("SELECT 1; SELECT 1 / 0; SELECT 3"),
            1,
        ),
        (
            "three queries at once",
            [q("SELECT 1"), q(BAD), q("SELECT 3")].concat(),
            3,
        ),
        (
            "a write",
            q("UPDATE settings SET value = 'x' WHERE key = 'key 1'"),
            1,
        ),
    ]
}

/// The extended protocol up to its `Sync`.
fn batches() -> Vec<Case> {
    vec![
        ("extended", [run("SELECT 1"), s()].concat(), 1),
        (
            "described",
            [
                p("", SOME),
                d('S', ""),
                b("", ""),
                d('P', ""),
                e("", 0),
                s(),
            ]
            .concat(),
            1,
        ),
        (
            "error until Sync",
            [run("SELECT 1"), run(BAD), run("SELECT 2"), s()].concat(),
            1,
        ),
        (
            "query is skipped until Sync",
            [run(BAD), h(), q("SELECT 7"), s()].concat(),
            1,
        ),
        ("syncs", [s(), s(), s()].concat(), 3),
        (
            "pipelined",
            [run("SELECT 1"), s(), run(BAD), s(), run("SELECT 3"), s()].concat(),
            3,
        ),
        (
            "suspended",
            [p("", SOME), b("", ""), e("", 4), e("", 4), e("", 4), s()].concat(),
            1,
        ),
        ("portal is gone after Sync", [e("", 0), s()].concat(), 1),
    ]
}

/// Names, blocks and settings.
fn named() -> Vec<Case> {
    vec![
        (
            "named",
            [p("one", "SELECT 1"), s(), b("", "one"), e("", 0), s()].concat(),
            2,
        ),
        ("named twice", [p("one", "SELECT 1"), s()].concat(), 1),
        (
            "closed",
            [c('S', "one"), c('S', "never"), s(), b("", "one"), s()].concat(),
            2,
        ),
        (
            "flushed",
            [p("", SOME), d('S', ""), h(), b("", ""), e("", 0), h(), s()].concat(),
            1,
        ),
    ]
}

/// Blocks, and statements and settings of SQL.
fn blocks() -> Vec<Case> {
    vec![
        (
            "a block",
            [
                q("BEGIN"),
                q("SELECT 1"),
                q(BAD),
                q("SELECT 2"),
                q("COMMIT"),
            ]
            .concat(),
            5,
        ),
        (
            "a block of the extended kind",
            [
                run("BEGIN"),
                s(),
                run("SELECT 1"),
                s(),
                run("ROLLBACK"),
                s(),
            ]
            .concat(),
            3,
        ),
        (
            "prepared by SQL",
            [q("PREPARE two AS SELECT 2"), b("", "two"), e("", 0), s()].concat(),
            2,
        ),
        (
            "executed by SQL",
            [
                p("three", "SELECT 3"),
                s(),
                q("EXECUTE three"),
                q("DEALLOCATE ALL"),
            ]
            .concat(),
            3,
        ),
        (
            "settings",
            [
                q("SET application_name TO 'a b'"),
                q("RESET application_name"),
            ]
            .concat(),
            2,
        ),
        (
            "own notification",
            [q("LISTEN x"), q("NOTIFY x, 'y'"), q("UNLISTEN x")].concat(),
            3,
        ),
    ]
}

/// COPY.
fn copies() -> Vec<Case> {
    vec![
        (
            "copied out",
            q("COPY (SELECT 1 UNION SELECT 2 ORDER BY 1) TO STDOUT"),
            1,
        ),
        (
            "copied in",
            [
                q("COPY audit (what) FROM STDIN"),
                message(b'd', b"a\nb\n"),
                message(b'c', b""),
            ]
            .concat(),
            1,
        ),
        (
            "copied in, early Sync",
            [
                run("COPY audit (what) FROM STDIN"),
                s(),
                message(b'd', b"a\n"),
                message(b'c', b""),
                s(),
            ]
            .concat(),
            1,
        ),
        (
            "copy given up",
            [
                q("COPY audit (what) FROM STDIN"),
                message(b'd', b"a\n"),
                message(b'f', b"no\0"),
            ]
            .concat(),
            1,
        ),
        (
            "copy of garbage",
            [
                q("COPY orders FROM STDIN"),
                message(b'd', b"a\n"),
                message(b'c', b""),
            ]
            .concat(),
            1,
        ),
    ]
}

/// Large things, and what comes unasked.
fn shapes() -> Vec<Case> {
    vec![
        (
            "large",
            q(&format!("SELECT length('{}')", "x".repeat(300_000))),
            1,
        ),
        ("large answer", q("SELECT repeat('x', 1000000)"), 1),
        (
            "many rows",
            q("SELECT n FROM generate_series(1, 5000) n"),
            1,
        ),
        ("an encoding", q("SELECT E'\\xff'"), 1),
        ("a notice", q("DO $$ BEGIN RAISE NOTICE 'n'; END $$"), 1),
    ]
}

/// Writes, which end at the gate.
fn writes() -> Vec<Case> {
    vec![
        (
            "a write in an extended batch, pipelined",
            [
                run("UPDATE settings SET value = 'y' WHERE key = 'key 1'"),
                s(),
                run("SELECT value FROM settings WHERE key = 'key 1'"),
                s(),
                run("UPDATE settings SET value = 'z' WHERE key = 'key 1'"),
                s(),
            ]
            .concat(),
            3,
        ),
        (
            "a failing write, pipelined",
            [
                run("INSERT INTO settings VALUES ('key 1', 'twice')"),
                s(),
                run("SELECT 1"),
                s(),
            ]
            .concat(),
            2,
        ),
        (
            "a failing simple write",
            [
                q("INSERT INTO settings VALUES ('key 1', 'twice')"),
                q("SELECT 1"),
            ]
            .concat(),
            2,
        ),
    ]
}

/// Portals, blocks in a pipeline, and what is not there.
fn portals() -> Vec<Case> {
    vec![
        (
            "a portal by SQL",
            [
                q("BEGIN"),
                p("", SOME),
                b("pp", ""),
                e("pp", 2),
                h(),
                q("FETCH 2 FROM pp"),
                q("COMMIT"),
                e("pp", 1),
                s(),
            ]
            .concat(),
            4,
        ),
        (
            "a block in a pipeline",
            [
                run("BEGIN"),
                run("UPDATE settings SET value = 'v' WHERE key = 'key 2'"),
                run("COMMIT"),
                run("SELECT value FROM settings WHERE key = 'key 2'"),
                s(),
            ]
            .concat(),
            1,
        ),
        (
            "closed after a failed Parse",
            [p("bad", "SELEC"), s(), c('S', "bad"), s()].concat(),
            2,
        ),
    ]
}

/// Functions by number, and what returns less than it has.
fn numbers() -> Vec<Case> {
    vec![
        // SOURCE: src/include/catalog/pg_proc.dat: 177 is `int4pl`, 154 is `int4div`.
        (
            "functions by number",
            [f(177, &[1, 2]), f(154, &[1, 0]), f(1, &[]), f(177, &[1])].concat(),
            4,
        ),
        (
            "a function by number in a block",
            [
                q("BEGIN"),
                f(177, &[1, 2]),
                f(154, &[1, 0]),
                f(177, &[1, 2]),
                q("COMMIT"),
            ]
            .concat(),
            5,
        ),
        (
            "a function by number is skipped until Sync",
            [run(BAD), f(177, &[1, 2]), s()].concat(),
            1,
        ),
        (
            "a description of nothing",
            [d('S', "nothing"), s(), d('P', "nothing"), s()].concat(),
            2,
        ),
        (
            "a write that returns, suspended",
            [
                p(
                    "",
                    "UPDATE settings SET value = 'w' WHERE key < 'key 5' RETURNING 1",
                ),
                b("", ""),
                e("", 2),
                s(),
            ]
            .concat(),
            1,
        ),
    ]
}
