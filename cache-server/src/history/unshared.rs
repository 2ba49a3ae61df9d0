//! Rows of jobs whose events stay with this server, since the place that the jobs share does not take them: their
//! reports say so.

use std::collections::BTreeSet;

use kiln_storage::api::{Event, bounded_name};
use kiln_storage::limits::{MAX_JOB_BYTES, MAX_RUN_BYTES};
use rusqlite::{Connection, params};

use super::chunk::cut;
use crate::limits::MAX_KEPT_TEXT_BYTES;

/// The jobs of a name in a run of a name; whoever reported them, they go to one place.
const JOBS: &str =
    "SELECT j.id FROM jobs j JOIN runs r ON r.id = j.run WHERE r.run = ?1 AND j.job = ?2";

/// Notes that the events of a job stay here, and why.
pub(crate) fn note(
    connection: &Connection,
    (run, job): (&str, &str),
    why: &str,
) -> rusqlite::Result<()> {
    let (run, job) = (bounded_name(run, MAX_RUN_BYTES), bounded_name(job, MAX_JOB_BYTES));
    connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO unshared (job, why) SELECT id, ?3 FROM ({JOBS})"
        ))?
        .execute(params![run, job, cut(why, MAX_KEPT_TEXT_BYTES)])?;
    Ok(())
}

/// The same for the jobs of some events.
pub(crate) fn note_all(
    connection: &Connection,
    events: &[&Event],
    why: &str,
) -> rusqlite::Result<()> {
    let jobs: BTreeSet<_> = events.iter().map(|event| (&*event.run, &*event.job)).collect();
    jobs.into_iter().try_for_each(|job| note(connection, job, why))
}

/// Notes that the events of a job are taken after all.
pub(crate) fn forget(connection: &Connection, (run, job): (&str, &str)) -> rusqlite::Result<()> {
    let (run, job) = (bounded_name(run, MAX_RUN_BYTES), bounded_name(job, MAX_JOB_BYTES));
    connection
        .prepare_cached(&format!("DELETE FROM unshared WHERE job IN ({JOBS})"))?
        .execute([run, job])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::open::in_memory;
    use crate::history::rows::tests::now;
    use crate::history::{read, rows};
    use crate::tally::tests::event;
    use kiln_storage::api::Outcome;

    #[test]
    fn a_job_is_unshared_until_its_events_are_taken() {
        let (connection, mut open) = (in_memory().unwrap(), rows::OpenJobs::default());
        let mut events = [event("1", "b", Outcome::Miss), event("2", "b", Outcome::Miss)];
        events[1].job = "j".repeat(2 * MAX_JOB_BYTES);
        rows::add(&connection, &mut open, now("s", 1), &events).unwrap();
        let whys = || -> Vec<Option<String>> {
            let run = read::run(&connection, "s", &events[0].run).unwrap().unwrap();
            read::jobs(&connection, run.id).unwrap().into_iter().map(|job| job.unshared).collect()
        };
        assert_eq!(whys(), [None, None]);
        note_all(&connection, &events.iter().collect::<Vec<_>>(), "no").unwrap();
        note(&connection, ("none", "none"), "no").unwrap();
        assert_eq!(whys(), [Some("no".into()), Some("no".into())]);
        note(&connection, (&events[1].run, &events[1].job), "never").unwrap();
        forget(&connection, (&events[0].run, &events[0].job)).unwrap();
        let mut left = whys();
        left.sort();
        assert_eq!(left, [None, Some("never".into())]);
        connection.execute("DELETE FROM runs", []).unwrap();
        let count: i64 =
            connection.query_row("SELECT count(*) FROM unshared", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }
}
