//! The agents' only doors to production.
//!
//! Bytes come in at a door, are judged by their effect, and go on only with a permit. Everything
//! that every door shares stands here: leases (who may ask), the gatekeeper (the one path from an
//! action to a permit), holds and approvals, the freeze.
//!
//! # Architecture invariants
//! - **I1 way back.** Only [`decide::Gatekeeper`] makes permits; doors forward only with one.
//! - **I4 no secrets.** An agent sees lease tokens; the records hold their hashes.
//! - **I5 fail closed.** Any doubt (policy, ledger, state file, vault) refuses.
//! - **I7 written first.** The ledger entry is durable before a permit leaves [`decide::Gatekeeper`].

pub mod clock;
pub mod custody;
pub mod decide;
pub mod door;
pub mod hold;
pub mod lease;
pub mod limits;
pub mod rehearsal;
pub mod scan;
