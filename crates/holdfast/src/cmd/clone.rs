//! `holdfast clone`: a restore point as a running server that reaches nothing but itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use holdfast_core::ByteCount;
use holdfast_vault::clone::{CloneRequest, CloneShown, CloneState, Form, FormWish, Kept, Listed};
use holdfast_vault::retention::Span;
use serde_json::json;

use crate::cli::Shared;
use crate::cmd::block_on;
use crate::cmd::restore::{Moment, bar, target};
use crate::config::Config;
use crate::report::{Done, Output, table};
use crate::wiring::access::Access;
use crate::wiring::{clones, now, operator, vault};

/// Clones of restore points.
#[derive(Debug, Subcommand)]
pub enum Clone {
    /// End a clone and remove everything of it
    Close(One),
    /// Fetch everything that a clone does not have yet
    Hydrate(Hydrate),
    /// Make an ordinary data directory of a clone; the clone ends
    Keep(Keep),
    /// Show the clones; what was left of one is opened again or removed
    List,
    /// Open a restore point as a writable server, and print its connection URL
    Open(Box<Open>),
    /// Serve one clone, until it ends
    #[command(hide = true)]
    Serve(Serve),
    /// Show one clone, and what was disabled in it
    Show(One),
}

/// One clone.
#[derive(Debug, Args)]
pub struct One {
    /// Which clone.
    clone: String,
}

/// A clone whose rest is brought.
#[derive(Debug, Args)]
pub struct Hydrate {
    /// Which clone.
    clone: String,
    /// Mebibytes in a second at most; as fast as it goes if absent.
    #[arg(long, value_name = "MIB")]
    rate: Option<u64>,
}

/// What becomes of a clone.
#[derive(Debug, Args)]
pub struct Keep {
    /// Which clone.
    clone: String,
    /// The new data directory, on the disk of the clones.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

/// The process of one clone.
#[derive(Debug, Args)]
pub struct Serve {
    /// Which clone.
    clone: String,
    #[command(flatten)]
    access: Access,
}

/// What is to be opened.
#[derive(Debug, Args)]
pub struct Open {
    /// Which source.
    source: String,
    #[command(flatten)]
    moment: Moment,
    /// How long it lives, such as `30m` or `2h`.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// The lease that may use it.
    #[arg(long, value_name = "LEASE")]
    writable_by: Option<String>,
    /// The database in its connection URL; that of the source's own URL if absent.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Its port on 127.0.0.1; a free one if absent.
    #[arg(long)]
    port: Option<u16>,
    /// Its form: `mounted` brings blocks when they are touched, `restored` everything first; `auto`
    /// mounts where that is possible.
    #[arg(long, value_name = "FORM")]
    form: Option<FormWish>,
    /// Mebibytes that it may take of the disk.
    #[arg(long, value_name = "MIB")]
    disk_max_mib: Option<u64>,
    /// Mebibytes that it may take of the memory.
    #[arg(long, value_name = "MIB")]
    memory_max_mib: Option<u64>,
    #[command(flatten)]
    access: Access,
}

impl Clone {
    /// Does it; the vault need not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        match self {
            Self::Close(one) => {
                let config = shared.config()?;
                block_on(clones::close(&config, &one.clone))?;
                output.result(&json!({"closed": one.clone}), || {
                    format!("{} is closed, and nothing of it is left", one.clone)
                });
                Ok(())
            }
            Self::Hydrate(hydrate) => {
                let config = shared.config()?;
                let rate = hydrate.rate.map(mebibytes);
                let asked = ("clone.hydrate", json!(rate));
                let shown = block_on(clones::ask::<CloneShown>(&config, &hydrate.clone, asked))?;
                output.result(&shown, || match hydration(&shown) {
                    Some(how_far) => {
                        format!("{} is brought in the background: {how_far}", shown.id)
                    }
                    None => format!("{} has everything already", shown.id),
                });
                Ok(())
            }
            Self::Keep(keep) => keep.run(shared, output),
            Self::List => list(shared, output),
            Self::Open(open) => open.run(shared, output),
            Self::Serve(serve) => clones::serve(&serve.clone, (&serve.access, shared), output),
            Self::Show(one) => {
                let config = shared.config()?;
                let listed = clones::find(&config, &one.clone)?;
                let served = ("clone.show", serde_json::Value::Null);
                let shown = match listed.is_served {
                    // Its own process knows it newest.
                    true => block_on(clones::ask(&config, &one.clone, served)).or(listed.shown)?,
                    false => listed.shown?,
                };
                output.result(&shown, || describe(&shown));
                Ok(())
            }
        }
    }
}

impl Open {
    fn run(self, shared: &Shared, output: Output) -> Done {
        clones::check(&self.access)?;
        let reading = self.access.open(shared, output)?;
        let config = &reading.config;
        let source = reading.source(&self.source)?;
        let at = target::resolve(config, &source, &self.moment.at)?;
        let mut request = CloneRequest::new(clones::config(config), source, at);
        request.timeline = self.moment.timeline;
        request.owner = operator().to_string();
        request.writable_by = self.writable_by;
        request.ttl = self.ttl.map(|span| span.0);
        request.database = self.database.or_else(|| database(config, &self.source));
        request.port = self.port;
        if let Some(max) = self.disk_max_mib {
            request.clones.disk_max = request.clones.disk_max.min(mebibytes(max));
        }
        if let Some(max) = self.memory_max_mib {
            request.clones.memory_max = request.clones.memory_max.min(mebibytes(max));
        }
        if let Some(form) = self.form {
            request.clones.form = form;
        }
        let bar = bar(output);
        let shown = clones::open(&request, (&self.access, &shared.config), |progress| {
            bar.set_length(progress.total.0);
            bar.set_position(progress.done.0);
        });
        bar.finish_and_clear();
        let shown = shown?;
        output.result(&shown, || describe(&shown));
        Ok(())
    }
}

fn mebibytes(count: u64) -> ByteCount {
    ByteCount(count.saturating_mul(1 << 20))
}

/// Returns the database that the source's own connection string names, where it can be read.
fn database(config: &Config, source: &str) -> Option<String> {
    let source = config.source(source).ok()?;
    Some(vault::source(config, source).ok()?.url.database)
}

impl Keep {
    fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let into = std::path::absolute(&self.into)
            .map_err(|error| crate::wiring::system("find the directory", &error))?;
        block_on(clones::keep(&config, &self.clone, &into))?;
        output.result(&json!({"kept": self.clone, "directory": into}), || {
            format!(
                "{} is an ordinary data directory now; start a server on it: pg_ctl -D {dir} start\n\
                 roles and passwords are those of the source; what was disabled in the clone stays disabled",
                self.clone,
                dir = into.display()
            )
        });
        Ok(())
    }
}

fn list(shared: &Shared, output: Output) -> Done {
    let config = shared.config()?;
    clones::look_after(&config)?;
    let listed = clones::list(&config);
    let values: Vec<_> = listed.iter().map(value).collect();
    output.result(&values, || {
        let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
        match rows.is_empty() {
            true => "there are no clones".to_owned(),
            false => table(
                &[
                    "CLONE", "AT", "FORM", "STATE", "KEPT IN", "DISK", "BROUGHT", "ENDS IN",
                    "OWNER", "PORT",
                ],
                &rows,
            ),
        }
    });
    Ok(())
}

fn value(listed: &Listed) -> serde_json::Value {
    match &listed.shown {
        Ok(shown) => {
            let mut value = json!(shown);
            if let Some(object) = value.as_object_mut() {
                object.insert("served".to_owned(), json!(listed.is_served));
            }
            value
        }
        Err(error) => json!({"id": listed.id, "served": listed.is_served,
            "state": "damaged", "why": error.to_string()}),
    }
}

fn row(listed: &Listed) -> Vec<String> {
    let shown = match &listed.shown {
        Ok(shown) => shown,
        Err(error) => return vec![listed.id.to_string(), error.to_string()],
    };
    let ends = shown.expires.since(now()).as_secs();
    let port = shown
        .url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    vec![
        shown.id.to_string(),
        shown.at.clone(),
        form(shown.form).to_owned(),
        state(shown.state).to_owned(),
        kept(shown).to_owned(),
        shown.disk.to_string(),
        hydration(shown).unwrap_or_else(|| "all".to_owned()),
        format!("{ends} s"),
        shown.owner.clone(),
        port.unwrap_or_default().to_owned(),
    ]
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Mounted => "mounted",
        Form::Restored => "restored",
    }
}

/// Says how much of a mounted clone has come; nothing of one that has everything.
fn hydration(shown: &CloneShown) -> Option<String> {
    let hydration = shown.hydration.as_ref()?;
    let (done, total) = (hydration.done, hydration.total);
    match (&hydration.failed, hydration.complete) {
        (_, true) => None,
        (Some(why), false) => Some(format!("{done} of {total}, and no more: {why}")),
        (None, false) => Some(format!("{done} of {total}")),
    }
}

fn state(state: CloneState) -> &'static str {
    match state {
        CloneState::Filling => "filling",
        CloneState::Halted => "halted",
        CloneState::Open => "open",
        CloneState::Recovering => "recovering",
    }
}

fn kept(shown: &CloneShown) -> &'static str {
    match shown.confinement.as_ref().map(|one| one.kept) {
        None => "-",
        Some(Kept::Advisory) => "advisory",
        Some(Kept::Enforced) => "enforced",
    }
}

/// Says how a clone is, what keeps it in and what was disabled.
fn describe(shown: &CloneShown) -> String {
    let mut text = format!("{}\n", shown.url);
    text.push_str(&format!(
        "{} is {} as of {} ({}, {}), {:.1} s to the first write, {:.1} s until it was open\n",
        shown.id,
        shown.source,
        shown.at,
        form(shown.form),
        state(shown.state),
        shown.took.write_s,
        shown.took.open_s
    ));
    if let Some(why) = &shown.why {
        text.push_str(&format!("it halted: {why}\n"));
    }
    text.push_str(&format!(
        "it ends at {}, and is in {}\n",
        shown.expires,
        shown.directory.display()
    ));
    text.push_str(&format!("it takes {} of the disk", shown.disk));
    text.push_str(&match (shown.form, hydration(shown)) {
        (Form::Mounted, Some(how_far)) => format!("; of its files are whole: {how_far}\n"),
        (Form::Mounted, None) => "; everything has come\n".to_owned(),
        (Form::Restored, _) => "\n".to_owned(),
    });
    if let Some(lease) = &shown.writable_by {
        text.push_str(&format!("it is for the lease {lease} alone\n"));
    }
    for note in &shown.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if let Some(confinement) = &shown.confinement {
        let by = confinement.by.join(", ");
        match (confinement.kept, &confinement.why) {
            (Kept::Enforced, _) => {
                text.push_str(&format!("enforced: it reaches nothing outside ({by})\n"))
            }
            (Kept::Advisory, why) => text.push_str(&format!(
                "advisory: settings alone keep it in ({})\n",
                why.as_deref().unwrap_or("the system does not help")
            )),
        }
    }
    for one in &shown.disabled {
        let database = one
            .database
            .as_ref()
            .map(|name| format!(" in {name}"))
            .unwrap_or_default();
        text.push_str(&format!(
            "disabled: {} {}{database}: {}\n",
            one.kind, one.name, one.how
        ));
    }
    text
}
