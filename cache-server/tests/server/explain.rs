//! What explanations are made from: descriptions of units, and the events of a build.

use std::collections::BTreeMap;

use kiln_storage::api::{ExplainResponse, NearestRequest, NearestResponse};
use kiln_storage::record::{Record, UnitPart};
use kiln_storage::{Digest, UnitKey};

use crate::harness::{Fixture, TestServer};

fn part(value: &str) -> UnitPart {
    UnitPart { group: "cfg".into(), name: value.into(), value: None }
}

fn nearest(server: &TestServer, record: &Record) -> NearestResponse {
    let unit_key = UnitKey::new(Digest::of(b"new"));
    let request = NearestRequest { unit_key, unit: record.unit.clone(), result: None };
    server.send("POST", "/v1/nearest", &request).json()
}

/// What is said of the variables of a result.
fn variables(server: &TestServer, record: &Record) -> BTreeMap<String, String> {
    let (unit_key, result) = (record.unit_key, Some(record.result_key));
    let request = NearestRequest { unit_key, unit: record.unit.clone(), result };
    let answer: NearestResponse = server.send("POST", "/v1/nearest", &request).json();
    assert_eq!(answer.units, []);
    answer.variables
}

/// As for descriptions; each result has its own, unlike the description of its unit.
#[test]
fn variables_are_kept_by_result_and_not_sent_with_lookups() {
    let server = TestServer::start();
    let of =
        |value: &str| BTreeMap::from([("KT".to_owned(), Digest::of(value.as_bytes()).short())]);
    let with = |at: &str, value: &str| {
        let mut fixture = Fixture::new(server.dir.path(), "u", at, &[at.as_bytes()]);
        fixture.record.variables = of(value);
        fixture
    };
    let (one, two) = (with("1", "x"), with("2", "y"));
    let none = Fixture::new(server.dir.path(), "u", "3", &[b"3"]);
    assert_eq!(one.record.unit_key, two.record.unit_key);
    for fixture in [&one, &two, &none] {
        assert_eq!(server.publish(fixture).status, 202);
    }
    let found = server.lookup(&one.record).records;
    assert_eq!((found.len(), found.iter().all(|record| record.variables.is_empty())), (3, true));
    let are_known = |server: &TestServer| {
        assert_eq!(variables(server, &one.record), of("x"));
        assert_eq!(variables(server, &two.record), of("y"));
        assert_eq!(variables(server, &none.record), BTreeMap::new());
    };
    are_known(&server);
    let index = server.kiln_dir().join("index.sqlite");
    let dir = server.stop();
    std::fs::remove_file(index).unwrap();
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records.len(), 3);
    are_known(&server);
}

#[test]
fn a_variable_that_is_no_digest_is_refused() {
    let server = TestServer::start();
    let mut fixture = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    fixture.record.variables = BTreeMap::from([("KT".to_owned(), "secret".to_owned())]);
    assert_eq!(server.publish(&fixture).status, 422);
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
