//! What was promised beside what was measured.

use serde::Serialize;

use crate::table::Table;

/// Which side of a bar is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// At least so much.
    AtLeast,
    /// Less than that.
    Below,
}

/// One promise and its figure.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub measured: f64,
    /// The promise.
    pub bar: f64,
    /// Which side of it is good.
    pub side: Side,
    /// What a peer needed for the same, in the same unit.
    pub peer: Option<f64>,
}

impl Bar {
    /// Whether the promise is kept.
    pub fn is_kept(&self) -> bool {
        match self.side {
            Side::AtLeast => self.measured >= self.bar,
            Side::Below => self.measured < self.bar,
        }
    }
}

/// All of them, in the order in which they were measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bars(pub Vec<Bar>);

impl Bars {
    /// The table at the end.
    pub fn text(&self) -> String {
        let mut table = Table::new(&["what", "measured", "bar", "", "peer", "of peer"]);
        for one in &self.0 {
            let side = match one.side {
                Side::AtLeast => ">=",
                Side::Below => "<",
            };
            let peer = |text: fn(f64, f64) -> String| {
                one.peer
                    .map_or_else(String::new, |peer| text(one.measured, peer))
            };
            table.row(vec![
                one.what.clone(),
                format!("{:.2}", one.measured),
                format!("{side} {}", one.bar),
                if one.is_kept() { "kept" } else { "MISSED" }.to_owned(),
                peer(|_, peer| format!("{peer:.2}")),
                peer(|measured, peer| format!("{:.2}", measured / peer)),
            ]);
        }
        table.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_only_reached_is_kept_or_missed_as_its_side_says() {
        let bar = |side, measured| Bar {
            what: String::new(),
            measured,
            bar: 9.0,
            side,
            peer: None,
        };
        assert!(bar(Side::AtLeast, 9.0).is_kept() && !bar(Side::Below, 9.0).is_kept());
        assert!(!bar(Side::AtLeast, 8.9).is_kept() && bar(Side::Below, 8.9).is_kept());
        let text = Bars(vec![bar(Side::Below, 10.0)]).text();
        assert!(text.contains("MISSED"), "{text}");
    }
}
