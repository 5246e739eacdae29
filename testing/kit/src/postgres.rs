//! Real PostgreSQL servers that live as long as a test.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use holdfast_testing::postgres::{self, Server};
//!
//! for installation in postgres::all()? {
//!     let mut server = Server::builder(&installation).fast().setting("wal_level", "replica").start()?;
//!     let client = server.connect().await?;
//!     client.batch_execute("CREATE TABLE t (n int)").await?;
//!     server.kill_9()?;
//!     server.restart()?;
//! }
//! # Ok(())
//! # }
//! ```

mod builder;
mod installation;
mod server;
mod template;
mod user;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

pub use builder::Builder;
pub use installation::{Installation, all, every, installation, installations, newest, oldest};
pub use server::Server;
pub use user::ServerUser;

/// The folder of this user below the system's temporary folder, where things made once are kept.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else.
pub fn cache_dir() -> Result<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("holdfast-testing-{own}"));
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let owner = fs::metadata(&dir)
        .context("look at the cache folder")?
        .uid();
    ensure!(
        owner == own,
        "{} belongs to user {owner}, not to {own}: remove it",
        dir.display()
    );
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))
        .context("open the cache folder")?;
    Ok(dir)
}
