//! Pages and pictures that are made from something else in the tree, and checked to be fresh.

mod errors;
mod picture;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tree::Tree;

/// Writes the generated files again; with `check`, only says which are stale.
///
/// Returns whether all of them are fresh afterwards.
pub fn run(root: &Path, check: bool) -> Result<bool> {
    let tree = Tree::read(root)?;
    let outputs = [errors::index(&tree)?, picture::of_replay(&tree)?];
    let mut fresh = true;
    for output in outputs.into_iter().flatten() {
        if tree
            .file(output.path)
            .is_some_and(|file| file.text == output.text)
        {
            continue;
        }
        if check {
            println!("{}: stale; run `cargo xtask gen`", output.path);
            fresh = false;
        } else {
            fs::write(root.join(output.path), output.text)
                .with_context(|| format!("write {}", output.path))?;
            println!("{}: written", output.path);
        }
    }
    Ok(fresh)
}

/// One generated file.
struct Output {
    path: &'static str,
    text: String,
}
