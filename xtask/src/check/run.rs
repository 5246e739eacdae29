//! Runs cargo, with its output shown while it runs.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Runs cargo with the terminal as it is and returns whether it succeeded.
pub fn plain(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<bool> {
    let status = cargo(root, arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("run `cargo {}`", arguments.join(" ")))?;
    Ok(status.success())
}

/// Runs cargo, shows what it prints and returns that as well.
pub fn captured(root: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let mut child = cargo(root, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run `cargo {}`", arguments.join(" ")))?;
    let text = Arc::new(Mutex::new(String::new()));
    let out = child.stdout.take().context("take the output of cargo")?;
    let err = child.stderr.take().context("take the errors of cargo")?;
    let readers = [show(out, &text), show(err, &text)];
    let status = child.wait().context("wait for cargo")?;
    // A process that a test left behind may hold the pipe open: the check does not wait for it.
    let until = Instant::now() + LIMIT_DRAIN;
    while readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < until {
        thread::sleep(POLL);
    }
    let text = text.lock().map(|t| t.clone()).unwrap_or_default();
    Ok((status.success(), text))
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(arguments);
    // Set by the cargo that runs this chore; they would make the inner one build again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn show(pipe: impl Read + Send + 'static, text: &Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    let text = Arc::clone(text);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if !is_empty_result(&line) {
                println!("{line}");
            }
            if let Ok(mut text) = text.lock() {
                text.push_str(&line);
                text.push('\n');
            }
        }
    })
}

/// Whether cargo's own runner says with this line that a package has no tests of the kind.
fn is_empty_result(line: &str) -> bool {
    line.is_empty()
        || line == "running 0 tests"
        || line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored")
}

const LIMIT_DRAIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
