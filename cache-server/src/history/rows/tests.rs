//! Events get in once each, whatever is sent again and in which pieces.

use kiln_storage::api::Outcome;
use proptest::prelude::*;

use super::*;
use crate::history::open::in_memory;
use crate::history::read;
use crate::tally::tests::event;

/// Events that come now.
pub(crate) fn now(scope: &str, now_ms: u64) -> Arrival<'_> {
    Arrival { scope, now_ms, brought: false }
}

fn of(n: usize, run: &str, job: &str) -> Event {
    let outcomes = [Outcome::HitLocal, Outcome::Miss, Outcome::Bypass];
    let mut event = event(&format!("{run}/{job}/{n}"), "b", outcomes[n % 3]);
    (event.run, event.job) = (run.into(), job.into());
    event.unit.crate_name = format!("crate{n}");
    event.at_ms = 1000 + n as u64;
    event
}

/// The jobs of a run with what is kept of each.
fn jobs(connection: &Connection, run: &str) -> Vec<(read::JobRow, Vec<Kept>)> {
    let run = read::run(connection, "s", run).unwrap().unwrap();
    let jobs = read::jobs(connection, run.id).unwrap();
    let with = |job: read::JobRow| {
        let events = read::events(connection, job.id).unwrap();
        (job, events)
    };
    jobs.into_iter().map(with).collect()
}

/// A machine whose clock is years ahead would have the newest run till then.
#[test]
fn a_clock_that_is_ahead_is_not_believed() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    let at = |at_ms: u64, run: &str| Event { at_ms, ..of((at_ms % 97) as usize, run, "j") };
    let events = [at(u64::MAX, "ahead"), at(900, "ahead"), at(1000 + CLOCK_AHEAD_MS, "within")];
    add(&connection, &mut open, now("s", 1000), &events).unwrap();
    let times = |run: &str| {
        let row = read::run(&connection, "s", run).unwrap().unwrap();
        let job = jobs(&connection, run).remove(0).0;
        assert_eq!((row.first_ms, row.last_ms), (job.first_ms, job.last_ms));
        (row.first_ms, row.last_ms)
    };
    assert_eq!(times("ahead"), (900, 1000));
    assert_eq!(times("within"), (1000 + CLOCK_AHEAD_MS, 1000 + CLOCK_AHEAD_MS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any pieces in any order, with repetitions, and with a server that starts anew now and then.
    #[test]
    fn what_is_sent_again_counts_once(
        pieces in prop::collection::vec((0..1500_usize, 1..700_usize, any::<bool>()), 1..12),
    ) {
        let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
        let mut seen: BTreeMap<&str, HashSet<usize>> = BTreeMap::new();
        for (from, count, starts_anew) in pieces {
            if starts_anew {
                open = OpenJobs::default();
            }
            let job = ["one", "two"][from % 2];
            let events: Vec<Event> = (from..from + count).map(|n| of(n, "r", job)).collect();
            let new = add(&connection, &mut open, now("s", 1), &events).unwrap().new.len();
            let seen = seen.entry(job).or_default();
            let before = seen.len();
            seen.extend(from..from + count);
            prop_assert_eq!(new, seen.len() - before);
        }
        for (job, events) in jobs(&connection, "r") {
            let seen = &seen[job.job.as_str()];
            let ids: HashSet<u64> = events.iter().map(|event| event.id).collect();
            prop_assert_eq!((ids.len(), events.len()), (seen.len(), seen.len()));
            prop_assert_eq!(job.kept as usize, seen.len());
            let misses = seen.iter().filter(|n| **n % 3 == 1).count() as u64;
            let counts = job.sums.measures().counts;
            prop_assert_eq!((counts.units, counts.miss), (seen.len() as u64, misses));
            prop_assert_eq!(job.first_ms, 1000 + *seen.iter().min().unwrap() as u64);
            prop_assert_eq!(job.last_ms, 1000 + *seen.iter().max().unwrap() as u64);
        }
    }
}

#[test]
fn of_a_job_that_never_ends_the_newest_are_kept_and_all_are_counted() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    let all = MAX_JOB_EVENTS as usize + 3 * CHUNK_EVENTS;
    let events: Vec<Event> = (0..all).map(|n| of(n, "r", "j")).collect();
    for piece in events.chunks(700) {
        add(&connection, &mut open, now("s", 1), piece).unwrap();
    }
    let (job, kept) = jobs(&connection, "r").remove(0);
    assert_eq!(job.sums.measures().counts.units as usize, all);
    assert_eq!(kept.len() as u64, job.kept);
    assert!(job.kept <= MAX_JOB_EVENTS && job.kept > MAX_JOB_EVENTS - CHUNK_EVENTS as u64);
    assert_eq!(kept.last().unwrap().unit.crate_name, format!("crate{}", all - 1));
}

#[test]
fn runs_and_scopes_are_apart_and_a_run_keeps_what_was_said_of_it_first() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    let said = |branch: &str| Some(RunAbout { branch: branch.into(), ..RunAbout::default() });
    let events = [
        of(1, "a", "j"),
        Event { about: said("main"), ..of(2, "a", "j") },
        Event { about: said("other"), ..of(3, "a", "k") },
        of(1, "b", "j"),
    ];
    assert_eq!(add(&connection, &mut open, now("s", 1), &events).unwrap().new.len(), 4);
    assert_eq!(add(&connection, &mut open, now("t", 1), &events[..1]).unwrap().new.len(), 1);
    let runs = read::runs(&connection, "s", None, 10).unwrap();
    let names: Vec<_> =
        runs.iter().map(|run| (run.run.as_str(), run.about.branch.as_str())).collect();
    assert_eq!(names, [("a", "main"), ("b", "")]);
    let next = read::runs(&connection, "s", Some((runs[0].last_ms, runs[0].id)), 10).unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(jobs(&connection, "a").len(), 2);
}

#[test]
fn jobs_of_a_run_are_bounded() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    let more = MAX_RUN_JOBS as usize + 20;
    let events: Vec<Event> = (0..more).map(|n| of(n, "r", &format!("j{n:06}"))).collect();
    add(&connection, &mut open, now("s", 1), &events).unwrap();
    open.clear();
    assert_eq!(add(&connection, &mut open, now("s", 1), &events).unwrap().new.len(), 0);
    let jobs = jobs(&connection, "r");
    assert_eq!(jobs.len() as u64, MAX_RUN_JOBS + 1);
    let others = jobs.iter().find(|(job, _)| job.job == OTHER_JOBS).unwrap();
    assert_eq!((others.1.len(), others.0.kept), (20, 20));
}

/// By the server's clock, but for old events that were brought: these were heard of when they happened.
#[test]
fn a_job_was_heard_of_when_its_last_event_came() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    let heard = |connection: &Connection| jobs(connection, "r").remove(0).0.heard_ms;
    let old = |now_ms| Arrival { brought: true, ..now("s", now_ms) };
    for (arrival, n, want) in [
        (old(9000), 1, 1001),
        (old(1001), 5, 1001),
        (now("s", 7000), 2, 7000),
        (now("s", 8000), 2, 7000),
        (old(9000), 3, 7000),
        (now("s", 6000), 4, 7000),
    ] {
        add(&connection, &mut open, arrival, &[of(n, "r", "j")]).unwrap();
        assert_eq!(heard(&connection), want, "{n}");
    }
    open.clear();
    add(&connection, &mut open, now("s", 10_000), &[of(6, "r", "j")]).unwrap();
    let job = jobs(&connection, "r").remove(0).0;
    let names: Vec<String> =
        job.latest.seen(10_000).into_iter().map(|seen| seen.unit.crate_name).collect();
    assert_eq!((job.heard_ms, names.join(" ")), (10_000, "crate6 crate4 crate3".into()));
}

#[test]
fn odd_names_are_kept_within_bounds() {
    let (connection, mut open) = (in_memory().unwrap(), OpenJobs::default());
    for name in ["", "\u{0}", "../..", "\u{e9}\u{1b}[2J", &"\u{e9}".repeat(4000)] {
        add(&connection, &mut open, now("s", 1), &[of(1, name, name)]).unwrap();
        add(&connection, &mut open, now("s", 1), &[of(2, name, name)]).unwrap();
    }
    let runs = read::runs(&connection, "s", None, 10).unwrap();
    assert_eq!(runs.len(), 5);
    assert!(runs.iter().all(|run| run.run.len() <= MAX_RUN_BYTES));
}
