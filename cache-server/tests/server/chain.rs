//! Servers before servers: what the last one has is had by the first.

use std::fs;

use kiln_server::remote::url::RemoteUrl;
use kiln_storage::Digest;
use kiln_storage::api::{BringRequest, LookupRequest, LookupResponse, ServerInfo};
use kiln_storage::limits::MAX_HOPS;
use kiln_storage::remote::via;

use crate::harness::{Fixture, TestServer, blob_file};

pub(crate) fn before(server: &TestServer) -> TestServer {
    let url = format!("http://{}", server.tcp);
    TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.remote.url =
            Some(("KILN_UPSTREAM", RemoteUrl::parse("KILN_UPSTREAM", &url).unwrap()));
    })
}

/// Waits until a server has stored a result.
fn settle(server: &TestServer, fixture: &Fixture) {
    assert_eq!(server.publish(fixture).status, 202);
    assert_eq!(server.lookup(&fixture.record).records.len(), 1);
}

fn bring(server: &TestServer, fixture: &Fixture) -> u16 {
    let path = format!("/v1/results/{}/bring", fixture.record.result_key);
    server.send("POST", &path, &BringRequest { within_ms: 20_000 }).status
}

#[test]
fn a_result_comes_through_a_server_in_the_middle() {
    let last = TestServer::start();
    let middle = before(&last);
    let first = before(&middle);
    let large = vec![b'x'; 3_000_000];
    let fixture = Fixture::new(last.dir.path(), "a", "1", &[b"one", b"two", &large]);
    settle(&last, &fixture);

    let answer = first.lookup(&fixture.record);
    assert_eq!(answer.records, std::slice::from_ref(&fixture.record));
    assert_eq!(answer.absent, [fixture.record.result_key]);
    assert_eq!(bring(&first, &fixture), 204);
    for bytes in [b"one".as_slice(), b"two", &large] {
        let file = blob_file(&first.store_dir(), bytes);
        assert_eq!(Digest::of(&fs::read(file).unwrap()), Digest::of(bytes));
    }
    let info: ServerInfo = first.unix("GET", "/v1/server", b"").json();
    let status = info.remote.unwrap();
    assert_eq!((status.reachable, status.arrived, status.damaged), (Some(true), 1, 0));
    // Compressed, it is a fraction.
    assert!(status.bytes_in < 100_000, "{status:?}");
    // Nothing is sent back.
    for server in [&first, &middle] {
        let drained = server.send("POST", "/v1/drain", &serde_json::json!({ "within_ms": 20_000 }));
        let status: kiln_storage::api::RemoteStatus = drained.json();
        assert_eq!((status.queued, status.sent), (0, 0));
    }
}

/// A question for others than those that are known.
fn others(server: &TestServer, known: &Fixture) -> LookupResponse {
    let request = LookupRequest {
        units: vec![known.record.unit_key],
        known: vec![known.record.result_key],
        ..LookupRequest::default()
    };
    server.send("POST", "/v1/lookup", &request).json()
}

/// The server in the middle has results of the unit that do not hold; the last one has one that does.
#[test]
fn a_question_that_results_did_not_answer_goes_on_to_the_last() {
    let last = TestServer::start();
    let middle = before(&last);
    let first = before(&middle);
    let dir = last.dir.path();
    let old = Fixture::new(dir, "a", "old", &[b"old"]);
    let new = Fixture::new(dir, "a", "new", &[b"new"]);
    // In this order: the one in the middle sends what it has to the last.
    settle(&last, &new);
    settle(&middle, &old);

    let answer = first.lookup(&old.record);
    assert_eq!(answer.records, std::slice::from_ref(&old.record));
    assert!(answer.farther, "there is more behind the one in the middle");
    let answer = others(&first, &old);
    assert_eq!(answer.records, std::slice::from_ref(&new.record));
    assert!(!answer.farther);
    assert_eq!(bring(&first, &new), 204);
    assert!(blob_file(&first.store_dir(), b"new").exists());
}

/// Servers that stand before each other in a circle would ask each other for ever.
#[test]
fn a_question_goes_through_so_many_servers_and_no_more() {
    let last = TestServer::start();
    let middle = before(&last);
    let first = before(&middle);
    let dir = last.dir.path();
    let [near, far] = ["near", "far"].map(|unit| Fixture::new(dir, unit, "1", &[unit.as_bytes()]));
    settle(&last, &near);
    settle(&last, &far);
    let ask = |fixture: &Fixture, hops| -> LookupResponse {
        let units = vec![fixture.record.unit_key];
        let request = LookupRequest { units, ..LookupRequest::default() };
        let through = (0..hops).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let body = serde_json::to_vec(&request).unwrap();
        first.tcp("POST", "/v1/lookup", &[(via::HEADER, &through)], &body).json()
    };
    assert_eq!(ask(&far, MAX_HOPS - 1).records, []);
    assert_eq!(ask(&near, MAX_HOPS - 2).records, std::slice::from_ref(&near.record));
    let info: ServerInfo = middle.unix("GET", "/v1/server", b"").json();
    assert_eq!(info.remote.unwrap().requests, 1, "the far one was asked for in the middle only");
    let log = fs::read_to_string(middle.kiln_dir().join("server.log")).unwrap();
    let told: Vec<_> = log.lines().filter(|line| line.contains(" warn ")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("came through 4 servers") && !told[0].contains("circle"), "{told:?}");
}

/// Jobs of a matrix: what one has just made, the others have from their shared server, though that was told a
/// moment ago that there is nothing.
#[test]
fn what_is_stored_is_there_for_the_next_who_asks() {
    let last = TestServer::start();
    let shared = before(&last);
    let (one, two, three) = (before(&shared), before(&shared), before(&shared));
    let fixture = Fixture::new(one.dir.path(), "a", "1", &[b"one"]);
    assert_eq!(two.lookup(&fixture.record).records, []);
    settle(&one, &fixture);
    let drained = one.send("POST", "/v1/drain", &serde_json::json!({ "within_ms": 20_000 }));
    assert_eq!(drained.json::<kiln_storage::api::RemoteStatus>().sent, 1);
    assert_eq!(three.lookup(&fixture.record).records, std::slice::from_ref(&fixture.record));
    assert_eq!(bring(&three, &fixture), 204);
}

#[test]
fn what_the_first_makes_reaches_the_last() {
    let last = TestServer::start();
    let middle = before(&last);
    let first = before(&middle);
    let fixture = Fixture::new(first.dir.path(), "a", "1", &[b"one", &vec![b'y'; 100_000]]);
    settle(&first, &fixture);
    for server in [&first, &middle] {
        let drained = server.send("POST", "/v1/drain", &serde_json::json!({ "within_ms": 20_000 }));
        let status: kiln_storage::api::RemoteStatus = drained.json();
        assert_eq!((status.queued, status.sent, status.lost), (0, 1, 0), "{status:?}");
    }
    let answer = last.lookup(&fixture.record);
    assert_eq!(answer.records, std::slice::from_ref(&fixture.record));
    assert!(answer.absent.is_empty() && !answer.farther);
}

#[test]
fn a_server_without_a_remote_has_nothing_to_drain_or_bring() {
    let server = TestServer::start();
    let drained = server.send("POST", "/v1/drain", &serde_json::json!({ "within_ms": 1 }));
    assert_eq!(drained.status, 404);
    let fixture = Fixture::new(server.dir.path(), "a", "1", &[b"one"]);
    settle(&server, &fixture);
    assert_eq!(bring(&server, &fixture), 404);
    assert_eq!(server.tcp("POST", "/v1/drain", &[], b"{\"within_ms\":1}").status, 403);
    let request =
        LookupRequest { units: vec![fixture.record.unit_key], ..LookupRequest::default() };
    let answer: LookupResponse = server.send("POST", "/v1/lookup", &request).json();
    assert_eq!(answer.arrived, []);
}
