//! What outlives the guard's process, also when it is killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_core::{Effect, HoldId, RowCount};
use holdfast_guard::clock;
use holdfast_guard::decide::Decision;

use super::bench::{Bench, Temporary, asked, human, rows, under};

#[test]
fn holds_approvals_and_what_was_spent_outlive_a_restart() {
    let bench = Temporary::new();
    let [waiting, approved, spent, denied] =
        ["w", "a", "s", "d"].map(|text| asked(Effect::Destroy, text));
    let ids = [&waiting, &approved, &spent, &denied].map(|asked| bench.held(asked));
    bench.approve(&ids[1]);
    bench.approve(&ids[2]);
    bench.permitted(&spent);
    let holds = bench.gatekeeper.holds();
    holds.deny(&ids[3], human(), clock::now()).unwrap();
    let bench = bench.restart();
    let words = ids.each_ref().map(|id| bench.word(id));
    assert_eq!(words, ["waiting", "approved", "spent", "denied"]);
    assert_eq!(bench.held(&waiting), ids[0]);
    bench.permitted(&approved);
    assert_ne!(bench.held(&spent), ids[2]);
    let again = bench.held(&approved);
    let bench = bench.restart();
    assert_eq!(bench.word(&ids[1]), "spent");
    assert_eq!(bench.held(&approved), again);
}

#[test]
fn leases_and_what_they_have_used_outlive_a_restart() {
    let bench = Temporary::new();
    let [one, two] = [(); 2].map(|()| bench.issue(Duration::from_secs(600)));
    for count in [40, 60] {
        let write = rows(asked(Effect::Write, &format!("UPDATE {count}")), count);
        bench.permitted(&under(write, &one.lease.id));
    }
    // What is held or only reads uses nothing.
    let held = rows(asked(Effect::Write, "UPDATE all"), 5_000);
    bench.held(&under(held, &one.lease.id));
    bench.permitted(&under(asked(Effect::Read, "SELECT 1"), &two.lease.id));
    let bench = bench.restart();
    let used = |id| bench.leases.rows_this_hour(id, clock::now());
    assert_eq!(used(&one.lease.id), RowCount(100));
    assert_eq!(used(&two.lease.id), RowCount(0));
    let found = bench.leases.authenticate(one.token.expose()).unwrap();
    assert_eq!(found, one.lease);
}

const INNER: &str = "HOLDFAST_TEST_KILLED_GUARD";
const NAME: &str = "decide::restart::what_was_permitted_before_a_kill_9_is_in_the_ledger_and_spent";

/// The outer run starts this test again as a guard and kills it at moments drawn from a seed.
#[test]
fn what_was_permitted_before_a_kill_9_is_in_the_ledger_and_spent() {
    if let Some(folder) = std::env::var_os(INNER) {
        permit_until_killed(folder.as_ref());
    }
    let folder = tempfile::tempdir().unwrap();
    drop(Bench::open(folder.path()));
    let mut permitted = BTreeSet::new();
    let mut spent = BTreeSet::new();
    for lines in [1, 7, 20, 33] {
        for line in killed_after(folder.path(), lines) {
            match line.split_once(' ') {
                Some(("permitted", action)) => permitted.insert(action.to_owned()),
                Some(("spent", hold)) => spent.insert(hold.to_owned()),
                _ => panic!("{line}"),
            };
        }
        let bench = Bench::open(folder.path());
        let recorded = recorded(&bench);
        let missing: Vec<_> = permitted.difference(&recorded).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for hold in &spent {
            let id: HoldId = hold.parse().unwrap();
            assert_eq!(bench.word(&id), "spent", "{id}");
        }
    }
    assert!(permitted.len() > 20 && spent.len() > 10);
}

/// Runs a guard until it has acknowledged so many things, kills it, and returns all it acknowledged.
fn killed_after(folder: &Path, lines: usize) -> Vec<String> {
    let mut guard = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INNER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(guard.stdout.take().unwrap()).lines() {
        // A line that the kill cut has no end mark, and was not acknowledged.
        let line = line.unwrap();
        let whole = line.strip_suffix(" .");
        said.extend(whole.map(|line| line.trim_start_matches(PREAMBLE).to_owned()));
        if said.len() == lines {
            guard.kill().unwrap();
        }
    }
    guard.wait().unwrap();
    said
}

/// The test harness begins the line with this.
const PREAMBLE: &str =
    "test decide::restart::what_was_permitted_before_a_kill_9_is_in_the_ledger_and_spent ... ";

fn recorded(bench: &Bench) -> BTreeSet<String> {
    let mut recorded = BTreeSet::new();
    let key = bench.ledger.public_key();
    holdfast_store::ledger::verify(bench.ledger.folder(), &key, |entry| {
        if entry.draft.kind == "action.permitted" {
            recorded.extend(entry.draft.action.as_ref().map(ToString::to_string));
        }
    })
    .unwrap();
    recorded
}

fn permit_until_killed(folder: &Path) -> ! {
    let bench = Bench::open(folder);
    loop {
        let permit = bench.permitted(&asked(Effect::Write, "INSERT"));
        println!("permitted {} .", permit.action().id);
        // Another text each time, so that each is another hold.
        let text = format!("DROP TABLE {}", permit.action().id);
        let drop = asked(Effect::Destroy, &text);
        let id = bench.held(&drop);
        bench.approve(&id);
        match bench.gatekeeper.decide(drop) {
            Decision::Forward(permit) => {
                println!("permitted {} .", permit.action().id);
                println!("spent {id} .");
            }
            Decision::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
}
