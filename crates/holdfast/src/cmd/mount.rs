//! `mount watch`: takes the mounts of a process away when it was killed. Our own processes start it.

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::report::Done;
use crate::wiring::system;

/// How this program is called to watch over a mount of its own.
pub const WATCH: &[&str] = &["mount", "watch"];

/// Mounts of restore points.
#[derive(Debug, Subcommand)]
pub enum Mount {
    /// Take the mounts of a process away when it was killed
    Watch(Watch),
}

/// The process that serves mounts.
#[derive(Debug, Args)]
pub struct Watch {
    /// As the system's table of mounts names it.
    process: String,
}

impl Mount {
    /// Waits for the process's end.
    pub fn run(self, _shared: &Shared) -> Done {
        let Self::Watch(watch) = self;
        block_on(async {
            // A supervisor tells all processes of a service to stop; whoever closes the mount in order
            // ends this one.
            let kinds = [
                SignalKind::terminate(),
                SignalKind::interrupt(),
                SignalKind::hangup(),
            ];
            let mut deaf = Vec::new();
            for kind in kinds {
                deaf.push(signal(kind).map_err(|error| system("listen for signals", &error))?);
            }
            let work = move || holdfast_vault::mount::watch(&watch.process);
            let watched = tokio::task::spawn_blocking(work).await;
            drop(deaf);
            watched
                .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                .map_err(|error| system("watch over a mount", &error))
        })
    }
}
