//! Asking what is behind the server, and bringing what lies there.

use std::sync::Arc;

use axum::response::Response;
use futures_util::FutureExt as _;
use kiln_storage::api::{BringRequest, LookupRequest, LookupResponse};
use kiln_storage::record::Record;
use kiln_storage::testing::remote::{MemoryRemote, RemoteFault};
use kiln_storage::{Digest, Scope};
use tower::ServiceExt as _;

use super::{Fixture, problem, record};
use crate::limits::REMOTE_FAULTS;
use crate::principal::Peer;
use crate::remote::flights::Claim;

pub(super) fn scope() -> Scope {
    crate::config::RemoteConfig::default().scopes.remove(0)
}

/// A remote that has the results of some units.
pub(super) fn remote(units: &[&str]) -> Arc<MemoryRemote> {
    let remote = Arc::new(MemoryRemote::default());
    for unit in units {
        remote.put(&scope(), &record(unit), &[unit.as_bytes()]);
    }
    remote
}

pub(super) fn edge(remote: &Arc<MemoryRemote>) -> Fixture {
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), Some(remote.clone()), |_| {});
    fixture.backend.gate.add_permits(10_000);
    fixture
}

impl Fixture {
    async fn bring(&self, record: &Record, within_ms: u64) -> Response {
        let path = format!("/v1/results/{}/bring", record.result_key);
        self.send("POST", &path, &BringRequest { within_ms }).await
    }

    async fn has(&self, bytes: &str) -> bool {
        self.service.store.blob_size(&Digest::of(bytes.as_bytes())).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn what_is_not_here_is_asked_for_once_and_brought() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    let answer = fixture.ask(&a, &[]).await;
    assert_eq!(answer.records, std::slice::from_ref(&a));
    assert_eq!((&answer.absent, &answer.arrived), (&vec![a.result_key], &vec![a.result_key]));
    assert!(!answer.farther && !fixture.has("a").await);
    assert_eq!(fixture.bring(&a, 5000).await.status(), 204);
    assert!(fixture.has("a").await);
    let answer = fixture.ask(&a, &[]).await;
    assert!(answer.absent.is_empty() && answer.arrived == [a.result_key], "{answer:?}");
    // Again: nothing is fetched twice.
    assert_eq!(fixture.bring(&a, 5000).await.status(), 204);
    let calls = remote.calls();
    assert_eq!((calls.lookups, calls.blobs, calls.stores), (1, 1, 0));
}

#[tokio::test]
async fn over_tcp_it_is_the_same() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    let request = LookupRequest { units: vec![a.unit_key], ..LookupRequest::default() };
    fixture.send_as(Peer::Tcp(None), "POST", "/v1/lookup", &request).await;
    let path = format!("/v1/results/{}/bring", a.result_key);
    let body = BringRequest { within_ms: 5000 };
    assert_eq!(fixture.send_as(Peer::Tcp(None), "POST", &path, &body).await.status(), 204);
    let path = format!("/v1/blobs/{}", Digest::of(b"a"));
    let blob = fixture.send_as(Peer::Tcp(None), "GET", &path, &()).await;
    assert_eq!(axum::body::to_bytes(blob.into_body(), 10).await.unwrap(), "a");
}

#[tokio::test]
async fn what_is_nowhere_is_not_asked_for_again_at_once() {
    let remote = remote(&[]);
    let fixture = edge(&remote);
    for _ in 0..3 {
        let answer = fixture.ask(&record("a"), &[]).await;
        assert!(answer.records.is_empty() && !answer.farther);
    }
    assert_eq!(remote.calls().lookups, 1);
    assert_eq!(problem(fixture.bring(&record("a"), 10).await).await, "404 /problems/not-found");
}

/// What is here is answered without a question, and says that there may be more.
#[tokio::test]
async fn a_result_that_does_not_hold_sends_the_question_on() {
    let remote = remote(&[]);
    let fixture = edge(&remote);
    let (here, response) = fixture.publish("a").await;
    assert_eq!(response.status(), 202);
    let answer = fixture.ask(&here, &[]).await;
    assert!(answer.farther && answer.records.len() == 1 && answer.arrived.is_empty());
    assert_eq!(remote.calls().lookups, 0);

    let mut other = record("b");
    other.unit_key = here.unit_key;
    other.members = vec![kiln_storage::record::Member::DiagnosticWidth];
    other.values = vec![Digest::of(b"80")];
    let key = kiln_storage::record::result_key;
    other.result_key = key(&other.unit_key, &other.members, &other.values);
    remote.put(&scope(), &other, &[b"b"]);
    let answer = fixture.ask(&here, &[&here]).await;
    assert_eq!(answer.records, std::slice::from_ref(&other));
    assert_eq!(answer.absent, [other.result_key]);
    assert!(!answer.farther);
    // The answer holds for a while, for both.
    assert!(!fixture.ask(&here, &[]).await.farther);
    fixture.ask(&here, &[&here, &other]).await;
    assert_eq!(remote.calls().lookups, 1);
}

#[tokio::test]
async fn a_blob_is_fetched_once_whoever_waits_for_it() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    fixture.ask(&a, &[]).await;
    remote.close();
    let mut one = Box::pin(fixture.bring(&a, 5000));
    let mut two = Box::pin(fixture.bring(&a, 5000));
    assert!(one.as_mut().now_or_never().is_none() && two.as_mut().now_or_never().is_none());
    remote.open();
    assert_eq!(
        (one.await.status(), two.await.status()),
        (204.try_into().unwrap(), 204.try_into().unwrap())
    );
    assert_eq!(remote.calls().blobs, 1);
}

/// A pack that has a blob and is slow: whoever needs the blob now gets it alone.
#[tokio::test]
async fn a_blob_that_a_slow_pack_is_to_bring_is_fetched_alone() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    fixture.ask(&a, &[]).await;
    let edge = fixture.service.edge.as_ref().unwrap();
    let digest = Digest::of(b"a");
    let pack = Claim::take_for_pack(&fixture.service, edge, digest).unwrap();
    assert_eq!(fixture.bring(&a, 1000).await.status(), 204);
    assert!(fixture.has("a").await);
    assert_eq!(remote.calls().blobs, 1);
    // What was taken over is nobody's any more, and no longer the pack's.
    let (mine, _) = Claim::take(&fixture.service, edge, &[digest]);
    drop(pack);
    let (none, others) = Claim::take(&fixture.service, edge, &[digest]);
    assert!(mine.is_some() && none.is_none() && others.len() == 1);
    assert_eq!(fixture.told(), [""; 0]);
}

/// Whoever waited has gone; the blob comes all the same, for the next one.
#[tokio::test]
async fn what_is_not_here_in_time_comes_later() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    fixture.ask(&a, &[]).await;
    remote.close();
    assert_eq!(problem(fixture.bring(&a, 10).await).await, "408 /problems/timeout");
    remote.open();
    assert_eq!(fixture.bring(&a, 5000).await.status(), 204);
    assert_eq!(remote.calls().blobs, 1);
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
}

/// Questions are answered at once and blobs never come: that is waited for a few times, and not for each unit.
#[tokio::test]
async fn a_remote_whose_blobs_never_come_is_left_alone() {
    let units: Vec<String> = (0..=REMOTE_FAULTS).map(|n| n.to_string()).collect();
    let remote = remote(&units.iter().map(String::as_str).collect::<Vec<_>>());
    remote.set_fault(Some(RemoteFault::NeverBlobs));
    let fixture = edge(&remote);
    let (last, first) = units.split_last().unwrap();
    for unit in first {
        let wanted = record(unit);
        assert_eq!(fixture.ask(&wanted, &[]).await.absent, [wanted.result_key]);
        assert_eq!(problem(fixture.bring(&wanted, 10).await).await, "408 /problems/timeout");
    }
    // Neither for what is on its way, nor for anything else.
    let refused = problem(fixture.bring(&record(&first[0]), 5000).await).await;
    assert_eq!(refused, "503 /problems/storage-unavailable");
    assert!(fixture.ask(&record(last), &[]).await.records.is_empty());
    let lookups = remote.calls().lookups;
    assert_eq!(lookups, u64::from(REMOTE_FAULTS));
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
}

/// Servers behind one another in a circle: a question that comes back is answered with what is here.
#[tokio::test]
async fn a_question_that_comes_back_goes_no_further() {
    let remote = remote(&["a", "b"]);
    let fixture = edge(&remote);
    let id = fixture.service.edge.as_ref().unwrap().id.clone();
    let ask = async |unit: &str, through: String| -> LookupResponse {
        let request =
            LookupRequest { units: vec![record(unit).unit_key], ..LookupRequest::default() };
        let request = axum::http::Request::post("/v1/lookup")
            .extension(Peer::Tcp(None))
            .header(kiln_storage::remote::via::HEADER, through)
            .body(axum::body::Body::from(serde_json::to_vec(&request).unwrap()))
            .unwrap();
        super::read(crate::routes::router(&fixture.service).oneshot(request).await.unwrap()).await
    };
    assert_eq!(ask("a", "another,one".to_owned()).await.records.len(), 1);
    assert!(ask("b", format!("another,{id}")).await.records.is_empty());
    assert_eq!(remote.calls().lookups, 1);
    let status = crate::remote::status(&fixture.service).await.unwrap().unwrap();
    assert!(status.left_alone.unwrap().contains("leads back"));
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
}

#[tokio::test]
async fn blobs_that_come_along_are_not_fetched() {
    let remote = remote(&["a"]);
    remote.set_inline_bytes(1);
    let fixture = edge(&remote);
    let a = record("a");
    assert_eq!(fixture.ask(&a, &[]).await.records.len(), 1);
    assert_eq!(fixture.bring(&a, 5000).await.status(), 204);
    assert!(fixture.has("a").await);
    assert_eq!(remote.calls().blobs, 0);
}

#[tokio::test]
async fn what_is_damaged_there_is_refused_and_followed_by_the_next_generation() {
    for fault in [RemoteFault::Lies, RemoteFault::NoBlobs] {
        let remote = remote(&["a"]);
        let fixture = edge(&remote);
        let a = record("a");
        fixture.ask(&a, &[]).await;
        remote.set_fault(Some(fault));
        let refused = problem(fixture.bring(&a, 5000).await).await;
        assert_eq!(refused, "409 /problems/missing-blobs");
        assert!(!fixture.has("a").await);
        assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
        remote.set_fault(None);
        assert_eq!(fixture.publish("a").await.1.status(), 202);
        fixture.lookup(&a).await;
        assert!(
            crate::remote::outbox::drain(
                &fixture.service,
                super::sending::LONG,
                super::sending::LONG
            )
            .await
        );
        let names = remote.names();
        assert_eq!((names.len(), names[0].generation), (1, 1), "{names:?}");
        assert_eq!(remote.calls().rejects, 1);
    }
}

#[tokio::test]
async fn a_remote_that_is_away_is_left_alone_and_told_once() {
    let remote = remote(&["a"]);
    remote.set_fault(Some(RemoteFault::Unavailable));
    let fixture = edge(&remote);
    for n in 0..20 {
        let answer = fixture.ask(&record(&n.to_string()), &[]).await;
        assert!(answer.records.is_empty() && !answer.farther);
    }
    assert_eq!(remote.calls().lookups, u64::from(REMOTE_FAULTS));
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
    let status = crate::remote::status(&fixture.service).await.unwrap().unwrap();
    assert_eq!((status.reachable, status.left_alone.is_some()), (Some(false), true));
}

/// The answer of a lookup does not wait longer than its bound.
#[tokio::test]
async fn a_remote_that_does_not_answer_is_a_miss() {
    let remote = remote(&["a"]);
    remote.close();
    let fixture = edge(&remote);
    assert!(fixture.ask(&record("a"), &[]).await.records.is_empty());
    assert_eq!(fixture.told().len(), 1, "{:?}", fixture.told());
    remote.open();
    assert_eq!(fixture.ask(&record("a"), &[]).await.records.len(), 1);
}

/// A lookup that waited for the note of its job in vain does not wait for another question as well.
#[tokio::test]
async fn a_remote_that_does_not_answer_is_waited_for_once_a_lookup() {
    let remote = remote(&["a"]);
    remote.close();
    let fixture = edge(&remote);
    let units = vec![record("a").unit_key];
    let request = LookupRequest { units, job: Some("j".to_owned()), ..LookupRequest::default() };
    assert!(fixture.ask_for(request.clone()).await.records.is_empty());
    assert_eq!((remote.calls().notes, remote.calls().lookups), (1, 0));
    remote.open();
    assert_eq!(fixture.ask_for(request).await.records.len(), 1);
}

#[tokio::test]
async fn what_proved_wrong_here_does_not_come_back() {
    let remote = remote(&["a"]);
    let fixture = edge(&remote);
    let a = record("a");
    fixture.ask(&a, &[]).await;
    fixture.bring(&a, 5000).await;
    let request =
        kiln_storage::api::QuarantineRequest { unit: a.unit.clone(), reason: "differs".to_owned() };
    let path = format!("/v1/results/{}/quarantine", a.result_key);
    assert_eq!(fixture.send("POST", &path, &request).await.status(), 204);
    let again = LookupRequest {
        units: vec![a.unit_key],
        known: vec![record("b").result_key],
        ..LookupRequest::default()
    };
    assert!(fixture.ask_for(again).await.records.is_empty());
    assert!(fixture.ask(&a, &[]).await.records.is_empty());
}
