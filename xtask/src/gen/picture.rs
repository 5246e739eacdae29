//! The picture of the replay's result, from the JSON that `holdfast replay pocketos --json` wrote.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Output;
use crate::tree::Tree;

/// Makes `docs/img/replay-pocketos.svg`.
pub fn of_replay(tree: &Tree) -> Result<Option<Output>> {
    let Some(source) = tree.file(SOURCE) else {
        return Ok(None);
    };
    let replay: Replay =
        serde_json::from_str(&source.text).with_context(|| format!("read {SOURCE}"))?;
    Ok(Some(Output {
        path: "docs/img/replay-pocketos.svg",
        text: draw(&replay)?,
    }))
}

/// What a replay returns.
#[derive(Deserialize)]
struct Replay {
    replay: String,
    acts: Vec<Act>,
}

#[derive(Deserialize)]
struct Act {
    act: String,
    acknowledged: u64,
    present: u64,
    lost: u64,
    gone_after_s: Option<f64>,
    stopped_by: Option<String>,
    serving_again_after_s: Option<f64>,
    recovery: Option<Recovery>,
}

#[derive(Deserialize)]
struct Recovery {
    by: String,
    took_s: f64,
}

fn draw(replay: &Replay) -> Result<String> {
    let rows = u32::try_from(replay.acts.len().max(1)).context("count the acts")?;
    let height = TOP + LINE * (rows + 1) + MARGIN;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
        escape(&label(replay))
    )?;
    writeln!(svg, "<style>{STYLE}</style>")?;
    writeln!(
        svg,
        "<rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#16181d\"/>"
    )?;
    let command = format!("$ holdfast replay {}", replay.replay);
    text(&mut svg, &left("command", MARGIN), 34, "prompt", &command)?;
    if replay.acts.is_empty() {
        // A table without rows would look like a result.
        text(&mut svg, &left("", MARGIN), TOP, "head", NOT_PLAYED)?;
        svg.push_str("</svg>\n");
        return Ok(svg);
    }
    for column in COLUMNS {
        text(&mut svg, &column, TOP, "head", column.title)?;
    }
    for (number, act) in (1..).zip(&replay.acts) {
        row(&mut svg, TOP + LINE * number, act)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn row(svg: &mut String, y: u32, act: &Act) -> Result<()> {
    let state = match (act.acknowledged, act.lost) {
        // Where nothing was booked, nothing was shown to be kept.
        (0, 0) => "cell",
        (_, 0) => "kept",
        (_, _) => "lost",
    };
    let cells = [
        (act.act.clone(), "cell"),
        (act.acknowledged.to_string(), "cell"),
        (act.present.to_string(), "cell"),
        (act.lost.to_string(), state),
        (seconds(act.gone_after_s), "cell"),
        (seconds(act.serving_again_after_s), "cell"),
        (stopped_by(act), state),
    ];
    for (column, (value, class)) in COLUMNS.iter().zip(cells) {
        text(svg, column, y, class, &value)?;
    }
    Ok(())
}

/// Says what stopped it, or that it was not stopped and how that ended.
fn stopped_by(act: &Act) -> String {
    match (&act.stopped_by, &act.recovery) {
        (Some(what), _) => what.clone(),
        (None, Some(recovery)) if act.lost == 0 => {
            let way = match recovery.by.as_str() {
                "mirror" => "its mirror",
                _ => "a restore",
            };
            format!("nothing; {way} brought it back in {:.1} s", recovery.took_s)
        }
        (None, None) if act.lost == 0 && act.gone_after_s.is_some() => {
            "nothing; the vault brought it back".to_owned()
        }
        (None, _) => "nothing".to_owned(),
    }
}

fn text(svg: &mut String, column: &Column, y: u32, class: &str, value: &str) -> Result<()> {
    let Column { x, anchor, .. } = column;
    let short: String = match value.chars().count() > LIMIT_CELL {
        true => value.chars().take(LIMIT_CELL - 1).chain(['…']).collect(),
        false => value.to_owned(),
    };
    writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        escape(&short)
    )?;
    Ok(())
}

/// What a screen reader says.
fn label(replay: &Replay) -> String {
    if replay.acts.is_empty() {
        return format!("Replay {}: {NOT_PLAYED}", replay.replay);
    }
    let acts: Vec<String> = replay
        .acts
        .iter()
        .map(|act| {
            format!(
                "{}: {} of {} bookings present",
                act.act, act.present, act.acknowledged
            )
        })
        .collect();
    format!("Replay {}. {}", replay.replay, acts.join("; "))
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} s"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

struct Column {
    title: &'static str,
    x: u32,
    anchor: &'static str,
}

const fn left(title: &'static str, x: u32) -> Column {
    let anchor = "start";
    Column { title, x, anchor }
}

const fn right(title: &'static str, x: u32) -> Column {
    let anchor = "end";
    Column { title, x, anchor }
}

const COLUMNS: [Column; 7] = [
    left("act", MARGIN),
    right("acknowledged", 250),
    right("present", 340),
    right("lost", 410),
    right("gone after", 515),
    right("serving again", 645),
    left("stopped by", 675),
];

const NOT_PLAYED: &str = "not played yet: there is no result to show";
const SOURCE: &str = "docs/img/replay-pocketos.json";
const WIDTH: u32 = 1120;
const MARGIN: u32 = 24;
const TOP: u32 = 72;
const LINE: u32 = 28;
/// Characters of one cell that are shown.
const LIMIT_CELL: usize = 52;
const STYLE: &str = "text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d7dae0}\
    .prompt{fill:#8b93a1}.head{fill:#8b93a1}.lost{fill:#ff7b72}.kept{fill:#7ee787}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted;

    const JSON: &str = r#"{"replay":"pocketos","acts":[
        {"act":"unprotected","acknowledged":1204,"present":0,"lost":1204,"gone_after_s":9.04,"stopped_by":null,"serving_again_after_s":null},
        {"act":"doors","acknowledged":900,"present":900,"lost":0,"gone_after_s":null,"stopped_by":"held <volumeDelete>","serving_again_after_s":0}
    ]}"#;

    #[test]
    fn the_picture_shows_each_act_and_escapes_text() {
        let svg = of_replay(&planted(&[(SOURCE, JSON)]))
            .unwrap()
            .unwrap()
            .text;
        for part in [
            "1204",
            "9.0 s",
            "held &lt;volumeDelete&gt;",
            "class=\"lost\"",
            "class=\"kept\"",
            "nothing",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(svg.contains("unprotected: 0 of 1204 bookings present"));
    }

    #[test]
    fn what_was_not_played_does_not_look_like_a_result() {
        let draw = |json: &str| {
            of_replay(&planted(&[(SOURCE, json)]))
                .unwrap()
                .unwrap()
                .text
        };
        let svg = draw(r#"{"replay":"pocketos","acts":[]}"#);
        assert!(
            svg.contains(NOT_PLAYED) && !svg.contains("acknowledged"),
            "{svg}"
        );
        let nothing =
            r#"{"replay":"pocketos","acts":[{"act":"all","acknowledged":0,"present":0,"lost":0}]}"#;
        assert!(!draw(nothing).contains("class=\"kept\""));
    }

    #[test]
    fn a_result_of_another_shape_is_refused() {
        assert!(of_replay(&planted(&[(SOURCE, "{\"acts\":[]}")])).is_err());
    }
}
