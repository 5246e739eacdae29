//! Where bytes and records rest.
//!
//! The ledger's file, the small state of guard (leases, holds, custody), the keys, the envelopes, and the
//! objects of the vault's repository. Nothing here decides anything.
//!
//! # Architecture invariants
//! - **I3 no delete.** What writers are given cannot remove and cannot overwrite.
//! - **I7 written first.** [`ledger::Ledger::append`] returns after the entry is durable.

pub mod durable;
pub mod envelope;
pub mod key;
pub mod keyring;
pub mod ledger;
pub mod limits;
pub mod object;
pub mod record;
