//! As much XML as an object storage speaks: elements and text, bounded, without declarations.

use std::borrow::Cow;

/// The deepest nesting that is read.
const LIMIT_DEPTH: usize = 8;

/// An element with its text and what is inside of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without a prefix.
    pub name: String,
    /// Its own text.
    pub text: String,
    /// The elements inside, in order.
    pub inside: Vec<Self>,
}

impl Element {
    /// Reads a document; `None` when it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = std::str::from_utf8(bytes)
            .ok()?
            .trim_start_matches('\u{feff}');
        let mut open: Vec<Self> = Vec::new();
        loop {
            let (text, tag, after) = next(rest)?;
            rest = after;
            if let Some(element) = open.last_mut() {
                element.text.push_str(&unescape(text)?);
            } else if !text.trim().is_empty() {
                return None;
            }
            if tag.starts_with('?') {
                continue;
            }
            // Comments, CDATA and declarations have no business here.
            if tag.starts_with('!') {
                return None;
            }
            let closed = if let Some(name) = tag.strip_prefix('/') {
                let element = open.pop()?;
                (local(name) == element.name).then_some(element)?
            } else {
                let element = Self {
                    name: local(tag.trim_end_matches('/')).to_owned(),
                    ..Self::default()
                };
                if !tag.ends_with('/') {
                    if open.len() >= LIMIT_DEPTH {
                        return None;
                    }
                    open.push(element);
                    continue;
                }
                element
            };
            match open.last_mut() {
                Some(parent) => parent.inside.push(closed),
                None => return rest.trim().is_empty().then_some(closed),
            }
        }
    }

    /// Returns the text of the first element of that name inside; empty when there is none.
    pub fn text_of(&self, name: &str) -> &str {
        let found = self.inside.iter().find(|element| element.name == name);
        found.map_or("", |element| element.text.trim())
    }
}

/// Returns the text before the next tag, the tag without its brackets, and what follows.
fn next(rest: &str) -> Option<(&str, &str, &str)> {
    let (text, rest) = rest.split_once('<')?;
    let (tag, rest) = rest.split_once('>')?;
    Some((text, tag, rest))
}

/// The name in a tag: without attributes, without a prefix.
fn local(tag: &str) -> &str {
    let name = tag.split_whitespace().next().unwrap_or_default();
    name.rsplit(':').next().unwrap_or_default()
}

fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('&') {
        return Some(Cow::Borrowed(text));
    }
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';')?;
        let character = match entity {
            "amp" => '&',
            "apos" => '\'',
            "gt" => '>',
            "lt" => '<',
            "quot" => '"',
            number => {
                let digits = number.strip_prefix('#')?;
                let code = match digits.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => digits.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        };
        plain.push(character);
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text = "<?xml version=\"1.0\"?>\n<E xmlns=\"http://x/\"><Code>A&amp;B&#x41;</Code>\
                    <V><Key>k</Key></V><D/></E>\n";
        let read = Element::read(text.as_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.text_of("Code")), ("E", "A&BA"));
        let names: Vec<&str> = read.inside.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["Code", "V", "D"]);
        assert_eq!(read.inside[1].text_of("Key"), "k");
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        let deep = format!("{}{}", "<a>".repeat(9), "</a>".repeat(9));
        for text in [
            "",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "text",
            "<a>&unknown;</a>",
            "<a>&amp</a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a><![CDATA[x]]></a>",
            "<a",
            &deep,
        ] {
            assert_eq!(Element::read(text.as_bytes()), None, "{text}");
        }
    }
}
