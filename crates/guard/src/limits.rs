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

// ---- the HTTP door

/// The longest body of a request that passes the HTTP door, in bytes; it is judged as a whole.
pub const HTTP_BODY_BYTES_MAX: usize = 16 << 20;

/// Connections of agents that are open at once; more wait.
pub const HTTP_CONNECTIONS_MAX: usize = 512;

/// How long a connection may stay without a request.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(75);

/// How long the head of a request may take from its first byte.
pub const HTTP_HEAD_WAITS_MAX: Duration = Duration::from_secs(20);

/// How long the body of a request may take.
pub const HTTP_BODY_WAITS_MAX: Duration = Duration::from_secs(120);

/// How long a TLS handshake may take, on either side.
pub const HTTP_HANDSHAKE_WAITS_MAX: Duration = Duration::from_secs(10);

/// How long connecting to a provider may take.
pub const HTTP_CONNECT_WAITS_MAX: Duration = Duration::from_secs(10);

/// How long a provider may take to begin its answer.
pub const HTTP_ANSWER_WAITS_MAX: Duration = Duration::from_secs(120);

/// How long one piece of an answer may take, from the provider or to the agent.
pub const HTTP_PIECE_WAITS_MAX: Duration = Duration::from_secs(120);

/// How long a provider may take to answer a question of ours, all questions of one request together.
pub const HTTP_QUESTIONS_WAIT_MAX: Duration = Duration::from_secs(8);

/// The longest answer to a question of ours, in bytes.
pub const HTTP_QUESTION_ANSWER_BYTES_MAX: usize = 4 << 20;

/// The longest answer of a provider that is looked into for errors, in bytes.
pub const HTTP_ANSWER_READ_BYTES_MAX: usize = 64 << 10;

/// Idle connections that are kept for one provider host.
pub const HTTP_POOL_PER_HOST_MAX: usize = 64;

/// Certificates of hosts that are kept in memory; beyond that they are made anew.
pub const HTTP_LEAVES_MAX: usize = 1024;

/// The longest that a held request may wait on its connection: clients give up after about 60 s.
pub const HTTP_HOLD_WAITS_MAX: Duration = Duration::from_secs(55);

/// How often a held request that waits looks whether it was decided.
pub const HTTP_HOLD_LOOKS_EVERY: Duration = Duration::from_millis(250);

/// Connections that still run when the door closes get so long to end.
pub const HTTP_CLOSE_WAITS_MAX: Duration = Duration::from_secs(5);

// ---- custody and scan

/// The longest file that a credential is taken from, in bytes.
pub const CUSTODY_FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest file that is searched for credentials, in bytes.
pub const SCAN_FILE_BYTES_MAX: u64 = 2 << 20;

/// Files that one scan looks at.
pub const SCAN_FILES_MAX: usize = 200_000;

/// How deep a scan goes.
pub const SCAN_DEPTH_MAX: usize = 32;

/// Lines around a credential in which a word that names its provider is looked for.
pub const SCAN_CONTEXT_LINES: usize = 3;

// ---- the PostgreSQL door

/// Sessions that the role of one lease may have in its source at once.
pub const ROLE_CONNECTIONS_MAX: u32 = 64;

/// How long a statement of a lease may run, unless its session says otherwise.
pub const ROLE_STATEMENT_MAX: Duration = Duration::from_secs(30 * 60);

/// How long a statement of a lease waits for a lock, and others behind it, unless its session says
/// otherwise.
pub const ROLE_LOCK_WAITS_MAX: Duration = Duration::from_secs(30);

/// How long a session of a lease may leave a transaction open and idle, unless it says otherwise.
pub const ROLE_IDLE_MAX: Duration = Duration::from_secs(5 * 60);

/// How often guard looks for roles of leases that have ended.
pub const LEASE_SWEEPS_EVERY: Duration = Duration::from_secs(10);

/// How old the door's certificate may become; one of our own authority lasts thirteen months.
pub const PG_CERTIFICATE_RENEWED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Sessions of agents that are open at once; more wait.
pub const PG_SESSIONS_MAX: usize = 2_048;

/// Threads that serve sessions.
pub const PG_THREADS_MAX: usize = 8;

/// How long a client may take from its first byte to the end of its login.
pub const PG_LOGIN_WAITS_MAX: Duration = Duration::from_secs(30);

/// How long connecting and logging in to a source may take.
pub const PG_CONNECT_WAITS_MAX: Duration = Duration::from_secs(10);

/// How often a session looks whether its lease still opens anything.
pub const PG_LEASE_LOOKS_EVERY: Duration = Duration::from_millis(200);

/// The longest message of a client that is kept whole, in bytes: a statement, its parameters.
pub const PG_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one socket that are read at once.
pub const PG_READ_BYTES: usize = 64 << 10;

/// Bytes of a buffer that an idle session may keep.
pub const PG_IDLE_BUFFER_BYTES: usize = 4 << 10;

/// How long a session that ends tries to tell either side.
pub const PG_TELL_WAITS_MAX: Duration = Duration::from_secs(1);

/// Bytes for a client that wait while it does not read.
pub const PG_WAITING_BYTES_MAX: usize = 256 << 10;

/// Bytes of texts and judgements that are kept for reuse.
pub const PG_VERDICTS_BYTES_MAX: usize = 16 << 20;

/// How long the server may take to say what a transaction did.
pub const PG_EVIDENCE_WAITS_MAX: Duration = Duration::from_secs(60);

/// How long a prepared transaction may wait for its end; its locks stay until then.
pub const PG_PREPARED_LASTS_MAX: Duration = Duration::from_secs(10 * 60);

/// How often the door looks for prepared transactions that nobody ended.
pub const PG_PREPARED_LOOKS_EVERY: Duration = Duration::from_millis(500);

/// A table up to this size, in bytes, is locked for so short a time that nobody is interrupted.
pub const PG_SMALL_TABLE_BYTES_MAX: u64 = 8 << 20;

/// Objects whose changes are named one by one in evidence; more are counted.
pub const PG_OBJECTS_NAMED_MAX: usize = 40;

/// Sessions that still run when the door closes get so long to end.
pub const PG_CLOSE_WAITS_MAX: Duration = Duration::from_secs(5);

// ---- what makes leases weaker

/// How long the server may take for one question about what makes leases weaker.
pub const WEAKNESS_LOOK_MAX: Duration = Duration::from_secs(5);

/// Objects that are named in one finding; more are counted.
pub const WEAKNESS_OBJECTS_NAMED_MAX: usize = 20;

// ---- rehearsals

/// Rehearsals that wait for their turn; more are not made, and their holds say so.
pub const REHEARSALS_WAITING_MAX: usize = 64;

/// Bytes of texts and parameters of one transaction that are kept for its rehearsal.
pub const REHEARSAL_BYTES_MAX: usize = 4 << 20;

/// Bytes of the parameters of one statement that are kept for a rehearsal.
pub const REHEARSAL_PARAMETERS_BYTES_MAX: usize = 1 << 20;

/// Statements of one transaction that are kept for its rehearsal.
pub const REHEARSAL_STEPS_MAX: usize = 10_000;

/// Settings of one session that a rehearsal begins with.
pub const REHEARSAL_SETTINGS_MAX: usize = 64;

/// How often a running rehearsal looks whether its hold still waits.
pub const REHEARSAL_LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How long guard's own connection need not be asked again about a relation or a role of a source.
pub const PG_SEEN_LASTS: Duration = Duration::from_secs(1);

/// Relations and roles that are remembered for so long, for each source.
pub const PG_SEEN_MAX: usize = 4096;
