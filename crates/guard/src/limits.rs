//! Named limits of this room.

use std::time::Duration;

/// How long a hold waits for a human before it lapses.
pub const HOLD_WAITS_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long an approval may be spent after it was given.
pub const APPROVAL_LASTS: Duration = Duration::from_secs(15 * 60);

/// The longest lease.
pub const LEASE_LASTS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The window over which a lease's rows are summed.
pub const LEASE_ROWS_WINDOW: Duration = Duration::from_secs(3600);

/// The oldest proof that still is a way back, unless configured otherwise.
pub const PROOF_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Holds that one lease may have waiting; more are refused without a new hold.
pub const HOLDS_PER_LEASE_MAX: usize = 50;
