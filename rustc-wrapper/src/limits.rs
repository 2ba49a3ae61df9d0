//! Bounds that only the wrapper knows. Shared ones are in [`kiln_storage::limits`].

use std::time::Duration;

/// Longest that a blob takes to come or go by TCP, beside what [`SLOWEST_BLOB_BYTES_PER_S`] allows for its size.
pub const BLOB_TIMEOUT: Duration = Duration::from_secs(60);

/// A blob that comes slower than this for long is not worth waiting for.
pub const SLOWEST_BLOB_BYTES_PER_S: u64 = 64 * 1024;

/// Longest that the wrapper waits for the addresses of a name.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest that a handshake of TLS takes.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// Private directories of runs in `KILN_DIR/tmp` older than this are left-overs.
pub const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Longest the wrapper waits until the server has taken an event.
pub const EVENT_TIMEOUT: Duration = Duration::from_millis(500);

/// Largest source on standard input that is part of a unit key, bytes; it is read into memory.
pub const MAX_STDIN_BYTES: usize = 1024 * 1024;

/// Longest notes of what was read on behalf of one build script, bytes.
pub const MAX_NOTES_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes for entries in the log of an observed run. A file of this size is made, of which only what
/// is written takes room.
pub const OBSERVER_LOG_BYTES: u32 = 8 * 1024 * 1024;

/// The same for a run of a build script: thousands of processes may read the same headers.
pub const SCRIPT_LOG_BYTES: u32 = 192 * 1024 * 1024;

/// Slots of the table that finds repeated entries in such a log, a power of two.
pub const OBSERVER_LOG_SLOTS: u32 = 16 * 1024;

/// Most reasons for the conservative way that a record names.
pub const MAX_DOUBTS: usize = 4;

/// Longest of them, characters.
pub const MAX_DOUBT_CHARS: usize = 300;

/// Most outputs that are named one by one where they differ.
pub const MAX_NAMED_OUTPUTS: usize = 8;

/// Room that a compile must find so that its failure says something of the crate, bytes.
pub const MIN_VERIFY_ROOM_BYTES: u64 = 256 * 1024 * 1024;

/// Room that the lists of one run must find, bytes.
pub const MIN_SCRATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Largest program or shared object that is classified, bytes; it is read into memory.
pub const MAX_OBJECT_BYTES: u64 = 512 * 1024 * 1024;

/// Largest file of kept classes, bytes; what is too much, oldest first, is found out again.
pub const MAX_CLASSES_BYTES: usize = 32 * 1024;

/// Longest that a miss is delayed by looking what differs from earlier records.
pub const COMPARE_TIME: Duration = Duration::from_millis(100);

/// Longest the wrapper waits to hear which earlier units are like a new one.
pub const NEAREST_TIMEOUT: Duration = Duration::from_millis(500);

/// Largest file that may be the front of a build script, bytes; it is read into memory.
pub const MAX_FRONT_BYTES: u64 = 64 * 1024;

/// A result from afar is waited for at least so long, however little it cost to make.
pub const BRING_SHORTEST: Duration = Duration::from_secs(2);

/// A result from afar is waited for at most so long; less than a server works on a request.
pub const BRING_LONGEST: Duration = Duration::from_secs(25);

/// What the server is given beyond that to say that it was in vain.
pub const BRING_GRACE: Duration = Duration::from_secs(1);

/// Longest that one question for a lease waits for another's compile: as often the wrapper looks whether it still
/// should.
pub const LEASE_TURN: Duration = Duration::from_secs(2);

/// What the server is given beyond that to answer.
pub const LEASE_ANSWER: Duration = Duration::from_secs(2);

/// Most results that one unit looks up because another job made them; then it compiles.
pub const MAX_LEASE_LOOKUPS: usize = 4;

/// Most sources of a crate that are in the key of a lease.
pub const MAX_LEASE_SOURCES: usize = 2000;

/// Deepest directory in which they are looked for, below the crate's own.
pub const MAX_LEASE_DEPTH: usize = 16;

/// Most names that are looked at to find them.
pub const MAX_LEASE_ENTRIES: usize = 20_000;

/// Most processes below a compile whose processor time is counted.
pub const MAX_COUNTED_PROCESSES: usize = 1024;

/// Longest that the ledger of a jobserver is waited for; then no token is given, or it is owed.
pub const LEDGER_WAIT: Duration = Duration::from_millis(200);

/// Between two looks whether a compile may begin.
pub const PLACE_PAUSE: Duration = Duration::from_millis(10);

/// Longest that a compile waits because cargo has too many running already.
pub const PLACE_WAIT: Duration = Duration::from_secs(10 * 60);

/// Longest that a compile waits because too many run on this machine already.
pub const PLACE_WAIT_HERE: Duration = Duration::from_secs(60);

/// A place that was taken so long ago holds nobody up any more.
pub const PLACE_AGE: Duration = Duration::from_secs(30);

/// Where a processor has had nothing to do for most of this time, one more compile begins.
pub const PLACE_IDLE: Duration = Duration::from_millis(100);

/// So long is looked at by who waits for longer.
pub const PLACE_IDLE_MOST: Duration = Duration::from_millis(400);

/// Longest that a compile waits for a token in place of one that was given back; then it runs without.
pub const TOKEN_WAIT: Duration = Duration::from_millis(200);

/// Longest value of `KILN_MATRIX`, bytes: as much as Linux hands on in one variable.
pub const MAX_MATRIX_BYTES: usize = 128 * 1024;

/// Longest that `kiln watch` waits to hear how a run stands; the server may have to ask another one.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(25);

/// Pause between two looks at a run on a terminal.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The same where each look may add lines.
pub const WATCH_EVERY_IN_LOG: Duration = Duration::from_secs(10);

/// A run or a job of which nothing was heard for so long does not seem to go on.
pub const WATCH_GOING: Duration = Duration::from_secs(60);

/// A run of which nothing was heard for so long is left for one that begins.
pub const WATCH_SETTLED: Duration = Duration::from_secs(2);

/// Watching ends when nothing was heard for so long.
pub const WATCH_UNTIL_QUIET: Duration = Duration::from_secs(600);

/// Newest runs among which one to watch is looked for.
pub const WATCH_CANDIDATES: usize = 20;

/// So much of a malformed value of a setting is shown, characters.
pub const MAX_SHOWN_CHARS: usize = 200;

/// Longest that a wrapper waits while another one reads the same toolchain.
pub const TOOL_WAIT: Duration = Duration::from_secs(10);
