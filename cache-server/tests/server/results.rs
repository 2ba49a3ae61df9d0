//! Publishing, looking up and rejecting results.

use std::sync::Barrier;

use kiln_storage::api::{LookupRequest, PublishRequest, RejectRequest};
use kiln_storage::limits::{MAX_JSON_BODY_BYTES, MAX_LOOKUP_KEYS};
use kiln_storage::{Digest, UnitKey};

use crate::harness::{Fixture, TestServer, blob_file, in_memory};

#[test]
fn what_is_published_is_found() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a", b"b"]);
    assert_eq!(server.publish(&one).status, 202);
    let found = server.lookup(&one.record);
    assert_eq!(found.records, std::slice::from_ref(&one.record));
    let store = server.store_dir();
    assert_eq!(found.local_store.as_deref(), store.to_str());
    assert_eq!(std::fs::read(blob_file(&store, b"b")).unwrap(), b"b");
    assert_eq!(server.publish(&one).status, 200);

    // All blobs are stored already: no bytes to wait for.
    let mut two = Fixture::new(server.dir.path(), "u", "2", &[b"b"]);
    two.offers.clear();
    assert_eq!(server.publish(&two).status, 201);
    let records = server.lookup(&one.record).records;
    assert_eq!(records, [two.record.clone(), one.record.clone()]);

    let request = LookupRequest {
        units: vec![one.record.unit_key, UnitKey::new(Digest::of(b"other"))],
        results: vec![two.record.result_key],
        ..LookupRequest::default()
    };
    let body = serde_json::to_vec(&request).unwrap();
    let reply = server.tcp("POST", "/v1/lookup", &[], &body);
    let found: kiln_storage::api::LookupResponse = reply.json();
    assert_eq!(found.records, [two.record, one.record]);
    assert_eq!(found.local_store, None, "paths mean nothing over TCP");
}

#[test]
fn a_store_in_memory_answers_too() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), in_memory);
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    assert_eq!(server.publish(&one).status, 202);
    let found = server.lookup(&one.record);
    assert_eq!((found.records.len(), found.local_store), (1, None));
}

#[test]
fn a_file_that_changes_stores_nothing() {
    let server = TestServer::start();
    let mut one = Fixture::new(server.dir.path(), "u", "1", &[b"first", b"other"]);
    std::fs::write(&one.offers[0].path, b"FIRST").unwrap();
    assert_eq!(server.publish(&one).status, 202);
    assert_eq!(server.lookup(&one.record).records, []);
    assert!(!blob_file(&server.store_dir(), b"first").exists());
    assert_eq!(server.stats().store.results, 0);

    std::fs::write(&one.offers[0].path, b"longer than before").unwrap();
    assert_eq!(server.publish(&one).problem(), "/problems/unprocessable");
    std::fs::remove_file(&one.offers[0].path).unwrap();
    assert_eq!(server.publish(&one).problem(), "/problems/missing-blobs");
    one.offers.remove(0);
    let refused = server.publish(&one);
    assert_eq!((refused.status, refused.problem().as_str()), (409, "/problems/missing-blobs"));
    assert!(String::from_utf8_lossy(&refused.body).contains(&Digest::of(b"first").to_string()));
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    let refused = |request: &PublishRequest, path: &str| {
        let reply = server.send("PUT", path, request);
        assert_eq!((reply.status, reply.problem().as_str()), (422, "/problems/unprocessable"));
    };
    let mut other_key = one.request();
    other_key.record.values[0] = Digest::of(b"x");
    refused(&other_key, &one.path());
    let other = Fixture::new(server.dir.path(), "v", "1", &[b"a"]);
    refused(&other.request(), &one.path());
    let mut name = one.request();
    name.record.outputs[0].name = "../x".into();
    refused(&name, &one.path());
    let mut relative = one.request();
    relative.offers[0].path = "a".into();
    refused(&relative, &one.path());

    let stored = server.tcp("PUT", &format!("/v1/blobs/{}", Digest::of(b"a")), &[], b"a");
    assert_eq!(stored.status, 201);
    let mut size = one.request();
    if let kiln_storage::record::Content::Blob { size, .. } = &mut size.record.outputs[0].content {
        *size = 2;
    }
    refused(&size, &one.path());
    let bad = server.send("PUT", "/v1/results/xyz", &one.request());
    assert_eq!(bad.problem(), "/problems/bad-request");
    assert_eq!(server.stats().store.results, 0);
}

#[test]
fn malformed_and_oversized_bodies_are_problems() {
    let server = TestServer::start();
    for body in [b"".as_slice(), b"{", b"7", b"{\"units\":[\"zz\"]}", b"\xff"] {
        let reply = server.unix("POST", "/v1/lookup", body);
        assert_eq!((reply.status, reply.problem().as_str()), (400, "/problems/bad-request"));
    }
    let large = vec![b' '; MAX_JSON_BODY_BYTES + 1];
    let reply = server.unix("POST", "/v1/lookup", &large);
    assert_eq!((reply.status, reply.problem().as_str()), (413, "/problems/too-large"));
    let chunked = [("transfer-encoding", "chunked")];
    let mut body = format!("{:x}\r\n", large.len()).into_bytes();
    body.extend_from_slice(&large);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    let reply = server.tcp("POST", "/v1/lookup", &chunked, &body);
    assert_eq!(reply.problem(), "/problems/too-large");
    let many = LookupRequest {
        units: vec![UnitKey::new(Digest::of(b"u")); MAX_LOOKUP_KEYS + 1],
        results: Vec::new(),
        ..LookupRequest::default()
    };
    assert_eq!(server.send("POST", "/v1/lookup", &many).status, 413);
}

#[test]
fn one_key_published_many_times_at_once_is_one_record() {
    let server = TestServer::start();
    let fixtures: Vec<Fixture> = (0..8)
        .map(|i| {
            let dir = server.dir.path().join(i.to_string());
            std::fs::create_dir(&dir).unwrap();
            Fixture::new(&dir, "u", "1", &[b"same", b"bytes"])
        })
        .collect();
    let start = Barrier::new(fixtures.len());
    std::thread::scope(|scope| {
        for fixture in &fixtures {
            scope.spawn(|| {
                start.wait();
                let status = server.publish(fixture).status;
                assert!([200, 201, 202].contains(&status), "{status}");
            });
        }
    });
    let record = &fixtures[0].record;
    assert_eq!(server.lookup(record).records, std::slice::from_ref(record));
    let store = server.stats().store;
    assert_eq!((store.results, store.blobs), (1, 2));
    let records = walk(&server.store_dir().join("records"));
    assert_eq!(records.len(), 1);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn a_replacement_takes_the_place_and_survives_a_rebuild() {
    let server = TestServer::start();
    let mut one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    one.record.stdout = "other".into();
    assert_eq!(server.publish(&one).status, 200);
    assert_eq!(server.lookup(&one.record).records[0].stdout, "out");
    one.replace = true;
    assert_eq!(server.publish(&one).status, 201);
    assert_eq!(server.lookup(&one.record).records[0].stdout, "other");
    assert_eq!(walk(&server.store_dir().join("records")).len(), 1);

    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records, std::slice::from_ref(&one.record));
}

#[test]
fn a_rejected_result_is_forgotten_only_when_it_is_bad() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"aaaa", b"b"]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let path = format!("{}/reject", one.path());
    let reason = RejectRequest { reason: "test".into() };
    assert_eq!(server.send("POST", &path, &reason).status, 204);
    assert_eq!(server.lookup(&one.record).records.len(), 1);

    // The time of the file is kept, so that only its bytes tell.
    let file = blob_file(&server.store_dir(), b"aaaa");
    let times = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::write(&file, b"AAAA").unwrap();
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    open.set_modified(times).unwrap();
    assert_eq!(server.send("POST", &path, &reason).status, 204);
    assert_eq!(server.lookup(&one.record).records, []);
    assert!(!file.exists());
    assert_eq!(server.send("POST", &path, &reason).problem(), "/problems/not-found");
    assert_eq!(server.publish(&one).status, 202);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
}

#[test]
fn a_store_deleted_under_the_server_heals() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    std::fs::remove_dir_all(server.store_dir()).unwrap();
    let path = format!("{}/reject", one.path());
    let reason = RejectRequest { reason: "gone".into() };
    assert_eq!(server.send("POST", &path, &reason).status, 204);
    assert_eq!(server.lookup(&one.record).records, []);
    assert_eq!(server.publish(&one).status, 202);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    assert!(blob_file(&server.store_dir(), b"a").exists());
}

#[test]
fn a_small_budget_is_kept() {
    let budget = 100_000;
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.cache_size = Some(budget);
    });
    let mut last = None;
    for i in 0..30_u32 {
        let bytes = vec![i as u8; 20_000];
        let fixture = Fixture::new(server.dir.path(), &format!("u{i}"), "1", &[&bytes]);
        assert_eq!(server.publish(&fixture).status, 202);
        server.lookup(&fixture.record);
        last = Some(fixture);
    }
    let last = last.unwrap();
    // Publishing waits for an eviction under way: after one more, the ones before are done.
    let mut settled = server.stats().store;
    while settled.bytes > budget {
        std::thread::yield_now();
        settled = server.stats().store;
    }
    assert!(settled.results >= 1 && settled.results <= 5, "{settled:?}");
    assert_eq!(server.lookup(&last.record).records.len(), 1, "the newest stays");
    let dir = server.stop();
    let on_disk: u64 = walk(&dir.path().join("kiln/store/blobs"))
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(on_disk <= budget, "{on_disk}");
}
