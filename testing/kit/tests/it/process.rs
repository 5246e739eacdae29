use std::process::Command;
use std::time::Duration;

use holdfast_testing::dirs::TestDir;
use holdfast_testing::ports::ReservedPort;
use holdfast_testing::process::Process;
use holdfast_testing::{bins, signals};

const SOON: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_line_and_a_ready_file_are_waited_for() {
    let dir = TestDir::new("process").unwrap();
    let ready = dir.path().join("ready");
    let script = format!("echo listening; touch {}; exec sleep 60", ready.display());
    let mut child = Process::spawn(sh(&script), &dir.path().join("log")).unwrap();
    child.wait_for_line("listening", SOON).unwrap();
    child.wait_for_file(&ready, SOON).unwrap();
    assert!(child.is_running());
    child.terminate(SOON).unwrap();
    assert!(!child.is_running());
}

#[test]
fn a_process_that_ends_early_is_told_with_its_log() {
    let dir = TestDir::new("process").unwrap();
    let mut child =
        Process::spawn(sh("echo no such port >&2; exit 3"), &dir.path().join("log")).unwrap();
    let error = child
        .wait_for_line("listening", SOON)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no such port") && error.contains('3'),
        "{error}"
    );
}

#[test]
fn a_deadline_that_passes_is_an_error() {
    let dir = TestDir::new("process").unwrap();
    let mut child = Process::spawn(sh("exec sleep 60"), &dir.path().join("log")).unwrap();
    let limit = Duration::from_millis(30);
    assert!(
        child
            .wait_for_file(&dir.path().join("never"), limit)
            .is_err()
    );
    assert!(child.wait(limit).is_err());
    child.kill_9().unwrap();
}

#[test]
fn a_tree_of_processes_is_killed_as_a_whole() {
    let dir = TestDir::new("process").unwrap();
    let script = "sh -c 'sleep 60 & sleep 60 & echo born; wait' & wait";
    let mut child = Process::spawn(sh(script), &dir.path().join("log")).unwrap();
    child.wait_for_line("born", SOON).unwrap();
    let below = signals::descendants(child.pid()).unwrap();
    assert_eq!(below.len(), 3);
    signals::kill_tree(child.pid()).unwrap();
    assert!(below.iter().all(|&pid| !signals::is_running(pid)));
}

#[test]
fn a_folder_goes_with_its_value_unless_it_is_kept() {
    let dir = TestDir::new("gone").unwrap();
    let path = dir.path().to_owned();
    drop(dir);
    assert!(!path.exists());
    let kept = TestDir::new("kept").unwrap().keep();
    assert!(kept.is_dir());
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn no_port_is_given_twice() {
    let ports: Vec<ReservedPort> = (0..50).map(|_| ReservedPort::take().unwrap()).collect();
    let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 50);
}

#[test]
fn a_program_that_was_not_built_is_told_with_the_command() {
    let error = bins::find("no-such-program").unwrap_err().to_string();
    assert!(error.contains("cargo build"), "{error}");
}
