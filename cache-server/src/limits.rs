//! Every bound on a size, a count or a time that only the server has to know. Bounds that the
//! wrapper shares are in [`kiln_storage::limits`].

mod http;
mod remote;
mod trust;

use std::time::Duration;

pub use http::*;
pub use remote::*;
pub use trust::*;

/// Fewest and most worker threads of the runtime.
pub const WORKER_THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// Most threads for blocking work: more than a disk store takes at a time, so that SQLite never
/// waits for large copies.
pub const BLOCKING_THREADS: usize = 48;

/// Most requests worked on at once, transfers of blobs and those about runs aside.
pub const MAX_REQUESTS: usize = 256;

/// Most requests about runs worked on at once: however many read reports, builds get their turns.
pub const MAX_REPORT_REQUESTS: usize = 64;

/// Most reports that are made at once; each holds all events of its run.
pub const REPORTS_MADE_AT_ONCE: usize = 4;

/// Most requests for blobs worked on at once.
pub const MAX_TRANSFERS: usize = 128;

/// Most bytes of large JSON bodies that are held at once, beyond [`SMALL_BODY_BYTES`] of each; the largest body fits. What is
/// made of them takes up to six times as much.
pub const BODIES_BYTES: usize = kiln_storage::limits::MAX_JSON_BODY_BYTES;

/// So much of a body is always taken, bytes.
pub const SMALL_BODY_BYTES: usize = 64 * 1024;

/// A larger body that is no larger than this has room of its own: nobody who sends a huge one slowly is in its way.
pub const MEDIUM_BODY_BYTES: usize = 1024 * 1024;

/// Most bytes of such bodies that are held at once, beyond [`SMALL_BODY_BYTES`] of each.
pub const MEDIUM_BODIES_BYTES: usize = 8 * MEDIUM_BODY_BYTES;

/// Largest question in JSON, bytes: keys, digests and names. Publications and events may be larger.
pub const MAX_QUESTION_BYTES: usize = 2 * 1024 * 1024;

/// Longest that a request waits for its turn before it is told to come back.
pub const REQUEST_TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that a request with a JSON body is worked on.
pub const JSON_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that the upload of a blob takes.
pub const BLOB_REQUEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Longest that a lookup waits for a record that is being taken over, or for the index to be
/// rebuilt.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(4);

/// So often a note that is too long for a place is halved.
pub const NOTE_HALVINGS: usize = 4;

/// Longest until a lookup is answered, whatever is behind the server: less than a wrapper waits.
pub const LOOKUP_ANSWER: Duration = Duration::from_millis(4500);

/// Keys of a lookup that is answered without a change of threads.
pub const FEW_LOOKUP_KEYS: usize = 4;

/// Records that are taken over at the same time.
pub const INGEST_WORKERS: usize = 2;

/// Most records that wait to be taken over.
pub const INGEST_QUEUE_RECORDS: usize = 256;

/// Most open files that belong to records waiting to be taken over.
pub const INGEST_QUEUE_FILES: usize = 4096;

/// What a client is told to wait when the queue is full, seconds.
pub const RETRY_AFTER_S: u64 = 1;

/// Open files that the process asks the system for.
pub const OPEN_FILES: u64 = 16 * 1024;

/// How long a failed write makes publishing answer `read-only` before it is tried again.
pub const READ_ONLY_RETRY: Duration = Duration::from_secs(10);

/// Longest that a server that leaves works on for what it has begun.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Longest that a server that leaves waits for the disk to have its index.
pub const SHUTDOWN_SETTLE: Duration = Duration::from_secs(2);

/// Longest that blocking work which is still under way then is waited for.
pub const SHUTDOWN_LAST: Duration = Duration::from_secs(1);

/// How often a local server looks whether it is idle and whether its directory is still there.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Idle time after which a local server leaves, when nothing else is configured.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(600);

/// Size budget of a disk store when nothing else is configured, bytes.
pub const DEFAULT_CACHE_SIZE: u64 = 10 * 1024 * 1024 * 1024;

/// Longest that each step takes of the question whether a server answers.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest file of settings, bytes; rules may be in it.
pub const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

/// Longest that a starting server waits for one that is just leaving.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Pause between two looks at a lock that is taken.
pub const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Longest path of a unix socket, bytes. Linux takes 107, macOS 103.
pub const MAX_SOCKET_PATH_BYTES: usize = 100;

/// Size at which the log is rotated, bytes; one older file is kept.
pub const MAX_LOG_BYTES: u64 = 4 * 1024 * 1024;

/// Longest digest of a toolchain that is kept of who made a result, bytes.
pub const MAX_SAID_TOOLCHAIN_BYTES: usize = 128;

/// Makers, and results, that a revoke works on together.
pub const REVOKE_BATCH: usize = 256;

/// Objects that it deletes at the same time.
pub const REVOKE_DELETES: usize = 8;

/// How long one request to revoke goes on before it says that there is more. With [`REVOKE_BEHIND`] it is less than
/// [`JSON_REQUEST_TIMEOUT`].
pub const REVOKE_STEP: Duration = Duration::from_secs(8);

/// Longest that the place behind the server is asked to take one batch back.
pub const REVOKE_BEHIND: Duration = Duration::from_secs(10);

/// Failures after which it is asked no more for a batch.
pub const REVOKE_FAULTS: u32 = 3;

/// Most results that were sent to the place behind the server and are not here any more of which it is known who made
/// them: about 200 bytes each.
pub const MAX_EVICTED_KNOWN: u64 = 100_000;

/// Most makers that a revoke tells of.
pub const MAX_REVOKED_MAKERS: usize = 200;

/// Most results that it names.
pub const MAX_REVOKED_SHOWN: usize = 20;

/// Longest that the command waits for one answer.
pub const REVOKE_ANSWER: Duration = Duration::from_secs(60);

/// Longest answer that it reads, bytes.
pub const MAX_JSON_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// Most events kept; the oldest go first.
pub const MAX_STORED_EVENTS: u64 = 100_000;

/// One of so many events that are kept may be too much before the oldest are deleted together.
pub const TRIMMED_SHARE: u64 = 32;

/// Most events that wait to be written.
pub const MAX_WAITING_EVENTS: usize = 16 * 1024;

/// How long events wait for others before they are written together.
pub const EVENT_FLUSH_DELAY: Duration = Duration::from_millis(100);

/// The clock of a machine that says when a unit ended is believed when it is behind the server's by this at most,
/// milliseconds; one that is ahead is not.
pub const CLOCK_TOLERANCE_MS: u64 = 5_000;

/// Most different reasons counted one by one, per outcome; the rest count as `other`.
pub const MAX_REASONS: usize = 256;

/// Most different phases added up one by one; the rest count as `other`.
pub const MAX_PHASES: usize = 16;

/// Events in one chunk of the history.
pub const CHUNK_EVENTS: usize = 512;

/// Largest chunk, bytes before compression: details of events are cut, and these are many.
pub const MAX_CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// Most events of a job that are kept one by one; of the oldest beyond it only the counts are.
pub const MAX_JOB_EVENTS: u64 = 20_000;

/// Most jobs of a run that are told apart; what further ones report counts as one job, `other jobs`.
pub const MAX_RUN_JOBS: u64 = 1000;

/// Most runs in the history; the oldest go first.
pub const MAX_RUNS: u64 = 20_000;

/// Most events that wait to be sent to what is behind the server; the oldest go first.
pub const MAX_OUTGOING_EVENTS: u64 = 100_000;

/// Events that are sent together: those of one job.
pub const EVENTS_SENT_AT_ONCE: usize = 1000;

/// Bytes at which no more of them are sent together: a bucket takes objects of some MiB.
pub const EVENTS_SENT_BYTES: usize = 3 * 1024 * 1024;

/// How long events wait for others before they are sent to another server.
pub const EVENTS_TO_SERVER_DELAY: Duration = Duration::from_secs(1);

/// How long they wait before they are written to a bucket, where each writing is an object.
pub const EVENTS_TO_BUCKET_DELAY: Duration = Duration::from_secs(60);

/// Longest that a report waits for events, or for an answer, from what is behind the server.
pub const EVENTS_BROUGHT: Duration = Duration::from_secs(20);

/// Most phases that a report names where it tells of time.
pub const MAX_NAMED_PHASES: usize = 6;

/// A clock of a machine that is ahead of the server's by more than this is not believed, milliseconds.
pub const CLOCK_AHEAD_MS: u64 = 60 * 60 * 1000;

/// Pause before events of a run that is watched are looked for again behind the server.
pub const EVENTS_BROUGHT_AGAIN: Duration = Duration::from_secs(60);

/// Runs before a run that are brought for its report from a bucket.
pub const EARLIER_RUNS: usize = 3;

/// Longest that a report waits for them.
pub const EARLIER_WITHIN: Duration = Duration::from_secs(6);

/// Longest that a report waits for events of its server to be taken by a bucket.
pub const EVENTS_SENT_WITHIN: Duration = Duration::from_secs(3);

/// Most runs that the note of a workflow names.
pub const MAX_NOTED_RUNS: usize = 200;

/// Most runs of one branch that it names.
pub const MAX_NOTED_OF_BRANCH: usize = 10;

/// Most runs of which it is known when their events were looked for.
pub const MAX_BROUGHT_RUNS: usize = 64;

/// Age at which a run goes, counted from when its last event came.
pub const MAX_RUN_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Most bytes of chunks in the history; the oldest runs go first.
pub const MAX_HISTORY_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Runs that go in one transaction.
pub const EXPIRED_AT_ONCE: u64 = 64;

/// Open jobs of which the history keeps in memory what it has of them.
pub const MAX_OPEN_JOBS: usize = 128;

/// Longest text of a detail, a reason or a name of a unit that the history keeps, bytes.
pub const MAX_KEPT_TEXT_BYTES: usize = 400;

/// Most units in each list of a report.
pub const MAX_REPORTED_UNITS: usize = 100;

/// Most units and jobs named in one line of a report.
pub const MAX_NAMED_IN_GROUP: usize = 20;

/// Most groups of work done twice in a report.
pub const MAX_TWICE_GROUPS: usize = 30;

/// Most units whose keys are compared for a report, the dearest first.
pub const MAX_COMPARED_UNITS: usize = 2000;

/// Runs on one page of the list.
pub const PAGE_RUNS: usize = 50;

/// Most jobs on the page of a run whose units are drawn.
pub const MAX_SHOWN_JOBS: usize = 40;

/// Most crates in the table of jobs by crates.
pub const MAX_HEAT_CRATES: usize = 200;

/// Most units drawn on the page of a run.
pub const MAX_TIMELINE_BARS: usize = 4000;

/// Longest name in what is shown of a cell or a bar that is pointed at, bytes.
pub const MAX_TITLE_BYTES: usize = 96;

/// Most units of a job drawn beside each other.
pub const MAX_LANES: usize = 64;

/// Largest report in Markdown, bytes.
pub const MAX_MARKDOWN_BYTES: usize = 64 * 1024;

/// Most names in one cell of it.
pub const MAX_NAMED_IN_LINE: usize = 6;

/// Units that are read from the index at once for that.
pub const COMPARED_AT_ONCE: usize = 50;

/// Earlier runs of a job in a report.
pub const MAX_TREND_RUNS: usize = 10;

/// Most units listed in the statistics of a build.
pub const MAX_LISTED_UNITS: usize = 200;

/// Most events of one build that an explanation is made from.
pub const MAX_EXPLAINED_EVENTS: usize = 5_000;

/// Most units whose keys are described, also after their results are gone.
pub const MAX_DESCRIBED_UNITS: u64 = 20_000;

/// Most earlier units of a crate among which the nearest are looked for.
pub const MAX_NEAREST_ROWS: u64 = 256;

/// Longest text of an event that is stored, bytes.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// Most blobs in one `missing` request.
pub const MAX_MISSING_BLOBS: usize = 20_000;

/// Most digests named in the detail of a problem.
pub const MAX_NAMED_DIGESTS: usize = 8;

/// Time that SQLite waits for a lock held by another connection.
pub const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements that a connection to SQLite keeps.
pub const SQLITE_STATEMENTS: usize = 64;

/// Objects read at the same time while the index is rebuilt.
pub const REBUILD_READS: usize = 8;

/// Rows written in one transaction while the index is rebuilt.
pub const REBUILD_BATCH: usize = 256;

/// Generations of a result that are tried until one is free.
pub const MAX_GENERATIONS_TRIED: u32 = 16;

/// Most bytes of a body that is not wanted are read all the same, so that the client sees the
/// answer instead of a broken connection.
pub const MAX_DRAIN_BYTES: usize = 64 * 1024 * 1024;

/// Most questions for leases that are open at once; who asks then does not wait.
pub const MAX_LEASE_QUESTIONS: usize = 2048;

/// Most leases that are had at once; who asks then compiles without one. A scope has no more than are left for others, so
/// one alone half of them.
pub const MAX_HELD_LEASES: usize = 1024;

/// Results of one unit that are told to those who ask for its lease, the newest.
pub const MAX_LEASE_RESULTS: usize = 4;

/// Most of those who store nothing that wait for one unit.
pub const MAX_LEASE_WATCHERS: usize = 256;

/// Most jobs that are listed as waiting for one unit.
pub const MAX_SHOWN_WAITERS: usize = 64;

/// Longest body of a question about leases, bytes.
pub const MAX_LEASE_BODY_BYTES: usize = 128 * 1024;

/// Longest name of who asks for a lease, bytes.
pub const MAX_ASKER_BYTES: usize = 128;

/// Longest that one question for a lease waits at the server behind this one; whoever waits longer asks again. Less than
/// [`kiln_storage::limits::REMOTE_STALL_TIMEOUT`].
pub const LEASE_QUESTION: Duration = Duration::from_secs(10);

/// Pause after a question for a lease that waited was cut off.
pub const LEASE_BROKEN: Duration = Duration::from_millis(500);

/// How long a server that knows no leases is not asked for them again.
pub const LEASES_UNKNOWN: Duration = Duration::from_secs(600);

/// Longest that those who wait there for a result wait until it is sent.
pub const LEASE_SENT: Duration = Duration::from_secs(30);

/// Most leases that are held on until their results are sent.
pub const MAX_LEASE_RELEASES: usize = 1024;

/// Most results of which it is known that they were given up.
pub const MAX_LOST_KNOWN: usize = 256;
