//! Faults of the vault's own disk, at every kind of step, under synchronous commits.
//!
//! `HOLDFAST_ROUNDS` plays more rounds than the check does, `HOLDFAST_SEED` plays a run again.

mod stage;

use std::collections::BTreeMap;

use holdfast_testing::disk::{Fault, Step, Survives};
use holdfast_testing::postgres;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use stage::{Stage, rounds, seed};

/// The kinds of steps that a running vault takes, each in its turn.
const KINDS: [Step; 6] = [
    Step::Write,
    Step::Sync,
    Step::Create,
    Step::SyncFolder,
    Step::Link,
    Step::Unlink,
];
/// The most steps of one kind that a fault waits for.
const SPAN: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_commits_survive_kill_9_and_power_cuts_at_any_step() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::open(&postgres::newest().unwrap()).await;
    let mut met: BTreeMap<Step, u32> = BTreeMap::new();
    for (round, on) in KINDS.iter().cycle().take(rounds(8)).enumerate() {
        let after = random.random_range(0..SPAN);
        let survives = *pick(
            &mut random,
            &[
                Survives::All,
                Survives::None,
                Survives::Prefix,
                Survives::Random,
                Survives::Random,
            ],
        );
        let cut_seed: u64 = random.random();
        let step = stage.kill(*on, after).await;
        *met.entry(step).or_default() += 1;
        stage.disk.power_cut(survives, cut_seed);
        let kept = stage.lost_of_what_is_kept();
        assert!(
            kept.is_empty(),
            "seed {seed}, round {round}, {step:?} after {after}, {survives:?}: lost {kept:?}"
        );
        stage.start();
        stage.await_more(3).await;
    }
    println!("killed at {met:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_or_is_full_for_a_moment_loses_nothing_and_capture_goes_on() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::open(&postgres::newest().unwrap()).await;
    let mut met: BTreeMap<Step, u32> = BTreeMap::new();
    for (round, on) in KINDS.iter().cycle().take(rounds(6)).enumerate() {
        let after = random.random_range(0..SPAN);
        let fault = match random.random_bool(0.5) {
            true => Fault::Error { after },
            false => Fault::Full { after },
        };
        let step = stage.fail(fault, *on).await;
        *met.entry(step).or_default() += 1;
        // What was acknowledged before the fault is kept, whatever the failed step was.
        let lost = stage.lost_of_what_is_kept();
        assert!(
            lost.is_empty(),
            "seed {seed}, round {round}, {fault:?} at {step:?}: lost {lost:?}"
        );
        stage.disk.heal();
        stage.await_more(3).await;
    }
    println!("failed at {met:?}");
    stage.end().await;
}

fn pick<'a, T>(random: &mut StdRng, all: &'a [T]) -> &'a T {
    &all[random.random_range(0..all.len())]
}
