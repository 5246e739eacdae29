//! Sources that lie: each is refused with a code, the others go on, and nothing leaves its place.

mod server;
mod tar;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_testing::postgres;
use holdfast_vault::{AckMode, SourceConfig};

use super::scene::{LIMIT, POLL, Running, Scene, flushed, spooled_bytes};
use server::{Fake, Lie};

/// What each lie must be called; the first letters are the source's name.
const LIES: &[(&str, Lie, &[&str])] = &[
    ("log-noise", Lie::Noise, &["ZI303"]),
    ("log-elsewhere", Lie::Elsewhere, &["ZI302"]),
    ("log-damaged", Lie::Damaged, &["ZI303"]),
    ("log-endless-position", Lie::LastPosition, &["ZS302"]),
    ("frame-without-end", Lie::LongFrame, &["ZS302"]),
    ("frame-of-31-mib", Lie::WideFrame, &["ZS302"]),
    ("frame-unknown", Lie::UnknownMessage, &["ZS302"]),
    ("notices", Lie::Notices, &["ZS302"]),
    ("parameters", Lie::Parameters, &["ZS302"]),
    ("rows", Lie::Rows, &["ZS302"]),
    ("columns", Lie::Columns, &["ZS302"]),
    ("drip", Lie::Drip, &["ZS301"]),
    ("segments", Lie::SegmentSize, &["ZS302"]),
    ("system", Lie::NoSystem, &["ZS302"]),
    ("base-parent", Lie::Base(tar::PARENT), &["ZI304"]),
    ("base-absolute", Lie::Base(tar::ABSOLUTE), &["ZI304"]),
    ("base-below-link", Lie::Base(tar::BELOW_LINK), &["ZI304"]),
    ("base-hard-link", Lie::Base(tar::HARD_LINK), &["ZI304"]),
    ("base-twice", Lie::Base(tar::TWICE), &["ZI304"]),
    ("base-nul", Lie::Base(tar::CONTROL), &["ZI304"]),
    ("base-huge", Lie::Base(tar::HUGE), &["ZI304"]),
    ("base-cut", Lie::Base(tar::CUT), &["ZI304"]),
    ("base-endless", Lie::Endless, &["ZI310"]),
    ("base-archive-name", Lie::ArchiveName, &["ZI304"]),
    ("base-manifest", Lie::Manifest, &["ZI304"]),
    ("base-results", Lie::Results, &["ZS302"]),
    ("base-two-copies", Lie::TwoCopies, &["ZS302"]),
    ("base-notices", Lie::BaseNotices, &["ZS302"]),
];

/// More than the vault may take for all of them together, itself and this test included.
const MEMORY_BYTES: u64 = 512 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn lying_sources_are_refused_and_harm_nobody() {
    let mut scene = Scene::new();
    let victim = scene.dir.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let fakes: Vec<Fake> = LIES.iter().map(|(_, lie, _)| Fake::start(*lie)).collect();
    scene.more = LIES
        .iter()
        .zip(&fakes)
        .map(|((name, _, _), fake)| SourceConfig {
            name: name.parse().unwrap(),
            ..scene.source(&fake.url(), AckMode::Asynchronous)
        })
        .collect();
    let server = super::scene::server(&postgres::newest().unwrap());
    let client = server.connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let running = scene.run(&server.url());

    await_refusals(&running).await;
    // The honest one has gone on meanwhile, and goes on while they try again and again.
    running
        .wait_for("prod", "restore point", |s| s.point.is_some())
        .await;
    for _ in 0..3 {
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let end = flushed(&client).await;
        let asked = Instant::now();
        running
            .wait_for("prod", "shipped log", |s| s.shipped >= end)
            .await;
        assert!(asked.elapsed() < Duration::from_secs(20), "it is held up");
    }
    for status in running.vault.status() {
        let is_honest = status.source.as_str() == "prod";
        assert_eq!(status.point.is_some(), is_honest, "{status:?}");
    }
    running.stop().await;
    let peak = peak_bytes();
    println!("peak of memory: {} MiB", peak >> 20);
    assert!(peak < MEMORY_BYTES, "{} MiB", peak >> 20);
    // Nothing of the lies was taken for log, and nothing was written elsewhere.
    for (name, _, _) in LIES {
        let bytes = spooled_bytes(&scene, name);
        assert!(bytes <= 16 << 20, "{name}: {bytes} bytes in the spool");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    let mut places: Vec<_> = std::fs::read_dir(scene.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".owner")
        .collect();
    places.sort();
    assert_eq!(places, ["repository", "state", "victim"]);
}

/// Waits until every lie was called what it is.
async fn await_refusals(running: &Running) {
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let began = Instant::now();
    loop {
        for status in running.vault.status() {
            let lie = LIES
                .iter()
                .find(|(name, _, _)| *name == status.source.as_str());
            let (Some((name, _, _)), Some(trouble)) = (lie, status.trouble) else {
                continue;
            };
            let codes = said.entry(name).or_default();
            if !codes.contains(&trouble.code) {
                codes.push(trouble.code);
            }
        }
        let open: Vec<_> = LIES
            .iter()
            .filter(|(name, _, codes)| {
                let said = said.get(name);
                !said.is_some_and(|said| codes.iter().all(|code| said.iter().any(|c| c == code)))
            })
            .map(|(name, _, codes)| (name, codes, said.get(name)))
            .collect();
        if open.is_empty() {
            break;
        }
        assert!(
            began.elapsed() < LIMIT,
            "not refused as they should: {open:?}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    kibibytes.map_or(0, |number| number.parse::<u64>().unwrap() << 10)
}
