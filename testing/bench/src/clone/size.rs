//! How large a source is, as people write it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// A size of a source in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Size(pub u64);

impl Size {
    /// What is measured when nobody says.
    pub const USUAL: [Self; 3] = [Self(2 * GB), Self(10 * GB), Self(100 * GB)];
    /// The same for a look whether all works.
    pub const QUICK: [Self; 1] = [Self(50 * MB)];

    /// Whether most of it is a relation of empty pages, because so much would not fit the disk.
    pub fn is_sparse(self) -> bool {
        self.0 > DENSE_MAX
    }

    /// Bytes of it that are written.
    pub fn dense(self) -> u64 {
        if self.is_sparse() {
            SPARSE_DENSE
        } else {
            self.0
        }
    }

    /// The written bytes in gigabytes.
    pub fn dense_gigabytes(self) -> f64 {
        crate::machine::as_f64(self.dense()) / crate::machine::as_f64(GB)
    }
}

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..).unwrap_or_default() {
            "G" | "GB" => GB,
            "M" | "MB" => MB,
            _ => bail!("`{text}` is no size: write 50M or 10G"),
        };
        let number: u64 = digits.parse()?;
        let bytes = number.saturating_mul(unit);
        ensure!(
            (20 * MB..=1000 * GB).contains(&bytes),
            "sizes are from 20M to 1000G"
        );
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_multiple_of(GB) {
            true => write!(f, "{}G", self.0 / GB),
            false => write!(f, "{}M", self.0 / MB),
        }
    }
}

const MB: u64 = 1_000_000;
const GB: u64 = 1_000_000_000;
/// Above this a source is mostly empty pages.
const DENSE_MAX: u64 = 20 * GB;
/// What is written of such a source.
const SPARSE_DENSE: u64 = 2 * GB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written_and_others_are_refused() {
        for text in ["50M", "2G", "10G", "100G"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert!("100G".parse::<Size>().unwrap().is_sparse());
        assert!(!"10G".parse::<Size>().unwrap().is_sparse());
        for text in ["", "G", "2", "2T", "1M", "99999G", "-2G", "2 G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
