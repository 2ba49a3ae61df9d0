//! Every bound of the GitHub Actions cache as a remote: sizes, counts and times.

use std::time::Duration;

/// Attempts of one request, the first one included.
pub const ATTEMPTS: u32 = 4;

/// Wait before the second attempt; doubled for each further one, half to whole of it by chance.
pub const RETRY_BASE: Duration = Duration::from_millis(250);

/// Longest `Retry-After` that is waited for; a longer one ends the request.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(65);

/// Such a wait is counted in steps of this.
pub const WAIT_STEP: Duration = Duration::from_secs(1);

/// Slowest upload that is waited for, bytes a second, on top of the time of a request.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 512 * 1024;

/// Longest one lookup, read or note may take, retries included, but for the time of its bytes.
pub const READ_WITHIN: Duration = Duration::from_secs(12);

/// Slowest transfer of what is read that is waited for, bytes a second, on top of that.
pub const SLOWEST_READ_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// Largest answer of the service itself (not of its blobs), bytes.
pub const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Part of an upload to the older service, bytes.
pub const V1_PART_BYTES: usize = 32 * 1024 * 1024;

/// Attempts to finalize an entry that the service does not know yet.
pub const FINALIZE_ATTEMPTS: u32 = 5;

/// Wait between those attempts.
pub const FINALIZE_WAIT: Duration = Duration::from_millis(500);

/// A pack is closed when it has this many bytes.
pub const PACK_TARGET_BYTES: u64 = 32 * 1024 * 1024;

/// A pack is closed when it has this many blobs.
pub const MAX_PACK_BLOBS: usize = 20_000;

/// Most results and most blobs of one pack that a reader believes.
pub const MAX_PACK_ITEMS: usize = 100_000;

/// Largest pack, bytes: the target and the largest result on top.
pub const MAX_PACK_BYTES: u64 = 512 * 1024 * 1024;

/// Largest result that is taken, bytes of its frames.
pub const MAX_RESULT_BYTES: u64 = 256 * 1024 * 1024;

/// Most bytes that are collected in memory and not uploaded yet: the largest result and a pack.
pub const SPOOL_BYTES: u64 = MAX_RESULT_BYTES + PACK_TARGET_BYTES;

/// Blobs up to this size lie beside their record and come along with it, bytes.
pub const SMALL_BLOB_BYTES: u64 = 64 * 1024;

/// Most bytes of small blobs beside one record.
pub const MAX_HEAD_BLOB_BYTES: u64 = 1024 * 1024;

/// Ranges of a pack that are not farther apart than this are read as one, bytes.
pub const COALESCE_GAP_BYTES: u64 = 256 * 1024;

/// Largest range that is read at once, bytes, unless one result is larger.
pub const MAX_READ_BYTES: u64 = 16 * 1024 * 1024;

/// Most refs of a token that are looked at.
pub const MAX_REFS: usize = 16;

/// Most ranges that are read at a time.
pub const READS_AT_A_TIME: usize = 8;

/// Rounds of a lookup: copies elsewhere of what proved to be missing or damaged.
pub const COPIES: u32 = 3;

/// Most bytes of blobs that one answer brings along.
pub const MAX_ARRIVED_BYTES: u64 = 128 * 1024 * 1024;

/// Most packs in one manifest; the oldest go first.
pub const MAX_MANIFEST_PACKS: usize = 4096;

/// Most results in one manifest.
pub const MAX_MANIFEST_RESULTS: usize = 40_000;

/// Most bytes of an encoded manifest, before compression.
pub const MAX_MANIFEST_BYTES: usize = crate::limits::MAX_RECORD_BYTES;

/// Most packs that a manifest remembers as gone.
pub const MAX_GONE_PACKS: usize = 2048;

/// Most results that a manifest remembers as damaged.
pub const MAX_DEAD_RESULTS: usize = 2048;

/// Time after which a pack that cannot be found is taken for gone: until then its lookups may lag.
pub const GONE_AFTER: Duration = Duration::from_secs(60 * 60);

/// Most notes in one manifest; the oldest go first.
pub const MAX_NOTES: usize = 256;

/// Longest name of a note, bytes.
pub const MAX_NOTE_NAME_BYTES: usize = 256;

/// Longest note, bytes.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;

/// Most bytes of all notes in one manifest.
pub const MAX_NOTES_BYTES: usize = 1024 * 1024;

/// Highest manifest number, and how many digits it has in a key.
pub const MAX_NUMBER: u64 = 9_999_999_999;

/// Digits of a manifest number in a key: all alike, so that none is the beginning of another.
pub const NUMBER_DIGITS: usize = 10;

/// Most manifest numbers that one remembers as not merged yet.
pub const MAX_MISSING: usize = 64;

/// Age at which a manifest number that nobody could read is taken for abandoned. Far longer than
/// [`CLAIM_WITHIN`] and the lag of lookups together.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);

/// A number that is claimed is finalized within this time, or its writer gives up.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(5 * 60);

/// A number that was missed for longer than this is not polled for, only asked for once.
pub const POLL_RECENT: Duration = Duration::from_secs(120);

/// Polls for numbers that others claimed, before a manifest is written without them.
pub const POLLS: u32 = 4;

/// Wait between those polls.
pub const POLL_WAIT: Duration = Duration::from_millis(1500);

/// Most numbers that a writer claims and leaves, because others had them before.
pub const MAX_REUSED: u32 = 4;

/// Most reservations that one flush tries.
pub const MAX_CLAIMS: u32 = 300;

/// Numbers behind the highest known one that a reader asks for in vain before it stops: the newest entry
/// that a lookup gives need not have the highest number.
pub const PROBES_IN_VAIN: u64 = 2;

/// Numbers below the newest one that a reader tries when that one cannot be read.
pub const STEPS_BACK: u64 = 3;

/// Most manifests that are read to bring an index up to date.
pub const MAX_MANIFEST_READS: u32 = 100;

/// A manifest in memory that is older than this is read again.
pub const MANIFEST_MAX_AGE: Duration = Duration::from_secs(60);

/// Time in which a missing or unreachable manifest is not asked for again.
pub const MANIFEST_RETRY_AFTER: Duration = Duration::from_secs(15);

/// New entries that the service takes a minute, for a whole repository.
pub const ENTRIES_PER_MINUTE: u32 = 200;

/// Longest time that one signed address is used, whatever the service allows.
pub const ADDRESS_MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Most signed addresses that are kept.
pub const MAX_ADDRESSES: usize = 1024;

/// Most entries with events of a run.
pub const MAX_RUN_ENTRIES: u64 = 2000;

/// Numbers beyond the newest that is found at which more events of a run are looked for.
pub const EVENTS_BEYOND: u64 = 4;

/// Longest that events are written, or those of a run read.
pub const EVENTS_WITHIN: Duration = Duration::from_secs(60);
