//! The object-store backend against Azurite, a server of Azure's API: what is done differently there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{PART_BYTES, azurite, options};
use kiln_storage::object::{ObjectBackend, ObjectOptions};
use kiln_storage::remote::Stored;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::testing::bodies::{KINDS, blob_name, body, list, name, noise, read};
use kiln_storage::testing::conformance;
use kiln_storage::testing::proxy::{FaultProxy, HttpFault, When};
use kiln_storage::testing::results::{keep, outputs_like_a_crate, result, scope};
use kiln_storage::{Backend, Body, MemoryBackend, Put, Remote, StoreError};

fn azure(address: SocketAddr, url: &str) -> ObjectOptions {
    let mut options = options(address, url);
    options.settings = [
        ("AZURE_STORAGE_ACCOUNT_NAME", azurite::ACCOUNT.to_owned()),
        ("AZURE_STORAGE_ACCOUNT_KEY", azurite::KEY.to_owned()),
        ("AZURE_STORAGE_ENDPOINT", format!("http://{address}/{}", azurite::ACCOUNT)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    options
}

fn open(address: SocketAddr) -> ObjectBackend {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let place = NEXT.fetch_add(1, Ordering::Relaxed);
    let url = format!("az://{}/place-{place}", azurite::CONTAINER);
    ObjectBackend::open(&azure(address, &url)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    let Some(address) = azurite::address() else { return };
    conformance::run(async || open(address)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_objects_are_asked_for_before_they_are_completed() {
    let Some(address) = azurite::address() else { return };
    let proxy = FaultProxy::start(address).await.unwrap();
    let backend = open(proxy.address());
    for (seed, kind) in KINDS.into_iter().enumerate() {
        let bytes = noise(seed as u64, 2 * PART_BYTES + 5);
        let name = blob_name(&bytes);
        proxy.forget();
        let put = backend.put_if_absent(&name, body(&bytes, kind)).await;
        assert_eq!(put.unwrap(), Put::Created);
        assert_eq!((proxy.count("PUT", "comp=block&"), proxy.count("HEAD", "")), (3, 2));
        assert!(read(&backend, &name).await.unwrap() == Some(bytes.clone()));
        let again = backend.put_if_absent(&name, body(&bytes, kind)).await;
        assert_eq!(again.unwrap(), Put::AlreadyThere);
        assert!(backend.delete(&name).await.unwrap());
    }
    assert_eq!(list(&backend, "").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_outlasted_and_refusals_told_apart() {
    let Some(address) = azurite::address() else { return };
    let proxy = FaultProxy::start(address).await.unwrap();
    let backend = open(proxy.address());
    let faults =
        [HttpFault::Status(429, Some(0)), HttpFault::Status(503, None), HttpFault::LostAnswer];
    for (i, fault) in faults.into_iter().enumerate() {
        let new = name(&format!("new-{i}"));
        proxy.inject(When::next("PUT", "new"), fault);
        let put = backend.put_if_absent(&new, Body::Bytes(noise(1, 1000))).await.unwrap();
        let lost = fault == HttpFault::LostAnswer;
        assert_eq!(put == Put::AlreadyThere, lost, "{fault:?}");
        proxy.inject(When::next("GET", "new"), fault);
        assert_eq!(read(&backend, &new).await.unwrap(), Some(noise(1, 1000)));
    }
    proxy.inject(When::next("GET", "new-0"), HttpFault::Truncate);
    assert_eq!(read(&backend, &name("new-0")).await.unwrap(), Some(noise(1, 1000)));
    assert_eq!(proxy.injected(), 7);
    let nowhere = ObjectBackend::open(&azure(proxy.address(), "az://no-such-container")).unwrap();
    let put = nowhere.put_if_absent(&name("x"), Body::Bytes(noise(1, 1))).await;
    let Err(StoreError::Unavailable(text)) = put else { panic!("{put:?}") };
    assert_eq!(text, "az://no-such-container: there is no such bucket; look at the URL");
    let mut wrong = azure(proxy.address(), &format!("az://{}", azurite::CONTAINER));
    wrong.settings[1].1 = "d3Jvbmc=".to_owned();
    let wrong = ObjectBackend::open(&wrong).unwrap();
    let put = wrong.put_if_absent(&name("x"), Body::Bytes(noise(1, 1))).await;
    let Err(StoreError::ReadOnly(text)) = put else { panic!("{put:?}") };
    assert!(text.starts_with("az://kiln-tests: "), "{text}");
    assert!(matches!(wrong.get(&name("x")).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_kept_there() {
    let Some(address) = azurite::address() else { return };
    let remote = ObjectRemote::in_bucket(open(address));
    let blobs = outputs_like_a_crate(1, 400_000, 1_000_000);
    let (name, record) = result("crate", "v", &blobs);
    let local = MemoryBackend::new(1 << 30);
    keep(&local, &blobs).await;
    assert_eq!(remote.store(&name, &record, &local).await.unwrap(), Stored::Durable);
    assert_eq!(remote.store(&name, &record, &local).await.unwrap(), Stored::AlreadyThere);
    let found = remote.lookup(&[scope()], &[name.unit]).await.unwrap();
    assert_eq!((found.len(), &found[0].record), (1, &record));
    for (digest, size) in record.blobs() {
        assert!(remote.blob(&digest, size).await.unwrap().is_some());
    }
    remote.put_note(&scope(), "note", "text".into()).await.unwrap();
    assert_eq!(remote.note(&[scope()], "note").await.unwrap(), Some("text".into()));
    remote.reject(&name).await.unwrap();
    assert!(remote.lookup(&[scope()], &[name.unit]).await.unwrap().is_empty());
}
