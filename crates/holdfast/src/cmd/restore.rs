//! `holdfast restore`: a restore point into a new directory.

mod directory;
pub(in crate::cmd) mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use holdfast_vault::{
    Came, DirectoryRequest, Progress, ProgressFn, ReadBack, RestorePhase, RestoreRequest,
    RestoreTarget, Restored, Start, Verified, Ways,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Shared;
use crate::report::{Done, Failure, Output};
use crate::wiring::access::{Access, Reading};
use crate::wiring::now;

/// Brings a restore point back into a new directory; never into one that holds something.
#[derive(Debug, Args)]
pub struct Restore {
    /// Which source.
    source: String,
    #[command(flatten)]
    moment: Moment,
    /// The new data directory.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Start a server on it and promote it.
    #[arg(long)]
    start: bool,
    /// The server's port; a free one if absent.
    #[arg(long, requires = "start")]
    port: Option<u16>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    how: How,
}

/// How a restore goes about its work.
#[derive(Debug, Args)]
pub struct How {
    /// An older copy of this source, which is only read: what is the same there is not fetched.
    #[arg(long, value_name = "DIR")]
    delta_from: Option<PathBuf>,
    /// How many threads read, check and write.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Read every file back from the disk at the end and compare it.
    #[arg(long)]
    verify: bool,
}

impl How {
    /// Tells whether anything was asked for.
    pub fn is_used(&self) -> bool {
        self.delta_from.is_some() || self.jobs.is_some() || self.verify
    }

    /// Returns the same for the vault.
    ///
    /// # Errors
    /// When the working directory is gone and the older copy is relative to it.
    pub fn ways(self) -> Result<Ways, Failure> {
        let old = self.delta_from.map(std::path::absolute).transpose();
        Ok(Ways {
            delta_from: old.map_err(|error| crate::wiring::system("find the directory", &error))?,
            jobs: self.jobs.map(usize::from),
            check: match self.verify {
                true => ReadBack::Yes,
                false => ReadBack::No,
            },
        })
    }
}

/// Which moment to bring back.
#[derive(Debug, Args)]
pub struct Moment {
    /// `latest`, a time, a position (LSN), `xid:N`, `name:RESTORE_POINT`, `before:ACTION` or `before:LSN`.
    #[arg(long, default_value = "latest")]
    pub at: String,
    /// The timeline to follow; the newest that leads there if absent.
    #[arg(long, value_name = "N")]
    pub timeline: Option<u32>,
}

impl Restore {
    /// Reads repository and spool; the vault need not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let reading = self.access.open(shared, output)?;
        let into = std::path::absolute(&self.into)
            .map_err(|error| crate::wiring::system("find the directory", &error))?;
        let name = reading.source(&self.source)?;
        if holdfast_vault::is_directory(&reading.place, &name)? {
            if self.start {
                return Err(Failure::new(
                    holdfast_core::Code::ZU304,
                    format!("`{name}` is a directory: no server can be started on it"),
                    "leave --start out",
                ));
            }
            let request = DirectoryRequest {
                source: name,
                at: self.moment.at.parse::<RestoreTarget>()?,
                into,
                ways: self.how.ways()?,
            };
            return directory::run(&reading, &request, output);
        }
        let start = match self.start {
            true => Start::Yes { port: self.port },
            false => Start::No,
        };
        let asked = Asked {
            source: &self.source,
            moment: &self.moment,
            into,
            start,
            ways: self.how.ways()?,
        };
        let restored = bring_back(&reading, asked, output)?;
        output.result(&restored, || describe(&restored));
        Ok(())
    }
}

/// What is to be brought back.
pub struct Asked<'a> {
    /// Which source.
    pub source: &'a str,
    /// Which moment.
    pub moment: &'a Moment,
    /// The new directory, absolute.
    pub into: PathBuf,
    /// Whether a server is started.
    pub start: Start,
    /// How to go about it.
    pub ways: Ways,
}

/// Restores, with a progress bar where somebody watches.
///
/// # Errors
/// The restore's own error; what was there before is as it was.
pub fn bring_back(
    reading: &Reading,
    asked: Asked<'_>,
    output: Output,
) -> Result<Restored, Failure> {
    let source = reading.source(asked.source)?;
    let at = target::resolve(&reading.config, &source, &asked.moment.at)?;
    let mut request = RestoreRequest::new(source, at, asked.into, asked.start);
    request.timeline = asked.moment.timeline;
    request.ways = asked.ways;
    let (bar, progress) = progress(output);
    let restored = holdfast_vault::restore(&reading.place, &request, &progress);
    bar.finish_and_clear();
    Ok(restored?)
}

/// Returns a progress bar and what moves it.
pub(super) fn progress(output: Output) -> (ProgressBar, ProgressFn) {
    let bar = bar(output);
    let shown = bar.clone();
    let progress: ProgressFn = Arc::new(move |progress: Progress| {
        shown.set_length(progress.total.0);
        shown.set_position(progress.done.0);
        shown.set_message(match progress.phase {
            RestorePhase::Files => "files",
            RestorePhase::Replay => "replaying the log",
            RestorePhase::Verify => "reading back",
            RestorePhase::Wal => "log",
        });
    });
    (bar, progress)
}

pub(in crate::cmd) fn bar(output: Output) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !output.draws() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let template = "{elapsed:>4} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Says what did not have to be fetched.
fn came(came: &Came) -> String {
    let there = [
        (came.resumed, "were there from an interrupted restore"),
        (came.copied, "came from the older copy"),
    ];
    let there = there.iter().filter(|(bytes, _)| bytes.0 > 0);
    let told: Vec<String> = there
        .map(|(bytes, what)| format!("{bytes} {what}"))
        .collect();
    match told.is_empty() {
        true => String::new(),
        false => format!("{}; {} were fetched\n", told.join(", "), came.fetched),
    }
}

/// Says what was read back from the disk.
pub(super) fn read_back(verified: &Verified) -> String {
    let mut text = format!(
        "read back from the disk and right: {} files, {}\n",
        verified.files, verified.bytes
    );
    match &verified.pages {
        None => {}
        Some(pages) if pages.has_none => {
            text.push_str("the cluster has no page checksums that could be compared\n");
        }
        Some(pages) => {
            text.push_str(&format!(
                "page checksums: {} right, {} wrong, {} that the log writes anew\n",
                pages.right, pages.wrong, pages.replayed
            ));
            if let Some((file, page)) = &pages.first_wrong {
                text.push_str(&format!(
                    "the first wrong one is page {page} of {}: the source had it so\n",
                    file.display()
                ));
            }
        }
    }
    text
}

/// Says what was brought back and how to go on.
pub fn describe(restored: &Restored) -> String {
    let mut text = format!(
        "{} as of {} is in {} ({}, {:.1} s)\n",
        restored.source,
        restored.at,
        restored.directory.display(),
        restored.bytes,
        restored.files_s
    );
    if let Some(found) = &restored.found {
        let time = found.time.map(|time| format!(", {time}"));
        text.push_str(&format!(
            "found at {}{}\n",
            found.lsn,
            time.unwrap_or_default()
        ));
    }
    text.push_str(&came(&restored.came));
    if let Some(verified) = &restored.verified {
        text.push_str(&read_back(verified));
    }
    for note in &restored.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    // With another target the log that was brought in reaches further than the server was taken.
    let newest = restored.newest_commit.filter(|_| restored.at == "latest");
    if let Some(newest) = newest {
        let age = now().since(newest).as_secs();
        text.push_str(&format!("newest commit {newest}, {age} s ago\n"));
    }
    match (&restored.server, restored.promoted_s) {
        (Some(server), seconds) => {
            text.push_str(&format!(
                "a writable server listens on {}:{} (pid {}, log {})",
                server.host,
                server.port,
                server.pid,
                server.log.display()
            ));
            if let Some(seconds) = seconds {
                text.push_str(&format!(", {seconds:.1} s after the start"));
            }
            text.push_str("\nroles and passwords are those of the source");
        }
        (None, _) => text.push_str(&format!(
            "start a server on it: pg_ctl -D {} start",
            restored.directory.display()
        )),
    }
    text
}
