//! A PostgreSQL door with some leases, whose URLs are written as the first lines.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ed25519_dalek::SigningKey;
use holdfast_core::{Principal, RowCount};
use holdfast_guard::clock;
use holdfast_guard::decide::{Gatekeeper, NoVault, Parts};
use holdfast_guard::door::pg::{
    PgDoor, PgDoorConfig, PgDoorSource, PgDoorTls, PgLeaseRequest, lease_url, prepare_lease,
};
use holdfast_guard::lease::{LeaseMode, LeaseRequest, Leases, RowBudget};
use holdfast_guard::limits::PROOF_AGE_MAX;
use holdfast_judge::policy::Policy;
use holdfast_store::ledger::Ledger;
use holdfast_store::record::Records;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::SOURCE;

/// What is written once all URLs are.
pub const READY: &str = "ready";
/// More rows than any measurement changes: what is measured is judged, and never held.
const ROWS: RowCount = RowCount(1 << 40);
const LASTS: Duration = Duration::from_secs(4 * 3600);

/// Serves until SIGTERM.
pub fn run(state: &Path, leases: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(state, leases))
}

async fn serve(state: &Path, count: u32) -> Result<()> {
    let url = std::env::var("SOURCE_URL").context("read SOURCE_URL")?;
    let source = PgDoorSource {
        name: SOURCE.parse().context("name the source")?,
        environment: "production".to_owned(),
        copy_of: None,
        url: url.parse().map_err(|error| anyhow!("{error}"))?,
    };
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow!("draw random bytes: {error}"))?;
    let key = SigningKey::from_bytes(&random);
    let ledger = Ledger::open(&state.join("ledger"), key, clock::now())?;
    let records = Records::open(&state.join("state.db"))?;
    let leases = Leases::open(records.clone(), ledger.clone())?;
    let gatekeeper = Gatekeeper::new(Parts {
        ledger,
        records,
        policy: Policy::shipped(),
        way_back: Arc::new(NoVault),
        proof_age_max: PROOF_AGE_MAX,
    })?;
    let config = PgDoorConfig {
        listen: "127.0.0.1:0".parse().context("name the address")?,
        sources: vec![source.clone()],
        tls: PgDoorTls::Local {
            ca_folder: state.join("ca"),
        },
    };
    let door = PgDoor::bind(config, gatekeeper, leases.clone()).await?;
    for _ in 0..count {
        println!("{}", issue(&leases, &source, door.local_addr()).await?);
    }
    println!("{READY}");
    std::io::stdout().flush().context("tell the URL")?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::spawn(async move {
        terminate.recv().await;
        told.cancel();
    });
    door.run(stop).await;
    Ok(())
}

async fn issue(
    leases: &Leases,
    source: &PgDoorSource,
    door: std::net::SocketAddr,
) -> Result<String> {
    let (id, token) = (Leases::draw_id()?, Leases::draw_token()?);
    let asked = PgLeaseRequest {
        id: &id,
        token: &token,
        database: None,
        mode: LeaseMode::Data,
        expires: clock::now().plus(LASTS),
        guard: SOURCE,
    };
    let pg = prepare_lease(source, asked).await?;
    let request = LeaseRequest {
        source: source.name.clone(),
        agent: "bench".to_owned(),
        purpose: "measure the door".to_owned(),
        mode: LeaseMode::Data,
        budget: RowBudget {
            transaction: ROWS,
            hour: ROWS,
        },
        lasts: LASTS,
    };
    let issued = leases.issue(request, (id, token), Some(pg), Principal::human("bench"))?;
    let url = lease_url(door, &issued.lease, &issued.token).context("the lease has no URL")?;
    Ok(url.expose().to_owned())
}
