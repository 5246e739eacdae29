//! Why a restore point cannot be built on the one before.

use holdfast_core::{Code, Coded, Lsn};
use holdfast_wire::pg::control::ControlError;
use holdfast_wire::pg::wal::{Everything, Relation, WalError};

/// Why a restore point cannot be built on the one before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncrementalError {
    /// Checksums of pages were turned on or off with the server stopped, which the log does not say.
    #[error("pages of the source had {before} before and have {now} now")]
    Checksums {
        /// What the newest restore point says.
        before: &'static str,
        /// What the source says.
        now: &'static str,
    },
    /// A block was changed and the log does not say so.
    #[error(
        "block {block} of relation {}/{}/{} was changed at {lsn}, and the log does not say so",
        relation.tablespace, relation.database, relation.file
    )]
    Contradiction {
        /// Whose block.
        relation: Relation,
        /// Which block.
        block: u32,
        /// The position that the block states.
        lsn: Lsn,
    },
    /// The control file is never whole.
    #[error("the source's control file cannot be read whole")]
    Control {
        /// What is wrong with it.
        source: ControlError,
    },
    /// More changed than is told apart, or the log left something out.
    #[error("{}", everything(.0))]
    Everything(Everything),
    /// A part of the log is not kept.
    #[error("the log is not kept from {at} on")]
    Missing {
        /// The first position that is missing.
        at: Lsn,
    },
    /// The newest restore point is not on the line that the source is on now.
    #[error("timeline {timeline} does not continue the newest restore point, which is on {parent}")]
    OtherLine {
        /// The timeline of the newest restore point.
        parent: u32,
        /// The timeline of the source.
        timeline: u32,
    },
    /// The source is shaped in a way that is not known.
    #[error("the source has blocks of {block} bytes")]
    Shape {
        /// The bytes of a block.
        block: u64,
    },
    /// The log is there and makes no sense.
    #[error("the log from {at} on is not readable")]
    Unreadable {
        /// Where the part begins.
        at: Lsn,
        /// What is wrong.
        source: WalError,
    },
}

fn everything(why: &Everything) -> &'static str {
    match why {
        Everything::MinimalLog => "the source wrote a minimal log for a while",
        Everything::TooMany => "more relations were changed than are told apart",
    }
}

impl Coded for IncrementalError {
    fn code(&self) -> Code {
        match self {
            Self::Contradiction { .. } => Code::ZI320,
            Self::Control { .. } | Self::Missing { .. } | Self::Unreadable { .. } => Code::ZI321,
            Self::Checksums { .. }
            | Self::Everything(_)
            | Self::OtherLine { .. }
            | Self::Shape { .. } => Code::ZS320,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Contradiction { .. } => "the vault takes a full base backup by itself; something writes to the source past its log, or this is a bug: keep the ledger and report it".to_owned(),
            Self::Control { .. } | Self::Missing { .. } | Self::Unreadable { .. } => "the vault takes a full base backup by itself; older restore points are as they were".to_owned(),
            Self::Checksums { .. }
            | Self::Everything(_)
            | Self::OtherLine { .. }
            | Self::Shape { .. } => "nothing is to be done: the vault takes a full base backup by itself".to_owned(),
        })
    }
}
