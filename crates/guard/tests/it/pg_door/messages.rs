//! What a client sees message by message, past the door and through it.

mod cases;

use std::time::Duration;

use holdfast_testing::postgres;
use holdfast_wire::pg::frontend::{HEADER_BYTES, header};
use holdfast_wire::pg::scram::Binding;
use holdfast_wire::pg::scram::client::{Keys, Opened};
use holdfast_wire::pg::startup::write_session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::Bench;
use cases::{cases, f, message, q, run, s};

/// A client that knows nothing but frames.
struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    async fn log_in(port: u16, (user, password): (&str, &str)) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut raw = Self {
            stream,
            read: Vec::new(),
        };
        let mut first = Vec::new();
        let pairs = [("user", user), ("database", "shop")];
        let pairs = pairs.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec()));
        write_session(0, &pairs, &mut first);
        raw.send(&first).await;
        assert_eq!(raw.message().await.unwrap().0, b'R');
        let opened = Opened::new("nonce".to_owned(), &Binding::Absent);
        let said = opened.first();
        let length = u32::try_from(said.len()).unwrap().to_be_bytes();
        let body = [&b"SCRAM-SHA-256\0"[..], &length, &said].concat();
        raw.send(&message(b'p', &body)).await;
        let asked = raw.message().await.unwrap().1;
        let asked = opened.asked(&asked[4..]).unwrap();
        let keys = Keys::compute(password.as_bytes(), asked.salted());
        let (last, proving) = asked.prove(&keys);
        raw.send(&message(b'p', &last)).await;
        let done = raw.message().await.unwrap().1;
        proving.finish(&done[4..]).unwrap();
        raw.until_ready(1).await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads one message, or nothing when the other side has closed.
    async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(found) = header(&self.read, 1 << 30).unwrap()
                && self.read.len() >= found.total
            {
                let rest = self.read.split_off(found.total);
                let whole = std::mem::replace(&mut self.read, rest);
                return Some((found.tag, whole[HEADER_BYTES..].to_vec()));
            }
            let mut piece = [0; 4096];
            let reading = self.stream.read(&mut piece);
            let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
            match read.expect("it answers") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// Writes down what comes up to so many `ReadyForQuery`, or the end.
    async fn until_ready(&mut self, times: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let mut ready = 0;
        while ready < times {
            let Some((tag, body)) = self.message().await else {
                seen.push("closed".to_owned());
                break;
            };
            ready += usize::from(tag == b'Z');
            seen.push(told(tag, &body));
        }
        seen
    }
}

/// A message as far as it must be the same.
fn told(tag: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
    let what = match tag {
        b'E' | b'N' => {
            let mut fields = body.split(|byte| *byte == 0);
            let code = fields.find_map(|field| field.strip_prefix(b"C"));
            text(code.unwrap_or_default())
        }
        b'A' => text(&body[4..]),
        b'C' | b'D' | b'S' | b'Z' | b'd' => text(body),
        // Oids of types are the same everywhere, those of tables are not.
        _ => body.len().to_string(),
    };
    format!("{} {what}", char::from(tag))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_the_same_through_the_door_and_past_it() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let role = bench.lease.lease.pg.as_ref().unwrap().role.clone();
        let token = bench.lease.token.expose();
        let mut past = Raw::log_in(bench.server.port(), ("app", "app")).await;
        let mut through = Raw::log_in(bench.door.port(), (&role, token)).await;
        let mut cases = cases();
        if installation.major < 18 {
            // From 18 on a server keeps the implicit transaction open until the `Sync`, and the door
            // does not: docs/pg-door.md says so.
            let batch = [run("SELECT 1"), q("SELECT 2"), s()].concat();
            cases.push(("a query in an extended batch", batch, 2));
        }
        let mut differ = Vec::new();
        for (name, bytes, times) in cases {
            past.send(&bytes).await;
            let expected = past.until_ready(times).await;
            through.send(&bytes).await;
            let seen = through.until_ready(times).await;
            if seen != expected {
                differ.push((name, seen, expected));
            }
        }
        assert!(differ.is_empty(), "{differ:#?}");
        // One byte after the other.
        for byte in [run("SELECT 1"), s(), q("SELECT 2")].concat() {
            through.send(&[byte]).await;
        }
        let seen = through.until_ready(2).await;
        assert_eq!(seen.len(), 9, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_called_by_its_number_is_judged_as_by_its_name() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let role = bench.lease.lease.pg.as_ref().unwrap().role.clone();
    let mut raw = Raw::log_in(bench.door.port(), (&role, bench.lease.token.expose())).await;
    let oid = async |name: &str| {
        let question = format!("SELECT '{name}'::regproc::oid::int8");
        u32::try_from(bench.number(&question).await).unwrap()
    };
    let (touch, wipe, setval) = (oid("touch").await, oid("wipe").await, 1_765_u32);
    raw.send(&f(touch, &[7])).await;
    assert_eq!(raw.until_ready(1).await, ["V 8", "Z I"]);
    assert_eq!(
        bench
            .number("SELECT total::int8 FROM orders WHERE id = 7")
            .await,
        8
    );
    raw.send(&f(wipe, &[])).await;
    assert_eq!(raw.until_ready(1).await, ["E ZH001", "Z I"]);
    // In a block it runs, and its end is held.
    raw.send(&[q("BEGIN"), f(wipe, &[]), q("COMMIT")].concat())
        .await;
    let seen = raw.until_ready(3).await;
    let expected = ["C BEGIN ", "Z T", "V 8", "Z T", "E ZH001", "Z I"];
    assert_eq!(seen, expected);
    assert_eq!(bench.orders().await, 1000);
    // What a ROLLBACK does not take back is held before it starts, and nothing of it runs.
    let tickets = bench.number("SELECT 'tickets'::regclass::oid::int8").await;
    let mut body = setval.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 3, 0, 0, 0, 4]);
    body.extend(u32::try_from(tickets).unwrap().to_be_bytes());
    body.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 1, 1, 0, 1]);
    raw.send(&message(b'F', &body)).await;
    let seen = raw.until_ready(1).await;
    assert!(seen[0].starts_with("E ZH"), "{seen:?}");
    assert_eq!(bench.number("SELECT last_value FROM tickets").await, 1);
    // Approved, the same call with the same arguments passes once.
    raw.send(&f(wipe, &[])).await;
    assert_eq!(raw.until_ready(1).await, ["E ZH001", "Z I"]);
    let held = "SELECT public.wipe()";
    let newest = bench
        .holds()
        .into_iter()
        .find(|hold| hold.action.summary.contains(held));
    assert!(newest.is_some(), "{:?}", bench.holds());
}

/// SOURCE: src/include/catalog/pg_proc.dat: `lo_creat`, `lo_open`, `lowrite`, `lo_close`.
#[tokio::test(flavor = "multi_thread")]
async fn large_objects_are_written_as_libpq_writes_them() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let role = bench.lease.lease.pg.as_ref().unwrap().role.clone();
        let mut raw = Raw::log_in(bench.door.port(), (&role, bench.lease.token.expose())).await;
        raw.send(&q("BEGIN")).await;
        raw.until_ready(1).await;
        raw.send(&f(957, &[-1])).await;
        let (tag, made) = raw.message().await.unwrap();
        assert_eq!(
            (tag, made.len()),
            (b'V', 8),
            "{:?}",
            String::from_utf8_lossy(&made)
        );
        raw.until_ready(1).await;
        let oid = i32::from_be_bytes(made[4..].try_into().unwrap());
        raw.send(&f(952, &[oid, 0x6_0000])).await;
        assert_eq!(raw.until_ready(1).await, ["V 8", "Z T"]);
        let write = [
            0, 0, 3, 187, 0, 1, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3,
        ];
        raw.send(&message(b'F', &[&write[..], b"abc", &[0, 1]].concat()))
            .await;
        assert_eq!(raw.until_ready(1).await, ["V 8", "Z T"]);
        raw.send(&f(953, &[0])).await;
        assert_eq!(raw.until_ready(1).await, ["V 8", "Z T"]);
        raw.send(&q("COMMIT")).await;
        assert_eq!(raw.until_ready(1).await, ["C COMMIT ", "Z I"]);
        let kept = "SELECT length(lo_get(oid)) FROM pg_largeobject_metadata";
        assert_eq!(bench.number(&format!("SELECT ({kept})::int8")).await, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_messages_end_the_session_and_nothing_runs() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let role = bench.lease.lease.pg.as_ref().unwrap().role.clone();
    let hidden = b"SELECT 1\0; DELETE FROM settings WHERE key = 'key 1'\0";
    for bytes in [
        b"Q\0\0\0\x03".to_vec(),
        b"Q\x7f\xff\xff\xff".to_vec(),
        b"Q\xff\xff\xff\xff".to_vec(),
        message(b'Q', hidden),
        message(b'Q', b"SELECT 1"),
        message(b'P', b"cut off"),
        message(b'B', b"\0"),
        message(b'E', b"\0\0"),
        message(b'F', b"\0\0\0\xb1\0\0\0\x02\0\0"),
        message(b'?', b""),
    ] {
        let mut raw = Raw::log_in(bench.door.port(), (&role, bench.lease.token.expose())).await;
        raw.send(&bytes).await;
        let seen = raw.until_ready(1).await;
        assert_eq!(seen, ["E ZU404", "closed"], "{bytes:?}");
    }
    // Half closed: what was asked is answered, then the session ends.
    let mut raw = Raw::log_in(bench.door.port(), (&role, bench.lease.token.expose())).await;
    raw.send(&q("SELECT 1")).await;
    raw.stream.shutdown().await.unwrap();
    let seen = raw.until_ready(2).await;
    assert_eq!(seen.last().unwrap(), "closed", "{seen:?}");
    assert!(seen.contains(&"Z I".to_owned()), "{seen:?}");
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 10);
}
