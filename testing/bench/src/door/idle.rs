//! What many idle sessions hold in the process in between.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::Scene;
use super::target::{DIRECT, Target};
use crate::machine::as_f64;
use crate::table::Table;

pub fn run(scene: &Scene<'_>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let sessions = scene.options.sessions;
    let mut table = Table::new(&[
        "through",
        "idle sessions",
        "before MB",
        "with them MB",
        "KiB each",
    ]);
    let mut found = serde_json::Map::new();
    for target in scene.targets.iter().filter(|target| target.name != DIRECT) {
        let before = target.memory();
        let with_them = runtime.block_on(hold(target, sessions))?;
        let each = as_f64(with_them.saturating_sub(before)) / 1024.0 / f64::from(sessions.max(1));
        table.row(vec![
            target.name.to_owned(),
            sessions.to_string(),
            format!("{:.1}", as_f64(before) / 1e6),
            format!("{:.1}", as_f64(with_them) / 1e6),
            format!("{each:.1}"),
        ]);
        found.insert(
            target.name.to_owned(),
            json!({"before": before, "with_them": with_them, "kib_each": each}),
        );
    }
    scene.options.say(&table.text());
    Ok(Value::Object(found))
}

/// Opens the sessions, lets each answer once, and looks at the memory while they are idle.
async fn hold(target: &Target, sessions: u32) -> Result<u64> {
    let mut open = Vec::new();
    let urls = std::iter::once(&target.url).chain(&target.more).cycle();
    for (number, url) in (0..sessions).zip(urls) {
        let (client, connection) = tokio_postgres::connect(url, NoTls)
            .await
            .with_context(|| format!("open session {number} through {}", target.name))?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await?;
        open.push(client);
    }
    Ok(target.memory())
}
