//! The `[[source]]` blocks of `holdfast.toml`: written and cut as text, so that comments stay.

use std::io::Write;

use holdfast_core::{Code, SourceName};
use holdfast_vault::AckAt;
use toml::Value;

use crate::config::Config;
use crate::report::Failure;
use crate::wiring::system;

/// What a block says.
pub struct Block<'a> {
    /// The source's name.
    pub name: &'a str,
    /// What it is for.
    pub environment: &'a str,
    /// Reference of the vault's connection string.
    pub vault_url: Option<&'a str>,
    /// Reference of guard's connection string.
    pub guard_url: Option<&'a str>,
    /// The directory, and seconds between restore points.
    pub directory: Option<(&'a str, u64)>,
    /// Whether commits wait.
    pub synchronous: bool,
    /// The vault keeps a mirror of it.
    pub mirror: bool,
    /// Where the vault must have a position before the source is told so.
    pub ack: AckAt,
    /// What providers call its carriers.
    pub resources: &'a [String],
    /// What drills ask.
    pub assertions: &'a [String],
}

/// Returns the block as text.
pub fn write(block: &Block<'_>) -> String {
    let string = |text: &str| Value::String(text.to_owned()).to_string();
    let list = |texts: &[String]| {
        let texts: Vec<String> = texts.iter().map(|text| string(text)).collect();
        format!("[{}]", texts.join(", "))
    };
    let mut text = format!("\n[[source]]\nname = {}\n", string(block.name));
    text.push_str(&format!("environment = {}\n", string(block.environment)));
    if let Some(url) = block.vault_url {
        text.push_str(&format!("vault_url = {}\n", string(url)));
    }
    if let Some(url) = block.guard_url {
        text.push_str(&format!("guard_url = {}\n", string(url)));
    }
    if let Some((directory, every_s)) = block.directory {
        text.push_str(&format!("directory = {}\n", string(directory)));
        text.push_str(&format!("every_s = {every_s}\n"));
    }
    if block.synchronous {
        text.push_str("synchronous = true\n");
    }
    if block.mirror {
        text.push_str("mirror = true\n");
    }
    if block.ack != AckAt::Spool {
        text.push_str(&format!("ack = {}\n", string(&block.ack.to_string())));
    }
    if !block.resources.is_empty() {
        text.push_str(&format!("resources = {}\n", list(block.resources)));
    }
    if !block.assertions.is_empty() {
        text.push_str(&format!("assertions = {}\n", list(block.assertions)));
    }
    text
}

/// Appends a block and returns the configuration as it is then.
///
/// # Errors
/// When the result would not be valid; the file is then unchanged.
pub fn append(config: &Config, block: &str) -> Result<Config, Failure> {
    let mut text = read(config)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(block);
    let changed = Config::parse(&text, &config.file, &config.base)?;
    replace(config, &text)?;
    Ok(Config {
        state_dir: config.state_dir.clone(),
        ..changed
    })
}

/// Cuts the block of a source out.
///
/// # Errors
/// When it cannot be told where the block is; the file is then unchanged.
pub fn cut(config: &Config, name: &SourceName) -> Result<(), Failure> {
    let text = read(config)?;
    let unclear = || {
        Failure::new(
            Code::ZU608,
            format!(
                "the block of `{name}` cannot be told from its surroundings; nothing was changed"
            ),
            format!("take it out of `{}` by hand", config.file.display()),
        )
    };
    let rest = without(&text, name.as_str()).ok_or_else(unclear)?;
    let after = Config::parse(&rest, &config.file, &config.base)?;
    let kept = |config: &Config| -> Vec<SourceName> {
        let names = config.sources.iter().map(|source| source.name.clone());
        names.filter(|other| other != name).collect()
    };
    let names: Vec<SourceName> = after.sources.iter().map(|s| s.name.clone()).collect();
    if names != kept(config) {
        return Err(unclear());
    }
    replace(config, &rest)
}

/// Returns the text without the one block whose `name` is this.
fn without(text: &str, name: &str) -> Option<String> {
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            blocks.push(Vec::new());
        }
        blocks.last_mut()?.push(line);
    }
    let is_it = |block: &Vec<&str>| {
        let first = block.first().map(|line| line.trim()) == Some("[[source]]");
        let value: Option<toml::Table> = toml::from_str(&block.concat()).ok();
        let named = value.and_then(|value| {
            let source = value.get("source")?.as_array()?.first()?.get("name")?;
            Some(source.as_str()? == name)
        });
        first && named == Some(true)
    };
    let found = blocks.iter().filter(|block| is_it(block)).count();
    if found != 1 {
        return None;
    }
    blocks.retain(|block| !is_it(block));
    Some(blocks.concat().concat())
}

fn read(config: &Config) -> Result<String, Failure> {
    std::fs::read_to_string(&config.file)
        .map_err(|error| system(&format!("read `{}`", config.file.display()), &error))
}

/// Puts the new text in place in one step, durably.
fn replace(config: &Config, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let mut failure = system(&format!("write `{}`", config.file.display()), &error);
        failure.code = Code::ZU608;
        failure
    };
    let mut file = tempfile::Builder::new()
        .prefix(".holdfast-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(&config.base)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&config.file)
        .map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_is_cut_and_comments_stay() {
        let text = "# top\nstate_dir = \"s\"\n\n[[source]]\nname = \"a\"\nassertions = [\"select '[x]'\"]\n# of a\n[[source]]\nname = \"b\" # kept\n[vault]\n";
        let rest = without(text, "a").unwrap();
        assert_eq!(
            rest,
            "# top\nstate_dir = \"s\"\n\n[[source]]\nname = \"b\" # kept\n[vault]\n"
        );
        assert_eq!(without(text, "c"), None);
    }

    #[test]
    fn a_block_is_read_back_whatever_stands_in_it() {
        let assertions = vec!["select count(*) > 0 from \"Order\" -- \\ '\n".to_owned()];
        let text = write(&Block {
            name: "prod",
            environment: "pro\"duction",
            vault_url: Some("env:V"),
            guard_url: None,
            directory: None,
            ack: AckAt::Repository,
            synchronous: true,
            mirror: true,
            resources: &["railway:volume:1".to_owned()],
            assertions: &assertions,
        });
        let config = Config::parse(&text, "f".as_ref(), "/".as_ref()).unwrap();
        let source = config.source("prod").unwrap();
        assert_eq!(source.environment, "pro\"duction");
        assert_eq!(source.assertions, assertions);
        assert!(source.synchronous);
        assert_eq!(source.mirror, Some(true));
    }
}
