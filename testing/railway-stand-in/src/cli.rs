//! The command line.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use holdfast_testing::postgres::ServerUser;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::setup::{self, Scenario};
use crate::{http, tls};

/// A stand-in for Railway's public API whose volumes are real directories.
///
/// It is test tooling: it is not Railway, has nothing to do with Railway, and is never part of the
/// product. Deleting a volume here really kills the database on it and really removes its files.
#[derive(Debug, Parser)]
#[command(version, about, long_about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API on 127.0.0.1 until SIGTERM or SIGINT.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Folder for volumes, logs and the authority's certificate; made when missing
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Whether staging and production have a volume each or share one
    #[arg(long, value_enum, default_value = "separate")]
    scenario: Scenario,
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// File that gets the addresses, ids and tokens as JSON when requests can be sent
    #[arg(long, value_name = "FILE")]
    ready_file: PathBuf,
    /// Major version of the production PostgreSQL
    #[arg(long, value_name = "N", default_value_t = 15)]
    postgres_major: u32,
}

/// Does what the command line says.
///
/// # Errors
/// When it cannot be done; the message says which step.
pub fn run(cli: Cli) -> Result<()> {
    let Command::Serve(serve) = cli.command;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.context("start the runtime")?.block_on(serve.run())
}

impl Serve {
    async fn run(&self) -> Result<()> {
        tracing::warn!("this is a stand-in for tests: not Railway, and never part of the product");
        let ends = CancellationToken::new();
        stop_on_signals(ends.clone())?;
        std::fs::create_dir_all(&self.root)
            .with_context(|| format!("make {}", self.root.display()))?;
        let root = self.root.canonicalize().context("find the folder")?;
        ServerUser::current()?.own(&root)?;
        let ca_file = root.join("ca.pem");
        let config = tls::make(&ca_file)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.with_context(|| format!("listen on port {}", self.port))?;
        let port = listener.local_addr().context("find the port")?.port();
        let prepared = setup::prepare(&root, self.scenario, self.postgres_major).await?;
        let mut facts = prepared.facts;
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("pid".to_owned(), json!(std::process::id()));
            facts.insert("port".to_owned(), json!(port));
            facts.insert(
                "url".to_owned(),
                json!(format!("https://localhost:{port}/graphql/v2")),
            );
            facts.insert("ca_file".to_owned(), json!(ca_file));
            facts.insert(
                "requests_file".to_owned(),
                json!(root.join("requests.jsonl")),
            );
        }
        let desk = Arc::new(Desk::open(prepared.world, &root)?);
        write_at_once(&self.ready_file, &facts)?;
        tracing::info!("serves https://localhost:{port}/graphql/v2");
        http::serve(listener, config, Arc::clone(&desk), ends).await;
        let _ = std::fs::remove_file(&self.ready_file);
        let stopped = tokio::task::spawn_blocking(move || {
            desk.with(|world| {
                world
                    .database
                    .take()
                    .map_or(Ok(()), |mut database| database.stop())
            })
        });
        stopped.await.context("stop the database")?
    }
}

/// Takes the signals before anything is started, so that nothing started is left behind.
fn stop_on_signals(ends: CancellationToken) -> Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("listen for signals")?;
        let ends = ends.clone();
        tokio::spawn(async move {
            signals.recv().await;
            ends.cancel();
        });
    }
    Ok(())
}

/// Readers see the whole file or none; it holds tokens, so only its owner may read it.
fn write_at_once(path: &Path, facts: &Value) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let unfinished = path.with_added_extension("unfinished");
    let context = || format!("write {}", path.display());
    let mut file = std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .with_context(context)?;
    writeln!(file, "{facts:#}").with_context(context)?;
    std::fs::rename(&unfinished, path).with_context(context)
}
