//! The protections of an act, set up and called with our own binary, exactly as a user would.

mod recovery;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::act::Act;
use super::limits::{
    A_PERSON_READS, COMMAND_ENDS, LOOK_FOR_HOLDS, PROGRAM_UP, PROVEN, STREAMS_AGAIN,
};
use super::process::Process;
use super::provider::{HOSTS, Provider};
use super::stage::{Stage, text_at};
use super::story::Agent;
use super::trouble::Trouble;
pub use recovery::Recovery;

/// The name of the protected source.
const SOURCE: &str = "prod";

/// The act's temporary folder; its name is short because sockets lie below it.
const TEMPORARY: &str = "t";

/// The protections that run.
#[derive(Debug)]
pub struct Guards {
    act: Act,
    config: PathBuf,
    running: Option<Process>,
    /// How often it was killed.
    pub kills: u32,
    held: Option<Held>,
    looked: Instant,
}

/// An action that waits for a human.
#[derive(Debug)]
struct Held {
    id: String,
    at: Instant,
    answered: bool,
}

/// What an agent is given instead of a credential.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// A connection string that leads through the PostgreSQL door.
    pub url: Option<String>,
    /// The environment that leads through the HTTP door.
    pub env: BTreeMap<String, String>,
}

impl Guards {
    /// Sets up what the act has, and starts it.
    ///
    /// # Errors
    /// [`Trouble::Part`], with what the command said.
    pub fn start(stage: &Stage, act: Act, provider: &Provider) -> Result<Self, Trouble> {
        let mut guards = Self {
            act,
            config: stage.folder.join("holdfast.toml"),
            running: None,
            kills: 0,
            held: None,
            looked: Instant::now(),
        };
        if act == Act::Unprotected {
            return Ok(guards);
        }
        stage.progress.wait("holdfast", "is set up");
        stage.make_folder(TEMPORARY, 0o755)?;
        stage.write_file(&guards.config, &configuration(provider))?;
        let recovery = stage.folder.join("recovery.key").display().to_string();
        let init = [
            "init",
            "--no-approver",
            "--recovery-key-out",
            &recovery,
            "--json",
        ];
        guards.ask(stage, "init", &init)?;
        guards.add_source(stage, provider)?;
        guards.run(stage)?;
        if act.has_vault() {
            guards.wait_proven(stage)?;
            guards.wait_mirror(stage)?;
        }
        Ok(guards)
    }

    fn command(&self, stage: &Stage, args: &[&str]) -> Command {
        let mut command = Command::new(&stage.programs.holdfast);
        // What the user's own shell is set up for must not lead an act to another configuration.
        command.env_remove("HOLDFAST_STATE_DIR");
        // What servers leave in the temporary folder goes with the act's.
        command.env("TMPDIR", stage.folder.join(TEMPORARY));
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    fn ask(&self, stage: &Stage, verb: &str, args: &[&str]) -> Result<Value, Trouble> {
        let name = format!("holdfast-{verb}");
        stage.ask(&name, self.command(stage, args), COMMAND_ENDS)
    }

    fn add_source(&self, stage: &Stage, provider: &Provider) -> Result<(), Trouble> {
        let url_file = stage.folder.join("source.url");
        stage.write_file(&url_file, &format!("{}\n", provider.admin_url))?;
        let reference = format!("file:{}", url_file.display());
        let mut args = vec![
            "source",
            "add",
            SOURCE,
            "--environment",
            "production",
            "--json",
        ];
        if self.act.has_vault() {
            args.extend(["--vault-url", &reference, "--synchronous", "--mirror"]);
        }
        if self.act != Act::Vault {
            args.extend(["--guard-url", &reference]);
        }
        let resources = provider.resources();
        for resource in &resources {
            args.extend(["--resource", resource]);
        }
        self.ask(stage, "source-add", &args).map(drop)
    }

    /// Starts the half or the halves that the act has, and waits until they answer.
    fn run(&mut self, stage: &Stage) -> Result<(), Trouble> {
        let (name, args): (_, &[&str]) = match self.act {
            Act::Unprotected => return Ok(()),
            Act::Custody | Act::Doors => ("guard", &["guard", "run", "--json"]),
            Act::Vault => ("vault", &["vault", "run", "--json"]),
            Act::All => ("holdfast", &["up", "--json"]),
        };
        let mut process = stage.start(name, self.command(stage, args))?;
        let before = process.out().lines().count();
        process.wait_until(&stage.stop, PROGRAM_UP, |process| {
            (process.out().lines().count() > before).then_some(())
        })?;
        self.running = Some(process);
        Ok(())
    }

    /// Waits until the vault vouches for a restore point and commits wait for the vault.
    fn wait_proven(&mut self, stage: &Stage) -> Result<(), Trouble> {
        stage.progress.wait(
            "vault",
            "takes a base backup, and proves it by a real restore",
        );
        let found = stage.stop.poll(PROVEN, || {
            self.still_runs()?;
            let source = self.source(stage)?;
            let is = |pointer: &str, word: &str| {
                source.pointer(pointer).and_then(Value::as_str) == Some(word)
            };
            if is("/state", "failed") || is("/proof/state", "failed") {
                let trouble = source.get("trouble").cloned().unwrap_or_default();
                return Err(Trouble::part(
                    "vault",
                    format!("capture or drill failed: {trouble}"),
                ));
            }
            let is_up = waits(&source) && is("/proof/state", "verified");
            Ok(is_up.then_some(source))
        })?;
        let source = found.ok_or_else(|| self.late("no restore point was proven in time"))?;
        let rto = source.pointer("/proof/rto_s").and_then(Value::as_f64);
        let rto = rto.map_or(String::new(), |rto| {
            format!(": writable again after {rto:.1} s")
        });
        stage.progress.say(
            "vault",
            &format!("a restore point is proven by a real restore{rto}"),
        );
        Ok(())
    }

    /// Waits until the vault streams again.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it does not.
    pub fn wait_streaming(&mut self, stage: &Stage) -> Result<(), Trouble> {
        let found = stage.stop.poll(STREAMS_AGAIN, || {
            self.still_runs()?;
            let source = self.source(stage)?;
            Ok(waits(&source).then_some(()))
        })?;
        found.ok_or_else(|| self.late("it did not stream again in time"))
    }

    fn source(&self, stage: &Stage) -> Result<Value, Trouble> {
        let all = self.ask(stage, "source-list", &["source", "list", "--json"])?;
        Ok(all.pointer("/0").cloned().unwrap_or_default())
    }

    fn still_runs(&mut self) -> Result<(), Trouble> {
        match &mut self.running {
            Some(process) => match process.status()? {
                None => Ok(()),
                Some(status) => Err(process.trouble(&format!("it ended ({status})"))),
            },
            None => Err(Trouble::part("holdfast", "it does not run")),
        }
    }

    fn late(&self, what: &str) -> Trouble {
        match &self.running {
            Some(process) => process.trouble(what),
            None => Trouble::part("holdfast", what),
        }
    }

    /// Takes what lies in the workspace into custody.
    ///
    /// # Errors
    /// [`Trouble::Part`], also when nothing was found.
    pub fn take(&self, stage: &Stage, workspace: &Path, agent: &Agent) -> Result<(), Trouble> {
        let folder = workspace.display().to_string();
        let args = [
            "scan",
            &folder,
            "--take",
            "--source",
            SOURCE,
            "--agent",
            &agent.name,
            "--json",
        ];
        let found = self.ask(stage, "scan", &args)?;
        let taken = found
            .get("taken")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        if taken == 0 {
            return Err(Trouble::part(
                "holdfast-scan",
                "it took nothing into custody",
            ));
        }
        let what = format!("{taken} credentials of the workspace are in custody");
        stage.progress.say("custody", &what);
        Ok(())
    }

    /// Issues the lease of the agent.
    ///
    /// # Errors
    /// [`Trouble::Part`].
    pub fn lease(&self, stage: &Stage, agent: &Agent) -> Result<Lease, Trouble> {
        let args = [
            "lease",
            "issue",
            "--source",
            SOURCE,
            "--agent",
            &agent.name,
            "--purpose",
            &agent.purpose,
            "--mode",
            &agent.lease_mode,
            "--json",
        ];
        let ticket = self.ask(stage, "lease", &args)?;
        let id = text_at(&ticket, "/id", "holdfast-lease")?;
        stage.progress.say(
            "guard",
            &format!("the agent has {id}, and the doors as its way out"),
        );
        let env = ticket.get("env").and_then(Value::as_object);
        let pairs = env.into_iter().flatten();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Lease {
            url: ticket.get("url").and_then(text),
            env: pairs
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect(),
        })
    }

    /// Looks whether an action waits for a human, and says so when it is new.
    ///
    /// # Errors
    /// [`Trouble::Part`].
    pub fn look_for_hold(&mut self, stage: &Stage) -> Result<(), Trouble> {
        let is_open = !matches!(self.act, Act::Unprotected | Act::Vault);
        if self.held.is_some() || !is_open || self.looked.elapsed() < LOOK_FOR_HOLDS {
            return Ok(());
        }
        let found = self.ask(stage, "hold-list", &["hold", "list", "--json"])?;
        self.looked = Instant::now();
        if let Some(id) = found.pointer("/0/id").and_then(Value::as_str) {
            let what = found.pointer("/0/action/summary").and_then(Value::as_str);
            let what = holdfast_core::Untrusted(what.unwrap_or_default()).to_string();
            stage
                .progress
                .say("guard", &format!("holds {id} for a human: {what}"));
            self.held = Some(Held {
                id: id.to_owned(),
                at: self.looked,
                answered: false,
            });
        }
        Ok(())
    }

    /// Says no to what waits, as a person would, when the agent is kept waiting for the answer.
    ///
    /// # Errors
    /// [`Trouble::Part`].
    pub fn say_no(&mut self, stage: &Stage) -> Result<(), Trouble> {
        let Some(held) = self.held.as_mut().filter(|held| !held.answered) else {
            return Ok(());
        };
        if held.at.elapsed() < A_PERSON_READS {
            return Ok(());
        }
        held.answered = true;
        let id = held.id.clone();
        self.ask(stage, "hold-deny", &["hold", "deny", &id, "--json"])?;
        stage
            .progress
            .say("person", &format!("reads {id} and says no"));
        Ok(())
    }

    /// Returns when an action was first seen to wait for a human, if one was.
    pub fn held_at(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.at)
    }

    /// Kills what holds the vault with SIGKILL and starts it again.
    ///
    /// # Errors
    /// [`Trouble::Part`] when it does not come back.
    pub fn kill_vault(&mut self, stage: &Stage) -> Result<(), Trouble> {
        if let Some(mut process) = self.running.take() {
            process.kill_9()?;
        }
        self.kills = self.kills.saturating_add(1);
        stage
            .progress
            .say("vault", "was killed with SIGKILL, and is started again");
        self.run(stage)
    }
}

/// Tells whether the log streams and commits wait for the vault.
fn waits(source: &Value) -> bool {
    let streams = source.get("state").and_then(Value::as_str) == Some("streaming");
    streams && source.get("synchronous").and_then(Value::as_bool) == Some(true)
}

/// Writes what `holdfast init` then keeps: free ports, and where the provider really is.
fn configuration(provider: &Provider) -> String {
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = String::from("state_dir = \"state\"\n\n");
    text.push_str("[guard]\npg_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n\n");
    for host in HOSTS {
        text.push_str(&format!(
            "[[guard.upstream]]\nhost = {}\nconnect = {}\nca_file = {}\n\n",
            string(host),
            string(&provider.api.to_string()),
            string(&provider.ca_file.display().to_string()),
        ));
    }
    let bin = string(&provider.postgres_bin.display().to_string());
    text.push_str(&format!("[vault]\npostgres_bin_dirs = [{bin}]\n"));
    text
}
