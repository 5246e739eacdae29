//! The parts that a bench is made of: named, chosen, run one after the other.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// One part and its name; `S` is what it measures on.
pub type Part<S> = (&'static str, fn(&S) -> Result<Value>);

/// Refuses names that no part has.
pub fn check<S>(parts: &[Part<S>], only: &[String]) -> Result<()> {
    for name in only {
        if !parts.iter().any(|(part, _)| part == name) {
            let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
            bail!(
                "there is no part `{name}`; the parts are {}",
                names.join(", ")
            );
        }
    }
    Ok(())
}

/// Runs those that were chosen, or all, in their order, and keeps what each has found.
pub fn run<S>(
    parts: &[Part<S>],
    only: &[String],
    scene: &S,
    found: &mut Map<String, Value>,
) -> Result<()> {
    for (name, part) in parts {
        if only.is_empty() || only.iter().any(|only| only == name) {
            found.insert((*name).to_owned(), part(scene)?);
        }
    }
    Ok(())
}

/// Prints a text for people; with `--json` it goes to stderr, and nothing but the JSON to stdout.
pub fn say(is_json: Json, text: &str) {
    match is_json {
        Json::Yes => eprintln!("{text}"),
        Json::No => println!("{text}"),
    }
}

/// Whether JSON was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Json {
    /// Text for people.
    No,
    /// JSON on stdout.
    Yes,
}

impl From<bool> for Json {
    fn from(wanted: bool) -> Self {
        if wanted { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: &[Part<u32>] = &[
        ("one", |scene| Ok((scene + 1).into())),
        ("two", |scene| Ok((scene + 2).into())),
    ];

    #[test]
    fn only_chosen_parts_run_and_an_unknown_one_is_refused() {
        let run = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            let mut found = Map::new();
            check(PARTS, &only).and_then(|()| run(PARTS, &only, &40, &mut found))?;
            anyhow::Ok(Value::Object(found).to_string())
        };
        assert_eq!(run(&[]).unwrap(), r#"{"one":41,"two":42}"#);
        assert_eq!(run(&["two"]).unwrap(), r#"{"two":42}"#);
        let refused = run(&["three"]).unwrap_err().to_string();
        assert_eq!(refused, "there is no part `three`; the parts are one, two");
    }
}
