//! Lookups over a unix socket: one and eight connections, with a small and a large index.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln::client::Client;
use kiln_storage::api::{LookupRequest, LookupResponse, PublishRequest};
use kiln_storage::record::{
    Content, Cost, Member, Output, Producer, RECORD_VERSION, Record, TokenPath, UnitName,
    result_key,
};
use kiln_storage::{Digest, UnitKey};

use crate::failure::{Failure, Outcome};
use crate::report::{self, Table, Unit};
use crate::server::RunningServer;
use crate::statistics::Series;

/// Records in the small and in the large index.
const SMALL: u64 = 1_000;
const LARGE: u64 = 100_000;
/// Longest that an index is filled; then it has as many records as it has.
const FILL_TIME: Duration = Duration::from_secs(150);
/// Connections that fill an index.
const FILLERS: u64 = 4;
/// Members of a record: a crate with a dozen inputs.
const MEMBERS: usize = 12;
/// Lookups of each connection in one round.
const LOOKUPS: u64 = 400;
/// Connections of the busy round.
const CONNECTIONS: usize = 8;
/// Connections that are open at once for the last figure of memory.
const MANY_CONNECTIONS: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(10);

/// The unit key of the nth record.
fn unit_key(n: u64) -> UnitKey {
    UnitKey::new(Digest::of(&n.to_le_bytes()))
}

fn record(n: u64) -> Record {
    let unit_key = unit_key(n);
    let path = |i: usize| TokenPath(format!("<cargo>/registry/src/package-{n}/src/module_{i}.rs"));
    let members: Vec<Member> = (0..MEMBERS).map(|i| Member::File(path(i))).collect();
    let value = |i: usize| Digest::of(format!("{n} {i}").as_bytes());
    let values: Vec<Digest> = (0..MEMBERS).map(value).collect();
    Record {
        version: RECORD_VERSION,
        unit_key,
        result_key: result_key(&unit_key, &members, &values),
        unit: UnitName { crate_name: format!("package_{n}"), ..UnitName::default() },
        parts: Vec::new(),
        members,
        values,
        variables: Default::default(),
        outputs: vec![Output {
            name: format!("package-{n}.d"),
            executable: false,
            mode: None,
            content: Content::Text("src/lib.rs:\n".into()),
        }],
        status: 0,
        stdout: String::new(),
        stderr: String::new(),
        cost: Cost::default(),
        producer: Producer::default(),
        conservative: Vec::new(),
    }
}

fn publish(client: &mut Client, n: u64) -> Outcome<()> {
    let record = record(n);
    let path = format!("/v1/results/{}", record.result_key);
    let request = PublishRequest { record, offers: Vec::new(), replace: false };
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let put = client.request("PUT", &path, &body, TIMEOUT).map(drop);
    put.map_err(|error| Failure::NotMeasured(format!("publishing: {error}")))
}

/// Publishes records until there are so many, or the time is up; how many there are.
fn fill(server: &RunningServer, wanted: u64) -> Outcome<u64> {
    let start = Instant::now();
    let part = |first: u64| {
        let mut client = server.connect()?;
        let mut n = first;
        while n < wanted && start.elapsed() < FILL_TIME {
            publish(&mut client, n)?;
            n += FILLERS;
        }
        Ok(n)
    };
    let ends = in_parallel((0..FILLERS).map(|first| move || part(first)).collect())?;
    Ok(ends.into_iter().min().unwrap_or(0).min(wanted))
}

/// Runs closures in a thread each and collects what they return.
fn in_parallel<T: Send, F: FnOnce() -> Outcome<T> + Send>(all: Vec<F>) -> Outcome<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(one)).collect();
        let lost = |_| Err(Failure::NotMeasured("a thread of the bench ended early".into()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
    })
}

/// Looks records up that are spread over the index; the microseconds of each lookup.
fn look_up(server: &RunningServer, records: u64, seed: u64) -> Outcome<Vec<f64>> {
    /// Spreads consecutive numbers.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut client = server.connect()?;
    let mut took_us = Vec::new();
    for i in 0..LOOKUPS {
        let n = (seed * LOOKUPS + i).wrapping_mul(STEP) % records.max(1);
        let request = LookupRequest {
            units: vec![unit_key(n)],
            results: Vec::new(),
            ..LookupRequest::default()
        };
        let start = Instant::now();
        let answer: LookupResponse = client
            .json("POST", "/v1/lookup", &request, TIMEOUT)
            .map_err(|error| Failure::NotMeasured(format!("looking up: {error}")))?;
        took_us.push(start.elapsed().as_secs_f64() * 1e6);
        if answer.records.len() != 1 {
            return Err(Failure::NotMeasured(format!("record {n} is not in the index")));
        }
    }
    Ok(took_us)
}

/// Figures of one index, a value for each round.
#[derive(Debug, Default)]
struct Figures {
    one_us: Series,
    one_p99_us: Series,
    one_per_s: Series,
    many_us: Series,
    many_p99_us: Series,
    many_per_s: Series,
}

impl Figures {
    fn round(&mut self, server: &RunningServer, records: u64, round: u64) -> Outcome<()> {
        let start = Instant::now();
        let one = Series::new(look_up(server, records, round)?);
        self.one_per_s.push(one.len() as f64 / start.elapsed().as_secs_f64());
        self.one_us.extend(one.median());
        self.one_p99_us.extend(one.quantile(0.99));
        let seed = |c: usize| round * CONNECTIONS as u64 + c as u64;
        let start = Instant::now();
        let all = (0..CONNECTIONS).map(|c| move || look_up(server, records, seed(c))).collect();
        let many = Series::new(in_parallel(all)?.concat());
        self.many_per_s.push(many.len() as f64 / start.elapsed().as_secs_f64());
        self.many_us.extend(many.median());
        self.many_p99_us.extend(many.quantile(0.99));
        Ok(())
    }

    fn rows(&self, table: &mut Table, records: u64) {
        let one = |what: &str| format!("{records} records, 1 connection: {what}");
        let many = |what: &str| format!("{records} records, {CONNECTIONS} connections: {what}");
        table.row(&one("a lookup"), Unit::Microseconds, &self.one_us);
        table.row(&one("99th percentile"), Unit::Microseconds, &self.one_p99_us);
        table.row(&one("lookups"), Unit::PerSecond, &self.one_per_s);
        table.row(&many("a lookup"), Unit::Microseconds, &self.many_us);
        table.row(&many("99th percentile"), Unit::Microseconds, &self.many_p99_us);
        table.row(&many("lookups"), Unit::PerSecond, &self.many_per_s);
    }
}

/// Measures, in rounds that alternate between the two indexes.
///
/// # Errors
/// When a server fails or forgets a record.
pub fn run(program: &Path, dir: &Path, rounds: usize) -> Outcome<()> {
    report::progress("server: filling two indexes");
    let mut table = Table::new("Server: lookups over a unix socket");
    let small = RunningServer::on_socket(program, &dir.join("small"))?;
    let large = RunningServer::on_socket(program, &dir.join("large"))?;
    let idle = large.memory_mib();
    let small_records = fill(&small, SMALL)?;
    let start = Instant::now();
    let large_records = fill(&large, LARGE)?;
    let filled_s = start.elapsed().as_secs_f64();
    report::progress(&format!("server: {rounds} rounds of lookups, {large_records} records"));
    let (mut of_small, mut of_large) = (Figures::default(), Figures::default());
    for round in 0..rounds as u64 {
        of_small.round(&small, small_records, round)?;
        of_large.round(&large, large_records, round)?;
    }
    let ratio = of_large.one_us.over(&of_small.one_us);
    table.row("a lookup in the large index / in the small", Unit::Ratio, &ratio);
    let ratio = of_large.many_per_s.over(&of_large.one_per_s);
    table.row("lookups of 8 connections / of one", Unit::Ratio, &ratio);
    of_small.rows(&mut table, small_records);
    of_large.rows(&mut table, large_records);
    table.value(
        "results published, 4 connections",
        Unit::PerSecond,
        large_records as f64 / filled_s,
    );
    table.row("server's memory, idle and empty", Unit::Mebibytes, &Series::new(idle));
    large.memory_row(&mut table, "after the load");
    let mut open = Vec::new();
    for _ in 0..MANY_CONNECTIONS {
        let mut client = large.connect()?;
        let asked = client.request("GET", "/v1/server", &[], TIMEOUT);
        asked.map_err(|error| Failure::NotMeasured(format!("one of many: {error}")))?;
        open.push(client);
    }
    large.memory_row(&mut table, &format!("{MANY_CONNECTIONS} connections open"));
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_are_ones_that_a_server_takes() {
        let (a, b) = (record(1), record(2));
        assert_eq!(a.check(), Ok(()));
        assert_ne!(a.unit_key, b.unit_key);
        assert_ne!(a.result_key, b.result_key);
    }

    #[test]
    fn closures_run_in_parallel_and_keep_their_order() {
        let all: Vec<_> = (0..4).map(|i| move || Ok(i)).collect();
        assert_eq!(in_parallel(all).unwrap(), [0, 1, 2, 3]);
        let bad = vec![|| -> Outcome<u8> { Err(Failure::NotMeasured("x".into())) }];
        assert!(in_parallel(bad).is_err());
    }
}
