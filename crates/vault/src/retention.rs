//! How long things are kept, what may go, and the one process that removes it.
//!
//! Everything that decides is pure: rules, clock, points, objects. What removes is given a plan that
//! was shown and recorded first, and looks at every object again before it goes.
//!
//! # Architecture invariants
//! - **I3 no delete.** Nothing that an unexpired point needs may be in a plan.
//! - A clock that jumped expires nothing: a plan is made from an [`AgreedTime`] and from nothing else.
//! - Time that passes only ever shrinks what is kept; no rule brings back what another let go.

pub mod clock;
mod error;
mod expiry;
mod inventory;
mod locks;
mod marks;
mod names;
pub mod objects;
mod plan;
pub mod points;
pub mod rules;
pub mod window;

#[cfg(test)]
mod tests;

pub use clock::{AgreedTime, ClockError, ClockFacts, ClockPair};
pub use error::ExpiryError;
pub use expiry::{ExpireReport, Expiry};
pub use locks::{LockKeeper, LockReport};
pub use marks::{Mark, MarkError, MarkKind, MarkRequest, mark, marks};
pub use objects::{Going, Kind, ObjectFacts, ObjectPlan, Staying, WalFacts, WhyGoes, WhyStays};
pub use plan::{Amount, ExpirePlan, PlannedPoint, SourcePlan};
pub use points::{Fate, PointFacts, PointFate};
pub use rules::{KeepRules, LogKeep, Span, SpanError};
pub use window::WindowError;
