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

/// Longest that a miss is delayed by looking what differs from earlier records.
pub const COMPARE_TIME: Duration = Duration::from_millis(100);

/// Longest the wrapper waits to hear which earlier units are like a new one.
pub const NEAREST_TIMEOUT: Duration = Duration::from_millis(500);
