//! A vault as its user has it: a configuration, its state, and the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_testing::process::tail;
use serde_json::Value;

use super::Scene;
use crate::limits;
use crate::meter::Measured;

/// The one source.
pub const SOURCE: &str = "prod";

/// A folder with a configuration.
pub struct Desk {
    /// The folder.
    pub folder: PathBuf,
    program: PathBuf,
}

/// What its configuration says.
pub struct Told<'a> {
    /// Lines of `[vault]` that say where the repository is, and its other tables.
    pub repository: &'a str,
    /// Where the source is.
    pub source_url: &'a str,
    /// Whether there is a mirror.
    pub mirror: bool,
    /// The folder with PostgreSQL's programs.
    pub programs: &'a Path,
}

impl Desk {
    /// Makes keys and a configuration in a folder.
    pub fn init(scene: &Scene<'_>, folder: &Path, told: &Told<'_>) -> Result<Self> {
        let desk = Self::at(scene, folder, told)?;
        let key = folder.join("recovery.key");
        let mut command = desk.command(&["init", "--approver", "ann", "--passphrase-stdin"]);
        command.arg("--recovery-key-out").arg(key);
        let passphrase = folder.join("passphrase");
        fs::write(&passphrase, "correct horse battery\n").context("write the passphrase")?;
        command.stdin(fs::File::open(&passphrase).context("read the passphrase")?);
        let done = command.output().context("run holdfast init")?;
        ensure!(
            done.status.success(),
            "holdfast init: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(desk)
    }

    /// Writes a configuration for a state that is there already.
    pub fn at(scene: &Scene<'_>, folder: &Path, told: &Told<'_>) -> Result<Self> {
        let desk = Self {
            folder: folder.to_owned(),
            program: scene.holdfast.clone(),
        };
        desk.secret("vault-url", told.source_url)?;
        let text = format!(
            "state_dir = \"state\"\n[guard]\npg_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n\
             [[source]]\nname = \"{SOURCE}\"\nvault_url = \"file:vault-url\"\nmirror = {mirror}\n\
             [vault]\npostgres_bin_dirs = [\"{programs}\"]\n{QUIET}{repository}\n\
             [vault.clones]\ncount_max = 100\ndisk_max_mib = 1000000\n",
            mirror = told.mirror,
            programs = told.programs.display(),
            repository = told.repository,
        );
        fs::write(folder.join("holdfast.toml"), text).context("write the configuration")?;
        Ok(desk)
    }

    /// Lets clones keep to what is touched: nothing comes in the background.
    pub fn without_hydration(&self) -> Result<()> {
        let path = self.folder.join("holdfast.toml");
        let text = fs::read_to_string(&path).context("read the configuration")?;
        // Its last table is that of the clones.
        fs::write(&path, format!("{text}hydrate_mib_s = 0\n")).context("write the configuration")
    }

    /// Writes a file that its owner alone can read.
    pub fn secret(&self, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&file, private).context("keep it private")
    }

    /// The program with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.folder.join("holdfast.toml"))
            .args(arguments)
            .current_dir(&self.folder)
            .env("USER", "bench")
            .env_remove("SUDO_USER")
            .env_remove("HOLDFAST_STATE_DIR")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end and reads its JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let name = arguments.first().copied().unwrap_or_default();
        let (out, err) = (self.scratch(name, "out")?, self.scratch(name, "err")?);
        let what = || format!("holdfast {}", arguments.join(" "));
        let mut child = self
            .command(arguments)
            .arg("--json")
            .stdout(fs::File::create(&out).context("write what it says")?)
            .stderr(fs::File::create(&err).context("write what it says")?)
            .spawn()
            .with_context(what)?;
        let deadline = Instant::now() + limits::CALL;
        let status = loop {
            if let Some(status) = child.try_wait().with_context(what)? {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("{} takes too long: {}", what(), tail(&err));
            }
            std::thread::sleep(CALL_POLL);
        };
        ensure!(status.success(), "{} ({status}): {}", what(), tail(&err));
        let said = fs::read_to_string(&out).context("read what it said")?;
        let _ = (fs::remove_file(&out), fs::remove_file(&err));
        serde_json::from_str(&said).with_context(|| format!("{}: {said}", what()))
    }

    /// A file of its own, because several calls may run at once.
    fn scratch(&self, name: &str, end: &str) -> Result<PathBuf> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("draw: {error}"))?;
        let random = u64::from_le_bytes(random);
        Ok(self.folder.join(format!("{name}-{random:016x}.{end}")))
    }

    /// Starts the vault.
    pub fn vault(&self) -> Result<Measured> {
        let log = self.folder.join("vault.log");
        Measured::start(self.command(&["vault", "run"]), &log, None)
    }

    /// How the source stands, as the running vault says it.
    pub fn stands(&self) -> Result<Value> {
        let mut listed = self.json(&["source", "list"])?;
        let one = listed.get_mut(0).map(Value::take);
        one.context("the vault knows no source")
    }

    /// Waits until the source stands as it is wanted to.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            // A vault that has just been started does not answer yet.
            let stands = self.stands().unwrap_or_default();
            if wanted(&stands) {
                return Ok(stands);
            }
            if Instant::now() > deadline {
                let log = tail(&self.folder.join("vault.log"));
                bail!("the source does not come to stand as wanted: {stands}\n{log}");
            }
            std::thread::sleep(limits::STAND_POLL);
        }
    }
}

/// The text at a pointer of what the program said.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("nothing at {pointer} in {value}"))
}

/// A position in the log as a number.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u64::from_str_radix(high, 16).ok()?;
    Some(high << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// Nothing comes in between: no drill that nobody asked for, and no other restore point.
const QUIET: &str = "drill_every_s = 604800\ndrill_older_every_s = 604800\npoint_every_s = 604800\n\
                     point_every_mib = 1000000\n";
/// The pause between two looks whether a call has ended: it is part of what is measured.
const CALL_POLL: Duration = Duration::from_millis(1);
