//! What explanations are made from: descriptions of units, and the events of a build.

use kiln_storage::api::{ExplainResponse, NearestRequest, NearestResponse};
use kiln_storage::record::{Record, UnitPart};
use kiln_storage::{Digest, UnitKey};

use crate::harness::{Fixture, TestServer};

fn part(value: &str) -> UnitPart {
    UnitPart { group: "cfg".into(), name: value.into(), value: None }
}

fn nearest(server: &TestServer, record: &Record) -> NearestResponse {
    let unit_key = UnitKey::new(Digest::of(b"new"));
    let request = NearestRequest { unit_key, unit: record.unit.clone() };
    server.send("POST", "/v1/nearest", &request).json()
}

/// A lookup is not made slower by what only explanations need; what is stored has it, so that a
/// rebuilt index has it again.
#[test]
fn descriptions_are_kept_and_not_sent_with_lookups() {
    let server = TestServer::start();
    let mut one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    one.record.unit.crate_name = "one".into();
    one.record.parts = vec![part("x"), part("y")];
    assert_eq!(server.publish(&one).status, 202);
    let found = server.lookup(&one.record).records;
    assert_eq!((found.len(), found[0].parts.len()), (1, 0));
    let units = nearest(&server, &one.record).units;
    assert_eq!(units.len(), 1);
    assert_eq!((units[0].unit_key, &units[0].parts), (one.record.unit_key, &one.record.parts));

    let index = server.kiln_dir().join("index.sqlite");
    let dir = server.stop();
    std::fs::remove_file(index).unwrap();
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    assert_eq!(nearest(&server, &one.record).units, units);
    one.record.unit.crate_name = "other".into();
    assert_eq!(nearest(&server, &one.record), NearestResponse::default());
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let server = TestServer::start();
    let reply = server.unix("POST", "/v1/nearest", b"{}");
    assert_eq!(reply.problem(), "/problems/bad-request");
    let reply = server.unix("GET", "/v1/explain?build=a&build=b", b"");
    assert_eq!(reply.problem(), "/problems/bad-request");
    let none: ExplainResponse = server.unix("GET", "/v1/explain", b"").json();
    assert_eq!(none, ExplainResponse::default());
}
