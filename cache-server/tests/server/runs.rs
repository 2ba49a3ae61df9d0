//! Runs, their jobs and reports, from outside: what is sent again, a server that starts anew, names of any kind,
//! pages, and runs of others.

use kiln_storage::api::report::{JobReport, RunReport, RunSummary, RunsResponse, SCHEMA};
use kiln_storage::api::watch::RunNow;
use kiln_storage::api::{Event, EventsRequest, Outcome, RunAbout};
use kiln_storage::limits::{LATEST_UNITS, MAX_RUN_BYTES};

use crate::harness::{Reply, TestServer};
use crate::stats::event;

pub(crate) fn of(run: &str, job: &str, n: usize, outcome: Outcome) -> Event {
    let mut event = event(n, &format!("{run}/{job}"), outcome);
    (event.run, event.job) = (run.into(), job.into());
    event.at_ms = 1000 + n as u64;
    event
}

pub(crate) fn send(server: &TestServer, events: Vec<Event>) {
    assert_eq!(server.send("POST", "/v1/events", &EventsRequest { events }).status, 204);
}

pub(crate) fn get(server: &TestServer, path: &str) -> Reply {
    server.unix("GET", path, b"")
}

pub(crate) fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_run_is_reported_with_all_its_jobs_and_counts_each_event_once() {
    let server = TestServer::start();
    let one: Vec<Event> = (0..30).map(|n| of("r", "one", n, Outcome::HitLocal)).collect();
    let mut two: Vec<Event> = (0..10).map(|n| of("r", "two", n, Outcome::Miss)).collect();
    two[0].about = Some(RunAbout { repository: "o/r".into(), ..RunAbout::default() });
    for _ in 0..2 {
        send(&server, one.clone());
        send(&server, two.clone());
        send(&server, one[..5].to_vec());
    }
    let check = |server: &TestServer| {
        let report: RunReport = get(server, "/v1/runs/r/report.json").json();
        assert_eq!((report.schema, report.about.repository.as_str()), (SCHEMA, "o/r"));
        let counts = &report.total.counts;
        assert_eq!((counts.units, counts.hit_local, counts.miss), (40, 30, 10));
        assert_eq!(
            report.jobs.iter().map(|job| job.job.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert_eq!(report.slowest.len(), 10);
        let job: JobReport = get(server, "/v1/runs/r/jobs/two").json();
        assert_eq!((job.measures.counts.units, job.measures.hit_rate), (10, Some(0.0)));
        let run: RunSummary = get(server, "/v1/runs/r").json();
        assert_eq!((run.job_count, run.jobs.len(), run.total.hits), (2, 2, 30));
        let markdown = get(server, "/v1/runs/r/report.md");
        assert_eq!(markdown.header("content-type"), Some("text/markdown; charset=utf-8"));
        let text = String::from_utf8(markdown.body).unwrap();
        assert!(text.starts_with("## Kiln: 75.0 % of units from the cache"), "{text}");
        // Figures of builds are kept apart from that.
        assert_eq!(server.stats().total.units, 40);
    };
    check(&server);
    // Nothing is lost by a normal stop, and what is sent again then is known.
    let server = TestServer::start_with(server.stop(), |_| {});
    send(&server, one);
    check(&server);
}

/// Whatever the clocks of the machines say, ages are those of the server's clock.
#[test]
fn a_run_is_told_as_it_stands() {
    let server = TestServer::start();
    assert_eq!(get(&server, "/v1/runs/r/now").status, 404);
    let units: Vec<Event> = (0..9).map(|n| of("r", "one", n, Outcome::HitLocal)).collect();
    send(&server, units);
    let mut last = of("r", "two", 1, Outcome::Miss);
    (last.at_ms, last.unit.crate_name) = (u64::MAX / 4, "late".into());
    send(&server, vec![of("r", "two", 0, Outcome::Miss), last.clone(), last]);
    let run: RunSummary = get(&server, "/v1/runs/r").json();
    let now: RunNow = get(&server, "/v1/runs/r/now").json();
    assert_eq!((now.run.as_str(), now.job_count), ("r", 2));
    assert_eq!((now.total.units, now.total.hits, now.total.miss), (11, 9, 2));
    assert_eq!(now.total.hit_rate, run.total.hit_rate);
    let [one, two] = now.jobs.as_slice() else { panic!("{now:#?}") };
    assert_eq!((one.job.as_str(), one.figures.units, one.latest.len()), ("one", 9, LATEST_UNITS));
    let names: Vec<_> = two.latest.iter().map(|unit| unit.unit.crate_name.as_str()).collect();
    assert_eq!(names, ["late", ""]);
    assert_eq!((two.latest[0].outcome, two.latest[0].took_ms), (Outcome::Miss, 2));
    let an_hour = 3_600_000;
    let ages = [now.quiet_ms, one.quiet_ms, two.quiet_ms, two.latest[0].quiet_ms, run.quiet_ms];
    assert!(ages.iter().all(|age| *age < an_hour), "{ages:?}");
}

#[test]
fn runs_come_newest_first_and_page_by_page() {
    let server = TestServer::start();
    for n in 0..7 {
        send(&server, vec![of(&format!("run-{n}"), "j", n, Outcome::Miss)]);
    }
    let (mut names, mut query) = (Vec::new(), String::new());
    loop {
        let page: RunsResponse = get(&server, &format!("/v1/runs?limit=3{query}")).json();
        names.extend(page.runs.into_iter().map(|run| run.run));
        match page.next {
            Some(next) => query = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(names, (0..7).rev().map(|n| format!("run-{n}")).collect::<Vec<_>>());
    for bad in ["before=x", "before=1", "limit=x", "before=9-9-9"] {
        assert_eq!(get(&server, &format!("/v1/runs?{bad}")).status, 400, "{bad}");
    }
    let all: RunsResponse = get(&server, "/v1/runs?limit=100000").json();
    assert_eq!((all.runs.len(), all.next), (7, None));
}

#[test]
fn names_of_any_kind_lead_nowhere_else() {
    let server = TestServer::start();
    let names =
        ["..", "a/b", "%2e%2e", "\u{1b}[2J\n", "<script>|`", "'; DROP TABLE runs; --", "\u{e9}?#&"];
    for name in names {
        send(&server, vec![of(name, name, 1, Outcome::Miss)]);
        let report: RunReport = get(&server, &format!("/v1/runs/{}/report.json", hex(name))).json();
        assert_eq!((report.run.as_str(), report.jobs[0].job.as_str()), (name, name));
        let path = format!("/v1/runs/{}/jobs/{}", hex(name), hex(name));
        assert_eq!(get(&server, &path).json::<JobReport>().job, name);
        let markdown = get(&server, &format!("/v1/runs/{}/report.md", hex(name)));
        let text = String::from_utf8(markdown.body).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains("<script>"), "{text}");
    }
    let long = "x".repeat(3 * MAX_RUN_BYTES);
    send(&server, vec![of(&long, &long, 1, Outcome::Miss)]);
    let all: RunsResponse = get(&server, "/v1/runs").json();
    assert_eq!(all.runs.len(), names.len() + 1);
    assert!(all.runs.iter().all(|run| run.run.len() <= MAX_RUN_BYTES));
}

#[test]
fn what_is_not_there_is_not_found_and_others_see_their_own() {
    let server = TestServer::start();
    send(&server, vec![of("r", "j", 1, Outcome::Miss)]);
    for path in
        ["/v1/runs/x", "/v1/runs/x/report.json", "/v1/runs/x/report.md", "/v1/runs/r/jobs/x"]
    {
        let reply = get(&server, path);
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (404, "/problems/not-found"),
            "{path}"
        );
    }
    let server = TestServer::start_with(server.stop(), |config| {
        config.tcp_scope = Some(kiln_storage::Scope::new("o/r", "other"));
    });
    assert_eq!(server.tcp("GET", "/v1/runs/r", &[], b"").status, 404);
    assert_eq!(get(&server, "/v1/runs/r").status, 200);
}

#[test]
fn a_run_is_held_against_the_last_one_of_its_base_branch_and_of_its_jobs() {
    let server = TestServer::start();
    let about = |branch: &str, base: &str, workflow: &str| RunAbout {
        repository: "o/r".into(),
        workflow: workflow.into(),
        branch: branch.into(),
        base: base.into(),
        ..RunAbout::default()
    };
    let units = |run: &str, at: usize, about: &RunAbout, outcomes: &[(&str, Outcome)]| {
        let event = |(n, (name, outcome)): (usize, &(&str, Outcome))| {
            let mut event = of(run, "build", at + n, *outcome);
            event.unit.crate_name = (*name).to_owned();
            event.about = Some(about.clone());
            event
        };
        send(&server, outcomes.iter().enumerate().map(event).collect());
    };
    let (hit, miss) = (Outcome::HitRemote, Outcome::Miss);
    let main = about("main", "", "ci");
    units("old", 0, &main, &[("a", hit), ("b", hit)]);
    units("main", 10, &main, &[("a", hit), ("b", miss), ("c", hit)]);
    units("nightly", 20, &about("main", "", "nightly"), &[("b", hit)]);
    units("other", 30, &about("other", "main", "ci"), &[("b", hit)]);
    units("pull", 40, &about("topic", "main", "ci"), &[("a", miss), ("b", miss), ("c", hit)]);
    units("later", 50, &main, &[("a", miss)]);
    let report =
        |run: &str| -> RunReport { get(&server, &format!("/v1/runs/{run}/report.json")).json() };
    let told = |run: &str| {
        let report = report(run);
        let lost: Vec<String> =
            report.lost_hits.into_iter().map(|unit| unit.unit.crate_name).collect();
        let trend: Vec<String> =
            report.jobs[0].trend.iter().map(|point| point.run.clone()).collect();
        (report.base_run.unwrap_or_default(), lost.join(" "), trend.join(" "))
    };
    let want = |base: &str, lost: &str, trend: &str| (base.into(), lost.into(), trend.into());
    assert_eq!(told("pull"), want("main", "a", "other main old"));
    assert_eq!(told("later"), want("main", "a", "pull other main old"));
    assert_eq!(told("main"), want("old", "b", "old"));
    assert_eq!(told("old"), want("", "", ""));
    assert_eq!(told("nightly"), want("", "", ""), "another workflow");
}
