//! How commands speak: data on stdout, everything else on stderr, errors with code and next step.

use std::io::{IsTerminal, Write};

use holdfast_core::{Code, Coded, ErrorChain};
use serde::Serialize;
use serde_json::Value;

/// How a command ends when it does not do what was asked.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// What happened and what did not.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl<E: Coded + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: error.code(),
            message: ErrorChain(&error).to_string(),
            hint: error.hint(),
        }
    }
}

impl Failure {
    /// Makes a failure of the binary itself.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

/// What every command returns.
pub type Done = Result<(), Failure>;

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Writes JSON when `json` is set, text otherwise.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Tells whether JSON is written.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Tells whether somebody watches stderr, so that progress may be drawn.
    pub fn draws(self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Writes one result: `value` as one line of JSON, or `text`.
    pub fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            write_line(&value.to_string());
        } else {
            write_line(text().trim_end_matches('\n'));
        }
    }

    /// Tells a person what goes on; not data.
    pub fn say(self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // A closed stderr must not stop the command.
        let _ = writeln!(stderr, "{text}");
    }

    /// Writes a failure and returns the exit status.
    pub fn failure(self, failure: &Failure) -> u8 {
        let mut stderr = std::io::stderr().lock();
        if self.json {
            let value = serde_json::json!({"error": {
                "code": failure.code, "message": failure.message, "hint": failure.hint,
            }});
            let _ = writeln!(stderr, "{value}");
        } else {
            let _ = writeln!(stderr, "error[{}]: {}", failure.code, failure.message);
            if let Some(hint) = &failure.hint {
                let _ = writeln!(stderr, "hint: {hint}");
            }
        }
        failure.code.exit_status()
    }
}

/// Writes one line of data; a closed pipe ends the command quietly, as for any filter.
fn write_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Lays rows out in columns, two blanks apart, without trailing blanks.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<String>| {
        let padded = cells
            .into_iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let mut line = padded.collect::<Vec<_>>().join("  ");
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let mut text = line(header.iter().map(|cell| (*cell).to_owned()).collect());
    for row in rows {
        text.push_str(&line(row.clone()));
    }
    text
}
