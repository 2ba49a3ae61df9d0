//! Removing what somebody made, where a place is behind the server and where the store takes no writes.

use kiln_storage::Digest;
use kiln_storage::api::PublishRequest;
use kiln_storage::record::Record;
use kiln_storage::testing::remote::RemoteFault;

use super::remote::{edge, remote};
use super::sending::LONG;
use super::{Fixture, offer, record};
use crate::remote::outbox;
use crate::revoke::{RevokeRequest, Revoked, run};

impl Fixture {
    /// Publishes a record that a toolchain made, with the blob of another one.
    async fn publish_by(&self, unit: &str, toolchain: &str) -> Record {
        let mut record = record(unit);
        record.outputs = super::record("blob").outputs;
        record.producer.toolchain = toolchain.to_owned();
        let path = self.dir.path().join("blob");
        std::fs::write(&path, "blob").unwrap();
        let offers = vec![offer(Digest::of(b"blob"), &path)];
        let request = PublishRequest { record: record.clone(), offers, replace: false };
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
