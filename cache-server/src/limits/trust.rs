//! The bounds of who gets in: tokens, sessions, rules, keys of issuers, failed logins.

use std::time::Duration;

/// Most scopes that are remembered as known; beyond, all are noted again.
pub const MAX_SCOPES_REMEMBERED: usize = 100_000;

/// Most tokens that an administrator makes.
pub const MAX_TOKENS: usize = 1000;

/// Longest file of them, bytes.
pub const MAX_TOKENS_BYTES: usize = 4 * 1024 * 1024;

/// Longest name of a token, bytes.
pub const MAX_TOKEN_NAME_BYTES: usize = 64;

/// How long a token may last that an administrator makes.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// How long a change of the tokens takes to be seen by a running server.
pub const TOKENS_LOOKED_AFTER: Duration = Duration::from_secs(1);

/// How often the last uses of tokens are written, at most.
pub const TOKEN_USES_INTERVAL: Duration = Duration::from_secs(60);

/// Failed logins from one address in [`LOGIN_PERIOD`] after which further ones are not looked at.
pub const MAX_FAILED_LOGINS: u32 = 60;

/// The time in which failed logins, and lines of the log about refusals, are counted.
pub const LOGIN_PERIOD: Duration = Duration::from_secs(60);

/// Most lines of the log about what was refused to one address in that time.
pub const MAX_TOLD_REFUSALS: u32 = 60;

/// Most addresses of which something is remembered; beyond, all are counted anew.
pub const MAX_LOGIN_ADDRESSES: usize = 10_000;

/// Requests of one principal in [`REQUESTS_PERIOD`] when nothing else is said: four matrices of 20 jobs with 300 units
/// each that begin at once, with ten requests for a unit.
pub const DEFAULT_MAX_REQUESTS: u64 = 240_000;

/// The time in which they are counted.
pub const REQUESTS_PERIOD: Duration = Duration::from_secs(60);

/// Bytes that one principal sends in [`UPLOAD_PERIOD`] when nothing else is said: 6000 units of 20 MiB each.
pub const DEFAULT_MAX_UPLOAD: u64 = 128 * 1024 * 1024 * 1024;

/// The time in which they are counted.
pub const UPLOAD_PERIOD: Duration = Duration::from_secs(60 * 60);

/// Most principals of which it is known what they spent; beyond, all are counted anew.
pub const MAX_SPENDERS: usize = 10_000;

/// Most questions for leases of one principal that are open at once; who asks then does not wait.
pub const MAX_LEASE_QUESTIONS_EACH: usize = 1024;

/// Share of the store that a repository may hold when the store is full and nothing else is said, percent.
pub const DEFAULT_SHARE_PERCENT: u8 = 50;

/// Age of a blob that no result names from which on it goes where its repository is over its share.
pub const SHARE_ORPHAN_GRACE: Duration = Duration::from_secs(60);

/// Most sessions that are begun at once.
pub const MAX_LOGINS_AT_ONCE: usize = 64;

/// Longest that the beginning of a session takes; the keys of its issuer may have to be fetched.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that a client takes for the token: it comes with the head, or nearly so.
pub const LOGIN_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most sessions of one run at once; the oldest of them goes for a further one.
pub const MAX_SESSIONS_OF_RUN: usize = 512;

/// Most sessions at once, and most tokens of CI services that are remembered as used.
pub const MAX_SESSIONS: usize = 20_000;

/// Longest session, minutes: as long as a job on a runner of one's own may last.
pub const MAX_SESSION_MINUTES: u64 = 5 * 24 * 60;

/// Longest token of a CI service, bytes.
pub const MAX_ID_TOKEN_BYTES: usize = 16 * 1024;

/// Longest claim that is used, bytes.
pub const MAX_CLAIM_BYTES: usize = 1024;

/// Longest ref that becomes a scope, bytes.
pub const MAX_REF_BYTES: usize = 512;

/// How far the clocks of the server and of an issuer may be apart, seconds.
pub const CLOCK_LEEWAY_S: u64 = 60;

/// Most keys of an issuer.
pub const MAX_KEYS: usize = 32;

/// Longest document of keys, bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// How long the keys of an issuer are not asked for again, whatever tokens come.
pub const KEYS_RETRY: Duration = Duration::from_secs(60);

/// How old the keys of an issuer become before they are asked for again.
pub const KEYS_FRESH: Duration = Duration::from_secs(60 * 60);

/// How old they may become where the issuer does not answer.
pub const KEYS_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most issuers, and most repositories, in the rules of a server.
pub const MAX_RULES: usize = 10_000;

/// Longest file of rules, bytes.
pub const MAX_RULES_BYTES: u64 = 8 * 1024 * 1024;
