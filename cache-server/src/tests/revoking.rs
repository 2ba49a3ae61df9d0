//! Removing what somebody made, where a place is behind the server and where the store takes no writes.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::Request;
use futures_util::TryStreamExt as _;
use futures_util::stream;
use kiln_storage::api::PublishRequest;
use kiln_storage::record::Record;
use kiln_storage::remote::ResultName;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::testing::remote::RemoteFault;
use kiln_storage::{Backend, Digest, MemoryBackend};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::apart::{of, token};
use super::remote::{edge, remote, scope};
use super::sending::LONG;
use super::{Fixture, offer, record};
use crate::config::ServeConfig;
use crate::index::outbox::Meanwhile;
use crate::index::records;
use crate::principal::Peer;
use crate::remote::{outbox, through};
use crate::revoke::take::unsend;
use crate::revoke::{RevokeRequest, Revoked, run};
use crate::{clock, evict, routes, trust};

type Bucket = Arc<dyn Backend>;

fn bucket() -> Bucket {
    Arc::new(MemoryBackend::new(u64::MAX))
}

/// A new server before a bucket.
fn before(bucket: &Bucket) -> Fixture {
    let remote = Arc::new(ObjectRemote::new(bucket.clone(), "a bucket"));
    // Nothing is evicted until somebody calls for it.
    let small = |config: &mut ServeConfig| config.cache_size = Some(1);
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), Some(remote), small);
    fixture.backend.gate.add_permits(10_000);
    fixture
}

/// The generations of all results in a bucket.
async fn generations(bucket: &Bucket) -> Vec<String> {
    let listed: Vec<_> = bucket.list("results/").try_collect().await.unwrap();
    let name = |listed: kiln_storage::Listed| listed.name.to_string();
    let mut all: Vec<String> =
        listed.into_iter().map(|one| name(one).rsplit('.').next().unwrap().to_owned()).collect();
    all.sort();
    all
}

impl Fixture {
    /// Publishes a record that a toolchain made, with the blob of another one.
    async fn publish_by(&self, unit: &str, toolchain: &str) -> Record {
        self.publish_as(unit, toolchain, false).await
    }

    async fn publish_as(&self, unit: &str, toolchain: &str, replace: bool) -> Record {
        let mut record = record(unit);
        record.outputs = super::record("blob").outputs;
        record.producer.toolchain = toolchain.to_owned();
        let path = self.dir.path().join("blob");
        std::fs::write(&path, "blob").unwrap();
        let offers = vec![offer(Digest::of(b"blob"), &path)];
        let request = PublishRequest { record: record.clone(), offers, replace };
        let path = format!("/v1/results/{}", record.result_key);
        assert!(self.send("PUT", &path, &request).await.status().is_success());
        self.service.queue.drain().await;
        record
    }

    async fn revoke(&self, toolchain: &str, here: bool) -> Revoked {
        let toolchain = Some(toolchain.to_owned());
        let request = RevokeRequest { toolchain, here, remove: true, ..RevokeRequest::default() };
        run(&self.service, request).await.unwrap()
    }

    async fn drained(&self) -> bool {
        outbox::drain(&self.service, LONG, LONG).await
    }
}

#[tokio::test]
async fn what_was_sent_is_taken_back_and_the_next_is_sent_again() {
    let far = remote(&[]);
    let fixture = edge(&far);
    let bad = fixture.publish_by("a", "bad").await;
    fixture.publish_by("b", "good").await;
    assert!(fixture.drained().await && far.names().len() == 2);
    let revoked = fixture.revoke("bad", false).await;
    let behind = revoked.behind.unwrap();
    assert_eq!((revoked.results, behind.gone, behind.left), (1, 1, 0));
    assert_eq!((far.names().len(), fixture.lookup(&bad).await.len()), (1, 0));
    fixture.publish_by("a", "good").await;
    assert!(fixture.drained().await);
    let again = far.names().into_iter().find(|name| name.result == bad.result_key).unwrap();
    assert_eq!(again.generation, 1, "what is named as rejected there is not this one");

    far.set_fault(Some(RemoteFault::Unavailable));
    let behind = fixture.revoke("good", false).await.behind.unwrap();
    assert_eq!((behind.gone, behind.left), (0, 2));
    assert!(behind.why.is_some() && fixture.lookup(&bad).await.is_empty());
}

/// What was replaced is there in two generations until a collection.
#[tokio::test]
async fn what_was_replaced_is_taken_back_in_every_generation() {
    let bucket = bucket();
    let fixture = before(&bucket);
    for replace in [false, true] {
        let bad = fixture.publish_as("a", "bad", replace).await;
        assert!(fixture.drained().await);
        assert_eq!(before(&bucket).lookup(&bad).await.len(), 1);
    }
    assert_eq!(generations(&bucket).await, ["0", "1"]);
    let behind = fixture.revoke("bad", false).await.behind.unwrap();
    assert_eq!((behind.gone, behind.left), (1, 0));
    assert_eq!(generations(&bucket).await, Vec::<String>::new());
    let bad = record("a");
    assert!(before(&bucket).lookup(&bad).await.is_empty());
    assert!(fixture.lookup(&bad).await.is_empty());
}

/// Also when it has come back from there: then it is known here by where it came from alone.
#[tokio::test]
async fn what_was_evicted_here_is_taken_back_too() {
    let bucket = bucket();
    for comes_back in [false, true] {
        let fixture = before(&bucket);
        let bad = fixture.publish_by("a", "bad").await;
        assert!(fixture.drained().await);
        evict::once(&fixture.service).await.unwrap();
        assert_eq!(generations(&bucket).await.len(), 1);
        if comes_back {
            assert_eq!(fixture.lookup(&bad).await.len(), 1);
        }
        let principal = Some("user".to_owned());
        let request = RevokeRequest { principal, ..RevokeRequest::default() };
        let would = run(&fixture.service, request.clone()).await.unwrap();
        assert_eq!((would.results, would.evicted), (0, 1));
        let revoked =
            run(&fixture.service, RevokeRequest { remove: true, ..request }).await.unwrap();
        assert_eq!(revoked.evicted, 1);
        assert_eq!(revoked.behind.map(|behind| (behind.gone, behind.left)), Some((1, 0)));
        assert_eq!(generations(&bucket).await, Vec::<String>::new());
        assert!(fixture.lookup(&bad).await.is_empty());
    }
}

/// A server whose index is new knows no makers of what was sent before, and says so.
#[tokio::test]
async fn what_the_index_cannot_know_is_told() {
    let bucket = bucket();
    let revoked = |since_ms: u64, here: bool| {
        let fixture = before(&bucket);
        async move {
            let since_ms = Some(since_ms);
            let request = RevokeRequest { since_ms, here, ..RevokeRequest::default() };
            run(&fixture.service, request).await.unwrap().unknown
        }
    };
    let now = clock::now_ms();
    assert!(revoked(1, false).await.unwrap().contains("a bucket: who made what was sent there"));
    assert_eq!(revoked(now + 3_600_000, false).await, None);
    assert_eq!(revoked(1, true).await, None);
}

#[tokio::test]
async fn what_is_on_its_way_when_it_is_taken_back_does_not_come() {
    let bucket = bucket();
    let fixture = before(&bucket);
    let bad = fixture.publish_by("a", "bad").await;
    assert!(fixture.drained().await);
    let edge = fixture.service.edge.as_ref().unwrap();
    let on_its_way = edge.remote.lookup(&[scope()], &[bad.unit_key]).await.unwrap();
    assert_eq!(on_its_way.len(), 1);
    assert_eq!(fixture.revoke("bad", false).await.results, 1);
    let own = fixture.service.policy.own()[0].writes().unwrap().clone();
    through::arrive(&fixture.service, edge, &own, on_its_way).await.unwrap();
    assert!(fixture.lookup(&bad).await.is_empty());

    // The next one does.
    fixture.publish_by("a", "good").await;
    assert!(fixture.drained().await);
    let next = edge.remote.lookup(&[scope()], &[bad.unit_key]).await.unwrap();
    let key = bad.result_key;
    let forget = move |index: &_| {
        let stored = records::stored(index, &own.id, &key)?.unwrap();
        records::forget(index, stored.id)
    };
    fixture.service.index.write(forget).await.unwrap();
    let own = fixture.service.policy.own()[0].writes().unwrap();
    through::arrive(&fixture.service, edge, own, next).await.unwrap();
    assert_eq!(fixture.lookup(&bad).await.len(), 1);
}

#[tokio::test]
async fn what_was_stored_again_while_the_first_was_sent_stays_there() {
    let bucket = bucket();
    let fixture = before(&bucket);
    let edge = fixture.service.edge.as_ref().unwrap();
    let one = fixture.publish_by("a", "bad").await;
    assert!(fixture.drained().await);
    fixture.publish_as("a", "good", true).await;
    assert!(fixture.drained().await);
    let (unit, result) = (one.unit_key, one.result_key);
    let sent = ResultName { scope: scope(), unit, result, generation: 0 };
    for (meanwhile, left) in
        [(Meanwhile::Stays, &["0", "1"][..]), (Meanwhile::Again, &["1"]), (Meanwhile::Gone, &[])]
    {
        unsend(&fixture.service, edge, sent.clone(), meanwhile).await;
        assert_eq!(generations(&bucket).await, left, "{meanwhile:?}");
    }
}

/// Who sends slowly is asked again who they are when all is here.
#[tokio::test]
async fn what_began_before_its_token_was_revoked_is_not_stored_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let secret = token(dir.path(), "main");
    let fixture = Fixture::with(dir, None, |_| {});
    fixture.backend.gate.add_permits(9);
    let send = |path: String, len: usize, body: HttpBody| {
        let request = Request::builder()
            .method("PUT")
            .uri(path)
            .header("authorization", format!("Bearer {secret}"))
            .header("content-length", len)
            .extension(Peer::Tcp(None))
            .body(body)
            .unwrap();
        routes::router(&fixture.service).oneshot(request)
    };
    let blob = format!("/v1/blobs/{}", Digest::of(b"a"));
    assert_eq!(send(blob, 1, HttpBody::from("a")).await.unwrap().status(), 201);
    let record = record("a");
    let (path, key) = (format!("/v1/results/{}", record.result_key), record.result_key);
    let request = PublishRequest { record, offers: Vec::new(), replace: false };
    let text = serde_json::to_vec(&request).unwrap();
    let (len, (begins, begun), (go, goes)) = (text.len(), oneshot::channel(), oneshot::channel());
    let body = stream::once(async move {
        begins.send(()).unwrap();
        goes.await.map(|()| text)
    });
    let answer = tokio::spawn(send(path, len, HttpBody::from_stream(body)));
    begun.await.unwrap();
    let args = ["revoke", "main"].map(str::to_owned);
    trust::command::token(&args, fixture.dir.path(), &mut Vec::new()).unwrap();
    let principal = Some("token main".to_owned());
    let request = RevokeRequest { principal, remove: true, ..RevokeRequest::default() };
    assert_eq!(run(&fixture.service, request).await.unwrap().results, 0);
    go.send(()).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().status(), 401);
    let stored = move |index: &_| records::stored(index, &of("main").id(), &key);
    assert!(fixture.service.index.read(stored).await.unwrap().is_none());
}

/// The rows of what is sent are gone by then: nobody else would know of it.
#[tokio::test]
async fn what_is_being_sent_at_that_moment_does_not_stay_there() {
    let far = remote(&[]);
    let fixture = edge(&far);
    far.close();
    fixture.publish_by("a", "bad").await;
    let good = fixture.publish_by("b", "good").await;
    while far.calls().stores < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.revoke("bad", true).await.results, 1);
    far.open();
    assert!(fixture.drained().await);
    while far.calls().rejects < 1 || far.names().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(far.names()[0].result, good.result_key);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_and_nothing_of_it_is_answered() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(9);
    let bad = fixture.publish_by("a", "bad").await;
    *fixture.backend.fault.lock().unwrap() = Some("read-only file system");
    let revoked = fixture.revoke("bad", false).await;
    assert_eq!((revoked.results, revoked.stay), (1, 1));
    assert!(revoked.stay_why.unwrap().contains("read-only"));
    assert!(fixture.lookup(&bad).await.is_empty());
}
