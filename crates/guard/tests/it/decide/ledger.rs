//! When the record cannot be kept, nothing is permitted.

use std::process::Command;

use holdfast_core::{Approval, Code, Coded, Effect};
use holdfast_guard::clock;
use holdfast_guard::decide::{Decision, Outcome};
use holdfast_guard::hold::HoldError;

use super::bench::{Bench, Temporary, ann, asked, human};

#[test]
fn a_ledger_that_cannot_be_written_permits_nothing_and_may_be_mended_while_it_runs() {
    let bench = Temporary::new();
    bench.enrol("ann", &ann());
    let drop = asked(Effect::Destroy, "DROP TABLE orders");
    let id = bench.held(&drop);
    bench.approve(&id);
    let waiting = bench.held(&asked(Effect::Destroy, "DROP TABLE customers"));
    bench.break_ledger();
    for effect in Effect::ALL {
        let refusal = bench.refused(&asked(effect, "something else"));
        assert_eq!(refusal.code, Code::ZS201, "{effect}: {refusal:?}");
    }
    // Nobody can decide either: what is decided is recorded first.
    let statement = bench.statement(&waiting, std::time::Duration::from_secs(60));
    let error = bench.try_approve(Approval::sign(statement, &ann()));
    assert!(matches!(error, Err(HoldError::Ledger(_))), "{error:?}");
    let error = bench
        .gatekeeper
        .holds()
        .deny(&waiting, human(), clock::now());
    assert!(matches!(error, Err(HoldError::Ledger(_))), "{error:?}");
    assert_eq!(bench.word(&waiting), "waiting");
    bench.mend_ledger();
    bench.permitted(&asked(Effect::Read, "SELECT 1"));
    bench.permitted(&asked(Effect::Write, "INSERT"));
    bench.permitted(&drop);
    // What was refused meanwhile left no entry, so that what is recorded is what was done.
    let permitted = bench.kinds("action");
    let permitted = permitted.iter().filter(|kind| *kind == "action.permitted");
    assert_eq!(permitted.count(), 3);
}

#[test]
fn what_is_too_large_to_be_recorded_is_refused_and_the_next_is_not() {
    let bench = Temporary::new();
    let large = asked(Effect::Write, &"x".repeat(300_000));
    let refusal = bench.refused(&large);
    assert!(refusal.message.contains("nothing was executed"));
    bench.permitted(&asked(Effect::Write, "INSERT"));
    assert_eq!(bench.kinds("action"), ["action.permitted"]);
}

#[test]
fn how_an_action_ended_is_recorded_after_it() {
    for (outcome, kind) in [
        (Outcome::Done, "action.done"),
        (Outcome::NotDone, "action.not_done"),
        (Outcome::Unknown, "action.unknown"),
    ] {
        let bench = Temporary::new();
        let permit = bench.permitted(&asked(Effect::Write, "INSERT"));
        bench
            .gatekeeper
            .outcome(permit, outcome, "line\nfeed")
            .unwrap();
        assert_eq!(bench.kinds("action"), ["action.permitted", kind]);
    }
}

const INNER: &str = "HOLDFAST_TEST_FULL_DISK";
const NAME: &str = "decide::ledger::on_a_full_disk_nothing_is_permitted_and_the_ledger_stays_whole";

/// The outer run starts this test again under a limit on the size of files, as a full disk is one.
#[test]
fn on_a_full_disk_nothing_is_permitted_and_the_ledger_stays_whole() {
    if let Some(folder) = std::env::var_os(INNER) {
        return until_the_disk_is_full(folder.as_ref());
    }
    let folder = tempfile::tempdir().unwrap();
    drop(Bench::open(folder.path()));
    // SIGXFSZ is ignored, so that a write over the limit is cut short and then fails.
    let script = "trap '' XFSZ; ulimit -f 96; exec \"$0\" --exact \"$1\" --nocapture";
    let inner = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(INNER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    let error = String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success(), "{said}\n{error}");
    let acknowledged = said
        .lines()
        .filter(|line| line.contains("permitted "))
        .count();
    assert!(acknowledged > 20, "{said}\n{error}");
    // With room again everything that was acknowledged is there, nothing else, and it goes on.
    let bench = Bench::open(folder.path());
    let permitted = bench.kinds("action");
    assert_eq!(permitted.len(), acknowledged);
    bench.permitted(&asked(Effect::Write, "INSERT"));
    bench.held(&asked(Effect::Destroy, "DROP TABLE orders"));
}

fn until_the_disk_is_full(folder: &std::path::Path) {
    let bench = Bench::open(folder);
    let first = (0..10_000).find_map(|number| {
        let text = format!("INSERT {number}");
        match bench.gatekeeper.decide(asked(Effect::Write, &text)) {
            Decision::Forward(_) => {
                println!("permitted {number}");
                None
            }
            Decision::Refused(refusal) => Some(refusal),
        }
    });
    let first = first.expect("the disk is never full");
    assert_eq!(first.code, Code::ZS201, "{first:?}");
    assert!(first.message.contains("nothing was executed"), "{first:?}");
    for effect in Effect::ALL {
        let refusal = bench.refused(&asked(effect, &"y".repeat(2_000)));
        let code = refusal.code;
        assert!(matches!(code, Code::ZS201 | Code::ZS202), "{refusal:?}");
    }
    let error = bench
        .gatekeeper
        .set_frozen(true, human())
        .map_err(|e| e.code());
    assert!(bench.gatekeeper.is_frozen());
    println!("frozen with {error:?}");
    bench
        .gatekeeper
        .set_frozen(false, human())
        .unwrap_or_default();
}
