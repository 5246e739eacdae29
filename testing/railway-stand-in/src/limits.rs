//! Every limit and wait of the stand-in, by name.

use std::time::Duration;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Nesting of selections, fragments and values.
pub const DEPTH_MAX: usize = 64;

/// Tokens of one document.
pub const TOKENS_MAX: usize = 10_000;

/// Fields and spreads of one operation after its fragments are opened.
pub const FIELDS_MAX: usize = 2_000;

/// Operations in one batch.
pub const BATCH_MAX: usize = 10;

/// Nodes of one page when the caller does not say how many.
pub const PAGE_NODES: usize = 500;

/// How long a client may take for the handshake and for its request's head.
pub const HEAD: Duration = Duration::from_secs(10);

/// How long a client may take to send its body.
pub const BODY: Duration = Duration::from_secs(30);

/// How long stopped processes may take to stand still.
pub const FROZEN: Duration = Duration::from_secs(10);

/// Pause between two looks at a condition that no event announces.
pub const POLL: Duration = Duration::from_millis(5);

/// How long requests that run may take when the stand-in ends.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Objects in one answer; records point at each other, so that an answer could grow without end.
pub const ANSWER_NODES_MAX: usize = 20_000;
