//! Bounds that only the wrapper knows. Shared ones are in [`kiln_storage::limits`].

use std::time::Duration;

/// Longest the wrapper waits while a blob comes or goes by TCP.
pub const BLOB_TIMEOUT: Duration = Duration::from_secs(60);

/// Private directories of runs in `KILN_DIR/tmp` older than this are left-overs.
pub const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Longest the wrapper waits until the server has taken an event.
pub const EVENT_TIMEOUT: Duration = Duration::from_millis(500);

/// Room that the lists of one run must find, bytes.
pub const MIN_SCRATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Largest program or shared object that is classified, bytes; it is read into memory.
pub const MAX_OBJECT_BYTES: u64 = 512 * 1024 * 1024;

/// Largest file of kept classes, bytes; what is too much, oldest first, is found out again.
pub const MAX_CLASSES_BYTES: usize = 32 * 1024;
