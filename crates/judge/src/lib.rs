//! The decision: from what is asked to what it would do, and from that to a verdict.
//!
//! [`sql`] says what a text of SQL openly does, by the grammar of PostgreSQL itself.
//! [`policy`] says what is to be done about it, by Cedar text that people can read and edit.
//! This room never does I/O, never reads a clock and never draws randomness.
//!
//! # Architecture invariants
//! - **I5 fail closed.** What cannot be parsed is `unknown`; what is not listed is `unknown`; a policy
//!   that errs denies.
//! - **Never less than it does.** The judge may call a harmless thing dangerous; it may leave to the
//!   evidence of execution (`static_only`) only what can write within a transaction and be rolled back.

pub mod http;
pub mod line;
pub mod packs;
pub mod policy;
pub mod sql;
