//! Requests against a service over a backend that does what a test tells it: holds writes back,
//! or fails them. What needs no such backend is tested in `tests/`.

mod answers;
mod apart;
mod keeping;
mod remote;
mod revoking;
mod sending;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body as HttpBody;
use axum::extract::Request;
use axum::response::Response;
use futures_util::stream::BoxStream;
use kiln_storage::api::{LookupRequest, LookupResponse, Offer, Problem, PublishRequest};
use kiln_storage::backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
use kiln_storage::record::{
    Content, Cost, Output, Producer, RECORD_VERSION, Record, UnitName, result_key,
};
use kiln_storage::{Digest, MemoryBackend, ObjectName, Remote, UnitKey};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::config::{ServeConfig, StorageUrl};
use crate::index;
use crate::log::{Level, Log};
use crate::principal::Peer;
use crate::service::Service;
use crate::store::Store;
use crate::{ingest, routes};

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
        if let Some(why) = *self.fault.lock().unwrap() {
            return Err(StoreError::ReadOnly(why.to_owned()));
        }
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
        Self::with(tempfile::tempdir().unwrap(), None, |_| {})
    }

    /// A server before a remote, with what an earlier one left in its directory.
    fn with(
        dir: TempDir,
        remote: Option<Arc<dyn Remote>>,
        change: impl FnOnce(&mut ServeConfig),
    ) -> Self {
        let backend = Arc::new(Gated {
            inner: MemoryBackend::new(u64::MAX),
            gate: Semaphore::new(0),
            fault: Mutex::new(None),
            lost: AtomicBool::new(false),
        });
        let mut config = ServeConfig::local(dir.path(), None, 0);
        change(&mut config);
        let store = Store::new(backend.clone(), StorageUrl::Memory);
        let index = index::open::open(dir.path(), "test").unwrap().index;
        let log = Log::open(&dir.path().join("server.log"), Level::Debug, false);
        let trust = crate::trust::Trust::new(dir.path(), None);
        let (history, _) = crate::history::open::open(dir.path()).unwrap();
        let service = Service::new(config, store, (index, history), log, (remote, trust));
        service.complete.send_replace(true);
        ingest::start(&service);
        tokio::spawn(crate::remote::outbox::run(service.clone()));
        Self { dir, backend, service }
    }

    async fn send(&self, method: &str, path: &str, body: &impl Serialize) -> Response {
        let uid = rustix::process::geteuid().as_raw();
        self.send_as(Peer::Unix { uid: Some(uid) }, method, path, body).await
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
        routes::router(&self.service).oneshot(request).await.unwrap()
    }

    /// Publishes a record of one offered file.
    async fn publish(&self, unit: &str) -> (Record, Response) {
        let path: PathBuf = self.dir.path().join(unit);
        std::fs::write(&path, unit).unwrap();
        let record = record(unit);
        let request = PublishRequest {
            record: record.clone(),
            offers: vec![offer(Digest::of(unit.as_bytes()), &path)],
            replace: false,
        };
        let path = format!("/v1/results/{}", record.result_key);
        let response = self.send("PUT", &path, &request).await;
        (record, response)
    }

    async fn lookup(&self, record: &Record) -> Vec<Record> {
        self.ask(record, &[]).await.records
    }

    /// The whole answer about the unit of a record, when some results are known.
    async fn ask(&self, record: &Record, known: &[&Record]) -> LookupResponse {
        let known = known.iter().map(|record| record.result_key).collect();
        let units = vec![record.unit_key];
        self.ask_for(LookupRequest { units, known, ..LookupRequest::default() }).await
    }

    async fn ask_for(&self, request: LookupRequest) -> LookupResponse {
        let response = self.send("POST", "/v1/lookup", &request).await;
        assert_eq!(response.status(), 200);
        read(response).await
    }

    /// What the log warns of the remote.
    fn told(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("server.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains(" warn "));
        lines.filter_map(|line| Some(line.split_once("remote ")?.1.to_owned())).collect()
    }
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> T {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn problem(response: Response) -> String {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = read(response).await;
    assert_eq!((problem.status, problem.request_id), (status, id));
    format!("{status} {}", problem.kind)
}

fn offer(digest: Digest, path: &Path) -> Offer {
    Offer { digest, path: path.to_str().unwrap().to_owned() }
}

/// A record of one output that holds the name of the unit.
pub(crate) fn record(unit: &str) -> Record {
    let unit_key = UnitKey::new(Digest::of(format!("unit {unit}").as_bytes()));
    Record {
        version: RECORD_VERSION,
        unit_key,
        result_key: result_key(&unit_key, &[], &[]),
        unit: UnitName::default(),
        parts: Vec::new(),
        members: Vec::new(),
        values: Vec::new(),
        variables: Default::default(),
        outputs: vec![Output {
            name: "out".into(),
            executable: false,
            mode: None,
            content: Content::Blob { digest: Digest::of(unit.as_bytes()), size: unit.len() as u64 },
        }],
        status: 0,
        stdout: String::new(),
        stderr: String::new(),
        cost: Cost::default(),
        producer: Producer::default(),
        conservative: Vec::new(),
    }
}
