//! Commands, their flags, and what they print: data on stdout, the rest on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rental::database::{DatabaseUrl, UrlSource};
use rental::seed::{SeedPlan, SeedSummary};
use rental::traffic::{Totals, TrafficPlan};
use rental::verify::{Presence, Unreachable, Verification};
use rental::web::ServePlan;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A small car-rental back office on PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the schema and fill an empty database with a repeatable office.
    Seed(SeedArgs),
    /// Serve the counter pages and GET /health until stopped.
    Serve(ServeArgs),
    /// Book, pay, cancel and read until stopped, and keep a journal of what was acknowledged.
    Traffic(TrafficArgs),
    /// Compare a journal with the database; lost rows are reported, and are no error.
    Verify(VerifyArgs),
}

/// Where the database is; a URL in a file does not show in the list of processes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DatabaseArgs {
    /// URL of the database: postgresql://user:password@host:5432/name
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// File that holds the URL; it is read again before every use
    #[arg(long, value_name = "PATH")]
    database_url_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SeedArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Size of the database in units of 10^9 bytes; without it a small office is made
    #[arg(long, value_name = "G")]
    gigabytes: Option<f64>,
    /// The same seed and day give the same rows
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Rental companies
    #[arg(long, value_name = "N", default_value_t = 3)]
    companies: u32,
    /// Day on which the office stands; today by default (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    today: Option<Date>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File that gets {"url","pid"} when the pages can be asked for
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TrafficArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Journal of acknowledged work; appended to when it exists
    #[arg(long, value_name = "PATH")]
    journal: PathBuf,
    /// Clerks that work at the same time
    #[arg(long, value_name = "N", default_value_t = 6)]
    workers: u32,
    /// Seed of the choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Operations per second in all; without it as many as the database takes
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Stop after this many seconds; without it at SIGTERM or SIGINT
    #[arg(long = "for", value_name = "SECONDS")]
    lasting: Option<f64>,
    /// Print the totals as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Journal to compare with
    #[arg(long, value_name = "PATH")]
    journal: PathBuf,
    /// Count everything as lost when the database cannot be reached
    #[arg(long)]
    gone_is_lost: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs one command.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Seed(args) => seed(args).await,
            Command::Serve(args) => serve(args).await,
            Command::Traffic(args) => traffic(args).await,
            Command::Verify(args) => verify(args).await,
        }
    })
}

impl DatabaseArgs {
    fn source(&self) -> anyhow::Result<UrlSource> {
        match (&self.database_url, &self.database_url_file) {
            (Some(url), _) => Ok(UrlSource::Fixed(DatabaseUrl::parse(url)?)),
            (None, Some(path)) => Ok(UrlSource::File(path.clone())),
            (None, None) => anyhow::bail!("--database-url or --database-url-file is missing"),
        }
    }
}

async fn seed(args: SeedArgs) -> anyhow::Result<()> {
    let url = args.database.source()?.read().await?;
    let plan = SeedPlan {
        seed: args.seed,
        today: args
            .today
            .unwrap_or_else(|| Timestamp::now().to_zoned(TimeZone::UTC).date()),
        companies: args.companies,
        gigabytes: args.gigabytes,
    };
    let bar = progress_bar()?;
    let outcome = rental::seed::seed(&url, plan, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    let summary = outcome.await;
    bar.finish_and_clear();
    print(args.json, &summary?, seeded)
}

fn progress_bar() -> anyhow::Result<ProgressBar> {
    // It hides itself when stderr is not a terminal.
    let style = "{bar:30} {pos}/{len} vehicles with their bookings, {elapsed}, {eta} to go";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let plan = ServePlan {
        listen: args.listen,
        ready_file: args.ready_file,
    };
    let say = |url: &str| {
        let _closed = writeln!(std::io::stderr(), "the counter pages are at {url}");
    };
    Ok(rental::web::serve(args.database.source()?, plan, stop_signal()?, say).await?)
}

async fn traffic(args: TrafficArgs) -> anyhow::Result<()> {
    let lasting = args.lasting.map(Duration::try_from_secs_f64).transpose();
    let plan = TrafficPlan {
        workers: args.workers,
        seed: args.seed,
        rate: args.rate,
        lasting: lasting.context("--for is not a number of seconds")?,
    };
    let terminal = std::io::stderr().is_terminal();
    let show = |totals: &Totals| {
        if terminal {
            let _closed = write!(std::io::stderr(), "\r\x1b[K{}", one_line(totals));
        }
    };
    let source = args.database.source()?;
    let totals = rental::traffic::run(source, &args.journal, plan, stop_signal()?, show).await;
    if terminal {
        let _closed = writeln!(std::io::stderr());
    }
    print(args.json, &totals?, one_line)
}

async fn verify(args: VerifyArgs) -> anyhow::Result<()> {
    let url = args.database.source()?.read().await?;
    let unreachable = if args.gone_is_lost {
        Unreachable::MeansLost
    } else {
        Unreachable::IsAnError
    };
    let found = rental::verify::verify(&url, &args.journal, unreachable).await?;
    print(args.json, &found, verified)
}

/// Becomes true at the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _nobody_waits = stop.send(true);
        stop.closed().await;
    });
    Ok(stopped)
}

fn print<T: Serialize>(json: bool, value: &T, plain: fn(&T) -> String) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(value)?
    } else {
        plain(value)
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")
}

fn seeded(summary: &SeedSummary) -> String {
    format!(
        "seeded {} companies, {} counters, {} vehicles, {} customers, {} reservations, {} rows of history: \
         {} bytes in {:.1} s",
        summary.companies,
        summary.locations,
        summary.vehicles,
        summary.customers,
        summary.reservations,
        summary.history,
        summary.bytes,
        summary.seconds
    )
}

fn one_line(totals: &Totals) -> String {
    let sums = [totals.bookings, totals.payments, totals.cancellations];
    let (refused, failed): (u64, u64) = (
        sums.iter().map(|sum| sum.refused).sum(),
        sums.iter().map(|sum| sum.failed).sum(),
    );
    let unknown: u64 = sums.iter().map(|sum| sum.unknown).sum();
    let error = totals
        .last_error
        .as_deref()
        .map(|text| format!("; last error: {text}"));
    format!(
        "{:.0} s: acknowledged {} bookings, {} payments, {} cancellations; {refused} refused, {failed} failed, \
         {unknown} unknown; commit p50 {:.1} ms, p99 {:.1} ms{}",
        totals.seconds,
        totals.bookings.acknowledged,
        totals.payments.acknowledged,
        totals.cancellations.acknowledged,
        totals.commit_p50_ms,
        totals.commit_p99_ms,
        error.unwrap_or_default()
    )
}

fn verified(found: &Verification) -> String {
    let line = |name: &str, presence: &Presence| {
        format!(
            "{name:<14} {:>8} acknowledged {:>8} present {:>8} lost; unknown {}, of these present {}",
            presence.acknowledged,
            presence.present,
            presence.lost,
            presence.unknown,
            presence.unknown_present
        )
    };
    let mut lines = vec![
        line("bookings", &found.bookings),
        line("payments", &found.payments),
        line("cancellations", &found.cancellations),
    ];
    if let Some(rules) = found.invariants {
        lines.push(format!(
            "double bookings {}, payments without reservation {}",
            rules.double_booked, rules.payments_without_reservation
        ));
    }
    if found.journal.torn_tail {
        lines.push("the last line of the journal is incomplete and was not counted".to_owned());
    }
    lines.extend(found.note.clone());
    lines.join("\n")
}
