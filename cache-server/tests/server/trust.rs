//! Who may read and store what, from outside.

use kiln_server::ServeConfig;
use kiln_storage::api::{LookupRequest, LookupResponse, MissingRequest, PublishRequest};
use kiln_storage::{Digest, Scope};

use crate::harness::{Fixture, TestServer};

fn another_repository(config: &mut ServeConfig) {
    config.tcp_scope = Some(Scope::new("another", "refs/heads/main"));
}

/// What the unix socket's user stored is none of the business of who comes by TCP for another repository.
#[test]
fn blobs_of_another_repository_are_not_there_until_they_are_shown() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), another_repository);
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"secret"]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let digest = Digest::of(b"secret");
    let blob = format!("/v1/blobs/{digest}");
    let tcp = |method: &str, path: &str, body: &[u8]| server.tcp(method, path, &[], body);
    let asked = serde_json::to_vec(&MissingRequest { blobs: vec![digest] }).unwrap();
    let publish = PublishRequest { offers: Vec::new(), ..one.request() };
    let publish = serde_json::to_vec(&publish).unwrap();

    assert_eq!(server.unix("GET", &blob, b"").body, b"secret");
    assert_eq!(tcp("GET", &blob, b"").problem(), "/problems/not-found");
    assert_eq!(tcp("HEAD", &blob, b"").status, 404);
    let missing: MissingRequest = tcp("POST", "/v1/blobs/missing", &asked).json();
    assert_eq!(missing.blobs, [digest]);
    let packed = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"secret");
    assert!(!packed(&tcp("POST", "/v1/blobs/pack", &asked).body));
    assert_eq!(tcp("PUT", &one.path(), &publish).problem(), "/problems/missing-blobs");
    for wrong in [b"".as_slice(), b"secre", b"Secret", b"secrets"] {
        assert_eq!(tcp("PUT", &blob, wrong).problem(), "/problems/digest-mismatch");
    }
    assert_eq!(tcp("GET", &blob, b"").status, 404);

    assert_eq!(tcp("PUT", &blob, b"secret").status, 201, "that it is there is not told");
    assert_eq!(tcp("PUT", &blob, b"secret").status, 200);
    assert_eq!(tcp("GET", &blob, b"").body, b"secret");
    assert!(packed(&tcp("POST", "/v1/blobs/pack", &asked).body));
    assert_eq!(tcp("PUT", &one.path(), &publish).status, 201);
}

/// Whose blobs are whose comes from the store, as all facts do.
#[test]
fn a_rebuilt_index_knows_whose_blobs_are_whose() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), another_repository);
    let (mine, theirs) = ("mine", "theirs");
    let one = Fixture::new(server.dir.path(), "u", "1", &[theirs.as_bytes()]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let blob = |text: &str| format!("/v1/blobs/{}", Digest::of(text.as_bytes()));
    let two = Fixture::new(server.dir.path(), "u", "2", &[mine.as_bytes()]);
    assert_eq!(server.tcp("PUT", &blob(mine), &[], mine.as_bytes()).status, 201);
    let publish = PublishRequest { offers: Vec::new(), ..two.request() };
    let publish = serde_json::to_vec(&publish).unwrap();
    assert_eq!(server.tcp("PUT", &two.path(), &[], &publish).status, 201);
    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();

    // The scope is not configured any more: only the store knows it.
    let server = TestServer::start_with(dir, |config| {
        config.tcp_scope = Some(Scope::new("another", "refs/heads/other"));
    });
    let request = LookupRequest { units: vec![two.record.unit_key], ..LookupRequest::default() };
    let request = serde_json::to_vec(&request).unwrap();
    let found: LookupResponse = server.tcp("POST", "/v1/lookup", &[], &request).json();
    assert_eq!(found.records, [], "scopes of one repository are apart");
    assert_eq!(server.tcp("GET", &blob(mine), &[], b"").body, mine.as_bytes());
    assert_eq!(server.tcp("GET", &blob(theirs), &[], b"").status, 404);
}
