//! Whose turn it is: one drill at a time, in the order of asking, with rests that keep them within their
//! share of the time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::SourceName;
use tokio::sync::Notify;

use crate::limits;

/// Lets one drill run at a time. Those that a person waits for do not ask here.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The percentage of the time in which drills may run.
    share: u32,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    rest_until: Option<Instant>,
    /// In the order of asking.
    waiting: Vec<SourceName>,
}

/// How much a drill matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The source has a proof.
    Ordinary,
    /// Nothing can be permitted until it has run: it does not wait for a rest to end.
    Unproven,
}

/// The turn of one drill; dropping it begins the rest.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    begun: Instant,
}

/// Takes a source out of the order when it stops waiting.
struct Waiting<'a> {
    turns: &'a Turns,
    source: &'a SourceName,
}

impl Turns {
    pub(crate) fn new(share: u32) -> Self {
        Self {
            share: share.clamp(1, 100),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until it is the turn of a source.
    ///
    /// # Cancellation
    /// Safe: what is dropped while it waits is out of the order.
    pub(crate) async fn take(&self, source: &SourceName, need: Need) -> Turn<'_> {
        self.state().waiting.push(source.clone());
        let waiting = Waiting {
            turns: self,
            source,
        };
        loop {
            let changed = self.changed.notified();
            let wait = match self.look(source, need) {
                Ok(()) => break,
                Err(wait) => wait,
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        drop(waiting);
        Turn {
            turns: self,
            begun: Instant::now(),
        }
    }

    /// Takes the turn, or says when to look again.
    fn look(&self, source: &SourceName, need: Need) -> Result<(), Duration> {
        let mut state = self.state();
        if state.is_taken {
            return Err(limits::DRILL_LOOK);
        }
        if need == Need::Ordinary {
            let rest = state
                .rest_until
                .map(|until| until.saturating_duration_since(Instant::now()));
            if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
                return Err(rest.min(limits::DRILL_LOOK));
            }
            if state.waiting.first() != Some(source) {
                return Err(limits::DRILL_LOOK);
            }
        }
        state.is_taken = true;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long drills rest after one that took so long.
    fn rest(&self, took: Duration) -> Duration {
        let rest = took.saturating_mul(100_u32.saturating_sub(self.share)) / self.share;
        rest.min(limits::DRILL_REST)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let rest = self.turns.rest(self.begun.elapsed());
        let mut state = self.turns.state();
        state.is_taken = false;
        state.rest_until = Instant::now().checked_add(rest);
        drop(state);
        self.turns.changed.notify_waiters();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(index) = state.waiting.iter().position(|one| one == self.source) {
            state.waiting.remove(index);
        }
        drop(state);
        self.turns.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn name(text: &str) -> SourceName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn many_sources_are_drilled_one_at_a_time_and_equally_often() {
        let turns = Arc::new(Turns::new(100));
        let ran: Arc<Mutex<Vec<SourceName>>> = Arc::default();
        let running = Arc::new(Mutex::new(()));
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..8 {
            let (turns, ran, running) = (turns.clone(), ran.clone(), running.clone());
            tasks.spawn(async move {
                let source = name(&format!("s{index}"));
                for _ in 0..5 {
                    let turn = turns.take(&source, Need::Ordinary).await;
                    {
                        let _alone = running.try_lock().expect("one at a time");
                        ran.lock().unwrap().push(source.clone());
                    }
                    drop(turn);
                    tokio::task::yield_now().await;
                }
            });
        }
        tasks.join_all().await;
        let ran = ran.lock().unwrap();
        for round in ran.chunks(8) {
            let each: BTreeMap<&SourceName, ()> = round.iter().map(|one| (one, ())).collect();
            assert_eq!(each.len(), 8, "{ran:?}");
        }
    }

    #[tokio::test]
    async fn drills_rest_so_that_they_keep_to_their_share_and_an_unproven_source_does_not_wait() {
        let turns = Turns::new(25);
        assert_eq!(turns.rest(Duration::from_secs(10)), Duration::from_secs(30));
        assert_eq!(turns.rest(Duration::from_secs(1 << 30)), limits::DRILL_REST);
        let turn = turns.take(&name("a"), Need::Ordinary).await;
        drop(turn);
        let until = Instant::now() + Duration::from_millis(200);
        turns.state().rest_until = Some(until);
        let urgent = turns.take(&name("new"), Need::Unproven).await;
        assert!(Instant::now() < until, "it did not wait");
        drop(urgent);
        turns.state().rest_until = Some(until);
        drop(turns.take(&name("b"), Need::Ordinary).await);
        assert!(Instant::now() >= until);
        // One that gives up is not waited for.
        turns.state().rest_until = Some(Instant::now() + Duration::from_secs(60));
        let third = name("c");
        let gave_up = tokio::time::timeout(
            Duration::from_millis(10),
            turns.take(&third, Need::Ordinary),
        );
        assert!(gave_up.await.is_err());
        assert!(turns.state().waiting.is_empty());
    }
}
