//! `holdfast vault expire`: what may go, shown and recorded first; the only process that removes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use holdfast_core::{ByteCount, Code};
use holdfast_store::ledger::Ledger;
use holdfast_store::object::{Location, expire};
use holdfast_vault::limits::PLAN_BYTES;
use holdfast_vault::retention::{
    ExpirePlan, Expiry, ExpiryError, Fate, SourcePlan, WhyGoes, WhyStays,
};
use holdfast_vault::system_clock;

use crate::cli::Shared;
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::{Half, now, private_folder, system, vault};

/// What may go because no rule keeps it.
#[derive(Debug, Subcommand)]
pub enum Expire {
    /// Remove what a recorded plan names, each object looked at again; continues an interrupted run
    Apply {
        /// The file that `plan` wrote.
        plan: PathBuf,
    },
    /// Show what may go and why, record it, and write it to a file; nothing is removed
    Plan {
        /// Where to write the plan; below the state folder if absent.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

impl Expire {
    /// Plans, or performs a plan.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let expiry = expiry(&config)?;
        match self {
            Self::Apply { plan } => apply(&config, &expiry, &plan, output),
            Self::Plan { out } => plan(&config, &expiry, out, output),
        }
    }
}

fn expiry(config: &Config) -> Result<Expiry, Failure> {
    let key = Half::Retention.key(config)?;
    let ledger = Ledger::open(&Half::Retention.ledger(config), key, now())?;
    let vault_ledger = Half::Vault.ledger(config);
    let vault_key = Half::Vault.public_key(config)?;
    Ok(Expiry {
        backend: config.expiring().open()?,
        reader: vault::expiring_reader(config)?,
        rules: vault::rules(config),
        lock_for: config.vault.lock_for,
        ledger,
        vault_ledger: vault_ledger
            .join(holdfast_store::ledger::FILE)
            .exists()
            .then_some((vault_ledger, vault_key)),
        clock: system_clock(),
    })
}

fn plan(config: &Config, expiry: &Expiry, out: Option<PathBuf>, output: Output) -> Done {
    let plan = expiry.plan()?;
    let path = match out {
        Some(path) => path,
        None => {
            let folder = Half::Retention.folder(config).join("plans");
            private_folder(&folder)?;
            folder.join(format!("{}.json", plan.digest()))
        }
    };
    write_plan(&plan, &path)?;
    let value = serde_json::json!({"file": path, "digest": plan.digest(), "plan": plan});
    output.result(&value, || show(&plan, &path));
    Ok(())
}

fn write_plan(plan: &ExpirePlan, path: &Path) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| system(&format!("write `{}`", path.display()), error);
    let text = serde_json::to_vec_pretty(plan).map_err(|error| failed(&error.into()))?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .map_err(|error| failed(&error))
}

fn apply(config: &Config, expiry: &Expiry, path: &Path, output: Output) -> Done {
    let plan = read_plan(path)?;
    let goes = plan.goes();
    output.say(&format!("{} objects of {} go", goes.objects, goes.bytes));
    let remover = expire::open(&removing(config)?)?;
    let report = expiry.apply(&plan, remover.as_ref())?;
    output.result(&report, || {
        let mut text = format!(
            "{} objects removed, {} freed",
            report.removed.objects, report.removed.bytes
        );
        if report.absent > 0 {
            text.push_str(&format!("; {} had gone before", report.absent));
        }
        if report.locked > 0 {
            text.push_str(&format!("; the storage keeps {} for now", report.locked));
        }
        text
    });
    Ok(())
}

/// Returns the place with the key that may delete, which is never the vault's own.
fn removing(config: &Config) -> Result<Location, Failure> {
    let Location::S3(bucket) = config.repository() else {
        return Ok(config.repository());
    };
    let refused = |what: &str| {
        Failure::new(
            Code::ZU356,
            format!("{what}; nothing was removed"),
            "name a key that may delete as `expire_access_key_id` and `expire_secret_access_key` in \
             `[vault.object_storage]`; docs/retention.md has its rights",
        )
    };
    let Some(expire) = &config.expire else {
        return Err(refused("expiry has no key of its own"));
    };
    // Where the vault's own cannot be read it is another account's, which is as it should be.
    if let (Ok(own), Ok(other)) = (bucket.credentials.read(), expire.read())
        && own.access_key_id == other.access_key_id
    {
        return Err(refused("the key of expiry is the vault's own"));
    }
    Ok(config.expiring())
}

fn read_plan(path: &Path) -> Result<ExpirePlan, Failure> {
    let unusable = |why: String| ExpiryError::PlanFile {
        path: path.to_owned(),
        why,
    };
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PLAN_BYTES).read_to_end(&mut text))
        .map_err(|error| unusable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()).into())
}

/// Shows a plan to a person: what goes and why, then why the rest stays.
fn show(plan: &ExpirePlan, path: &Path) -> String {
    let mut text = String::new();
    for source in &plan.sources {
        text.push_str(&show_source(source));
    }
    let goes = plan.goes();
    text.push_str(&format!(
        "{} objects of {} may go; nothing was removed\nnext   holdfast vault expire apply {}",
        goes.objects,
        goes.bytes,
        path.display()
    ));
    text
}

fn show_source(source: &SourcePlan) -> String {
    let points = source.points.iter().map(|point| {
        vec![
            point.point.to_string(),
            point.ended.to_string(),
            word(&point.fate),
        ]
    });
    let mut reasons: BTreeMap<&WhyGoes, (u64, u64)> = BTreeMap::new();
    for going in &source.goes {
        let (objects, bytes) = reasons.entry(&going.why).or_default();
        *objects = objects.saturating_add(1);
        *bytes = bytes.saturating_add(going.bytes.0);
    }
    let row = |verb: &str, why: String, objects: u64, bytes: ByteCount| {
        vec![verb.to_owned(), why, objects.to_string(), bytes.to_string()]
    };
    let mut amounts: Vec<Vec<String>> = reasons
        .into_iter()
        .map(|(why, (objects, bytes))| row("goes", word(why), objects, ByteCount(bytes)))
        .collect();
    for (why, amount) in &source.stays {
        amounts.push(row(
            "stays",
            word::<WhyStays>(why),
            amount.objects,
            amount.bytes,
        ));
    }
    let is_kept = |fate: Fate| fate != Fate::Goes;
    let kept = source
        .points
        .iter()
        .filter(|point| is_kept(point.fate))
        .count();
    format!(
        "{}: {kept} of {} restore points stay\n{}{}\n",
        source.source,
        source.points.len(),
        table(&["POINT", "ENDED", "FATE"], &points.collect::<Vec<_>>()),
        table(&["OBJECTS", "WHY", "NUMBER", "BYTES"], &amounts)
    )
}

/// Returns the word that JSON has for a reason.
fn word<T: serde::Serialize>(reason: &T) -> String {
    match serde_json::json!(reason) {
        serde_json::Value::String(word) => word,
        // A rule says which one.
        other => other
            .to_string()
            .replace(['{', '}', '"'], "")
            .replace(':', " "),
    }
}
