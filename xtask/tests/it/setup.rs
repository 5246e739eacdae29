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

    /// Adds a program in the place of one of those in `KEPT`.
    fn replace(&self, name: &str, more: &str) {
        fs::remove_file(self.path("bin").join(name)).unwrap();
        self.program(name, more);
    }

    /// Adds everything that `make check` needs, but for the programs in `without`.
    fn complete(&self, without: &[&str]) {
        for (name, more) in [
            ("cc", ""),
            ("age", ""),
            ("ceph-mon", ""),
            ("ceph-osd", ""),
            ("curl", ""),
            ("radosgw", ""),
            ("psql", ""),
            ("cargo-nextest", ""),
            ("rustup", "echo 1.95.0-x86_64-unknown-linux-gnu"),
        ] {
            if !without.contains(&name) {
                self.program(name, more);
            }
        }
        for major in ["13", "14", "15", "16", "17", "18"] {
            let bin = self.path("postgresql").join(major).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for name in ["postgres", "initdb"] {
                symlink(self.path("bin/bash"), bin.join(name)).unwrap();
            }
        }
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
        "radosgw",
        "curl",
        "postgresql-15",
        "PostgreSQL 13",
        "PostgreSQL 17",
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
        ["PostgreSQL 18", "cargo-nextest", "radosgw"]
            .iter()
            .all(|name| !text.contains(name)),
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
fn when_everything_is_there_nothing_is_said_or_done() {
    let machine = Machine::new();
    machine.complete(&[]);
    let output = machine.setup(&[]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), "");
    let said = text(&machine.setup(&["--check"]));
    assert!(said.contains("everything is installed"), "{said}");
    let calls = machine.calls();
    assert!(
        calls.lines().all(|call| call == "rustup toolchain list"),
        "{calls}"
    );
}

/// An `apt-get install` that brings curl, and a `sudo` that does what it is told.
fn with_apt(machine: &Machine) {
    let curl = machine.path("bin/curl");
    let brings = format!(
        "case $1 in install) printf '#!/bin/bash\\n' >'{0}'; chmod +x '{0}' ;; esac",
        curl.display()
    );
    machine.program("apt-get", &brings);
    machine.program("sudo", "exec \"$@\"");
}

#[test]
fn what_is_missing_is_listed_first_and_then_installed_once() {
    let machine = Machine::new();
    machine.complete(&["curl"]);
    with_apt(&machine);
    let output = machine.setup(&[]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let (listed, done) = (text.find("to be installed:"), text.find("setup: done"));
    assert!(listed.is_some() && listed < done, "{text}");
    let install = "apt-get install -y -qq --no-install-recommends curl";
    assert!(machine.calls().contains(install), "{}", machine.calls());
    let installed = machine.calls().matches("apt-get").count();
    assert!(machine.setup(&[]).status.success());
    assert_eq!(machine.calls().matches("apt-get").count(), installed);
}

#[test]
fn an_installation_that_changes_nothing_is_a_failure() {
    let machine = Machine::new();
    machine.complete(&["curl"]);
    machine.program("apt-get", "");
    machine.program("sudo", "exec \"$@\"");
    let output = machine.setup(&[]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains("still missing") && text.contains("curl"),
        "{text}"
    );
}

#[test]
fn on_a_mac_homebrew_brings_the_servers() {
    let machine = Machine::new();
    machine.complete(&[]);
    fs::remove_dir_all(machine.path("postgresql")).unwrap();
    machine.replace("uname", "echo Darwin");
    machine.program("xcode-select", "");
    let output = machine.setup(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("Homebrew is missing"),
        "{}",
        text(&output)
    );
    machine.program("brew", "");
    let output = machine.setup(&["--dry-run"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for wanted in ["postgresql@15", "postgresql@18"] {
        assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
    }
    assert!(!text.contains(" apt "), "{text}");
    assert!(!machine.calls().contains("brew"), "{}", machine.calls());
    machine.replace("xcode-select", "exit 2");
    let output = machine.setup(&["--dry-run"]);
    assert!(self::text(&output).contains("xcode-select --install"));
}

#[test]
fn an_unknown_system_is_told_what_to_install_by_hand() {
    let machine = Machine::new();
    machine.replace("uname", "echo Plan9");
    let output = machine.setup(&[]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains("by hand") && text.contains("libclang"),
        "{text}"
    );
    // A Linux without apt-get as well.
    let machine = Machine::new();
    let output = machine.setup(&["--dry-run"]);
    assert!(self::text(&output).contains("apt-get, which is missing"));
}

#[test]
fn an_archive_with_another_digest_is_not_unpacked() {
    let machine = Machine::new();
    // Everything is there but the newer server, and npm brings something else.
    machine.complete(&[]);
    fs::remove_dir_all(machine.path("postgresql/18")).unwrap();
    machine.program("apt-get", "");
    machine.program("npm", "echo forged >forged.tgz");
    let output = machine.setup(&[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("does not have the digest"), "{text}");
    assert!(machine.calls().contains("npm pack"), "{}", machine.calls());
    assert!(!machine.path("root/.postgres/18").exists());
}
