//! The replays, played whole: what they promise, a vault that is killed meanwhile, and Ctrl-C.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_testing::dirs::TestDir;
use holdfast_testing::process::Process;
use holdfast_testing::signals::{self, Signal, descendants, is_running, wait_until};
use serde_json::Value;

/// Longer than any act takes on a slow machine.
const PLAYED: Duration = Duration::from_secs(540);

/// The programs of a replay lie beside ours; a test says so before it waits for them.
fn programs_are_built() {
    for name in ["rental", "railway-stand-in"] {
        holdfast_testing::bins::find(name).unwrap();
    }
}

struct Played {
    status: i32,
    acts: Vec<Value>,
    told: String,
}

/// Plays to the end with a printed seed, in a temporary folder of its own.
fn play(dir: &TestDir, args: &[&str]) -> Played {
    programs_are_built();
    // Each run of the test plays something else; the printed seed brings it back.
    let seed = RandomState::new().build_hasher().finish() >> 32;
    println!("seed {seed}: holdfast replay {}", args.join(" "));
    let output = command(dir, args)
        .args(["--json", "--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{told}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    println!("{stdout}");
    let value: Value = serde_json::from_str(&stdout).unwrap_or_default();
    Played {
        status: output.status.code().unwrap_or(-1),
        acts: value["acts"].as_array().cloned().unwrap_or_default(),
        told,
    }
}

fn command(dir: &TestDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.arg("replay").args(args);
    command.env_remove("HOLDFAST_CONFIG");
    command.env("TMPDIR", temporary(dir));
    command
}

/// The temporary folder of a replay; besides it the test has its own files.
fn temporary(dir: &TestDir) -> PathBuf {
    let path = dir.path().join("tmp");
    std::fs::create_dir_all(&path).unwrap();
    // Servers may run as another user than the test.
    std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    path
}

fn number(act: &Value, name: &str) -> u64 {
    act[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {act}"))
}

/// What every replay promises for its five acts.
fn keeps_its_promise(name: &str) {
    let dir = TestDir::for_server("replay").unwrap();
    let played = play(&dir, &[name]);
    assert_eq!(played.status, 0, "{}", played.told);
    let words: Vec<&str> = played
        .acts
        .iter()
        .filter_map(|act| act["act"].as_str())
        .collect();
    assert_eq!(words, ["unprotected", "custody", "doors", "vault", "all"]);
    for act in &played.acts {
        let word = act["act"].as_str().unwrap();
        let (acknowledged, present) = (number(act, "acknowledged"), number(act, "present"));
        assert!(acknowledged >= 100, "{act}");
        match word {
            "unprotected" => {
                assert_eq!((present, number(act, "lost")), (0, acknowledged), "{act}");
                assert!(
                    act["gone_after_s"].is_f64() && act["stopped_by"].is_null(),
                    "{act}"
                );
                assert!(act["serving_again_after_s"].is_null(), "{act}");
            }
            "vault" => {
                assert_eq!((present, number(act, "lost")), (acknowledged, 0), "{act}");
                assert!(
                    act["gone_after_s"].is_f64() && act["stopped_by"].is_null(),
                    "{act}"
                );
                assert!(act["serving_again_after_s"].is_f64(), "{act}");
                // Its mirror took over, and a restore of the same moment was made to compare.
                assert_eq!(act["recovery"]["by"], "mirror", "{act}");
                assert!(act["recovery"]["took_s"].is_f64(), "{act}");
                assert!(act["recovery"]["restore_s"].is_f64(), "{act}");
            }
            _ => {
                assert_eq!((present, number(act, "lost")), (acknowledged, 0), "{act}");
                assert!(act["gone_after_s"].is_null(), "{act}");
                let by = act["stopped_by"].as_str().unwrap();
                assert!(!by.contains("it had no effect"), "{act}");
            }
        }
    }
    nothing_is_left(&dir);
}

/// The folder of the replay is gone, and with it everything that ran in it.
fn nothing_is_left(dir: &TestDir) {
    let left: Vec<PathBuf> = std::fs::read_dir(temporary(dir))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The test kit, which the stand-in uses, keeps ports and templates of clusters there.
        .filter(|path| !path.to_string_lossy().contains("/holdfast-testing-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_nine_seconds_lose_everything_unprotected_and_nothing_with_any_protection() {
    keeps_its_promise("pocketos");
}

#[test]
fn a_hidden_drop_schema_loses_everything_unprotected_and_nothing_with_any_protection() {
    keeps_its_promise("drop-schema");
}

#[test]
fn a_vault_killed_at_random_moments_of_the_traffic_loses_nothing() {
    let dir = TestDir::for_server("killed").unwrap();
    let played = play(&dir, &["pocketos", "--act", "vault", "--kill-vault", "4"]);
    assert_eq!(played.status, 0, "{}", played.told);
    let act = &played.acts[0];
    assert_eq!(number(act, "vault_kills"), 4);
    assert_eq!(number(act, "present"), number(act, "acknowledged"), "{act}");
    assert!(
        number(act, "acknowledged") >= 100 && act["gone_after_s"].is_f64(),
        "{act}"
    );
}

#[test]
fn ctrl_c_at_any_time_leaves_no_process_and_no_folder_behind() {
    programs_are_built();
    for line in ["takes a base backup", "bookings are made"] {
        let dir = TestDir::for_server("stopped").unwrap();
        let log = dir.path().join("replay.log");
        let mut process =
            Process::spawn(command(&dir, &["pocketos", "--act", "all"]), &log).unwrap();
        process.wait_for_line(line, PLAYED).unwrap();
        let below: BTreeSet<u32> = descendants(process.pid()).unwrap().into_iter().collect();
        assert!(below.len() > 3, "{below:?}");
        signals::send(process.pid(), Signal::INT).unwrap();
        let status = process.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), Some(1), "{}", process.log_tail());
        assert!(process.log().contains("ZS702"), "{}", process.log_tail());
        let gone = wait_until(Duration::from_secs(20), || {
            below.iter().all(|pid| !is_running(*pid))
        });
        let left: Vec<_> = below.iter().filter(|pid| is_running(**pid)).collect();
        assert!(gone.is_ok(), "after `{line}` these still run: {left:?}");
        nothing_is_left(&dir);
    }
}

#[test]
fn a_replay_that_is_not_known_starts_nothing() {
    let dir = TestDir::new("unknown").unwrap();
    for (name, code) in [("no-such", "ZU701"), ("no/such.toml", "ZU703")] {
        let output = command(&dir, &[name]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(code) && told.contains("hint: "), "{told}");
        assert!(output.stdout.is_empty());
        nothing_is_left(&dir);
    }
}
