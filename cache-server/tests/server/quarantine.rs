//! Results that proved wrong: forgotten, refused, remembered, released.

use kiln_storage::api::{QUARANTINED_STATUS, QuarantineRequest, QuarantineResponse, Quarantined};
use kiln_storage::limits::MAX_QUARANTINE_TEXT_BYTES;
use kiln_storage::record::{Record, UnitName};
use kiln_storage::{Digest, Scope};

use crate::harness::{Fixture, TestServer};

fn request(name: &str) -> QuarantineRequest {
    let unit = UnitName { crate_name: name.into(), ..UnitName::default() };
    QuarantineRequest { unit, reason: "libx.rlib differs".into() }
}

fn quarantine(server: &TestServer, fixture: &Fixture) {
    let path = format!("{}/quarantine", fixture.path());
    assert_eq!(server.send("POST", &path, &request("x")).status, 204);
}

fn listed(server: &TestServer) -> Vec<Quarantined> {
    let reply = server.unix("GET", "/v1/quarantine", b"");
    assert_eq!(reply.status, 200);
    reply.json::<QuarantineResponse>().quarantined
}

fn is_found(server: &TestServer, record: &Record) -> bool {
    !server.lookup(record).records.is_empty()
}

/// A server with one stored result.
fn with_one(unit: &str) -> (TestServer, Fixture) {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), unit, "1", &[b"a"]);
    assert_eq!(server.publish(&one).status, 202);
    assert!(is_found(&server, &one.record));
    (server, one)
}

#[test]
fn a_quarantined_result_is_forgotten_and_refused_until_it_is_released() {
    let (server, mut one) = with_one("u");
    let other = Fixture::new(server.dir.path(), "u", "2", &[b"b"]);
    assert_eq!(server.publish(&other).status, 202);
    quarantine(&server, &one);
    assert_eq!(server.lookup(&one.record).records, std::slice::from_ref(&other.record));
    for replace in [false, true] {
        one.replace = replace;
        let refused = server.publish(&one);
        assert_eq!(refused.status, QUARANTINED_STATUS);
        assert_eq!(refused.problem(), "/problems/quarantined");
    }
    let entries = listed(&server);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].result_key, one.record.result_key);
    assert_eq!(entries[0].unit.crate_name, "x");
    assert_eq!(entries[0].reason, "libx.rlib differs");
    assert!(entries[0].at_ms > 1_600_000_000_000);
    assert_eq!(server.stats().quarantined, 1);

    let release = format!("/v1/quarantine/{}", one.record.result_key);
    assert_eq!(server.unix("DELETE", &release, b"").status, 204);
    assert_eq!(server.unix("DELETE", &release, b"").problem(), "/problems/not-found");
    assert_eq!(listed(&server), []);
    assert_eq!(server.stats().quarantined, 0);
    // Its blob is there still.
    assert_eq!(server.publish(&one).status, 201);
    assert_eq!(server.lookup(&one.record).records.len(), 2);
}

#[test]
fn all_are_released_at_once() {
    let (server, one) = with_one("u");
    let unknown = Fixture::new(server.dir.path(), "v", "1", &[b"a"]);
    quarantine(&server, &one);
    // Also one that is not stored; twice is once.
    quarantine(&server, &unknown);
    quarantine(&server, &unknown);
    assert_eq!(server.publish(&unknown).status, QUARANTINED_STATUS);
    let reply = server.unix("DELETE", "/v1/quarantine", b"");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json::<QuarantineResponse>().quarantined.len(), 2);
    assert_eq!(listed(&server), []);
    for fixture in [&one, &unknown] {
        assert_eq!(server.publish(fixture).status, 201);
        assert!(is_found(&server, &fixture.record));
    }
}

/// With a new index, and with a record that comes back to the store from elsewhere.
#[test]
fn a_rebuilt_index_knows_what_is_quarantined() {
    let (server, one) = with_one("u");
    let kept = Fixture::new(server.dir.path(), "v", "1", &[b"a"]);
    server.publish(&kept);
    assert!(is_found(&server, &kept.record));
    let (scope, record) = (Scope::local_user(rustix::process::geteuid().as_raw()), &one.record);
    let name = kiln_storage::ObjectName::record(&scope, &record.unit_key, &record.result_key, 0);
    let file = server.store_dir().join(name.as_str());
    let bytes = std::fs::read(&file).unwrap();
    quarantine(&server, &one);
    assert!(!file.exists());
    let before = listed(&server);
    let dir = server.stop();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();

    let server = TestServer::start_with(dir, |_| {});
    assert!(is_found(&server, &kept.record));
    assert!(!is_found(&server, &one.record));
    assert_eq!(listed(&server), before);
    assert_eq!(server.publish(&one).status, QUARANTINED_STATUS);
    assert!(!file.exists(), "the record that came back is removed");
}

/// What was noted of it is lost; that it is quarantined is not.
#[test]
fn a_damaged_note_counts_all_the_same() {
    let (server, one) = with_one("u");
    quarantine(&server, &one);
    let scope = Scope::local_user(rustix::process::geteuid().as_raw());
    let name = kiln_storage::ObjectName::quarantined(&scope, &one.record.result_key);
    let dir = server.stop();
    std::fs::write(dir.path().join("kiln/store").join(name.as_str()), b"garbage").unwrap();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    let server = TestServer::start_with(dir, |_| {});
    assert!(!is_found(&server, &one.record));
    let entries = listed(&server);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].result_key, one.record.result_key);
    assert_eq!(server.publish(&one).status, QUARANTINED_STATUS);
}

#[test]
fn scopes_have_quarantines_of_their_own() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.tcp_scope = Some(Scope::new("repository", "refs/heads/main"));
    });
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    server.publish(&one);
    let body = serde_json::to_vec(&request("x")).unwrap();
    let path = format!("{}/quarantine", one.path());
    assert_eq!(server.tcp("POST", &path, &[], &body).status, 204);
    assert!(is_found(&server, &one.record), "the other scope's result stays");
    assert_eq!(listed(&server), []);
    let of_tcp = |method: &str, path: &str| server.tcp(method, path, &[], b"");
    let entries = of_tcp("GET", "/v1/quarantine").json::<QuarantineResponse>().quarantined;
    assert_eq!(entries.len(), 1);
    let release = format!("/v1/quarantine/{}", one.record.result_key);
    assert_eq!(server.unix("DELETE", &release, b"").status, 404);
    assert_eq!(of_tcp("DELETE", &release).status, 204);
}

#[test]
fn malformed_requests_are_problems_and_texts_are_bounded() {
    let server = TestServer::start();
    let bad = server.send("POST", "/v1/results/xyz/quarantine", &request("x"));
    assert_eq!(bad.problem(), "/problems/bad-request");
    let key = Digest::of(b"k");
    let path = format!("/v1/results/{key}/quarantine");
    assert_eq!(server.unix("POST", &path, b"{}").problem(), "/problems/bad-request");
    assert_eq!(server.unix("DELETE", "/v1/quarantine/xyz", b"").problem(), "/problems/bad-request");
    assert_eq!(listed(&server), []);
    let mut long = request(&"n".repeat(100_000));
    long.reason = "r".repeat(100_000);
    assert_eq!(server.send("POST", &path, &long).status, 204);
    let entries = listed(&server);
    assert_eq!(entries[0].reason.len(), MAX_QUARANTINE_TEXT_BYTES);
    assert_eq!(entries[0].unit.crate_name.len(), MAX_QUARANTINE_TEXT_BYTES);
}
