//! Live traffic: concurrent bookings, payments, cancellations and counter lists, with a journal of
//! everything whose COMMIT was acknowledged.

mod totals;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::database::UrlSource;
use crate::desk::{DeskError, Pool};
use crate::journal::{Journal, JournalError};
use crate::limits::{
    BACKOFF_LONGEST, LIMIT_TRAFFIC_OPERATION, LIMIT_TRAFFIC_START, LIMIT_TRAFFIC_WORKERS,
};

use totals::Tally;
pub use totals::{Sum, Totals};
use worker::Worker;

/// How much traffic, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrafficPlan {
    /// Counters that work at the same time.
    pub workers: u32,
    /// Seed of the choices; ids are new in every run.
    pub seed: u64,
    /// Operations per second of all workers together, or as many as the database can take.
    pub rate: Option<f64>,
    /// How long, or until stopped.
    pub lasting: Option<Duration>,
}

/// Why traffic did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The office has no vehicles.
    #[error("the office has no vehicles to book; run `rental seed` first")]
    Empty,
    /// The journal cannot be written, so nothing can be counted.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The plan asks for too much or too little.
    #[error("{0}; nothing was started")]
    Plan(String),
    /// The database could not be read at the start.
    #[error("traffic did not start; check the database, then start it again")]
    Start(#[source] DeskError),
    /// A worker ended unexpectedly.
    #[error("a traffic worker ended unexpectedly; the journal holds what was acknowledged")]
    Worker,
}

impl TrafficPlan {
    fn check(&self) -> Result<(), TrafficError> {
        if !(1..=LIMIT_TRAFFIC_WORKERS).contains(&self.workers) {
            let text = format!("--workers is not between 1 and {LIMIT_TRAFFIC_WORKERS}");
            return Err(TrafficError::Plan(text));
        }
        if self.rate.is_some_and(|rate| !(0.1..=1e6).contains(&rate)) {
            return Err(TrafficError::Plan(
                "--rate is not between 0.1 and 1000000".to_owned(),
            ));
        }
        Ok(())
    }

    /// Time between two operations of one worker.
    fn pace(&self) -> Option<Duration> {
        self.rate
            .map(|rate| Duration::from_secs_f64(f64::from(self.workers) / rate))
    }
}

/// Runs traffic until `stop` becomes true or the plan's time is over; `every_second` gets the sum so far.
///
/// # Errors
/// All of `TrafficError`; an outage of the database is counted, and is no error.
pub async fn run(
    source: UrlSource,
    journal: &Path,
    plan: TrafficPlan,
    stop: watch::Receiver<bool>,
    mut every_second: impl FnMut(&Totals),
) -> Result<Totals, TrafficError> {
    plan.check()?;
    let journal = Arc::new(Journal::open(journal)?);
    let pool = Arc::new(Pool::new(source, plan.workers, LIMIT_TRAFFIC_OPERATION));
    let vehicles: Arc<[(i32, i32)]> = vehicles(&pool, stop.clone()).await?.into();
    let tally = Arc::new(Tally::new());
    let (end, ended) = watch::channel(false);
    let mut workers = JoinSet::new();
    for number in 0..plan.workers {
        let shared = worker::Shared {
            pool: Arc::clone(&pool),
            journal: Arc::clone(&journal),
            tally: Arc::clone(&tally),
            vehicles: Arc::clone(&vehicles),
        };
        let worker = Worker::new(shared, plan.seed, u64::from(number));
        workers.spawn(worker.run(plan.pace(), ended.clone()));
    }
    let until = plan.lasting.map(|lasting| Instant::now() + lasting);
    let outcome = supervise(&mut workers, stop, until, || {
        every_second(&tally.totals(pool.opened()))
    });
    let outcome = outcome.await;
    let _no_receiver = end.send(true);
    while let Some(joined) = workers.join_next().await {
        joined.map_err(|_panicked| TrafficError::Worker)??;
    }
    outcome.map(|()| tally.totals(pool.opened()))
}

/// Waits for the end, or for a worker that fails.
async fn supervise(
    workers: &mut JoinSet<Result<(), JournalError>>,
    mut stop: watch::Receiver<bool>,
    until: Option<Instant>,
    mut every_second: impl FnMut(),
) -> Result<(), TrafficError> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let until = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            () = &mut until => return Ok(()),
            _ = second.tick() => every_second(),
            Some(joined) = workers.join_next() => {
                joined.map_err(|_panicked| TrafficError::Worker)??;
            }
        }
    }
}

/// The vehicles to book, once the database can be read.
async fn vehicles(
    pool: &Pool,
    mut stop: watch::Receiver<bool>,
) -> Result<Vec<(i32, i32)>, TrafficError> {
    let deadline = Instant::now() + LIMIT_TRAFFIC_START;
    loop {
        let outcome = async { pool.desk().await?.bookable().await }.await;
        match outcome {
            Ok(vehicles) if vehicles.is_empty() => return Err(TrafficError::Empty),
            Ok(vehicles) => return Ok(vehicles),
            Err(error) if Instant::now() > deadline => return Err(TrafficError::Start(error)),
            Err(error) => tokio::select! {
                () = stopped(&mut stop) => return Err(TrafficError::Start(error)),
                () = sleep(BACKOFF_LONGEST) => {}
            },
        }
    }
}

/// Returns once `stop` is true; never when nobody can make it true any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
