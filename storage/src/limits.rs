//! Every bound on a size, a count or a time that more than one crate has to know.

use std::time::Duration;

/// Buffer for copying and hashing files, bytes.
pub const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// Largest blob, bytes.
pub const MAX_BLOB_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Largest encoded record (a result with its input set), bytes, before compression.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Most members in one input set.
pub const MAX_SET_MEMBERS: usize = 50_000;

/// Most outputs of one unit.
pub const MAX_OUTPUTS: usize = 10_000;

/// Most captured bytes of one stream (stdout or stderr) of a unit.
pub const MAX_STREAM_BYTES: usize = 2 * 1024 * 1024;

/// Most servers that pass a question on to the one behind them, one after the other.
pub const MAX_HOPS: usize = 4;

/// Most keys in one lookup.
pub const MAX_LOOKUP_KEYS: usize = 1024;

/// Most records that a lookup returns for one unit key, newest first.
pub const MAX_RECORDS_PER_UNIT: usize = 6;

/// Most bytes of records that a lookup returns for one unit key (but always at least one record).
pub const MAX_LOOKUP_UNIT_BYTES: usize = 2 * 1024 * 1024;

/// Most quarantined results of a scope; the oldest go first.
pub const MAX_QUARANTINED: usize = 1000;

/// Most bytes of each text that is kept of a quarantined result.
pub const MAX_QUARANTINE_TEXT_BYTES: usize = 600;

/// Most parts of a unit key that a record describes.
pub const MAX_UNIT_PARTS: usize = 512;

/// Longest text in the description of a unit, bytes.
pub const MAX_PART_BYTES: usize = 256;

/// Most variables that a record lists one by one, each with a name of at most [`MAX_PART_BYTES`].
pub const MAX_COUNTED_VARIABLES: usize = 512;

/// Most causes of a miss that an event names.
pub const MAX_CAUSES: usize = 4;

/// Longest name in a cause, bytes.
pub const MAX_CAUSE_NAME_BYTES: usize = 240;

/// Longest value in a cause, bytes.
pub const MAX_CAUSE_VALUE_BYTES: usize = 120;

/// Most earlier units that are described when a unit is new.
pub const MAX_NEAREST_UNITS: usize = 8;

/// Most events in one batch.
pub const MAX_EVENTS: usize = 1024;

/// Longest name of an output, bytes: of each component of its path.
pub const MAX_OUTPUT_NAME_BYTES: usize = 255;

/// Longest path of an output in its output directory, bytes.
pub const MAX_OUTPUT_PATH_BYTES: usize = 4096;

/// Largest JSON request body, bytes.
pub const MAX_JSON_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Largest JSON response that the wrapper reads, bytes.
pub const MAX_JSON_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// Longest the wrapper waits for a connection to a server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest the wrapper waits for the answer to a lookup.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest the wrapper waits for a local server to take over the outputs of a unit.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest a wrapper waits for the local server it started to listen.
pub const SERVER_START_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest blob that travels in an entry frame, bytes before compression; larger ones are raw
/// objects. A frame is decoded in memory.
pub const MAX_FRAMED_BLOB_BYTES: usize = 64 * 1024 * 1024;

/// Smallest payload of an entry frame that is worth compressing, bytes.
pub const MIN_COMPRESSED_BYTES: usize = 512;

/// Longest name of a stored object, bytes.
pub const MAX_OBJECT_NAME_BYTES: usize = 1024;

/// Age at which a temporary file of a disk store is taken for abandoned.
pub const TEMPORARY_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// A read records the last use of an object on disk when the recorded one is older than this.
pub const DISK_TOUCH_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Most blocking operations of one disk backend at a time.
pub const MAX_DISK_TASKS: usize = 32;

/// Objects on disk up to this size are handed out in memory, larger ones as open files; bytes.
pub const INLINE_READ_BYTES: u64 = 64 * 1024;

/// What an object in a memory backend counts beyond its name and bytes, bytes.
pub const MEMORY_OBJECT_OVERHEAD_BYTES: u64 = 256;

/// Listed objects that wait for the consumer of a listing.
pub const LISTING_BUFFER: usize = 256;

/// Share of a size budget that an eviction leaves filled, percent: it makes room for more than
/// the next object.
pub const EVICTION_TARGET_PERCENT: u64 = 90;

/// Age since last use at which a result is half as likely to be used again as one used now.
pub const REUSE_HALF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Time for which a blob that no result names is kept: its result may be on its way.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(60 * 60);

/// Largest stream that a layer takes into memory to verify it or to hand it on twice, bytes.
pub const LAYER_BUFFER_BYTES: u64 = 1024 * 1024;

/// Longest wait for a connection to an object store.
pub const OBJECT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time without a byte of an answer of an object store. A part has to be sent within it.
pub const OBJECT_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Most times that a request to an object store is sent.
pub const MAX_OBJECT_ATTEMPTS: u32 = 5;

/// Most times that a read is tried when an object store takes no connection.
pub const MAX_OBJECT_CONNECTS: u32 = 2;

/// The pause before a request to an object store is sent a second time; it doubles from there.
pub const OBJECT_FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between attempts, where the object store does not ask for a longer one.
pub const OBJECT_MAX_PAUSE: Duration = Duration::from_secs(5);

/// No attempt of a request to an object store begins later than this after the first.
pub const OBJECT_RETRY_TIME: Duration = Duration::from_secs(20);

/// A pause that a service asks for is counted in steps of this.
pub const OBJECT_WAIT_STEP: Duration = Duration::from_secs(1);

/// Most requests to an object store at a time.
pub const MAX_OBJECT_REQUESTS: usize = 32;

/// Largest object that is written to an object store by one request, and the size of the parts of
/// larger ones, bytes.
pub const OBJECT_PART_BYTES: usize = 8 * 1024 * 1024;

/// Parts of one object that travel at a time.
pub const OBJECT_PARTS_AT_ONCE: usize = 4;

/// Bytes of a file that are read at a time on their way to an object store.
pub const OBJECT_FILE_READ_BYTES: u64 = 1024 * 1024;

/// Longest answer of an object store that is looked at for an error code, bytes.
pub const MAX_OBJECT_ERROR_BYTES: usize = 64 * 1024;

/// Longest bucket and prefix together, bytes. A key has at most 1024 bytes in S3.
pub const MAX_OBJECT_PREFIX_BYTES: usize = 512;

/// Largest blob that travels within the object of its result, bytes after compression. Of the 98 files of a
/// debug build of ripgrep, 47 are below it, with 0.4 MB of 46 MB: what is above pays for a request of its own.
pub const INLINE_BLOB_BYTES: usize = 64 * 1024;

/// Largest blob that is tried to be that small, bytes before compression.
pub const INLINE_BLOB_PLAIN_BYTES: u64 = 512 * 1024;

/// Most bytes of blobs within the object of one result, after compression: a lookup brings them for
/// results that turn out to be others.
pub const INLINE_RESULT_BYTES: usize = 1024 * 1024;

/// Smallest frame of a blob before which it is asked whether the blob is there, bytes: a request takes as
/// long as sending this.
pub const ASK_BEFORE_BYTES: usize = 1024 * 1024;

/// Blobs of one result that are stored at a time. Each is in memory twice, plain and in its frame.
pub const STORED_BLOBS_AT_ONCE: usize = 4;

/// Requests of one lookup in a bucket at a time.
pub const REMOTE_LOOKUPS_AT_ONCE: usize = 24;

/// Generations before the newest one that are rejected for packs when a result is taken back, though they are no
/// objects any more.
pub const MAX_TAKEN_BEFORE: u32 = 16;

/// Most objects of one listing that are looked at to find the newest.
pub const MAX_LISTED_RESULTS: usize = 10_000;

/// Most results that a process remembers as rejected, blobs as its own, and results as used.
pub const MAX_REMEMBERED: usize = 20_000;

/// A pack of a job ends with the frame that makes it so long, bytes.
pub const JOB_PACK_BYTES: u64 = 16 * 1024 * 1024;

/// Most packs that are read at the same time.
pub const MAX_JOB_PACKS: usize = 48;

/// A pack of which nothing comes for so long is given up: whoever waits for what is in it gets that alone.
pub const JOB_PACK_STALL: Duration = Duration::from_secs(1);

/// Most rejected results of a scope with which packs are read.
pub const MAX_REJECTED: usize = 1000;

/// Largest note, bytes.
pub const MAX_NOTE_BYTES: usize = 4 * 1024 * 1024;

/// Most results in one object of what was used.
pub const MAX_USED_RESULTS: usize = 10_000;

/// Time within which a collection has to be done with what it announced to delete. Twice as long after its
/// announcement nobody heeds it.
pub const COLLECTION_TIME: Duration = Duration::from_secs(30 * 60);

/// Time after which a result in a bucket goes that nobody used.
pub const MAX_UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Objects that a collection deletes in one call.
pub const COLLECTED_AT_ONCE: usize = 1000;

/// Results that the preview of a collection names, the dearest first.
pub const MAX_DEAREST: usize = 20;

/// Largest blob that is left out of another one that holds it, and kept for a moment when it was read from
/// a bucket, bytes: larger than the metadata of almost every crate.
pub const RECENT_BLOB_BYTES: u64 = 8 * 1024 * 1024;

/// Most bytes of such blobs that are kept, in their frames.
pub const RECENT_BLOBS_BYTES: usize = 16 * 1024 * 1024;

/// Blobs up to this size are kept apart from larger ones, with as many bytes.
pub const RECENT_SMALL_BYTES: u64 = 1024 * 1024;

/// Largest blob that travels with others in one answer, bytes.
pub const MAX_PACKED_BLOB_BYTES: u64 = 1024 * 1024;
/// Most blobs in one such answer.
pub const MAX_PACK_BLOBS: usize = 1024;
/// Most bytes of blobs in one such answer; the first blob always comes.
pub const MAX_PACK_BYTES: u64 = 16 * 1024 * 1024;
/// Longest name of a note, bytes.
pub const MAX_NOTE_NAME_BYTES: usize = 80;
/// Longest a remote Kiln server takes to accept a connection.
pub const REMOTE_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest that nothing comes from a remote Kiln server while an answer is read.
pub const REMOTE_STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a remote Kiln server that speaks HTTP/2 is asked whether it is there.
pub const REMOTE_PING_INTERVAL: Duration = Duration::from_secs(5);
/// Longest that it takes to answer that; then the connection is given up, within [`REMOTE_STALL_TIMEOUT`] in all.
pub const REMOTE_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most attempts of one request to a remote Kiln server.
pub const REMOTE_ATTEMPTS: u32 = 3;
/// Longest that a request to a remote Kiln server waits because that said when to come again.
pub const REMOTE_MAX_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Blobs of one result that are sent to a remote Kiln server at the same time.
pub const REMOTE_UPLOADS: usize = 4;
/// Longest name of a job, bytes.
pub const MAX_JOB_BYTES: usize = 256;
/// Longest name of a run, bytes.
pub const MAX_RUN_BYTES: usize = 128;
/// Longest text that an event says of its run, bytes.
pub const MAX_ABOUT_BYTES: usize = 256;
/// Most batches of events of a run that are read from a bucket.
pub const MAX_RUN_BATCHES: usize = 5000;
/// Most runs in one answer.
pub const MAX_LISTED_RUNS: usize = 100;
/// Most jobs of a run that is watched.
pub const MAX_WATCHED_JOBS: usize = 200;
/// Last units of a job that are told to who watches it.
pub const LATEST_UNITS: usize = 3;
/// Longest that a command waits for a report: the server may have to bring its events from afar.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// So long a holder of a lease may be silent between two questions that say it lives, and after the lease was
/// granted.
pub const LEASE_GRACE: Duration = Duration::from_secs(10);

/// So long the server keeps a holder's question that says it lives.
pub const LEASE_HOLD: Duration = Duration::from_secs(10);

/// Longest that the server lets one question wait for another's lease.
pub const MAX_LEASE_WAIT: Duration = Duration::from_secs(20);

/// Longest that a lease lasts, however alive its holder.
pub const MAX_LEASE_AGE: Duration = Duration::from_secs(30 * 60);

/// Failures and losses of holders after which nobody waits for a unit.
pub const MAX_LEASE_FAILURES: u32 = 2;

/// So long a server remembers how a lease ended.
pub const LEASE_MEMORY: Duration = Duration::from_secs(10 * 60);

/// Most units that a server knows the leases of, in all scopes, those that ended counted.
pub const MAX_LEASES: usize = 16 * 1024;

/// Most that wait for one unit.
pub const MAX_LEASE_WAITERS: usize = 1024;

/// Most leases that are listed.
pub const MAX_SHOWN_LEASES: usize = 500;

/// Longest that another server takes for an answer about leases, over the time that it is given to wait.
pub const LEASE_ANSWER: Duration = Duration::from_secs(2);
