//! Reports: how many events a server takes in a second, what they come to on the disk, and how long reports, pages and
//! lists take when the history is full of other runs.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln::client::{Client, ClientError};
use kiln_storage::api::report::RunReport;
use kiln_storage::api::{Cause, Event, EventsRequest, Outcome as Became, RunAbout};
use kiln_storage::record::UnitName;
use kiln_storage::{Digest, ResultKey, UnitKey};

use crate::failure::{Failure, Outcome};
use crate::past;
use crate::report::{self, Table, Unit};
use crate::server::RunningServer;
use crate::statistics::Series;

/// Jobs of a run, and units of a job.
const JOBS: u64 = 20;
const UNITS: u64 = 500;
/// One unit of so many is compiled; the others hit.
const ONE_MISS_IN: u64 = 10;
/// Most runs that are sent before the rest of the history is made of copies of them, and runs that are sent then.
const SENT_RUNS: u64 = 50;
const SENT_AGAIN: u64 = 20;
/// Reports and lists that are timed.
const READS: usize = 9;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before events are sent again that were too many at once.
const BUSY: Duration = Duration::from_millis(5);
/// Spreads consecutive numbers.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a run is called.
fn name(run: u64) -> String {
    (9_000_000 + run).to_string()
}

fn event(run: u64, job: u64, n: u64) -> Event {
    let scattered = (run * 31 + job * 7 + n).wrapping_mul(STEP);
    let is_miss = scattered >> 32 & 0xffff < 0x1_0000 / ONE_MISS_IN;
    let digest = |what: &str| Digest::of(format!("{what} {job} {n} {run}").as_bytes());
    let started = 1_700_000_000_000 + run * 3_600_000;
    Event {
        id: format!("{}-{}-{}-{}", 1000 + job, 77_000 + run, 2000 + n, scattered),
        at_ms: started + n * 40 + scattered % 37,
        run: name(run),
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

/// Waits until all is written that was sent: whatever is read is written first.
fn flush(client: &mut Client, run: u64) -> Outcome<()> {
    let path = format!("/v1/runs/{}/jobs/x", name(run));
    match client.request("GET", &path, &[], TIMEOUT) {
        Err(ClientError::Refused(404, _)) => Ok(()),
        Err(error) => Err(failed("flushing", &error)),
        Ok(_) => Err(Failure::NotMeasured("there is a job that was not sent".into())),
    }
}

/// Sends runs; how long that took until all was written.
fn take(server: &RunningServer, runs: Range<u64>) -> Outcome<Duration> {
    let (mut client, mut took) = (server.connect()?, Duration::ZERO);
    for run in runs {
        report::progress(&format!("sending run {}", run + 1));
        let bodies: Vec<Vec<u8>> = (0..JOBS)
            .map(|job| EventsRequest { events: (0..UNITS).map(|n| event(run, job, n)).collect() })
            .map(|request| serde_json::to_vec(&request).unwrap_or_default())
            .collect();
        let start = Instant::now();
        bodies.iter().try_for_each(|body| send(&mut client, body))?;
        flush(&mut client, run)?;
        took += start.elapsed();
    }
    Ok(took)
}

/// Sends a run as the wrappers of its jobs do: each event by itself, all jobs at the same time.
fn take_singly(server: &RunningServer, run: u64) -> Outcome<Duration> {
    let bodies = |job: u64| -> Vec<Vec<u8>> {
        let request = |n| EventsRequest { events: vec![event(run, job, n)] };
        (0..UNITS).map(|n| serde_json::to_vec(&request(n)).unwrap_or_default()).collect()
    };
    let jobs: Vec<Vec<Vec<u8>>> = (0..JOBS).map(bodies).collect();
    let start = Instant::now();
    let send_all = |bodies: Vec<Vec<u8>>| {
        let mut client = server.connect()?;
        bodies.iter().try_for_each(|body| send(&mut client, body))
    };
    std::thread::scope(|scope| {
        let sending: Vec<_> =
            jobs.into_iter().map(|job| scope.spawn(move || send_all(job))).collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, Outcome<()>>| {
            let panicked = |_| Failure::NotMeasured("a thread panicked".into());
            thread.join().map_err(panicked)?
        };
        sending.into_iter().try_for_each(ended)
    })?;
    flush(&mut server.connect()?, run)?;
    Ok(start.elapsed())
}

/// Measures how fast runs are taken.
fn ingest(
    table: &mut Table,
    (server, what): (&RunningServer, &str),
    runs: u64,
    take: impl FnOnce() -> Outcome<Duration>,
) -> Outcome<()> {
    let (events, before) = ((runs * JOBS * UNITS) as f64, server.processor_time());
    let took = take()?;
    table.value(what, Unit::PerSecond, events / took.as_secs_f64());
    if let (Some(before), Some(after)) = (before, server.processor_time()) {
        let us = (after - before).as_secs_f64() * 1e6 / events;
        table.value("processor time of each", Unit::Microseconds, us);
    }
    Ok(())
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

/// Measures what is read of a history, `run` being one of its runs.
fn reads(table: &mut Table, server: &RunningServer, run: &str) -> Outcome<()> {
    let mut client = server.connect()?;
    let (report_ms, answer) = read(&mut client, &format!("/v1/runs/{run}/report.json"))?;
    let told: RunReport = serde_json::from_slice(&answer)
        .map_err(|error| Failure::NotMeasured(format!("the report: {error}")))?;
    if told.total.counts.units != JOBS * UNITS || told.jobs.len() as u64 != JOBS {
        return Err(Failure::NotMeasured("the report does not tell what was sent".into()));
    }
    table.row(&format!("report of run {run}"), Unit::Milliseconds, &report_ms);
    for (what, path) in [
        ("its page", format!("/runs/{run}")),
        ("how it stands (kiln watch)", format!("/v1/runs/{run}/now")),
        ("page of the newest runs", "/".to_owned()),
        ("list of the newest 100 runs", "/v1/runs".to_owned()),
        ("metrics", "/metrics".to_owned()),
    ] {
        table.row(what, Unit::Milliseconds, &read(&mut client, &path)?.0);
    }
    Ok(())
}

/// Bytes of the history of a server.
fn size(dir: &Path) -> f64 {
    let wal = past::path(dir).with_extension("sqlite-wal");
    let files = [past::path(dir), wal];
    files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|m| m.len() as f64).sum()
}

/// Measures a history of so many runs. The first are sent, the rest are copies of them.
///
/// # Errors
/// When the server fails, or does not tell what it was sent.
pub fn run(program: &Path, dir: &Path, runs: usize) -> Outcome<()> {
    let (runs, dir) = (runs as u64, dir.join("reports"));
    let sent = runs.min(SENT_RUNS);
    let mut table = Table::new(format!("reports: {runs} runs of {JOBS} jobs of {UNITS} units"));
    let mut server = RunningServer::on_socket(program, &dir)?;
    ingest(&mut table, (&server, "events taken"), sent, || take(&server, 0..sent))?;
    if runs > sent {
        drop(server);
        past::prepend(&dir, runs - sent)?;
        server = RunningServer::on_socket(program, &dir)?;
        let again = sent..sent + SENT_AGAIN;
        let what = (&server, "events taken, the history being full");
        ingest(&mut table, what, SENT_AGAIN, || take(&server, again))?;
        let what = (&server, "the same, each by itself, 20 jobs at a time");
        ingest(&mut table, what, 1, || take_singly(&server, sent + SENT_AGAIN))?;
        reads(&mut table, &server, &format!("past-{}", (runs - sent) / 2))?;
    }
    reads(&mut table, &server, &name(sent - 1))?;
    let there = if runs > sent { runs + SENT_AGAIN + 1 } else { runs };
    let (bytes, events) = (size(&dir), (there * JOBS * UNITS) as f64);
    table.value("history", Unit::Mebibytes, bytes / 1048576.0);
    table.note(format!("{:.1} bytes an event, one in {ONE_MISS_IN} a miss", bytes / events));
    server.memory_row(&mut table, "at the end");
    table.print();
    Ok(())
}
