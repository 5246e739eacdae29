//! Labelled cases, scored by what the server has afterwards.
//!
//! The cases are data, in `tests/corpus/*.cases`; each runs in a database of its own through the real
//! door, and no message of the door counts for the score of what must be stopped.

pub mod case;
pub mod run;
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

/// Of how many cases one runs on a newer server, where all run on the oldest.
const NEWER_SHARE: usize = 6;

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
async fn nothing_that_acts_later_passes() {
    score("stop-planted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn benign_work_passes() {
    score("pass").await;
}

/// Plays everything on PostgreSQL 15 and a part of it on the newest; everything on every one when
/// `HOLDFAST_LONG` is set.
async fn score(files: &str) {
    let is_long = std::env::var_os("HOLDFAST_LONG").is_some();
    let oldest = postgres::oldest().unwrap();
    let mut rounds = vec![(oldest.clone(), 1)];
    if is_long {
        let newer = postgres::installations().into_iter();
        let newer = newer.filter(|one| one.major > oldest.major);
        rounds.extend(newer.map(|one| (one, 1)));
    } else {
        rounds.push((postgres::newest().unwrap(), NEWER_SHARE));
    }
    for (installation, share) in rounds {
        let begun = Instant::now();
        let score = play(&installation, run::Way::Door, (files, share)).await;
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
    let score = play(&postgres::oldest().unwrap(), run::Way::Direct, ("", 1)).await;
    println!(
        "without a door: {} of {} lose something",
        score.lost.len(),
        score.stops
    );
    assert!(score.held.is_empty(), "{:#?}", score.held);
}

async fn play(installation: &Installation, way: run::Way, (files, share): (&str, usize)) -> Score {
    let wanted = std::env::var("HOLDFAST_CORPUS").unwrap_or_default();
    let cases: VecDeque<Case> = case::all()
        .into_iter()
        .filter(|case| case.file.starts_with(files))
        .filter(|case| format!("{}/{}", case.file, case.name).contains(&wanted))
        .enumerate()
        .filter_map(|(number, case)| number.is_multiple_of(share).then_some(case))
        .collect();
    let stage = Arc::new(Stage::new(installation).await);
    let cases = Arc::new(Mutex::new(cases));
    let score = Arc::new(Mutex::new(Score::default()));
    // Without a door a case may change what all databases share.
    let workers = match way {
        run::Way::Direct => 1,
        run::Way::Door => WORKERS,
    };
    let workers: Vec<_> = (0..workers)
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
