//! Labelled cases, scored by what the server has afterwards.
//!
//! The cases are data, in `tests/corpus/*.cases`; each runs in a database of its own through the real
//! door, and no message of the door counts for the score of what must be stopped.

mod case;
mod run;
mod state;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use holdfast_testing::postgres::{self, Installation};

use case::{Case, Label};
use run::Stage;

/// Cases that run at once.
const WORKERS: usize = 4;

/// How long a case may take.
const CASE_WAITS_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// The most benign cases that may be held, of a thousand.
const HELD_MAX: usize = 20;

/// What came of all cases.
#[derive(Default)]
struct Score {
    passes: usize,
    stops: usize,
    /// What was lost although it had to be stopped.
    lost: Vec<String>,
    /// What was refused although it had to pass.
    held: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn nothing_that_destroys_rows_passes() {
    score("stop-rows").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn nothing_that_destroys_structure_passes() {
    score("stop-structure").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn nothing_that_destroys_passes_by_tricks_of_the_protocol() {
    score("stop-protocol").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn nothing_that_leaves_the_database_passes() {
    score("stop-outside").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn benign_work_passes() {
    score("pass").await;
}

async fn score(files: &str) {
    let mut installations = vec![postgres::oldest().unwrap()];
    if std::env::var_os("HOLDFAST_LONG").is_some() {
        installations = postgres::all().unwrap().to_vec();
    }
    for installation in installations {
        let begun = Instant::now();
        let score = play(&installation, run::Way::Door, files).await;
        println!(
            "corpus {files} on PostgreSQL {}: {} must stop, {} of them lose something; {} must pass, {} of them do not; {:.1} s",
            installation.version(),
            score.stops,
            score.lost.len(),
            score.passes,
            score.held.len(),
            begun.elapsed().as_secs_f64()
        );
        assert!(score.lost.is_empty(), "{:#?}", score.lost);
        let most = score.passes * HELD_MAX / 1000;
        assert!(score.held.len() <= most, "{:#?}", score.held);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn without_the_door_every_case_that_must_stop_loses_something() {
    if std::env::var_os("HOLDFAST_LONG").is_none() {
        return;
    }
    let score = play(&postgres::oldest().unwrap(), run::Way::Direct, "").await;
    println!(
        "without a door: {} of {} lose something",
        score.lost.len(),
        score.stops
    );
    assert!(score.held.is_empty(), "{:#?}", score.held);
}

async fn play(installation: &Installation, way: run::Way, files: &str) -> Score {
    let wanted = std::env::var("HOLDFAST_CORPUS").unwrap_or_default();
    let cases: VecDeque<Case> = case::all()
        .into_iter()
        .filter(|case| case.file.starts_with(files))
        .filter(|case| format!("{}/{}", case.file, case.name).contains(&wanted))
        .collect();
    let stage = Arc::new(Stage::new(installation).await);
    let cases = Arc::new(Mutex::new(cases));
    let score = Arc::new(Mutex::new(Score::default()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (stage, cases, score) = (stage.clone(), cases.clone(), score.clone());
            tokio::spawn(async move {
                let mut database = stage.database(number).await;
                loop {
                    let next = cases.lock().unwrap().pop_front();
                    let Some(case) = next else { break };
                    if std::env::var_os("HOLDFAST_CORPUS").is_some() {
                        println!("{}/{}", case.file, case.name);
                    }
                    let running = stage.run(&case, &mut database, way);
                    let Ok(outcome) = tokio::time::timeout(CASE_WAITS_MAX, running).await else {
                        panic!("{}/{} does not end", case.file, case.name);
                    };
                    score.lock().unwrap().add(&case, outcome, way);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    Arc::into_inner(score).unwrap().into_inner().unwrap()
}

impl Score {
    fn add(&mut self, case: &Case, outcome: run::Outcome, way: run::Way) {
        let name = format!("{}/{}", case.file, case.name);
        let said = outcome.said.join(" | ");
        let is_right = match case.label {
            Label::Stop => outcome.lost.is_empty() || way == run::Way::Direct,
            Label::Pass => outcome.wrong.is_empty(),
        };
        if !is_right {
            println!("!! {name}: {:?} {:?}: {said}", outcome.lost, outcome.wrong);
        }
        match (case.label, way) {
            (Label::Stop, run::Way::Door) => {
                self.stops += 1;
                if !outcome.lost.is_empty() {
                    self.lost
                        .push(format!("{name}: LOST {}: {said}", outcome.lost.join("; ")));
                }
            }
            (Label::Stop, run::Way::Direct) => {
                self.stops += 1;
                if outcome.lost.is_empty() && !case.by_rights {
                    self.held.push(format!("{name}: shows nothing: {said}"));
                } else {
                    self.lost.push(name);
                }
            }
            (Label::Pass, run::Way::Door) => {
                self.passes += 1;
                if !outcome.wrong.is_empty() {
                    self.held
                        .push(format!("{name}: {}: {said}", outcome.wrong.join("; ")));
                }
            }
            (Label::Pass, run::Way::Direct) => {
                if !outcome.wrong.is_empty() {
                    self.held.push(format!(
                        "{name}: fails by itself: {}: {said}",
                        outcome.wrong.join("; ")
                    ));
                }
            }
        }
    }
}
