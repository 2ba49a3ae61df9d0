//! Requests against a service over a backend that does what a test tells it: holds writes back,
//! or fails them. What needs no such backend is tested in `tests/`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::response::Response;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use kiln_storage::api::{LookupRequest, LookupResponse, Offer, Problem, PublishRequest};
use kiln_storage::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use kiln_storage::record::{
    Content, Cost, Output, Producer, RECORD_VERSION, Record, UnitName, result_key,
};
use kiln_storage::{Digest, MemoryBackend, ObjectName, UnitKey};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::config::{ServeConfig, StorageUrl};
use crate::index;
use crate::limits::INGEST_QUEUE_RECORDS;
use crate::log::{Level, Log};
use crate::principal::Peer;
use crate::service::Service;
use crate::store::Store;
use crate::{ingest, rebuild, routes};

/// Memory behind a gate: each write of a blob needs a permit.
#[derive(Debug)]
struct Gated {
    inner: MemoryBackend,
    gate: Semaphore,
    fault: Mutex<Option<&'static str>>,
    lost: AtomicBool,
}

#[async_trait]
impl Backend for Gated {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        self.inner.get(name).await
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        if let Some(why) = *self.fault.lock().unwrap() {
            return Err(StoreError::ReadOnly(why.to_owned()));
        }
        if name.blob_digest().is_some() {
            self.gate.acquire().await.unwrap().forget();
        }
        self.inner.put_if_absent(name, body).await
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        if self.lost.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.inner.size(name).await
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.inner.delete(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.inner.list(prefix)
    }
}

struct Fixture {
    dir: TempDir,
    backend: Arc<Gated>,
    service: Service,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Arc::new(Gated {
            inner: MemoryBackend::new(u64::MAX),
            gate: Semaphore::new(0),
            fault: Mutex::new(None),
            lost: AtomicBool::new(false),
        });
        let config = ServeConfig::local(dir.path(), None, 0);
        let store = Store::new(backend.clone(), StorageUrl::Memory);
        let index = index::open::open(dir.path(), "test").unwrap().index;
        let log = Log::open(&dir.path().join("server.log"), Level::Debug, false);
        let service = Service::new(config, store, index, log);
        service.complete.send_replace(true);
        ingest::start(&service);
        Self {
            dir,
            backend,
            service,
        }
    }

    async fn send(&self, method: &str, path: &str, body: &impl Serialize) -> Response {
        let uid = rustix::process::geteuid().as_raw();
        self.send_as(Peer::Unix { uid: Some(uid) }, method, path, body)
            .await
    }

    async fn send_as(
        &self,
        peer: Peer,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .extension(peer)
            .body(HttpBody::from(serde_json::to_vec(body).unwrap()))
            .unwrap();
        routes::router(&self.service)
            .oneshot(request)
            .await
            .unwrap()
    }

    /// Publishes a record of one offered file.
    async fn publish(&self, unit: &str) -> (Record, Response) {
        let path: PathBuf = self.dir.path().join(unit);
        std::fs::write(&path, unit).unwrap();
        let record = record(unit);
        let request = PublishRequest {
            record: record.clone(),
            offers: vec![Offer {
                digest: Digest::of(unit.as_bytes()),
                path: path.to_str().unwrap().to_owned(),
            }],
            replace: false,
        };
        let path = format!("/v1/results/{}", record.result_key);
        let response = self.send("PUT", &path, &request).await;
        (record, response)
    }

    async fn lookup(&self, record: &Record) -> Vec<Record> {
        let request = LookupRequest {
            units: vec![record.unit_key],
            results: Vec::new(),
        };
        let response = self.send("POST", "/v1/lookup", &request).await;
        assert_eq!(response.status(), 200);
        read::<LookupResponse>(response).await.records
    }
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> T {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn problem(response: Response) -> String {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem: Problem = read(response).await;
    assert_eq!((problem.status, problem.request_id), (status, id));
    format!("{status} {}", problem.kind)
}

/// A record of one output that holds the name of the unit.
fn record(unit: &str) -> Record {
    let unit_key = UnitKey::new(Digest::of(format!("unit {unit}").as_bytes()));
    Record {
        version: RECORD_VERSION,
        unit_key,
        result_key: result_key(&unit_key, &[], &[]),
        unit: UnitName::default(),
        members: Vec::new(),
        values: Vec::new(),
        outputs: vec![Output {
            name: "out".into(),
            executable: false,
            content: Content::Blob {
                digest: Digest::of(unit.as_bytes()),
                size: unit.len() as u64,
            },
        }],
        stdout: String::new(),
        stderr: String::new(),
        cost: Cost::default(),
        producer: Producer::default(),
    }
}

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
async fn a_full_queue_says_when_to_come_back() {
    let fixture = Fixture::new();
    for i in 0..INGEST_QUEUE_RECORDS {
        let (_, response) = fixture.publish(&format!("unit-{i}")).await;
        assert_eq!(response.status(), 202);
    }
    let (_, response) = fixture.publish("one-more").await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await, "503 /problems/busy");
    assert!(!fixture.service.queue.is_idle());
    fixture.backend.gate.add_permits(INGEST_QUEUE_RECORDS + 1);
    assert!(
        fixture
            .service
            .queue
            .drain(crate::limits::SHUTDOWN_GRACE)
            .await
    );
    assert_eq!(fixture.publish("one-more").await.1.status(), 202);
}

#[tokio::test]
async fn a_store_without_writes_still_answers() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let (stored, _) = fixture.publish("stored").await;
    assert_eq!(fixture.lookup(&stored).await.len(), 1);

    for (why, expected) in [
        ("Read-only file system", "503 /problems/read-only"),
        (
            "No space left on device",
            "507 /problems/insufficient-storage",
        ),
    ] {
        *fixture.backend.fault.lock().unwrap() = Some(why);
        // What the store itself says shows at the first write, whatever was noted before.
        let blob = Body::Bytes(why.into());
        let put = fixture
            .service
            .store
            .put_blob(&Digest::of(why.as_bytes()), blob)
            .await;
        assert!(put.is_err());
        let (_, response) = fixture.publish("refused").await;
        assert_eq!(problem(response).await, expected);
        assert_eq!(fixture.lookup(&stored).await.len(), 1);
        assert_eq!(fixture.publish("stored").await.1.status(), 200);
        let ready = fixture.send("GET", "/readyz", &()).await;
        assert_eq!(ready.status(), 200);
        let ready: serde_json::Value = read(ready).await;
        assert!(
            ready["read_only"].is_string() && ready["ready"] == true,
            "{ready}"
        );
    }
    *fixture.backend.fault.lock().unwrap() = None;
    fixture.backend.gate.add_permits(1);
    let blob = Body::Bytes("works".into());
    let put = fixture
        .service
        .store
        .put_blob(&Digest::of(b"works"), blob)
        .await;
    assert_eq!(put.unwrap(), Put::Created);
    assert_eq!(fixture.service.store.read_only(), None);
}

#[tokio::test]
async fn a_blob_that_vanished_makes_a_new_generation() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(2);
    let (record, _) = fixture.publish("a").await;
    assert_eq!(fixture.lookup(&record).await.len(), 1);
    let digest = Digest::of(b"a");
    fixture
        .backend
        .inner
        .delete(&ObjectName::blob(&digest))
        .await
        .unwrap();
    assert_eq!(fixture.publish("a").await.1.status(), 202);
    assert_eq!(fixture.lookup(&record).await, [record]);
    let names: Vec<_> = fixture
        .backend
        .list("records/")
        .map(name_of)
        .collect()
        .await;
    assert_eq!(names.len(), 1);
    assert!(names[0].ends_with(".1"), "{names:?}");
}

fn name_of(listed: StoreResult<Listed>) -> String {
    listed.unwrap().name.to_string()
}

#[tokio::test]
async fn a_rebuild_keeps_the_newest_generation_only() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let store = &fixture.service.store;
    let digest = Digest::of(b"a");
    store
        .put_blob(&digest, Body::Bytes("a".into()))
        .await
        .unwrap();
    let scope = &fixture.service.policy.tcp_scope;
    let mut record = record("a");
    for (generation, stdout) in [(1, "newer"), (0, "older"), (2, "newest")] {
        record.stdout = stdout.to_owned();
        let name = ObjectName::record(scope, &record.unit_key, &record.result_key, generation);
        let body = serde_json::to_vec(&record).unwrap();
        store.put_record(&name, &body).await.unwrap();
    }
    let rebuilt = rebuild::run(&fixture.service).await.unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.records, rebuilt.damaged), (1, 1, 0));
    assert_eq!(fixture.lookup(&record).await, [record]);
    assert_eq!(fixture.backend.list("records/").count().await, 1);
}

#[tokio::test]
async fn a_blob_that_is_gone_is_missing_and_no_longer_claimed() {
    let fixture = Fixture::new();
    fixture.backend.gate.add_permits(1);
    let (record, _) = fixture.publish("a").await;
    assert_eq!(fixture.lookup(&record).await.len(), 1);
    fixture.backend.lost.store(true, Ordering::Relaxed);
    let request = PublishRequest {
        record: record.clone(),
        offers: Vec::new(),
        replace: false,
    };
    let path = format!("/v1/results/{}", record.result_key);
    let refused = fixture.send("PUT", &path, &request).await;
    assert_eq!(problem(refused).await, "409 /problems/missing-blobs");
    assert_eq!(fixture.lookup(&record).await, []);
    let asked = serde_json::json!({ "blobs": [Digest::of(b"a")] });
    let missing = fixture.send("POST", "/v1/blobs/missing", &asked).await;
    assert_eq!(read::<serde_json::Value>(missing).await, asked);
}

#[tokio::test]
async fn other_users_are_refused_on_the_socket() {
    let fixture = Fixture::new();
    let uid = Some(rustix::process::geteuid().as_raw() + 1);
    for (path, methods, _) in routes::table() {
        let path = path
            .replace("{digest}", &Digest::of(b"").to_string())
            .replace("{key}", &Digest::of(b"").to_string());
        for method in methods.iter().filter(|_| path.starts_with("/v1/")) {
            let method = method.to_uppercase();
            let response = fixture
                .send_as(Peer::Unix { uid }, &method, &path, &())
                .await;
            assert_eq!(
                problem_or_status(&method, response).await,
                "403",
                "{method} {path}"
            );
        }
    }
}

async fn problem_or_status(method: &str, response: Response) -> String {
    if method == "HEAD" {
        return response.status().as_u16().to_string();
    }
    let problem = problem(response).await;
    problem.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn over_tcp_no_files_are_taken_and_the_server_stays() {
    let fixture = Fixture::new();
    let record = record("a");
    let request = PublishRequest {
        record: record.clone(),
        offers: vec![Offer {
            digest: Digest::of(b"a"),
            path: "/etc/passwd".into(),
        }],
        replace: false,
    };
    let path = format!("/v1/results/{}", record.result_key);
    let refused = fixture.send_as(Peer::Tcp, "PUT", &path, &request).await;
    assert_eq!(problem(refused).await, "422 /problems/unprocessable");
    let refused = fixture
        .send_as(Peer::Tcp, "POST", "/v1/shutdown", &())
        .await;
    assert_eq!(problem(refused).await, "403 /problems/forbidden");
    assert!(!*fixture.service.stop.borrow());
}

#[tokio::test]
async fn a_damaged_index_makes_the_server_leave() {
    let fixture = Fixture::new();
    fixture.service.index_failed(&index::IndexError::Full);
    assert!(!*fixture.service.stop.borrow());
    fixture
        .service
        .index_failed(&index::IndexError::Damaged("x".into()));
    fixture.service.leaving().await;
    assert!(fixture.service.index_damaged.load(Ordering::Relaxed));
}

/// The document lists every route and nothing else.
#[test]
fn the_document_lists_every_route() {
    let text = crate::openapi_text().unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut documented: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.push(format!("{method} {path}"));
        }
    }
    let mut routed: Vec<String> = routes::table()
        .into_iter()
        .flat_map(|(path, methods, _)| methods.iter().map(move |m| format!("{m} {path}")))
        .collect();
    documented.sort();
    routed.sort();
    assert_eq!(documented, routed);
}

/// Every method in the table is really answered, and no other.
#[tokio::test]
async fn the_table_is_what_the_router_answers() {
    let fixture = Fixture::new();
    for (path, methods, _) in routes::table() {
        for method in ["get", "head", "put", "post", "delete", "patch"] {
            let response = fixture
                .send_as(Peer::Tcp, &method.to_uppercase(), path, &())
                .await;
            let implied = method == "head" && methods.contains(&"get");
            let answered = response.status() != 405;
            assert_eq!(
                answered,
                methods.contains(&method) || implied,
                "{method} {path}"
            );
        }
    }
}
