//! `holdfast export`: a restore point that stock PostgreSQL can use, without Holdfast.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use holdfast_core::Code;
use holdfast_vault::{ExportRequest, ExportTo, Exported, Progress, ProgressFn, RestorePhase};

use crate::cli::Shared;
use crate::cmd::restore::{How, Moment, bar, read_back, target};
use crate::report::{Done, Failure, Output};
use crate::wiring::access::Access;
use crate::wiring::system;

/// Writes a restore point with its log and recovery settings, for PostgreSQL alone.
#[derive(Debug, Args)]
pub struct Export {
    /// Which source.
    source: String,
    #[command(flatten)]
    moment: Moment,
    /// A new directory, a new file whose name ends in `.tar`, or `-` for a tar archive on stdout.
    #[arg(long, value_name = "DIR|FILE.tar|-")]
    to: PathBuf,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
}

impl Export {
    /// Reads repository and spool; the vault need not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let reading = self.access.open(shared, output)?;
        let source = reading.source(&self.source)?;
        let at = target::resolve(&reading.config, &source, &self.moment.at)?;
        let is_stream = self.to == Path::new("-");
        let is_tar = is_stream || self.to.extension().is_some_and(|end| end == "tar");
        if is_tar && self.how.is_used() {
            return Err(Failure::new(
                Code::ZU605,
                "a tar archive is written from front to end; nothing was written",
                "leave --delta-from, --jobs and --verify out, or export to a directory",
            ));
        }
        let request = ExportRequest {
            source,
            at,
            timeline: self.moment.timeline,
            ways: self.how.ways()?,
        };
        let bar = bar(output);
        let shown = bar.clone();
        let progress: ProgressFn = Arc::new(move |progress: Progress| {
            shown.set_length(progress.total.0);
            shown.set_position(progress.done.0);
            shown.set_message(match progress.phase {
                RestorePhase::Files | RestorePhase::Replay => "files",
                RestorePhase::Verify => "reading back",
                RestorePhase::Wal => "log",
            });
        });
        let to = match is_stream {
            true => self.to,
            false => std::path::absolute(&self.to)
                .map_err(|error| system("find the place of the export", &error))?,
        };
        let mut stdout = BufWriter::with_capacity(STREAM_BYTES, std::io::stdout().lock());
        let to = match (is_stream, is_tar) {
            (true, _) => ExportTo::Stream(&mut stdout),
            (false, true) => ExportTo::Tar(&to),
            (false, false) => ExportTo::Directory(&to),
        };
        let exported = holdfast_vault::export(&reading.place, &request, to, &progress);
        drop(stdout);
        bar.finish_and_clear();
        let exported = exported?;
        // What goes to stdout is the archive, and nothing else.
        match is_stream {
            true => output.say(&describe(&exported)),
            false => output.result(&exported, || describe(&exported)),
        }
        Ok(())
    }
}

/// How much of an archive goes to stdout at once.
const STREAM_BYTES: usize = 1 << 20;

fn describe(exported: &Exported) -> String {
    let to = match &exported.to {
        Some(to) => format!("`{}`", to.display()),
        None => "the stream".to_owned(),
    };
    let mut text = format!(
        "{} as of {} is in {to} ({})\n",
        exported.source, exported.at, exported.bytes
    );
    if let Some(newest) = exported.newest {
        text.push_str(&format!("newest commit {newest}\n"));
    }
    if let Some(verified) = &exported.verified {
        text.push_str(&read_back(verified));
    }
    for note in &exported.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if exported.wal_end.is_some() {
        text.push_str(
            "PostgreSQL of the same major version starts on it, as the account that owns it: pg_ctl -D DIR start\n",
        );
    }
    text
}
