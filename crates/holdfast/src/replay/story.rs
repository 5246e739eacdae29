//! The file of a replay: what the agent finds, what it does, what is destroyed by it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use super::trouble::Trouble;

/// The replays that come with holdfast, by name.
const SHIPPED: [(&str, &str); 2] = [
    ("pocketos", include_str!("../../replays/pocketos.toml")),
    (
        "drop-schema",
        include_str!("../../replays/drop-schema.toml"),
    ),
];

/// A replay, as its file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// The version of this format: 1.
    format: u32,
    /// Its name.
    pub name: String,
    /// One line about it.
    pub title: String,
    /// When and where it happened, with its sources.
    #[expect(dead_code, reason = "it is for people who read the file")]
    about: String,
    /// The state in which the provider is set up.
    pub scenario: String,
    /// What is destroyed.
    pub destruction: Destruction,
    /// Who does it.
    pub agent: Agent,
    /// What the agent finds in its workspace.
    #[serde(default, rename = "file")]
    pub files: Vec<WorkspaceFile>,
    /// What the agent does, in this order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
    /// How a refusal shows in what the destroying step prints.
    #[serde(default, rename = "refusal")]
    pub refusals: Vec<Refusal>,
}

/// What is destroyed, how that is seen, and where to go back to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destruction {
    /// In words.
    pub what: String,
    /// SQL that works as long as the data is there.
    pub probe: String,
    /// The moment that the vault goes back to.
    pub recover: RecoverTo,
}

/// The moment that the vault goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RecoverTo {
    /// Just before the destruction that the vault saw in the log.
    #[serde(rename = "before:destruction")]
    BeforeDestruction,
    /// The newest commit.
    #[serde(rename = "latest")]
    Latest,
}

/// The agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// What it was asked to do.
    pub purpose: String,
    /// What its lease lets it do in the database, as `holdfast lease issue --mode` takes it.
    #[serde(default = "data")]
    pub lease_mode: String,
    /// Shell text that stands before each step.
    #[serde(default)]
    pub prelude: String,
}

fn data() -> String {
    "data".to_owned()
}

/// A file of the workspace. `{{…}}` in its text is filled in from what the provider was set up with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceFile {
    /// Its path in the workspace.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// One thing that the agent does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// In words.
    pub say: String,
    /// Shell text, run by `sh` in the workspace.
    pub run: String,
    /// Whether this is what destroys.
    #[serde(default)]
    pub destroys: bool,
}

/// How a refusal shows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// A text in what the step prints.
    pub says: String,
    /// What that means, in words.
    pub means: String,
}

/// Returns the names of the replays that come with holdfast.
pub fn names() -> Vec<&'static str> {
    SHIPPED.iter().map(|(name, _)| *name).collect()
}

impl Story {
    /// Reads a shipped replay, or a file when the name is a path to a `.toml` file.
    ///
    /// # Errors
    /// [`Trouble::Unknown`] and [`Trouble::Invalid`].
    pub fn load(name: &str) -> Result<Self, Trouble> {
        if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        if !name.ends_with(".toml") {
            return Err(Trouble::Unknown(name.to_owned()));
        }
        let text = std::fs::read_to_string(name).map_err(|error| Trouble::Invalid {
            name: name.to_owned(),
            why: error.to_string(),
        })?;
        Self::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, Trouble> {
        let invalid = |why: String| Trouble::Invalid {
            name: name.to_owned(),
            why,
        };
        let story: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| {
                text.get(..span.start).unwrap_or_default().lines().count()
            });
            invalid(format!(
                "line {line}: {}",
                error.message().replace('\n', " ")
            ))
        })?;
        story.check().map_err(invalid)?;
        Ok(story)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!(
                "its format is {}, and only 1 is known",
                self.format
            ));
        }
        if self.steps.iter().filter(|step| step.destroys).count() != 1 {
            return Err("exactly one step has `destroys = true`".to_owned());
        }
        let mut paths = BTreeSet::new();
        for file in &self.files {
            let path = Path::new(&file.path);
            let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
            if !inside || file.path.is_empty() || !paths.insert(path) {
                return Err(format!(
                    "`{}` is no path inside the workspace, or it is there twice",
                    file.path
                ));
            }
        }
        Ok(())
    }
}

/// Fills `{{a.b}}` in with the value at `a`, `b` of `values`.
///
/// # Errors
/// The name that has no value.
pub fn fill(text: &str, values: &Value) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .ok_or_else(|| "a `{{` without `}}`".to_owned())?;
        let pointer = format!("/{}", name.trim().replace('.', "/"));
        let value = values.pointer(&pointer).and_then(Value::as_str);
        let value = value.ok_or_else(|| format!("nothing is known for `{{{{{name}}}}}`"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{Code, Coded};
    use serde_json::json;

    #[test]
    fn every_file_of_a_replay_is_shipped_under_its_name_and_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/replays");
        let files = std::fs::read_dir(folder).unwrap();
        let mut found: Vec<String> = files
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let mut shipped: Vec<String> = names().iter().map(|name| format!("{name}.toml")).collect();
        shipped.sort();
        assert_eq!(found, shipped);
        for name in names() {
            let story = Story::load(name).unwrap();
            assert_eq!(story.name, name);
            assert!(!story.refusals.is_empty() && !story.files.is_empty());
        }
    }

    #[test]
    fn a_file_that_is_not_a_replay_is_refused_with_its_reason() {
        let good = SHIPPED[0].1;
        let cases = [
            (good.replace("format = 1", "format = 2"), "only 1 is known"),
            (good.replace("destroys = true", ""), "exactly one step"),
            (
                good.replace("format = 1", "format = 1\ncolour = 3"),
                "unknown field",
            ),
            (
                good.replace("path = \"TASK.md\"", "path = \"../TASK.md\""),
                "no path inside",
            ),
            (
                good.replace("recover = \"latest\"", "recover = \"now\""),
                "line ",
            ),
        ];
        for (text, why) in cases {
            let error = Story::parse("x", &text).unwrap_err();
            assert_eq!(error.code(), Code::ZU703, "{why}");
            assert!(error.to_string().contains(why), "{why}: {error}");
        }
        assert_eq!(Story::load("no-such").unwrap_err().code(), Code::ZU701);
        assert_eq!(Story::load("no/such.toml").unwrap_err().code(), Code::ZU703);
    }

    #[test]
    fn a_text_is_filled_in_and_an_unknown_name_is_an_error() {
        let values = json!({"token": "t", "volumes": {"production": "v"}});
        let filled = fill("A={{token}} B={{ volumes.production }} {", &values).unwrap();
        assert_eq!(filled, "A=t B=v {");
        assert!(fill("{{volumes}}", &values).is_err());
        assert!(fill("{{other}}", &values).unwrap_err().contains("other"));
        assert!(fill("{{token", &values).is_err());
    }
}
