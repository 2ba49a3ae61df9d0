//! A Kiln server as a remote keeps the promises of the trait: the suite of all remotes, against a real server on
//! a port of this machine.

use async_trait::async_trait;
use kiln_storage::Backend as _;
use kiln_storage::remote::kiln::{KilnOptions, KilnRemote};
use kiln_storage::remote::{ResultName, Stored};
use kiln_storage::testing::remotes::{self, Place};
use kiln_storage::{Body, Digest, MemoryBackend, ObjectName, Record, Remote, Scope};
use proptest::prelude::*;

use crate::harness::{Fixture, TestServer, blob_file, in_memory};

/// Larger than what a server keeps beside its other records in one answer.
const LARGE: usize = 200_000;

fn client(server: &TestServer) -> KilnRemote {
    let url = format!("http://{}", server.tcp);
    KilnRemote::new(KilnOptions { url, token: None, job: None }).unwrap()
}

struct Behind(TestServer);

#[async_trait]
impl Place for Behind {
    fn client(&self) -> Box<dyn Remote> {
        Box::new(client(&self.0))
    }

    /// Its records are in the order in which they came.
    async fn later(&self) {}

    fn decides_itself(&self) -> bool {
        true
    }
}

fn block_on<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(what)
}

#[test]
fn the_promises_of_the_trait_are_kept() {
    // A server that starts has a runtime of its own.
    let start = || std::thread::spawn(TestServer::start).join().unwrap();
    block_on(remotes::conformance(async || Behind(start())));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    #[test]
    fn clients_agree_with_the_model(steps in remotes::steps()) {
        let server = TestServer::start_with(tempfile::tempdir().unwrap(), in_memory);
        block_on(remotes::model(&Behind(server), &steps));
    }
}

fn named(record: &Record, generation: u32) -> ResultName {
    let (unit, result) = (record.unit_key, record.result_key);
    ResultName { scope: Scope::new("any", "any"), unit, result, generation }
}

/// What a client calls damaged is looked at by the server: what is whole stays, what is not is made anew.
#[test]
fn a_server_looks_itself_at_what_is_rejected() {
    let server = TestServer::start();
    let bytes = vec![7; LARGE];
    let fixture = Fixture::new(server.dir.path(), "a", "1", &[&bytes]);
    let record = &fixture.record;
    block_on(async {
        let local = MemoryBackend::new(1 << 30);
        let blob = ObjectName::blob(&Digest::of(&bytes));
        local.put_if_absent(&blob, Body::Bytes(bytes.clone().into())).await.unwrap();
        let remote = client(&server);
        let store = async |generation| {
            remote.store(&named(record, generation), record, &local).await.unwrap()
        };
        let there = async || remote.lookup(&[], &[record.unit_key]).await.unwrap().len();
        assert_eq!(store(0).await, Stored::Durable);
        remote.reject(&named(record, 0)).await.unwrap();
        assert_eq!((store(0).await, there().await), (Stored::AlreadyThere, 1));

        let file = blob_file(&server.store_dir(), &bytes);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, vec![8; LARGE]).unwrap();
        remote.reject(&named(record, 0)).await.unwrap();
        assert_eq!(there().await, 0);
        assert_eq!((store(1).await, there().await), (Stored::Durable, 1));
        let body = remote.blob(&Digest::of(&bytes), LARGE as u64).await.unwrap().unwrap();
        let read = body.into_bytes(&blob, LARGE as u64).await.unwrap();
        assert!(read == bytes);
    });
}
