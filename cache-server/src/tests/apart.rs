//! Those who have a token, before a place that keeps scopes apart: they get from there what is in the scopes that they
//! read, and what they store goes there under the one that they write.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::response::Response;
use kiln_storage::api::{BringRequest, LookupRequest, LookupResponse, PublishRequest};
use kiln_storage::record::Record;
use kiln_storage::testing::remote::{MemoryRemote, RemoteFault};
use kiln_storage::{Digest, Scope};
use serde::Serialize;
use tower::ServiceExt as _;

use super::remote::scope as shared;
use super::{Fixture, read, record};
use crate::principal::Peer;
use crate::remote::outbox;

const LONG: Duration = Duration::from_secs(30);

/// A server with tokens of a main branch, two pull requests, and another repository, before this place.
struct Guarded {
    fixture: Fixture,
    tokens: Vec<(String, String)>,
}

pub(super) fn of(reference: &str) -> Scope {
    let repository = if reference == "stranger" { "s" } else { "r" };
    Scope::new(repository, reference)
}

/// A place that has a result of each of some scopes, named after it.
fn bucket(scopes: &[&str]) -> Arc<MemoryRemote> {
    let remote = Arc::new(MemoryRemote::default());
    remote.set_keeps_scopes(true);
    for one in scopes {
        let scope = if *one == "shared" { shared() } else { of(one) };
        remote.put(&scope, &record(one), &[one.as_bytes()]);
    }
    remote
}

pub(super) fn token(dir: &std::path::Path, reference: &str) -> String {
    let scope = of(reference);
    let mut args = vec!["create", "--name", reference, "--rights", "write", "--ref", reference];
    args.extend(["--repository", scope.repository()]);
    if reference.starts_with("pull") {
        args.extend(["--read", "main"]);
    }
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let mut made = Vec::new();
    crate::trust::command::token(&args, dir, &mut made).unwrap();
    String::from_utf8(made).unwrap().trim().to_owned()
}

impl Guarded {
    fn before(remote: &Arc<MemoryRemote>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let named = |name: &str| (name.to_owned(), token(dir.path(), name));
        let tokens = ["main", "pull1", "pull2", "stranger"].map(named).to_vec();
        let fixture = Fixture::with(dir, Some(remote.clone()), |_| {});
        fixture.backend.gate.add_permits(10_000);
        Self { fixture, tokens }
    }

    async fn send(&self, who: &str, (method, path): (&str, &str), body: Vec<u8>) -> Response {
        let (_, token) = self.tokens.iter().find(|(name, _)| name == who).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-length", body.len())
            .extension(Peer::Tcp(None))
            .body(HttpBody::from(body))
            .unwrap();
        crate::routes::router(&self.fixture.service).oneshot(request).await.unwrap()
    }

    async fn json(&self, who: &str, call: (&str, &str), body: &impl Serialize) -> Response {
        self.send(who, call, serde_json::to_vec(body).unwrap()).await
    }

    async fn finds(&self, who: &str, unit: &str) -> bool {
        let units = vec![record(unit).unit_key];
        let request = LookupRequest { units, ..LookupRequest::default() };
        let answer: LookupResponse =
            read(self.json(who, ("POST", "/v1/lookup"), &request).await).await;
        assert!(answer.records.iter().all(|found| *found == record(unit)));
        !answer.records.is_empty()
    }

    async fn brings(&self, who: &str, unit: &str) -> bool {
        let path = format!("/v1/results/{}/bring", record(unit).result_key);
        let response = self.json(who, ("POST", &path), &BringRequest { within_ms: 5000 }).await;
        response.status() == 204
    }

    async fn reads(&self, who: &str, blob: &str) -> bool {
        let path = format!("/v1/blobs/{}", Digest::of(blob.as_bytes()));
        self.send(who, ("GET", &path), Vec::new()).await.status() == 200
    }

    async fn publishes(&self, who: &str, unit: &str) -> u16 {
        let path = format!("/v1/blobs/{}", Digest::of(unit.as_bytes()));
        assert_eq!(self.send(who, ("PUT", &path), unit.into()).await.status(), 201);
        let record: Record = record(unit);
        let path = format!("/v1/results/{}", record.result_key);
        let request = PublishRequest { record, offers: Vec::new(), replace: false };
        self.json(who, ("PUT", &path), &request).await.status().as_u16()
    }

    async fn drain(&self) -> bool {
        self.fixture.service.queue.drain().await;
        outbox::drain(&self.fixture.service, LONG, LONG).await
    }
}

#[tokio::test]
async fn who_has_a_token_gets_from_a_bucket_what_is_in_its_scopes() {
    let remote = bucket(&["main", "pull1", "pull2", "stranger", "shared"]);
    let server = Guarded::before(&remote);
    for (who, sees) in [
        ("pull1", &["main", "pull1"][..]),
        ("pull2", &["main", "pull2"]),
        ("main", &["main"]),
        ("stranger", &["stranger"]),
    ] {
        for unit in ["main", "pull1", "pull2", "stranger", "shared"] {
            let may = sees.contains(&unit);
            assert_eq!(server.finds(who, unit).await, may, "{who} finds {unit}");
            assert_eq!(server.brings(who, unit).await, may, "{who} brings {unit}");
            assert!(!may || server.reads(who, unit).await, "{who} reads the blob of {unit}");
        }
    }
    assert!(!server.reads("main", "stranger").await && !server.reads("stranger", "main").await);
    assert_eq!(remote.calls().blobs, 4, "each is fetched once, and what nobody may have never");
    // The server's own user has what it had.
    assert_eq!(server.fixture.lookup(&record("shared")).await.len(), 1);
    assert!(server.fixture.lookup(&record("main")).await.is_empty());
}

#[tokio::test]
async fn what_they_store_goes_there_under_the_scope_that_they_write() {
    let remote = bucket(&[]);
    let server = Guarded::before(&remote);
    for (who, unit) in [("main", "a"), ("pull1", "b"), ("stranger", "c")] {
        assert_eq!(server.publishes(who, unit).await, 201);
    }
    server.fixture.publish("own").await;
    assert!(server.drain().await);
    let there: Vec<_> = remote.names().into_iter().map(|name| (name.scope, name.unit)).collect();
    let expected =
        [(of("main"), "a"), (of("pull1"), "b"), (of("stranger"), "c"), (shared(), "own")];
    assert_eq!(there.len(), 4, "{there:?}");
    for (scope, unit) in expected {
        assert!(there.contains(&(scope, record(unit).unit_key)), "{unit}");
    }
    // Another server before the same place, with nothing of its own.
    let second = Guarded::before(&remote);
    for (who, unit, finds) in [
        ("pull2", "a", true),
        ("pull1", "b", true),
        ("pull2", "b", false),
        ("main", "b", false),
        ("main", "c", false),
    ] {
        assert_eq!(second.finds(who, unit).await, finds, "{who} finds {unit}");
        assert_eq!(second.brings(who, unit).await, finds, "{who} brings {unit}");
    }
    assert!(second.drain().await);
    assert_eq!(remote.calls().stores, 4, "what came from there is not sent there");
}

/// What one was told says nothing to another one.
#[tokio::test]
async fn that_there_is_nothing_is_known_of_each_scope_alone() {
    let remote = bucket(&[]);
    let server = Guarded::before(&remote);
    for _ in 0..2 {
        assert!(!server.finds("pull1", "a").await);
        assert_eq!(remote.calls().lookups, 2, "its own scope, and the main branch");
    }
    remote.put(&of("pull2"), &record("a"), &[b"a"]);
    assert!(server.finds("pull2", "a").await, "it is asked for its own scope");
    assert_eq!(remote.calls().lookups, 3, "and not again for the main branch");
    assert!(!server.finds("pull1", "a").await, "the first has nothing of it");
}

/// A server behind is somebody else's, and so is the cache of a job: neither knows of these scopes.
#[tokio::test]
async fn a_place_that_does_not_keep_scopes_is_not_asked_for_them_nor_told() {
    let remote = bucket(&["main"]);
    let server = Guarded::before(&remote);
    remote.set_fault(Some(RemoteFault::Unavailable));
    assert_eq!(server.publishes("pull1", "b").await, 201);
    assert!(!server.drain().await);
    remote.set_fault(None);
    remote.set_keeps_scopes(false);
    assert!(!server.finds("main", "main").await && !server.brings("main", "main").await);
    assert_eq!(server.publishes("main", "a").await, 201);
    assert!(server.drain().await);
    let status = crate::remote::status(&server.fixture.service).await.unwrap().unwrap();
    assert_eq!((status.queued, status.sent, status.lost), (0, 0, 1), "what waited is given up");
    assert_eq!(remote.names().len(), 1, "nothing of theirs is there");
}
