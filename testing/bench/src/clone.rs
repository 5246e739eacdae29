//! `cargo xtask bench clone`: recovery, clones and the mirror, by the program that users run.

mod bars;
mod before;
mod bucket;
mod desk;
mod ended;
mod loss;
mod many;
mod mirror;
mod peer;
mod size;
mod source;
mod speed;
mod stock;
mod trial;
mod work;
mod write;

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use holdfast_testing::{bins, postgres};
use serde_json::{Map, Value, json};

use crate::engine::PgBackRest;
use crate::machine::Machine;
use crate::parts::{self, Part};
use bars::Bars;
use bucket::Buckets;
use size::Size;
use work::{Run, Work};

pub use ended::watch;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Only this part; may be given more than once.
    #[arg(long, value_name = "PART")]
    pub part: Vec<String>,
    /// Size of the source, such as `50M` or `10G`; may be given more than once.
    #[arg(long, value_name = "SIZE")]
    pub size: Vec<Size>,
    /// How often everything is measured.
    #[arg(long)]
    pub repetitions: Option<u32>,
    /// Seconds of each run of pgbench.
    #[arg(long)]
    pub seconds: Option<u32>,
    /// How many clones are opened at once.
    #[arg(long)]
    pub clones: Option<u32>,
    /// Mebibytes of log since the last base in the part `loss`.
    #[arg(long, value_name = "MIB")]
    pub log_mib: Option<u64>,
    /// Mebibytes of log since the last base in the part `before`.
    #[arg(long, value_name = "MIB")]
    pub before_mib: Option<u64>,
    /// Milliseconds that every answer of the object storage is late.
    #[arg(long, value_name = "MS", default_value_t = 30)]
    pub latency_ms: u64,
    /// Where sources and repositories are kept for the next run; they are made when they are absent.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Only makes what the chosen parts need; `source` makes the databases alone.
    #[arg(long, value_name = "WHAT")]
    pub prepare: Option<Prepare>,
    /// Everything once, small and short: to see that it works.
    #[arg(long)]
    pub quick: bool,
    /// Which major version of PostgreSQL.
    #[arg(long, default_value_t = 15)]
    pub postgres: u32,
    /// Prints all samples as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is made before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Prepare {
    /// Sources, their repositories and the log since.
    All,
    /// Databases that nobody protects yet.
    Source,
}

/// What every part measures on.
pub struct Scene<'a> {
    options: &'a Options,
    work: &'a Work,
    run: &'a Run,
    /// The program that users run.
    holdfast: PathBuf,
    peer: Option<PgBackRest>,
    buckets: OnceCell<Buckets>,
    bars: RefCell<Bars>,
    failures: RefCell<Vec<String>>,
}

impl Scene<'_> {
    fn say(&self, text: &str) {
        parts::say(self.options.json.into(), text);
    }

    /// Notes what did not work; the rest is measured all the same.
    fn failed(&self, what: String) {
        self.say(&format!("FAILED: {what}"));
        self.failures.borrow_mut().push(what);
    }

    fn or_quick<T>(&self, told: Option<T>, usual: T, quick: T) -> T {
        told.unwrap_or(if self.options.quick { quick } else { usual })
    }

    fn repetitions(&self) -> u32 {
        self.or_quick(self.options.repetitions, 3, 1).max(1)
    }

    fn seconds(&self) -> u32 {
        self.or_quick(self.options.seconds, 10, 2).max(1)
    }

    fn clones(&self) -> u32 {
        self.or_quick(self.options.clones, 20, 3).max(1)
    }

    fn log_mib(&self) -> u64 {
        self.or_quick(self.options.log_mib, 64, 8)
    }

    fn before_mib(&self) -> u64 {
        self.or_quick(self.options.before_mib, 1024, 24)
    }

    fn sizes(&self) -> Vec<Size> {
        let usual = if self.options.quick {
            &Size::QUICK[..]
        } else {
            &Size::USUAL[..]
        };
        match self.options.size.is_empty() {
            true => usual.to_vec(),
            false => self.options.size.clone(),
        }
    }

    /// The size of parts that look at one: the smallest.
    fn small(&self) -> Result<Size> {
        let sizes = self.sizes();
        sizes.into_iter().min().context("there is no size")
    }

    /// The size of which many are opened: the largest that is not mostly empty.
    fn large(&self) -> Result<Size> {
        let sizes = self.sizes().into_iter();
        let dense = sizes.filter(|size| !size.is_sparse()).max();
        dense.map_or_else(|| self.small(), Ok)
    }

    fn is_chosen(&self, part: &str) -> bool {
        self.options.part.is_empty() || self.options.part.iter().any(|one| one == part)
    }
}

fn all<'a>() -> [Part<Scene<'a>>; 5] {
    [
        ("loss", |scene| whatever(scene, "loss", loss::run)),
        ("before", |scene| whatever(scene, "before", before::run)),
        ("speed", |scene| whatever(scene, "speed", speed::run)),
        ("many", |scene| whatever(scene, "many", many::run)),
        ("mirror", |scene| whatever(scene, "mirror", mirror::run)),
    ]
}

/// Runs a part; when it fails the next one runs all the same.
fn whatever<'a>(
    scene: &Scene<'a>,
    name: &str,
    part: fn(&Scene<'a>) -> Result<Value>,
) -> Result<Value> {
    Ok(part(scene).unwrap_or_else(|error| {
        scene.failed(format!("{name}: {error:#}"));
        Value::Null
    }))
}

/// Runs the parts one after the other.
pub fn run(options: &Options) -> Result<()> {
    parts::check(&all(), &options.part)?;
    let holdfast = bins::find("holdfast")?;
    let postgres = postgres::installation(options.postgres)?;
    let work = Work::open(options.work.as_deref(), postgres)?;
    let run = work.run()?;
    let machine = Machine::look(&run.ground.path(""));
    let peer = PgBackRest::find().ok();
    let scene = Scene {
        options,
        work: &work,
        run: &run,
        holdfast,
        peer,
        buckets: OnceCell::new(),
        bars: RefCell::default(),
        failures: RefCell::default(),
    };
    scene.say(&format!(
        "{machine}, {}, PostgreSQL {}\npeer: {}\n{}\n",
        machine.filesystem,
        work.postgres.version(),
        scene.peer.as_ref().map_or(
            "none: pgBackRest is not installed; HOLDFAST_PGBACKREST names one",
            |peer| &peer.version
        ),
        if scene.drops_caches() {
            "the system's file cache is emptied before each recovery"
        } else {
            "the system's file cache is left as it is"
        }
    ));
    if let Some(prepare) = options.prepare {
        return make(&scene, prepare);
    }
    let mut found = Map::new();
    found.insert("machine".to_owned(), json!(machine));
    parts::run(&all(), &options.part, &scene, &mut found)?;
    scene.say(&scene.bars.borrow().text());
    found.insert("bars".to_owned(), json!(*scene.bars.borrow()));
    let failures = scene.failures.borrow();
    found.insert("failures".to_owned(), json!(*failures));
    if options.json {
        println!("{}", Value::Object(found));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Makes what the chosen parts need, and measures nothing.
fn make(scene: &Scene<'_>, prepare: Prepare) -> Result<()> {
    for size in scene.sizes() {
        drop(source::take(scene, size)?);
    }
    if prepare == Prepare::Source {
        return Ok(());
    }
    if scene.is_chosen("loss") {
        for size in scene.sizes() {
            stock::take(scene, &loss::wanted(scene, size))?;
        }
    }
    if scene.is_chosen("before") {
        stock::take(scene, &before::wanted(scene)?)?;
    }
    if scene.is_chosen("speed") {
        stock::take(scene, &loss::wanted(scene, scene.small()?))?;
    }
    if scene.is_chosen("many") {
        stock::take(scene, &loss::wanted(scene, scene.large()?))?;
    }
    Ok(())
}
