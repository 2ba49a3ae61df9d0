//! Rows of jobs whose events stay with this server, since the place that the jobs share does not take them: their
//! reports say so.

use std::collections::BTreeSet;

use kiln_storage::api::{Event, bounded_name};
use kiln_storage::limits::{MAX_JOB_BYTES, MAX_RUN_BYTES};
use rusqlite::{Connection, params};

use super::chunk::cut;
use crate::limits::MAX_KEPT_TEXT_BYTES;

/// The jobs of a name in a run of a name, in a scope.
const JOBS: &str = "SELECT j.id FROM jobs j JOIN runs r ON r.id = j.run
     WHERE r.scope = ?1 AND r.run = ?2 AND j.job = ?3";

/// Notes that the events of a job in some scopes stay here, and why.
pub(crate) fn note(
    connection: &Connection,
    scopes: &[String],
    (run, job): (&str, &str),
    why: &str,
) -> rusqlite::Result<()> {
    let (run, job) = (bounded_name(run, MAX_RUN_BYTES), bounded_name(job, MAX_JOB_BYTES));
    let sql = format!("INSERT OR REPLACE INTO unshared (job, why) SELECT id, ?4 FROM ({JOBS})");
    let mut statement = connection.prepare_cached(&sql)?;
    for scope in scopes {
        statement.execute(params![scope, run, job, cut(why, MAX_KEPT_TEXT_BYTES)])?;
    }
    Ok(())
}

/// The same for the jobs of some events.
pub(crate) fn note_all(
    connection: &Connection,
    scope: &str,
    events: &[&Event],
    why: &str,
) -> rusqlite::Result<()> {
    let jobs: BTreeSet<_> = events.iter().map(|event| (&*event.run, &*event.job)).collect();
    let scopes = [scope.to_owned()];
    jobs.into_iter().try_for_each(|job| note(connection, &scopes, job, why))
}

/// Notes that the events of a job in some scopes are taken after all.
pub(crate) fn forget(
    connection: &Connection,
    scopes: &[String],
    (run, job): (&str, &str),
) -> rusqlite::Result<()> {
    let (run, job) = (bounded_name(run, MAX_RUN_BYTES), bounded_name(job, MAX_JOB_BYTES));
    let sql = format!("DELETE FROM unshared WHERE job IN ({JOBS})");
    let mut statement = connection.prepare_cached(&sql)?;
    for scope in scopes {
        statement.execute([scope, &run, &job])?;
    }
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
        let all = events.iter().collect::<Vec<_>>();
        let [own, other] = ["s", "another"].map(|scope| [scope.to_owned()]);
        note_all(&connection, &other[0], &all, "no").unwrap();
        assert_eq!(whys(), [None, None], "jobs of others are called the same");
        note_all(&connection, &own[0], &all, "no").unwrap();
        note(&connection, &own, ("none", "none"), "no").unwrap();
        assert_eq!(whys(), [Some("no".into()), Some("no".into())]);
        note(&connection, &own, (&events[1].run, &events[1].job), "never").unwrap();
        forget(&connection, &other, (&events[0].run, &events[0].job)).unwrap();
        assert_eq!(whys().iter().flatten().count(), 2);
        forget(&connection, &own, (&events[0].run, &events[0].job)).unwrap();
        let mut left = whys();
        left.sort();
        assert_eq!(left, [None, Some("never".into())]);
        connection.execute("DELETE FROM runs", []).unwrap();
        let count: i64 =
            connection.query_row("SELECT count(*) FROM unshared", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0);
    }
}
