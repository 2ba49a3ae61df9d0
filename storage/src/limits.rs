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

/// Largest blob that travels with others in one answer, bytes.
pub const MAX_PACKED_BLOB_BYTES: u64 = 1024 * 1024;

/// Most blobs in one such answer.
pub const MAX_PACK_BLOBS: usize = 1024;

/// Most bytes of blobs in one such answer; the first blob always comes.
pub const MAX_PACK_BYTES: u64 = 16 * 1024 * 1024;

/// Longest note, bytes.
pub const MAX_NOTE_BYTES: usize = 1024 * 1024;

/// Longest name of a note, bytes.
pub const MAX_NOTE_NAME_BYTES: usize = 80;

/// Longest a remote Kiln server takes to accept a connection.
pub const REMOTE_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest that nothing comes from a remote Kiln server while an answer is read.
pub const REMOTE_STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Most attempts of one request to a remote Kiln server.
pub const REMOTE_ATTEMPTS: u32 = 3;

/// Longest that a request to a remote Kiln server waits because that said when to come again.
pub const REMOTE_MAX_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Blobs of one result that are sent to a remote Kiln server at the same time.
pub const REMOTE_UPLOADS: usize = 4;

/// Longest job that a lookup names, bytes.
pub const MAX_JOB_BYTES: usize = 256;
