//! The recovery itself: the mirror where it can take over, otherwise a restore.

use std::path::PathBuf;

use clap::Args;
use holdfast_core::{Code, SourceName};
use holdfast_vault::{
    Moved, RecoverRequest, Recovered, RestoreRequest, RestoreTarget, Restored, Start,
    recover_alone, recover_by_restore,
};
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::cmd::restore::{How, Moment, describe, progress, target};
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::access::{Access, Reading};
use crate::wiring::{Half, now, system, vault};

/// What is recovered, and how.
#[derive(Debug, Args)]
pub struct Server {
    /// Which source.
    #[arg(required = true)]
    source: Option<String>,
    #[command(flatten)]
    moment: Moment,
    /// The new data directory; a new folder beside the state folder if absent. The mirror stays out.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The server's port; a free one if absent. The mirror stays out.
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
}

impl Server {
    /// Recovers, and prints the connection string.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let reading = self.access.open(shared, output)?;
        let name = self.source.clone().unwrap_or_default();
        let source = reading.source(&name)?;
        let at = target::resolve(&reading.config, &source, &self.moment.at)?;
        let may_mirror = self.into.is_none()
            && self.port.is_none()
            && !self.how.is_used()
            && self.access.recovery_key.is_none();
        let request = RecoverRequest {
            source: source.clone(),
            at: at.clone(),
            timeline: self.moment.timeline,
        };
        let by_mirror = match may_mirror {
            true => mirrored(&reading, &request, output)?,
            false => None,
        };
        // Without the configuration nobody knows which role and database the source was asked as.
        let told = reading.config.source(&name).ok();
        let told = told
            .map(|source| vault::source(&reading.config, source))
            .transpose()?;
        let url = |port: u16| {
            told.as_ref().map(|told| {
                let (user, database) = (&told.url.user, &told.url.database);
                format!("postgresql://{user}@127.0.0.1:{port}/{database}")
            })
        };
        if let Some(recovered) = by_mirror {
            if let Some(told) = &told {
                let is_kept = Moved::read(&reading.place.state, &source, &told.url)
                    .is_some_and(|moved| moved.port == recovered.server.port);
                if !is_kept {
                    follow(
                        &reading,
                        (&source, told),
                        recovered.server.port,
                        &recovered.directory,
                    )?;
                }
            }
            print(
                &json!(recovered),
                url(recovered.server.port),
                output,
                || say(&recovered),
            );
            return Ok(());
        }
        let (port, into) = (self.port, self.into.clone());
        let into = match into {
            Some(into) => {
                std::path::absolute(into).map_err(|error| system("find the directory", &error))?
            }
            None => new_place(&reading.config, &name)?,
        };
        let mut restoring = RestoreRequest::new(source.clone(), at, into, Start::Yes { port });
        restoring.timeline = self.moment.timeline;
        restoring.ways = self.how.ways()?;
        let restored = restore(&reading, &restoring, output)?;
        let port = restored.server.as_ref().map_or(0, |server| server.port);
        if let Some(told) = &told {
            follow(&reading, (&source, told), port, &restored.directory)?;
        }
        let mut value = json!(restored);
        if let Some(value) = value.as_object_mut() {
            value.insert("way".to_owned(), json!("restore"));
        }
        print(&value, url(port), output, || describe(&restored));
        Ok(())
    }
}

/// Asks the vault's mirror to take over, or the one that a vault left; `None` when a restore must do.
fn mirrored(
    reading: &Reading,
    request: &RecoverRequest,
    output: Output,
) -> Result<Option<Recovered>, Failure> {
    let client = Half::Vault.client(&reading.config);
    let args = json!({
        "source": request.source,
        "at": request.at.to_string(),
        "timeline": request.timeline,
    });
    let asked: Result<Recovered, Failure> =
        block_on(async { client.ask("recovery.run", args).await });
    let asked = match asked {
        Err(failure) if failure.code == Code::ZS601 => {
            recover_alone(&reading.place, None, request).map_err(Failure::from)
        }
        asked => asked,
    };
    match asked {
        Ok(recovered) => Ok(Some(recovered)),
        Err(failure) if failure.code == Code::ZS382 || is_of_mirror(failure.code) => {
            output.say(&format!(
                "not by the mirror ({}); a restore point is restored",
                failure.message
            ));
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn is_of_mirror(code: Code) -> bool {
    [
        Code::ZS380,
        Code::ZS381,
        Code::ZI380,
        Code::ZI381,
        Code::ZI490,
        Code::ZS490,
        Code::ZS491,
        Code::ZU605,
    ]
    .contains(&code)
}

fn restore(
    reading: &Reading,
    request: &RestoreRequest,
    output: Output,
) -> Result<Restored, Failure> {
    let (bar, progress) = progress(output);
    let restored = recover_by_restore(&reading.place, request, &progress);
    bar.finish_and_clear();
    Ok(restored?)
}

/// Notes that the new server is the source from now on, and tells a vault that runs.
fn follow(
    reading: &Reading,
    (source, told): (&SourceName, &holdfast_vault::SourceConfig),
    port: u16,
    directory: &std::path::Path,
) -> Done {
    let moved = Moved::new(&told.url, port, directory.to_owned(), now());
    moved.keep(&reading.place.state, source)?;
    let client = Half::Vault.client(&reading.config);
    let asked: Result<Value, Failure> =
        block_on(async { client.ask("recovery.taken_up", json!(source)).await });
    match asked {
        // It reads the note when it starts.
        Err(failure) if failure.code == Code::ZS601 => Ok(()),
        asked => asked.map(drop),
    }
}

fn print(value: &Value, url: Option<String>, output: Output, text: impl FnOnce() -> String) {
    let mut value = value.clone();
    if let Some(server) = value.get_mut("server").and_then(Value::as_object_mut) {
        server.insert("url".to_owned(), json!(url));
    }
    output.result(&value, || match &url {
        Some(url) => format!("{}\nthe vault protects it from here on\n{url}", text()),
        None => text(),
    });
}

fn say(recovered: &Recovered) -> String {
    let mut text = format!(
        "{} as of {} by its mirror: a writable server listens on {}:{} (pid {}, log {}), {:.1} s after the start\n\
         its directory is {}, and it writes timeline {}\nroles and passwords are those of the source",
        recovered.source,
        recovered.at,
        recovered.server.host,
        recovered.server.port,
        recovered.server.pid,
        recovered.server.log.display(),
        recovered.promoted_s,
        recovered.directory.display(),
        recovered.timeline,
    );
    let newest = recovered
        .newest_commit
        .filter(|_| recovered.at == RestoreTarget::Latest.to_string());
    if let Some(newest) = newest {
        let age = now().since(newest).as_secs();
        text.push_str(&format!("\nnewest commit {newest}, {age} s ago"));
    }
    text
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
