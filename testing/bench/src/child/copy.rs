//! A copy with several threads: what `pg_basebackup` is restored with.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};

use crate::limits;

/// Copies everything below `from` to `into`, and makes it durable.
pub fn run(from: &Path, into: &Path) -> Result<()> {
    let mut files = Vec::new();
    make_folders(from, into, &mut files)?;
    let files = Mutex::new(files);
    let work = || -> Result<()> {
        loop {
            let next = files
                .lock()
                .map_err(|_| anyhow!("a thread has ended"))?
                .pop();
            let Some((from, into)) = next else {
                return Ok(());
            };
            fs::copy(&from, &into).with_context(|| format!("copy {}", from.display()))?;
            let file = File::open(&into).context("open the copy")?;
            file.sync_all().context("make the copy durable")?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..limits::PARALLEL).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread has ended"))??;
        }
        Ok(())
    })
}

fn make_folders(from: &Path, into: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
    fs::create_dir(into).with_context(|| format!("make {}", into.display()))?;
    fs::set_permissions(into, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            make_folders(&entry.path(), &target, files)?;
        } else {
            files.push((entry.path(), target));
        }
    }
    Ok(())
}
