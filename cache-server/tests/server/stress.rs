//! Many at once, and dying in the middle: whatever is found afterwards is whole.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;

use kiln_storage::Digest;

use crate::harness::{Fixture, TestServer, exchange, spawn};

const THREADS: usize = 4;
const RESULTS: usize = 40;

/// Results of one thread; neighbours share a blob.
fn fixtures(dir: &Path, thread: usize) -> Vec<Fixture> {
    (0..RESULTS)
        .map(|i| {
            let own = format!("own {thread} {i} ").repeat(300);
            let shared = format!("shared {} ", i / 4).repeat(300);
            let unit = format!("t{thread}-u{i}");
            Fixture::new(dir, &unit, "1", &[own.as_bytes(), shared.as_bytes()])
        })
        .collect()
}

/// Every blob of every record that is found is there with the right bytes; the number found.
fn check_whole(server: &TestServer, fixtures: &[Fixture]) -> usize {
    let mut found = 0;
    for fixture in fixtures {
        for record in server.lookup(&fixture.record).records {
            assert_eq!(record, fixture.record);
            for (digest, _) in record.blobs() {
                let path = kiln_storage::disk::blob_path(&server.store_dir(), &digest);
                assert_eq!(Digest::of(&std::fs::read(path).unwrap()), digest);
            }
            found += 1;
        }
    }
    found
}

#[test]
fn publishing_looking_up_and_evicting_at_once_leaves_whole_results() {
    let budget = 300_000;
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.cache_size = Some(budget);
    });
    let sets: Vec<_> = (0..THREADS).map(|thread| fixtures(server.dir.path(), thread)).collect();
    std::thread::scope(|scope| {
        for set in &sets {
            let server = &server;
            scope.spawn(move || {
                for fixture in set {
                    let status = server.publish(fixture).status;
                    assert!([200, 201, 202, 503].contains(&status), "{status}");
                    server.lookup(&fixture.record);
                }
            });
        }
    });
    let all: Vec<Fixture> = sets.into_iter().flatten().collect();
    let dir = server.stop();
    let server = TestServer::start_with(dir, |_| {});
    let with_index = check_whole(&server, &all);
    assert!(with_index > 0);
    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(check_whole(&server, &all), with_index);
}

#[test]
fn a_server_killed_while_it_takes_over_leaves_whole_results() {
    let dir = tempfile::tempdir().unwrap();
    let all = fixtures(dir.path(), 0);
    let (mut child, socket) = spawn(dir.path());
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for fixture in &all {
                let Ok(stream) = UnixStream::connect(&socket) else {
                    return;
                };
                let body = serde_json::to_vec(&fixture.request()).unwrap();
                let path = fixture.path();
                let sent = std::panic::catch_unwind(|| exchange(stream, "PUT", &path, &[], &body));
                if sent.is_err() || sender.send(()).is_err() {
                    return;
                }
            }
        });
        for _ in 0..RESULTS / 2 {
            receiver.recv().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        drop(receiver);
    });
    let server = TestServer::start_with(dir, |_| {});
    check_whole(&server, &all);
    for fixture in &all {
        assert!([200, 201, 202].contains(&server.publish(fixture).status));
    }
    assert_eq!(check_whole(&server, &all), RESULTS);
}
