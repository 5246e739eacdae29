//! The way back in a replay: the mirror is waited for, takes over, and is compared with a restore.

use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::{Guards, SOURCE};
use crate::replay::limits::{DESTRUCTION_SEEN, MIRROR_FOLLOWS, RECOVERED};
use crate::replay::process::end_servers_in;
use crate::replay::stage::{Stage, number_at};
use crate::replay::story::RecoverTo;
use crate::replay::trouble::Trouble;

/// Where the restore goes that a recovery is compared with.
const BESIDE: &str = "beside";

/// How a source was brought back.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// `mirror` or `restore`.
    pub by: String,
    /// To which moment.
    #[serde(skip)]
    pub at: String,
    /// Where the new server listens.
    #[serde(skip)]
    pub port: u16,
    /// Seconds from the start of `holdfast recover` to the address of a server that has taken a write.
    pub took_s: f64,
    /// The same for a restore of the same moment from the repository, made afterwards to compare.
    pub restore_s: Option<f64>,
}

impl Recovery {
    /// Says what brought it back.
    pub fn way(&self) -> &'static str {
        match self.by.as_str() {
            "mirror" => "its mirror",
            _ => "a restore",
        }
    }
}

impl Guards {
    /// Waits until the mirror follows.
    pub(super) fn wait_mirror(&mut self, stage: &Stage) -> Result<(), Trouble> {
        stage
            .progress
            .wait("vault", "starts a server that follows the log: the mirror");
        let found = stage.stop.poll(MIRROR_FOLLOWS, || {
            self.still_runs()?;
            let source = self.source(stage)?;
            let state = source.pointer("/mirror/state").and_then(Value::as_str);
            Ok((state == Some("following")).then_some(()))
        })?;
        found.ok_or_else(|| self.late("the mirror did not follow in time"))?;
        stage.progress.say("vault", "its mirror follows the log");
        Ok(())
    }

    /// Brings a writable server into service.
    ///
    /// # Errors
    /// [`Trouble::Part`], with what the command said.
    pub fn recover(&mut self, stage: &Stage, to: RecoverTo) -> Result<Recovery, Trouble> {
        let at = match to {
            RecoverTo::Latest => "latest".to_owned(),
            RecoverTo::BeforeDestruction => self.destruction(stage)?,
        };
        stage.progress.wait("vault", &format!("recovers to {at}"));
        let began = Instant::now();
        let args = ["recover", SOURCE, "--at", &at, "--json"];
        let found = stage.ask("holdfast-recover", self.command(stage, &args), RECOVERED)?;
        let took_s = began.elapsed().as_secs_f64();
        let port = number_at(&found, "/server/port", "holdfast-recover")?;
        let by = found.get("way").and_then(Value::as_str);
        let by = by.unwrap_or("restore").to_owned();
        let port = u16::try_from(port)
            .map_err(|_| Trouble::part("holdfast-recover", "its port is none"))?;
        let recovery = Recovery {
            by,
            at,
            port,
            took_s,
            restore_s: None,
        };
        let (at, way) = (&recovery.at, recovery.way());
        stage.progress.say(
            "vault",
            &format!(
                "{way} brought it back to {at}: port {port} takes writes, after {took_s:.1} s"
            ),
        );
        Ok(recovery)
    }

    /// Restores the same moment as well, to tell what the mirror was worth; that server then ends.
    ///
    /// # Errors
    /// [`Trouble::Part`], with what the command said.
    pub fn compare(&self, stage: &Stage, recovery: &mut Recovery) -> Result<(), Trouble> {
        if recovery.by != "mirror" {
            return Ok(());
        }
        stage
            .progress
            .wait("vault", "restores the same from the repository, to compare");
        let folder = stage.make_folder(BESIDE, 0o755)?;
        let into = folder.join("data").display().to_string();
        let args = [
            "restore",
            SOURCE,
            "--at",
            &recovery.at,
            "--into",
            &into,
            "--start",
            "--json",
        ];
        let began = Instant::now();
        stage.ask("holdfast-restore", self.command(stage, &args), RECOVERED)?;
        let took_s = began.elapsed().as_secs_f64();
        end_servers_in(&folder);
        let what = format!("to compare: the same from the repository takes {took_s:.1} s");
        stage.progress.say("vault", &what);
        recovery.restore_s = Some(took_s);
        Ok(())
    }

    /// Waits until the vault has seen the destruction in the log, and returns the target before it.
    fn destruction(&mut self, stage: &Stage) -> Result<String, Trouble> {
        stage
            .progress
            .wait("vault", "looks for the destruction in the log");
        let args = [
            "ledger",
            "list",
            "--half",
            "vault",
            "--kind",
            "source.destruction_seen",
            "--json",
        ];
        let found = stage.stop.poll(DESTRUCTION_SEEN, || {
            let entries = self.ask(stage, "ledger-list", &args)?;
            let first = entries.pointer("/0").cloned();
            Ok(first.and_then(|entry| {
                let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
                text("/action")
                    .or_else(|| text("/body/action"))
                    .or_else(|| text("/body/before_lsn"))
                    .map(|what| format!("before:{what}"))
            }))
        })?;
        found.ok_or_else(|| self.late("it did not see the destruction in the log"))
    }
}
