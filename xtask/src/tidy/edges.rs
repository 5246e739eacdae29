//! Arrows between rooms point down; a heavy dependency has one owner.

use toml::Table;

use super::Finding;
use super::dependencies::{line_of, tables};
use crate::tree::{File, Tree};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let manifests = tree
        .matching("", "Cargo.toml")
        .filter(|file| file.path != "Cargo.toml");
    for file in manifests {
        match file.text.parse::<Table>() {
            Ok(manifest) => check_manifest(file, &manifest, &mut findings),
            Err(error) => findings.push(Finding::new(&file.path, 0, error.to_string())),
        }
    }
    findings
}

fn check_manifest(file: &File, manifest: &Table, findings: &mut Vec<Finding>) {
    let package = manifest.get("package").and_then(|p| p.get("name"));
    let Some(package) = package.and_then(|name| name.as_str()) else {
        return;
    };
    let Some((_, room)) = ROOMS.iter().find(|(name, _)| *name == package) else {
        let text = format!("`{package}` has no place yet: decide it in xtask/src/tidy/edges.rs");
        findings.push(Finding::new(&file.path, 0, text));
        return;
    };
    for dependency in names(manifest, "dependencies") {
        for text in breaches(package, room, dependency) {
            findings.push(Finding::new(
                &file.path,
                line_of(&file.text, dependency),
                text,
            ));
        }
    }
    for dependency in names(manifest, "dev-dependencies") {
        let allowed = room.uses.contains(&dependency) || dependency == "holdfast-testing";
        if is_ours(dependency) && !allowed {
            let text = format!("`{package}` may not use `{dependency}`, also not in tests");
            findings.push(Finding::new(
                &file.path,
                line_of(&file.text, dependency),
                text,
            ));
        }
    }
}

fn breaches(package: &str, room: &Room, dependency: &str) -> Vec<String> {
    let mut texts = Vec::new();
    if is_ours(dependency) && !room.uses.contains(&dependency) {
        texts.push(format!(
            "`{package}` may not use `{dependency}`: arrows point down only"
        ));
    }
    if room.kind == Kind::Pure && IMPURE.contains(&dependency) {
        texts.push(format!(
            "`{package}` is pure and may not use `{dependency}`"
        ));
    }
    let owners = OWNERS.iter().find(|(name, _)| *name == dependency);
    if let Some((_, owners)) = owners.filter(|(_, owners)| !owners.contains(&package)) {
        texts.push(format!("`{dependency}` belongs to {}", owners.join(", ")));
    }
    texts
}

fn names<'a>(manifest: &'a Table, section: &'a str) -> impl Iterator<Item = &'a str> {
    tables(manifest, section)
        .flat_map(Table::keys)
        .map(String::as_str)
}

fn is_ours(name: &str) -> bool {
    ROOMS.iter().any(|(room, _)| *room == name)
}

#[derive(PartialEq, Eq)]
enum Kind {
    Pure,
    Shell,
}

struct Room {
    kind: Kind,
    uses: &'static [&'static str],
}

const fn pure(uses: &'static [&'static str]) -> Room {
    let kind = Kind::Pure;
    Room { kind, uses }
}

const fn shell(uses: &'static [&'static str]) -> Room {
    let kind = Kind::Shell;
    Room { kind, uses }
}

/// Who may use whom. `guard` and `vault` never use each other: they meet through traits in `core`.
const ROOMS: &[(&str, Room)] = &[
    ("holdfast-core", pure(&[])),
    ("holdfast-wire", pure(&["holdfast-core"])),
    ("holdfast-judge", pure(&["holdfast-core", "holdfast-wire"])),
    ("holdfast-store", shell(&["holdfast-core", "holdfast-wire"])),
    (
        "holdfast-guard",
        shell(&[
            "holdfast-core",
            "holdfast-wire",
            "holdfast-judge",
            "holdfast-store",
        ]),
    ),
    (
        "holdfast-vault",
        shell(&["holdfast-core", "holdfast-wire", "holdfast-store"]),
    ),
    (
        "holdfast",
        shell(&[
            "holdfast-core",
            "holdfast-wire",
            "holdfast-judge",
            "holdfast-store",
            "holdfast-guard",
            "holdfast-vault",
        ]),
    ),
    // Outside the product: they know nothing of its rooms, and no room uses them.
    ("holdfast-testing", shell(&[])),
    (
        "holdfast-bench",
        shell(&[
            "holdfast-core",
            "holdfast-guard",
            "holdfast-judge",
            "holdfast-store",
            "holdfast-testing",
            "holdfast-vault",
        ]),
    ),
    ("railway-stand-in", shell(&["holdfast-testing"])),
    ("rental", shell(&[])),
    ("xtask", shell(&[])),
];

/// What a pure room may never use, except in tests.
const IMPURE: &[&str] = &[
    "futures-util",
    "getrandom",
    "hyper",
    "hyper-util",
    "rand",
    "rusqlite",
    "rustix",
    "rustls",
    "tempfile",
    "tokio",
    "tokio-postgres",
    "tokio-rustls",
    "tokio-util",
    "tracing-subscriber",
    "walkdir",
];

/// Heavy dependencies and the only packages that may use them.
const OWNERS: &[(&str, &[&str])] = &[
    (
        "anyhow",
        &[
            "holdfast",
            "holdfast-bench",
            "holdfast-testing",
            "railway-stand-in",
            "rental",
            "xtask",
        ],
    ),
    ("apollo-parser", &["holdfast-wire", "railway-stand-in"]),
    ("argon2", &["holdfast-store"]),
    ("askama", &["rental"]),
    ("aws-lc-rs", &["holdfast-store"]),
    ("axum", &["rental"]),
    ("landlock", &["holdfast-vault"]),
    ("nix", &["holdfast-vault"]),
    ("cedar-policy", &["holdfast-judge"]),
    (
        "clap",
        &[
            "holdfast",
            "holdfast-bench",
            "railway-stand-in",
            "rental",
            "xtask",
        ],
    ),
    ("fuser", &["holdfast-testing", "holdfast-vault"]),
    ("hyper", &["holdfast-guard", "railway-stand-in"]),
    ("indicatif", &["holdfast", "rental"]),
    ("pg_raw_parse", &["holdfast-judge"]),
    (
        "rcgen",
        &["holdfast-guard", "holdfast-testing", "railway-stand-in"],
    ),
    ("rpassword", &["holdfast"]),
    ("rusqlite", &["holdfast-store"]),
    ("ureq", &["holdfast-store"]),
    (
        "zstd",
        &["holdfast-bench", "holdfast-store", "holdfast-vault"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    fn texts(manifest: &str) -> Vec<String> {
        let tree = planted(&[("crates/x/Cargo.toml", manifest)]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn the_halves_may_not_use_each_other() {
        let found =
            texts("[package]\nname = \"holdfast-guard\"\n[dependencies]\nholdfast-vault = {}\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("arrows point down"));
    }

    #[test]
    fn an_arrow_upwards_is_found_also_among_test_dependencies() {
        let manifest = "[package]\nname = \"holdfast-core\"\n[dev-dependencies]\nholdfast-judge = {}\nholdfast-testing = {}\n";
        assert_eq!(texts(manifest).len(), 1);
    }

    #[test]
    fn a_pure_room_with_tokio_is_found() {
        let manifest = "[package]\nname = \"holdfast-judge\"\n[dependencies]\nholdfast-core = {}\ntokio = {}\n";
        assert_eq!(texts(manifest).len(), 1);
    }

    #[test]
    fn a_second_owner_of_a_heavy_dependency_is_found() {
        let found =
            texts("[package]\nname = \"holdfast-vault\"\n[dependencies]\ncedar-policy = {}\n");
        assert_eq!(found, ["`cedar-policy` belongs to holdfast-judge"]);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(texts("[package]\nname = \"new\"\n").len(), 1);
    }
}
