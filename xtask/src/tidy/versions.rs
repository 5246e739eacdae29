//! Dependencies that are there in more than one version: told, not refused.

use std::collections::BTreeMap;

use toml::Table;

use crate::tree::Tree;

/// The packages of Cargo.lock with more than one version, as `name ×2`.
pub fn repeated(tree: &Tree) -> Vec<String> {
    let lock = tree
        .file("Cargo.lock")
        .map(|file| file.text.parse::<Table>());
    let Some(Ok(lock)) = lock else {
        return Vec::new();
    };
    let packages = lock.get("package").and_then(|value| value.as_array());
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for package in packages.into_iter().flatten() {
        if let Some(name) = package.get("name").and_then(|name| name.as_str()) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let several = counts.iter().filter(|(_, count)| **count > 1);
    several
        .map(|(name, count)| format!("{name} ×{count}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    #[test]
    fn a_package_in_two_versions_is_told() {
        let lock =
            "[[package]]\nname = \"a\"\n[[package]]\nname = \"a\"\n[[package]]\nname = \"b\"\n";
        assert_eq!(repeated(&planted(&[("Cargo.lock", lock)])), ["a ×2"]);
    }
}
