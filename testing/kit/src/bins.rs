//! Finds the workspace's own programs beside the running test.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of one of the workspace's programs, as `cargo build --workspace` leaves it.
///
/// # Errors
/// When the program was not built; the message says how to build it.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the running program")?;
    let mut dir = own.parent().context("the running program has no folder")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("the folder `deps` has no parent")?;
    }
    let path = dir.join(name);
    ensure!(
        path.is_file(),
        "the program `{name}` is not in {}: build it with `cargo build --workspace --bins`",
        dir.display()
    );
    Ok(path)
}
