//! `holdfast recover`: a writable server again, in a new place.

use std::path::PathBuf;

use clap::Args;
use holdfast_vault::Start;
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::restore::{Asked, How, Moment, bring_back, describe};
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::access::Access;
use crate::wiring::{now, system, vault};

/// Brings a writable server into service in a new place; the damaged original is not touched.
#[derive(Debug, Args)]
pub struct Recover {
    /// Which source.
    source: String,
    #[command(flatten)]
    moment: Moment,
    /// The new data directory; a new folder below the state folder if absent.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The server's port; a free one if absent.
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
}

impl Recover {
    /// Restores, starts, promotes, prints the connection string.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let reading = self.access.open(shared, output)?;
        let config = &reading.config;
        let into = match &self.into {
            Some(into) => {
                std::path::absolute(into).map_err(|error| system("find the directory", &error))?
            }
            None => new_place(config, &self.source)?,
        };
        let asked = Asked {
            source: &self.source,
            moment: &self.moment,
            into,
            start: Start::Yes { port: self.port },
            ways: self.how.ways()?,
        };
        let restored = bring_back(&reading, asked, output)?;
        // Without the configuration nobody knows which role and database the source was asked as.
        let told = config.source(&self.source).ok();
        let told = told
            .map(|source| vault::source(config, source))
            .transpose()?;
        let url = told.zip(restored.server.as_ref()).map(|(told, server)| {
            format!(
                "postgresql://{}@{}:{}/{}",
                told.url.user, server.host, server.port, told.url.database
            )
        });
        let mut value = json!(restored);
        if let Some(server) = value.get_mut("server").and_then(|v| v.as_object_mut()) {
            server.insert("url".to_owned(), json!(url));
        }
        output.result(&value, || match &url {
            Some(url) => format!("{}\n{url}", describe(&restored)),
            None => describe(&restored),
        });
        Ok(())
    }
}

/// Returns a folder that nothing has used, beside the vault's state: below it nobody but the vault's
/// account could enter, and the server may run as another.
fn new_place(config: &Config, source: &str) -> Result<PathBuf, Failure> {
    let root = config.state_dir.with_extension("recovered");
    std::fs::create_dir_all(&root)
        .map_err(|error| system(&format!("make `{}`", root.display()), &error))?;
    let stamp: String = now()
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .take(17)
        .collect();
    Ok(root.join(format!("{source}-{stamp}")))
}
