//! Bounds of what a server does with the place behind it: questions, what waits to be sent, what is fetched ahead.

use std::time::Duration;

/// Longest that a lookup waits for the place behind the server.
pub const REMOTE_QUESTION: Duration = Duration::from_secs(2);

/// The same where that place was left alone and is tried again: longer than one that is well takes.
pub const REMOTE_TRIAL: Duration = Duration::from_millis(300);

/// Longest that a question to that place goes on when nobody waits any more.
pub const REMOTE_ANSWER: Duration = Duration::from_secs(30);

/// Longest that a result is brought from behind the server while somebody waits.
pub const REMOTE_BRING: Duration = Duration::from_secs(25);

/// Longest that the blobs of one result are fetched, whether somebody waits or not.
pub const REMOTE_FETCH: Duration = Duration::from_secs(300);

/// Blobs that are fetched at the same time.
pub const REMOTE_FETCHES: usize = 8;

/// Faults in a row after which the place behind the server is left alone.
pub const REMOTE_FAULTS: u32 = 3;

/// How long it is left alone then.
pub const REMOTE_LEFT_ALONE: Duration = Duration::from_secs(30);

/// How long a question that tries it again keeps others from being asked.
pub const REMOTE_PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// In this time one line is logged of each kind of fault.
pub const FAULT_PERIOD: Duration = Duration::from_secs(600);

/// How long an answer about a unit holds, also one that there is nothing: somebody may be making it meanwhile.
/// Many machines that ask a shared server at once for the same unit cost one question in so long.
pub const REMOTE_ASKED: Duration = Duration::from_secs(2);

/// Most units of which it is known that they were asked for.
pub const MAX_REMOTE_ASKED: usize = 16 * 1024;

/// Most results that wait to be sent.
pub const MAX_OUTBOX_RESULTS: u64 = 20_000;

/// Most bytes in results that wait to be sent.
pub const MAX_OUTBOX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Results that are sent at the same time.
pub const OUTBOX_WORKERS: usize = 4;

/// How often it is noted beside the index how many results wait.
pub const OUTBOX_NOTED: Duration = Duration::from_secs(1);

/// Pause after the first attempt to send a result that failed; it doubles with each.
pub const OUTBOX_RETRY: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
pub const OUTBOX_MAX_RETRY: Duration = Duration::from_secs(300);

/// Longest that one result is sent.
pub const OUTBOX_SEND: Duration = Duration::from_secs(600);

/// Longest that the remote is given to make durable what it has collected.
pub const OUTBOX_FLUSH: Duration = Duration::from_secs(300);

/// How long nothing is sent before what the remote has collected is made durable.
pub const OUTBOX_QUIET: Duration = Duration::from_secs(30);

/// Longest that the answer to a request to drain takes.
pub const MAX_DRAIN_WAIT: Duration = Duration::from_secs(20);

/// How long a server that leaves waits for a place that takes nothing.
pub const DRAIN_STALL: Duration = Duration::from_secs(15);

/// Slowest line on which what is on its way is waited for on top of that, bytes a second.
pub const DRAIN_SLOWEST_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// How long a server that leaves goes on sending, when nothing else is configured.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(120);

/// Most notes of a scope.
pub const MAX_NOTES: u64 = 256;

/// Most bytes that are fetched ahead for one job.
pub const AHEAD_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Blobs up to this size are fetched ahead many at a time, bytes.
pub const AHEAD_LARGE_BYTES: u64 = 1024 * 1024;

/// So many bytes of blobs are fetched ahead together.
pub const AHEAD_PACK_BYTES: u64 = 8 * 1024 * 1024;

/// Groups of small blobs that are fetched ahead at the same time.
pub const AHEAD_PACK_LANES: usize = 2;

/// Large blobs that are fetched ahead at the same time.
pub const AHEAD_LARGE_LANES: usize = 3;

/// Results that are asked for in one question when they are fetched ahead.
pub const AHEAD_BATCH: usize = 512;

/// Records that are asked for first, and how much more the next time: what is needed first is not to wait for all.
pub const AHEAD_FIRST_BATCH: usize = 8;

/// See [`AHEAD_FIRST_BATCH`].
pub const AHEAD_GROWTH: usize = 8;

/// Most results in a note of what a job used.
pub const MAX_AHEAD_RESULTS: usize = 5000;

/// Most jobs of one server for which is fetched ahead.
pub const MAX_AHEAD_JOBS: usize = 64;

/// Most batches of packs of a job.
pub const MAX_JOB_BATCHES: usize = 6;

/// So many results that no pack has make a new one.
pub const MIN_PACKED_RESULTS: usize = 4;

/// Most bytes in the packs of a job.
pub const MAX_JOB_PACKED_BYTES: u64 = 512 * 1024 * 1024;

/// Packs whose blobs are read at the same time.
pub const JOB_PACK_LANES: usize = 3;

/// Blobs of packs that are unpacked at the same time.
pub const JOB_UNPACK_LANES: usize = 2;

/// Runs for which a note keeps what was not used again.
pub const AHEAD_UNUSED_RUNS: u32 = 2;

/// So many bytes have to be fetched ahead before it is judged whether that is of use.
pub const AHEAD_MEASURED_BYTES: u64 = 1024 * 1024;

/// Runs for which nothing is fetched ahead after it was of no use.
pub const AHEAD_REST_RUNS: u32 = 5;

/// Units of a job that are asked for before it is judged whether its note fits.
pub const AHEAD_ENOUGH_ASKED: u64 = 20;

/// Jobs that are taken to store in the cache of GitHub Actions in the same minute: the entries that a
/// repository may make are shared among so many.
pub const GHA_SHARERS: u32 = 10;
