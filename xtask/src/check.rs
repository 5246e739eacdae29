//! The one list of checks.

mod counts;
mod run;

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use self::counts::Counts;
use crate::report::seconds;
use crate::{r#gen, tidy};

/// Which checks to run.
#[derive(Args)]
pub struct Options {
    /// Only this check; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Not this check; may be given more than once.
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Lists the checks and stops.
    #[arg(long)]
    list: bool,
}

/// Runs the checks one after the other, also after a failure, and prints the counts last.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    let chosen = choose(options)?;
    if options.list {
        for step in chosen {
            println!("{:<8} {}", step.name, step.about);
        }
        return Ok(true);
    }
    let mut results: Vec<Done> = Vec::new();
    for step in chosen {
        let blocked = step.needs.iter().any(|need| failed(&results, need));
        println!("\n==> {}: {}", step.name, step.about);
        let begun = Instant::now();
        let outcome = if blocked {
            println!("not run: it needs {}", step.needs.join(", "));
            Outcome::default()
        } else {
            (step.perform)(root)?
        };
        results.push(Done {
            name: step.name,
            outcome,
            took: begun.elapsed(),
        });
    }
    Ok(summarise(&results))
}

fn choose(options: &Options) -> Result<Vec<&'static Step>> {
    for name in options.only.iter().chain(&options.skip) {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("there is no check `{name}`; `cargo xtask check --list` names them");
        }
    }
    let wanted = |step: &&Step| {
        let named = |names: &[String]| names.iter().any(|name| name == step.name);
        (options.only.is_empty() || named(&options.only)) && !named(&options.skip)
    };
    Ok(STEPS.iter().filter(wanted).collect())
}

fn failed(results: &[Done], name: &str) -> bool {
    results
        .iter()
        .any(|done| done.name == name && !done.outcome.ok)
}

fn summarise(results: &[Done]) -> bool {
    println!();
    for done in results {
        let state = if done.outcome.ok { "ok" } else { "FAILED" };
        let tests = done.outcome.counts.map(|c| c.to_string());
        let line = format!(
            "{:<8} {:<6} {:>12}   {}",
            done.name,
            state,
            seconds(done.took),
            tests.unwrap_or_default()
        );
        println!("{}", line.trim_end());
    }
    let total = total(results);
    let good = results.iter().filter(|done| done.outcome.ok).count();
    let took: Duration = results.iter().map(|done| done.took).sum();
    println!(
        "\n{good} of {} checks ok in {}",
        results.len(),
        seconds(took)
    );
    println!("{} passed, {} failed", total.passed, total.failed);
    good == results.len()
}

/// Sums the tests; a check that failed without a failed test (a lint, a build) counts as one failure.
fn total(results: &[Done]) -> Counts {
    let mut total = Counts::default();
    for done in results {
        let counts = done.outcome.counts.unwrap_or_default();
        total += counts;
        if !done.outcome.ok && counts.failed == 0 {
            total.failed += 1;
        }
    }
    total
}

/// One check.
struct Step {
    name: &'static str,
    about: &'static str,
    needs: &'static [&'static str],
    perform: fn(&Path) -> Result<Outcome>,
}

struct Done {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

#[derive(Clone, Copy, Default)]
struct Outcome {
    ok: bool,
    counts: Option<Counts>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "the format is rustfmt's",
        needs: &[],
        perform: |root| cargo(root, &["fmt", "--all", "--check"], &[]),
    },
    Step {
        name: "tidy",
        about: "the house rules",
        needs: &[],
        perform: |root| Ok(Outcome::from(tidy::run(root, &[])?)),
    },
    Step {
        name: "gen",
        about: "generated pages are fresh",
        needs: &[],
        perform: |root| Ok(Outcome::from(r#gen::run(root, true)?)),
    },
    Step {
        name: "clippy",
        about: "no warnings from the compiler and clippy",
        needs: &[],
        perform: |root| {
            let arguments = "clippy --workspace --all-targets --quiet -- -D warnings";
            cargo(root, &words(arguments), &[])
        },
    },
    Step {
        name: "build",
        about: "programs and tests compile",
        needs: &[],
        perform: |root| {
            cargo(
                root,
                &quietly("build --workspace --all-targets", "--quiet"),
                &[],
            )
        },
    },
    Step {
        name: "test",
        about: "tests, on two major versions of PostgreSQL",
        needs: &["build"],
        perform: test,
    },
    Step {
        name: "doctest",
        about: "the examples in the documentation run",
        needs: &["build"],
        perform: |root| {
            counted(
                root,
                &words("test --workspace --doc --quiet"),
                counts::cargo_test,
            )
        },
    },
    Step {
        name: "doc",
        about: "the documentation builds without warnings",
        needs: &[],
        perform: |root| {
            let arguments = words("doc --workspace --no-deps --quiet");
            cargo(root, &arguments, &[("RUSTDOCFLAGS", "-D warnings")])
        },
    },
];

/// Runs the tests by nextest, or by cargo's own runner where nextest is not installed.
fn test(root: &Path) -> Result<Outcome> {
    if has_nextest() {
        let arguments = quietly("nextest run --workspace --no-fail-fast", "--cargo-quiet");
        return counted(root, &arguments, counts::nextest);
    }
    println!("cargo-nextest is not installed; using `cargo test`");
    let arguments = words("test --workspace --lib --bins --tests --examples --no-fail-fast");
    counted(root, &arguments, counts::cargo_test)
}

fn has_nextest() -> bool {
    Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Outcome> {
    run::plain(root, arguments, environment).map(Outcome::from)
}

fn counted(root: &Path, arguments: &[&str], count: fn(&str) -> Counts) -> Result<Outcome> {
    let (ok, text) = run::captured(root, arguments)?;
    Ok(Outcome {
        ok,
        counts: Some(count(&text)),
    })
}

/// In a log, the names of hundreds of crates that compile hide what matters.
fn quietly(line: &'static str, quiet: &'static str) -> Vec<&'static str> {
    let mut words = words(line);
    if !std::io::stderr().is_terminal() {
        words.push(quiet);
    }
    words
}

fn words(line: &'static str) -> Vec<&'static str> {
    line.split(' ').collect()
}

impl From<bool> for Outcome {
    fn from(ok: bool) -> Self {
        Self { ok, counts: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &'static str, ok: bool, counts: Option<(u64, u64)>) -> Done {
        let counts = counts.map(|(passed, failed)| Counts {
            passed,
            failed,
            skipped: 0,
        });
        Done {
            name,
            outcome: Outcome { ok, counts },
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_failed_check_is_never_reported_as_zero_failures() {
        let total = total(&[
            done("fmt", false, None),
            done("test", true, Some((7, 0))),
            done("doctest", false, Some((1, 2))),
        ]);
        assert_eq!((total.passed, total.failed), (8, 3));
    }

    #[test]
    fn a_check_that_needs_a_failed_one_is_blocked() {
        let results = [done("build", false, None)];
        assert!(failed(&results, "build"));
        assert!(!failed(&results, "fmt"));
    }

    #[test]
    fn an_unknown_check_is_refused() {
        let options = Options {
            only: vec!["tset".to_owned()],
            skip: Vec::new(),
            list: false,
        };
        assert!(choose(&options).is_err());
    }

    #[test]
    fn what_a_check_needs_comes_before_it() {
        for (at, step) in STEPS.iter().enumerate() {
            for need in step.needs {
                assert!(STEPS.iter().take(at).any(|earlier| earlier.name == *need));
            }
        }
    }
}
