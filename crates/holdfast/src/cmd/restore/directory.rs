//! `holdfast restore` of a directory.

use std::sync::Arc;

use holdfast_vault::{
    DirectoryRequest, Progress, ProgressFn, RestorePhase, RestoredDirectory, restore_directory,
};

use super::{bar, came, read_back};
use crate::report::{Done, Output};
use crate::wiring::access::Reading;

/// Brings a directory back, with a progress bar where somebody watches.
///
/// # Errors
/// The restore's own error; what was there before is as it was.
pub fn run(reading: &Reading, request: &DirectoryRequest, output: Output) -> Done {
    let bar = bar(output);
    let shown = bar.clone();
    let progress: ProgressFn = Arc::new(move |progress: Progress| {
        shown.set_length(progress.total.0);
        shown.set_position(progress.done.0);
        shown.set_message(match progress.phase {
            RestorePhase::Verify => "reading back",
            RestorePhase::Files | RestorePhase::Replay | RestorePhase::Wal => "files",
        });
    });
    let restored = restore_directory(&reading.place, request, &progress);
    bar.finish_and_clear();
    let restored = restored?;
    output.result(&restored, || describe(&restored));
    Ok(())
}

fn describe(restored: &RestoredDirectory) -> String {
    let mut text = format!(
        "{} as of {} is in {} ({} files, {}, {:.1} s)\n",
        restored.source,
        restored.at,
        restored.directory.display(),
        restored.files,
        restored.bytes,
        restored.files_s
    );
    text.push_str(&came(&restored.came));
    if let Some(verified) = &restored.verified {
        text.push_str(&read_back(verified));
    }
    if restored.refused > 0 {
        text.push_str(&format!(
            "{} owners or attributes could not be set by this account; run it as root to set them",
            restored.refused
        ));
    }
    text
}
