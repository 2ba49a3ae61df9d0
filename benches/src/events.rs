//! The newest events of a Kiln, read from the server's index: how long each phase of a hit took, as
//! the wrapper itself measured it.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_storage::api::Event;
use rusqlite::{Connection, OpenFlags};

use crate::failure::{Failure, Outcome};
use crate::statistics::Series;

/// Name of the index in a state directory.
const INDEX: &str = "index.sqlite";

/// The newest events, newest first.
///
/// # Errors
/// When the index cannot be read.
pub fn newest(kiln_dir: &Path, count: usize) -> Outcome<Vec<Event>> {
    let limit = i64::try_from(count).unwrap_or(i64::MAX);
    let read = || -> rusqlite::Result<Vec<String>> {
        let index =
            Connection::open_with_flags(kiln_dir.join(INDEX), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut rows = index.prepare("SELECT body FROM events ORDER BY seq DESC LIMIT ?1")?;
        let bodies = rows.query_map([limit], |row| row.get(0))?;
        bodies.collect()
    };
    let bodies = read().map_err(|error| Failure::NotMeasured(format!("{INDEX}: {error}")))?;
    Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
}

/// The microseconds of each phase, and of all (`wall`).
pub fn phases(events: &[Event]) -> BTreeMap<String, Series> {
    let mut phases: BTreeMap<String, Series> = BTreeMap::new();
    for event in events {
        let all = event.phases_us.iter().map(|(name, us)| (name.as_str(), *us));
        for (name, us) in all.chain([("wall", event.wall_us)]) {
            phases.entry(name.to_owned()).or_default().push(us as f64);
        }
    }
    phases
}
