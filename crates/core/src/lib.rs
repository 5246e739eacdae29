//! The words, the invariant and the ledger's arithmetic.
//!
//! Everything that two rooms must agree on lives here: what an action is, what it would do, what the
//! answer was, what counts as a way back, and how the record of all that is hashed.
//! This room never does I/O, never reads a clock and never draws randomness: `now` and random bytes
//! are arguments.
//!
//! # Architecture invariants
//! - **I1 way back.** [`Permit`] has private fields and one constructor; its type demands a
//!   [`Covering`] (built from a [`Proof`]) for an irreversible action.
//! - **I6 people approve.** A [`VerifiedApproval`] is bound to the digests of one action and its
//!   evidence, and expires.
//! - **I7 written first.** The ledger's arithmetic ([`ledger`]) makes any change to a written entry
//!   visible.

mod action;
mod approval;
mod code;
mod digest;
mod effect;
mod error;
mod id;
pub mod ledger;
mod permit;
mod proof;
mod rehearsal;
mod secret;
mod text;
mod unit;
mod verdict;
mod way_back;

pub use action::{
    Action, DoorKind, Evidence, EvidenceItem, Principal, PrincipalKind, Resource, Tolerance,
};
pub use approval::{Approval, ApprovalError, ApprovalStatement, VerifiedApproval};
pub use code::{Class, Code};
pub use digest::{Digest, DigestBuilder};
pub use effect::{Effect, Effects, Impact};
pub use error::{Coded, ErrorChain};
pub use id::{ActionId, HoldId, IdError, LeaseId, PointId, SourceName};
pub use permit::{
    Irreversible, Judged, JudgedAction, Leave, Permit, PermitRefused, Reversibility, Reversible,
};
pub use proof::{
    Check, CheckOutcome, Covering, DRILL_FAILED, DRILL_PASSED, DrillDetails, DrillForm, DrillOf,
    DrillReport, LOSS_ACCEPTED, NotCovered, Proof, ProofError, ProvenPoint, REPORT_VERSION,
    Recorded, RecordedError, SignedProof, TableChange, recorded, rows_digest, rows_recorded,
};
pub use rehearsal::{
    BoundParameters, Confinement, LockTaken, NoRehearsal, ObjectChange, ObjectFate, Rehearsal,
    RehearsalFrame, RehearsalRequest, RehearsalState, RehearsalStep, Rehearse, StepFailed, StepRun,
    TableRows, Verbatim,
};
pub use secret::Secret;
pub use text::Untrusted;
pub use unit::{ByteCount, Lsn, RowCount, Timestamp, UnitError};
pub use verdict::{Reason, Verdict};
pub use way_back::{NoWayBack, WayBack, WayBackAnswer};
