//! Samples, their medians, and tables of them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::meter::Used;

/// What one engine needed for one kind of work, once.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The kind of work.
    pub row: String,
    /// Whose.
    pub engine: String,
    /// What it took.
    #[serde(flatten)]
    pub used: Used,
    /// What it has stored because of it, in bytes.
    pub stored_bytes: u64,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Sums up numbers; of none, all are zero.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let last = sorted.len().saturating_sub(1);
        Self {
            median: (at(last / 2) + at(last.div_ceil(2))) / 2.0,
            min: at(0),
            max: at(last),
        }
    }

    /// As `2.31 (2.20-2.55)`, with two digits after the point.
    pub fn text(&self) -> String {
        format!("{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

/// A table in Markdown whose columns are as wide as they must be.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins with the names of the columns.
    pub fn new(columns: &[&str]) -> Self {
        let names = columns.iter().map(|name| (*name).to_owned()).collect();
        Self { rows: vec![names] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The whole table.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "| {cell:<width$} ");
            }
            text.push_str("|\n");
            if number == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// The samples of one row and engine.
pub fn of<'a>(
    samples: &'a [Sample],
    row: &'a str,
    engine: &'a str,
) -> impl Iterator<Item = &'a Sample> {
    samples
        .iter()
        .filter(move |sample| sample.row == row && sample.engine == engine)
}

/// The values of one column in order of their first appearance.
pub fn names<'a>(samples: &'a [Sample], name: impl Fn(&'a Sample) -> &'a str) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for sample in samples {
        if !found.contains(&name(sample)) {
            found.push(name(sample));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        check(&[3.0, 1.0, 2.0], [2.0, 1.0, 3.0]);
        check(&[4.0, 1.0, 2.0, 3.0], [2.5, 1.0, 4.0]);
        check(&[], [0.0, 0.0, 0.0]);
    }

    fn check(numbers: &[f64], [median, min, max]: [f64; 3]) {
        let found = Spread::of(numbers.iter().copied());
        assert_eq!(found, Spread { median, min, max });
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let mut table = Table::new(&["a", "bb"]);
        table.row(vec!["long".to_owned(), "x".to_owned()]);
        assert_eq!(
            table.text(),
            "| a    | bb |\n|------|----|\n| long | x  |\n"
        );
    }
}
