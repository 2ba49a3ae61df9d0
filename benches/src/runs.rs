//! Reports: how many events a server takes in a second, what they come to on the disk, and how long the report of
//! one run and the list of runs take when the history is full of others.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln::client::{Client, ClientError};
use kiln_storage::api::report::{RunReport, RunsResponse};
use kiln_storage::api::{Cause, Event, EventsRequest, Outcome as Became, RunAbout};
use kiln_storage::record::UnitName;
use kiln_storage::{Digest, ResultKey, UnitKey};

use crate::failure::{Failure, Outcome};
use crate::report::{self, Table, Unit};
use crate::server::RunningServer;
use crate::statistics::Series;

/// Jobs of a run, and units of a job.
const JOBS: u64 = 20;
const UNITS: u64 = 500;
/// One unit of so many is compiled; the others hit.
const ONE_MISS_IN: u64 = 10;
/// Runs of which the size of the history is told.
const TOLD_RUNS: f64 = 10_000.0;
/// Reports and lists that are timed.
const READS: usize = 9;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before events are sent again that were too many at once.
const BUSY: Duration = Duration::from_millis(5);
/// Spreads consecutive numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn event(run: u64, job: u64, n: u64) -> Event {
    let scattered = (run * 31 + job * 7 + n).wrapping_mul(STEP);
    let is_miss = scattered >> 32 & 0xffff < 0x1_0000 / ONE_MISS_IN;
    let digest = |what: &str| Digest::of(format!("{what} {job} {n} {run}").as_bytes());
    let started = 1_700_000_000_000 + run * 3_600_000;
    Event {
        id: format!("{}-{}-{}-{}", 1000 + job, 77_000 + run, 2000 + n, scattered),
        at_ms: started + n * 40 + scattered % 37,
        run: format!("{}", 9_000_000 + run),
        job: format!("build (linux, feature-{}, profile-{})", job / 4, job % 4),
        about: Some(RunAbout {
            service: "github".into(),
            repository: "owner/name".into(),
            workflow: "ci".into(),
            branch: "main".into(),
            ..RunAbout::default()
        }),
        build: format!("{run}-{job}"),
        unit: UnitName {
            crate_name: format!("some_crate_{n}"),
            version: format!("{}.{}.{}", n % 4, n % 23, n % 7),
            kind: ["lib", "proc-macro", "build-script", "build-script run"][(n % 4) as usize]
                .into(),
            target: "host".into(),
        },
        unit_key: Some(UnitKey::new(digest("unit"))),
        result_key: Some(ResultKey::new(digest("result"))),
        outcome: if is_miss { Became::Miss } else { Became::HitRemote },
        reason: is_miss.then(|| "input-changed".into()),
        detail: None,
        causes: if is_miss {
            let name = format!("<workspace>/crates/part_{}/src/lib.rs", n % 9);
            vec![Cause { kind: "file".into(), name, then: Some("1a2b3c4d".into()), now: None }]
        } else {
            Vec::new()
        },
        more_causes: 0,
        stem: Some(format!("some_crate_{n}-0123456789abcdef")),
        pinned: Vec::new(),
        conservative: Vec::new(),
        phases_us: [
            ("plan", 300),
            ("lookup", 400 + scattered % 900),
            ("restore", scattered % 5000),
        ]
        .map(|(phase, us)| (phase.to_owned(), us))
        .into(),
        bytes: 10_000 + scattered % 3_000_000,
        cost_ms: 50 + scattered % 4000,
        cpu_ms: 50 + scattered % 3900,
        wall_us: 2000 + scattered % 9000,
    }
}

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::NotMeasured(format!("{what}: {error}"))
}

/// Sends a job's events; what was too many at once is sent again.
fn send(client: &mut Client, body: &[u8]) -> Outcome<()> {
    loop {
        match client.request("POST", "/v1/events", body, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(503, _)) => std::thread::sleep(BUSY),
            Err(error) => return Err(failed("sending events", &error)),
        }
    }
}

/// Reads a page some times; the milliseconds of each.
fn read(client: &mut Client, path: &str) -> Outcome<(Series, Vec<u8>)> {
    let (mut took_ms, mut last) = (Series::default(), Vec::new());
    for _ in 0..READS {
        let start = Instant::now();
        let answer = client.request("GET", path, &[], TIMEOUT);
        last = answer.map_err(|error| failed("reading a report", &error))?;
        took_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((took_ms, last))
}

/// Bytes of the history of a server.
fn size(dir: &Path) -> f64 {
    let files = ["reports.sqlite", "reports.sqlite-wal"];
    files
        .iter()
        .filter_map(|name| std::fs::metadata(dir.join(name)).ok())
        .map(|m| m.len() as f64)
        .sum()
}

/// Measures a history of so many runs.
///
/// # Errors
/// When the server fails, or does not tell what it was sent.
pub fn run(program: &Path, dir: &Path, runs: usize) -> Outcome<()> {
    let runs = runs as u64;
    let server = RunningServer::on_socket(program, &dir.join("reports"))?;
    let mut client = server.connect()?;
    let mut sending = Duration::ZERO;
    for run in 0..runs {
        report::progress(&format!("run {} of {runs}", run + 1));
        let bodies: Vec<Vec<u8>> = (0..JOBS)
            .map(|job| EventsRequest { events: (0..UNITS).map(|n| event(run, job, n)).collect() })
            .map(|request| serde_json::to_vec(&request).unwrap_or_default())
            .collect();
        let start = Instant::now();
        bodies.iter().try_for_each(|body| send(&mut client, body))?;
        // Whatever is read is written first.
        let (path, flush) =
            (format!("/v1/runs/{}/jobs/x", 9_000_000 + run), ClientError::Foreign(""));
        match client.request("GET", &path, &[], TIMEOUT) {
            Err(ClientError::Refused(404, _)) => {}
            other => return Err(failed("flushing", &other.err().unwrap_or(flush))),
        }
        sending += start.elapsed();
    }
    let path = format!("/v1/runs/{}/report.json", 9_000_000 + runs - 1);
    let (report_ms, answer) = read(&mut client, &path)?;
    let told: RunReport = serde_json::from_slice(&answer)
        .map_err(|error| Failure::NotMeasured(format!("the report: {error}")))?;
    if told.total.counts.units != JOBS * UNITS || told.jobs.len() as u64 != JOBS {
        return Err(Failure::NotMeasured("the report does not tell what was sent".into()));
    }
    let (list_ms, answer) = read(&mut client, "/v1/runs")?;
    let listed: RunsResponse = serde_json::from_slice(&answer)
        .map_err(|error| Failure::NotMeasured(format!("the list of runs: {error}")))?;
    let events = (runs * JOBS * UNITS) as f64;
    let bytes = size(server.dir());
    let mut table = Table::new(format!("reports: {runs} runs of {JOBS} jobs of {UNITS} units"));
    table.value("events taken", Unit::PerSecond, events / sending.as_secs_f64());
    table.row("report of one run", Unit::Milliseconds, &report_ms);
    table.row(&format!("list of {} runs", listed.runs.len()), Unit::Milliseconds, &list_ms);
    table.value("history", Unit::Mebibytes, bytes / 1048576.0);
    let told_mib = bytes / runs as f64 * TOLD_RUNS / 1048576.0;
    table.value("history of 10,000 such runs", Unit::Mebibytes, told_mib);
    table.note(format!("{:.1} bytes an event, one in {ONE_MISS_IN} a miss", bytes / events));
    server.memory_row(&mut table, "at the end");
    table.print();
    Ok(())
}
