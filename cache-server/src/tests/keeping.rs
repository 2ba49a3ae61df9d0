//! What is stored, when it is seen, and what is found again.

use std::sync::atomic::Ordering;

use futures_util::{FutureExt as _, StreamExt as _};
use kiln_storage::api::{MissingRequest, PublishRequest, QuarantineRequest};
use kiln_storage::backend::{Backend as _, Body};
use kiln_storage::record::{Content, Output};
use kiln_storage::{Digest, ObjectName};

use super::{Fixture, offer, problem, read, record};
use crate::rebuild;

#[tokio::test]
async fn a_lookup_waits_for_what_is_being_taken_over() {
    let fixture = Fixture::new();
    let (record, response) = fixture.publish("a").await;
    assert_eq!(response.status(), 202);
    let mut lookup = Box::pin(fixture.lookup(&record));
    assert!(lookup.as_mut().now_or_never().is_none());
    fixture.backend.gate.add_permits(1);
    assert_eq!(lookup.await, [record]);
}

#[tokio::test]
async fn a_result_whose_blob_vanished_gets_a_new_generation() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(3);
    let (first, _) = fixture.publish("a").await;
    let delete = async |digest| {
        let name = ObjectName::blob(&digest);
        assert!(fixture.backend.inner.delete(&name).await.unwrap());
    };
    assert_eq!(fixture.lookup(&first).await.len(), 1);
    let generations = async || {
        let listed = fixture.backend.list("records/");
        let names = listed.map(|listed| listed.unwrap().name.to_string());
        let last = names.map(|name| name.rsplit_once('.').unwrap().1.to_owned());
        last.collect::<Vec<_>>().await
    };

    // The same bytes again: the record that is there is whole again, and stays.
    delete(Digest::of(b"a")).await;
    assert_eq!(fixture.publish("a").await.1.status(), 202);
    assert_eq!(fixture.lookup(&first).await, std::slice::from_ref(&first));
    assert_eq!(generations().await, ["0"]);

    // Other bytes: the record that is there stays broken, and is replaced.
    delete(Digest::of(b"a")).await;
    let mut second = first.clone();
    second.outputs = record("b").outputs;
    let path = fixture.dir.path().join("b");
    std::fs::write(&path, "b").unwrap();
    let request = PublishRequest {
        record: second.clone(),
        offers: vec![offer(Digest::of(b"b"), &path)],
        replace: false,
    };
    let path = format!("/v1/results/{}", second.result_key);
    assert_eq!(fixture.send("PUT", &path, &request).await.status(), 202);
    assert_eq!(fixture.lookup(&first).await, [second]);
    assert_eq!(generations().await, ["1"]);
}

#[tokio::test]
async fn a_rebuild_keeps_the_newest_generation_only() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let store = &fixture.service.store;
    let digest = Digest::of(b"a");
    store.put_blob(&digest, Body::Bytes("a".into())).await.unwrap();
    let scope = &kiln_storage::Scope::local_user(rustix::process::geteuid().as_raw());
    let mut record = record("a");
    for (generation, stdout) in [(1, "newer"), (0, "older"), (2, "newest")] {
        record.stdout = stdout.to_owned();
        let name = ObjectName::record(scope, &record.unit_key, &record.result_key, generation);
        let body = serde_json::to_vec(&record).unwrap();
        store.put_framed(&name, &body).await.unwrap();
    }
    let rebuilt = rebuild::run(&fixture.service).await.unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.records, rebuilt.damaged), (1, 1, 0));
    assert_eq!(fixture.lookup(&record).await, [record]);
    assert_eq!(fixture.backend.list("records/").count().await, 1);
}

#[tokio::test]
async fn blobs_that_nobody_noted_are_found_and_failed_results_leave_noted_ones() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(2);
    let (noted, unnoted) = (Digest::of(b"a"), Digest::of(b"b"));
    let body = Body::Bytes("b".into());
    fixture.service.store.put_blob(&unnoted, body).await.unwrap();
    let missing = async || {
        let asked = serde_json::json!({ "blobs": [noted, unnoted] });
        let reply = fixture.send("POST", "/v1/blobs/missing", &asked).await;
        read::<MissingRequest>(reply).await.blobs
    };
    assert_eq!(missing().await, [noted, unnoted]);
    assert_eq!(rebuild::find_blobs(&fixture.service).await.unwrap(), 1);
    assert_eq!(missing().await, [noted]);

    // The record names a second blob, whose file changes.
    let mut record = record("a");
    let other = fixture.dir.path().join("other");
    std::fs::write(&other, "changed").unwrap();
    record.outputs.push(Output {
        name: "second".into(),
        executable: false,
        mode: None,
        content: Content::Blob { digest: Digest::of(b"as it was"), size: 7 },
    });
    let first = fixture.dir.path().join("first");
    std::fs::write(&first, "a").unwrap();
    let request = PublishRequest {
        offers: vec![offer(noted, &first), offer(Digest::of(b"as it was"), &other)],
        record: record.clone(),
        replace: false,
    };
    let path = format!("/v1/results/{}", record.result_key);
    assert_eq!(fixture.send("PUT", &path, &request).await.status(), 202);
    assert_eq!(fixture.lookup(&record).await, []);
    let stored = fixture.service.store.blob_size(&noted).await.unwrap().is_some();
    assert_eq!(missing().await.is_empty(), stored, "what is stored is noted");
}

#[tokio::test]
async fn a_blob_that_is_gone_is_missing_and_no_longer_claimed() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let (record, _) = fixture.publish("a").await;
    assert_eq!(fixture.lookup(&record).await.len(), 1);
    fixture.backend.lost.store(true, Ordering::Relaxed);
    let request = PublishRequest { record: record.clone(), offers: Vec::new(), replace: false };
    let path = format!("/v1/results/{}", record.result_key);
    let refused = fixture.send("PUT", &path, &request).await;
    assert_eq!(problem(refused).await, "409 /problems/missing-blobs");
    assert_eq!(fixture.lookup(&record).await, []);
    let asked = serde_json::json!({ "blobs": [Digest::of(b"a")] });
    let missing = fixture.send("POST", "/v1/blobs/missing", &asked).await;
    assert_eq!(read::<serde_json::Value>(missing).await, asked);
}

/// Its bytes are on their way when it is quarantined.
#[tokio::test]
async fn a_result_that_is_quarantined_while_it_is_taken_over_is_not_stored() {
    let fixture = Fixture::new();
    let (record, response) = fixture.publish("a").await;
    assert_eq!(response.status(), 202);
    let path = format!("/v1/results/{}/quarantine", record.result_key);
    let request = QuarantineRequest { unit: record.unit.clone(), reason: "test".into() };
    assert_eq!(fixture.send("POST", &path, &request).await.status(), 204);
    fixture.backend.gate.add_permits(1);
    fixture.service.queue.drain().await;
    assert_eq!(fixture.lookup(&record).await, []);
    assert_eq!(fixture.backend.list("records/").count().await, 0);
}

/// A store without writes cannot remember it; it is not answered all the same.
#[tokio::test]
async fn a_store_without_writes_answers_nothing_quarantined() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let (record, _) = fixture.publish("a").await;
    assert_eq!(fixture.lookup(&record).await.len(), 1);
    *fixture.backend.fault.lock().unwrap() = Some("Read-only file system");
    let path = format!("/v1/results/{}/quarantine", record.result_key);
    let request = QuarantineRequest { unit: record.unit.clone(), reason: "test".into() };
    let refused = fixture.send("POST", &path, &request).await;
    assert_eq!(problem(refused).await, "503 /problems/read-only");
    assert_eq!(fixture.lookup(&record).await, []);
    assert_eq!(problem(fixture.publish("a").await.1).await, "423 /problems/quarantined");
}
