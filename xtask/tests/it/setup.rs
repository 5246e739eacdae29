//! `scripts/setup` says what it would do, changes nothing before, and refuses what it does not know.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine with hardly anything: the tools of `KEPT`, and whatever a test puts beside them.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // PostgreSQL's user must be able to reach it, as it could a checkout in a usual place.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { dir };
        for folder in ["bin", "root/scripts", "home"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in ["scripts/setup", "rust-toolchain.toml"] {
            fs::copy(root.join(file), machine.path("root").join(file)).unwrap();
        }
        for name in KEPT {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            let tool = found.iter().find(|path| path.exists()).unwrap();
            symlink(tool, machine.path("bin").join(name)).unwrap();
        }
        machine
    }

    /// Adds a program that writes its arguments to `calls` and then does `more`.
    fn program(&self, name: &str, more: &str) {
        let calls = self.path("calls");
        let text = format!(
            "#!/bin/bash\necho \"{name} $*\" >>'{}'\n{more}\n",
            calls.display()
        );
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    fn setup(&self, arguments: &[&str]) -> Output {
        Command::new(self.path("bin/bash"))
            .arg(self.path("root/scripts/setup"))
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .env("HOLDFAST_SETUP_POSTGRES", self.path("postgresql"))
            .output()
            .unwrap()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }
}

const KEPT: &[&str] = &[
    "awk",
    "bash",
    "basename",
    "cat",
    "chmod",
    "cut",
    "dirname",
    "env",
    "find",
    "grep",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sha512sum",
    "sort",
    "tar",
    "tr",
    "uname",
];

fn text(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()];
    String::from_utf8(streams.concat()).unwrap()
}

#[test]
fn a_dry_run_lists_what_is_missing_and_touches_nothing() {
    let machine = Machine::new();
    machine.program("apt-get", "exit 1");
    machine.program("apt-cache", "exit 0");
    let output = machine.setup(&["--dry-run"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for wanted in [
        "build-essential",
        "curl",
        "postgresql-15",
        "PostgreSQL 18",
        "Rust 1.95.0",
        "cargo-nextest",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
    }
    assert!(!machine.calls().contains("apt-get"), "{}", machine.calls());
    assert!(!machine.path("root/.postgres").exists());
    assert_eq!(machine.setup(&["--check"]).status.code(), Some(1));
}

#[test]
fn the_demo_needs_less_than_the_tests() {
    let machine = Machine::new();
    machine.program("apt-get", "exit 1");
    machine.program("apt-cache", "exit 0");
    let text = text(&machine.setup(&["demo", "--dry-run"]));
    assert!(text.contains("postgresql-15"), "{text}");
    assert!(
        !text.contains("PostgreSQL 18") && !text.contains("cargo-nextest"),
        "{text}"
    );
}

#[test]
fn an_unknown_argument_is_refused() {
    let output = Machine::new().setup(&["--dryrun"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("unknown argument"));
}

#[test]
fn an_archive_with_another_digest_is_not_unpacked() {
    let machine = Machine::new();
    // Everything is there but the newer server, and npm brings something else.
    for (name, more) in [
        ("cc", ""),
        ("curl", ""),
        ("psql", ""),
        ("cargo-nextest", ""),
        ("rustup", "echo 1.95.0-x86_64-unknown-linux-gnu"),
        ("apt-get", ""),
        ("npm", "echo forged >forged.tgz"),
    ] {
        machine.program(name, more);
    }
    let bin = machine.path("postgresql/15/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["postgres", "initdb"] {
        symlink(machine.path("bin/cc"), bin.join(name)).unwrap();
    }
    let output = machine.setup(&[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("does not have the digest"), "{text}");
    assert!(machine.calls().contains("npm pack"), "{}", machine.calls());
    assert!(!machine.path("root/.postgres/18").exists());
}
