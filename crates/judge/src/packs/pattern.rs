//! Patterns over the arguments of an operation: `/patch/**/volumes/{id}/isDeleted`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A place, or many, in a JSON value. Keys are compared without regard to case, and a string that
/// holds a JSON object or array is looked into: a provider may read either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any number of keys and indices.
    AnyDepth,
    /// One key or index, with a name to take it by.
    Capture(String),
    /// This key.
    Key(String),
    /// One key or index.
    One,
}

/// A place that fits a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found<'a> {
    /// The value there.
    pub value: std::borrow::Cow<'a, Value>,
    /// The keys that were captured.
    pub captured: BTreeMap<String, String>,
    /// The keys that lead there, joined; tells two places apart.
    pub place: String,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("`{text}` does not begin with `/`"));
        };
        let part = |part: &str| match part {
            "" => Err(format!("`{text}` has an empty part")),
            "*" => Ok(Part::One),
            "**" => Ok(Part::AnyDepth),
            key => match key.strip_prefix('{').and_then(|key| key.strip_suffix('}')) {
                Some(name) if !name.is_empty() => Ok(Part::Capture(name.to_owned())),
                _ if key.contains(['{', '}', '*']) => {
                    Err(format!("`{text}`: `{key}` has no meaning"))
                }
                _ => Ok(Part::Key(key.to_owned())),
            },
        };
        let parts = rest.split('/').map(part).collect::<Result<Vec<_>, _>>()?;
        if parts.last() == Some(&Part::AnyDepth) {
            return Err(format!("`{text}` ends in `**`"));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    pub(super) fn captures(&self, name: &str) -> bool {
        self.parts.contains(&Part::Capture(name.to_owned()))
    }

    /// Returns all places that fit, in the order of the keys.
    pub(super) fn find<'a>(&self, value: &'a Value) -> Vec<Found<'a>> {
        let mut found = Vec::new();
        walk(
            &self.parts,
            Found {
                value: std::borrow::Cow::Borrowed(value),
                captured: BTreeMap::new(),
                place: String::new(),
            },
            &mut found,
        );
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|one| seen.insert(one.place.clone()));
        found
    }

    /// Returns the strings and numbers that stand at the places that fit, lists taken apart.
    pub(super) fn names(&self, value: &Value) -> Vec<String> {
        let mut names = Vec::new();
        for found in self.find(value) {
            match found.value.as_ref() {
                Value::Array(values) => names.extend(values.iter().filter_map(name)),
                one => names.extend(name(one)),
            }
        }
        names
    }

    /// Returns the places of everything in a value that is not an object with fields or a list with items.
    pub(super) fn leaves(value: &Value) -> Vec<String> {
        let (mut waiting, mut leaves) = (
            vec![Found {
                value: std::borrow::Cow::Borrowed(value),
                captured: BTreeMap::new(),
                place: String::new(),
            }],
            Vec::new(),
        );
        while let Some(here) = waiting.pop() {
            let below = children(&here);
            if below.is_empty() {
                leaves.push(here.place.clone());
            }
            waiting.extend(below.into_iter().map(|(key, value)| Found {
                value,
                captured: BTreeMap::new(),
                place: format!("{}/{key}", here.place),
            }));
        }
        leaves
    }

    /// Puts the names of captures in, so that the pattern leads to one place only.
    pub(super) fn at(&self, captured: &BTreeMap<String, String>) -> Self {
        let put = |part: &Part| match part {
            Part::Capture(name) => match captured.get(name) {
                Some(key) => Part::Key(key.clone()),
                None => Part::One,
            },
            other => other.clone(),
        };
        Self {
            text: self.text.clone(),
            parts: self.parts.iter().map(put).collect(),
        }
    }
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn walk<'a>(parts: &[Part], here: Found<'a>, out: &mut Vec<Found<'a>>) {
    let Some((part, rest)) = parts.split_first() else {
        out.push(here);
        return;
    };
    if *part == Part::AnyDepth {
        walk(rest, here.clone(), out);
    }
    for (key, below) in children(&here) {
        let fits = match part {
            Part::Key(wanted) => wanted.eq_ignore_ascii_case(&key),
            Part::AnyDepth | Part::Capture(_) | Part::One => true,
        };
        if !fits {
            continue;
        }
        let mut next = Found {
            value: below,
            captured: here.captured.clone(),
            place: format!("{}/{key}", here.place),
        };
        match part {
            Part::AnyDepth => walk(parts, next, out),
            Part::Capture(name) => {
                next.captured.insert(name.clone(), key);
                walk(rest, next, out);
            }
            Part::Key(_) | Part::One => walk(rest, next, out),
        }
    }
}

fn children<'a>(here: &Found<'a>) -> Vec<(String, std::borrow::Cow<'a, Value>)> {
    use std::borrow::Cow;
    match &here.value {
        Cow::Borrowed(Value::Object(fields)) => {
            let pair = |(key, value): (&String, &'a Value)| (key.clone(), Cow::Borrowed(value));
            fields.iter().map(pair).collect()
        }
        Cow::Borrowed(Value::Array(values)) => {
            let pair =
                |(index, value): (usize, &'a Value)| (index.to_string(), Cow::Borrowed(value));
            values.iter().enumerate().map(pair).collect()
        }
        Cow::Borrowed(Value::String(text)) => inside(text),
        Cow::Owned(owned) => match owned {
            Value::Object(fields) => {
                let pair =
                    |(key, value): (&String, &Value)| (key.clone(), Cow::Owned(value.clone()));
                fields.iter().map(pair).collect()
            }
            Value::Array(values) => {
                let pair = |(index, value): (usize, &Value)| {
                    (index.to_string(), Cow::Owned(value.clone()))
                };
                values.iter().enumerate().map(pair).collect()
            }
            Value::String(text) => inside(text),
            _ => Vec::new(),
        },
        Cow::Borrowed(_) => Vec::new(),
    }
}

/// Looks into a string that holds JSON.
fn inside<'a>(text: &str) -> Vec<(String, std::borrow::Cow<'a, Value>)> {
    if !text.trim_start().starts_with(['{', '[']) {
        return Vec::new();
    }
    let owned = |key: String, value: Value| (key, std::borrow::Cow::Owned(value));
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(k, v)| owned(k, v)).collect(),
        Ok(Value::Array(values)) => {
            let values = values.into_iter().enumerate();
            values
                .map(|(index, v)| owned(index.to_string(), v))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(pattern: &str, value: &Value) -> Vec<(String, Option<String>)> {
        let found = Pattern::parse(pattern).unwrap().find(value);
        let short = |one: Found<'_>| (one.place, one.captured.get("id").cloned());
        found.into_iter().map(short).collect()
    }

    #[test]
    fn places_are_found_at_any_depth_and_inside_strings() {
        let value = json!({ "patch": { "volumes": { "v1": { "isDeleted": true }, "v2": {} },
            "groups": [{ "Volumes": { "v3": { "ISDELETED": null } } }] } });
        let places = find("/patch/**/volumes/{id}/isDeleted", &value);
        let ids: Vec<&str> = places.iter().filter_map(|(_, id)| id.as_deref()).collect();
        assert_eq!(ids, ["v1", "v3"]);
        assert_eq!(places[1].0, "/patch/groups/0/Volumes/v3/ISDELETED");
        let text = json!({ "patch": r#"{"volumes":{"v":{"isDeleted":true}}}"# });
        assert_eq!(find("/patch/**/volumes/{id}/isDeleted", &text).len(), 1);
        assert!(find("/patch/volumes/isDeleted", &value).is_empty());
    }

    #[test]
    fn a_pattern_without_meaning_is_refused() {
        for text in ["", "a", "/", "/a//b", "/a/**", "/a*/b", "/{}/a"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
