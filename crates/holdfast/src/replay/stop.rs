//! Ctrl-C: noticed here, obeyed at every wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::limits::POLL;
use super::trouble::Trouble;

/// Whether the replay was asked to stop. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Begins to listen for SIGINT, SIGTERM and SIGHUP, which then no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn on_signals() -> Result<Self, Trouble> {
        let stop = Self::default();
        let told = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Trouble::system("listen for signals"))?;
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let kinds = [
                    SignalKind::interrupt(),
                    SignalKind::terminate(),
                    SignalKind::hangup(),
                ];
                let mut signals = Vec::new();
                for kind in kinds {
                    match signal(kind) {
                        Ok(one) => signals.push(one),
                        Err(error) => {
                            let _nobody_waits = ready.send(Err(error));
                            return;
                        }
                    }
                }
                let _nobody_waits = ready.send(Ok(()));
                loop {
                    let mut each = signals.iter_mut().map(|one| Box::pin(one.recv()));
                    let (Some(a), Some(b), Some(c)) = (each.next(), each.next(), each.next())
                    else {
                        return;
                    };
                    tokio::select! { _ = a => {}, _ = b => {}, _ = c => {} }
                    told.0.store(true, Ordering::SeqCst);
                }
            });
        });
        let listening = is_ready
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
        listening.map_err(Trouble::system("listen for signals"))?;
        Ok(stop)
    }

    /// Tells whether it was asked to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Goes on, unless it was asked to stop.
    ///
    /// # Errors
    /// [`Trouble::Stopped`].
    pub fn check(&self) -> Result<(), Trouble> {
        match self.is_set() {
            true => Err(Trouble::Stopped),
            false => Ok(()),
        }
    }

    /// Looks again and again until `look` finds something; `None` when the time is over.
    ///
    /// # Errors
    /// [`Trouble::Stopped`], and what `look` returns.
    pub fn poll<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        let started = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if started.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`Trouble::Stopped`].
    pub fn pause(&self, time: Duration) -> Result<(), Trouble> {
        self.poll(time, || Ok(None::<()>)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_it_finds_with_its_time_or_with_the_stop() {
        let stop = Stop::default();
        let mut looks = 0;
        let found = stop.poll(Duration::from_secs(30), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), Some(3));
        assert!(
            stop.poll(Duration::ZERO, || Ok(None::<()>))
                .unwrap()
                .is_none()
        );
        stop.0.store(true, Ordering::SeqCst);
        let stopped = stop.pause(Duration::from_secs(30)).unwrap_err();
        assert!(matches!(stopped, Trouble::Stopped));
    }
}
