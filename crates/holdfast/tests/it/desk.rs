//! A folder with a configuration, and the binary run in it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holdfast_testing::dirs::TestDir;
use serde_json::Value;

/// The passphrase of the approver that [`Desk::init`] makes.
pub const PASSPHRASE: &str = "correct horse battery";

/// The file with the recovery key that [`Desk::init`] makes.
pub const RECOVERY_KEY: &str = "recovery.key";

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Ran {
    /// Reads stdout as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the exit status, and that the code and the words stand on stderr.
    pub fn refused(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {self:?}");
        }
        assert!(self.stderr.contains("hint: "), "no next step in {self:?}");
    }

    /// Checks that it went well.
    pub fn done(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

/// A folder with a configuration.
pub struct Desk {
    dir: TestDir,
}

/// A vault that was killed leaves its mounts.
impl Drop for Desk {
    fn drop(&mut self) {
        let swept = holdfast_vault::mount::sweep(self.dir.path());
        assert!(swept.is_ok() || std::thread::panicking(), "{swept:?}");
    }
}

impl Desk {
    /// Makes an empty folder.
    pub fn empty(subject: &str) -> Self {
        Self {
            dir: TestDir::for_server(subject).unwrap(),
        }
    }

    /// Makes a folder with keys, free ports, the approver `ann` and a recovery key.
    pub fn init(subject: &str) -> Self {
        let desk = Self::empty(subject);
        let text = "state_dir = \"state\"\n[guard]\npg_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n";
        std::fs::write(desk.path().join("holdfast.toml"), text).unwrap();
        let args = [
            "init",
            "--approver",
            "ann",
            "--passphrase-stdin",
            "--recovery-key-out",
            RECOVERY_KEY,
        ];
        desk.says(&args, PASSPHRASE).done();
        desk
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub fn secret(&self, name: &str, text: &str) {
        let file = self.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// The binary with this folder's configuration, to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command
            .args(args)
            .current_dir(self.path())
            .env("USER", "tester")
            .env_remove("SUDO_USER")
            .env_remove("HOLDFAST_CONFIG")
            .env_remove("HOLDFAST_STATE_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    /// Runs it to its end with a text on stdin.
    pub fn says(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A command that refuses early closes its stdin.
        let _ = pipe.write_all(format!("{stdin}\n").as_bytes());
        drop(pipe);
        ran(child.wait_with_output().unwrap())
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
