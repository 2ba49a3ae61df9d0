//! The object-store backend against a real server of S3's API: the suites that every backend runs, and what
//! is its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use crate::support::{Bucket, PART_BYTES, fresh_url, moto, options, settings};
use kiln_storage::object::{ObjectBackend, ObjectError, ObjectOptions};
use kiln_storage::testing::bodies::{KINDS, blob_name, body, list, name, noise, read};
use kiln_storage::testing::faults::FaultBackend;
use kiln_storage::testing::{conformance, model};
use kiln_storage::{Backend, Body, Put, StoreError, Verified};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms() {
    let Some(bucket) = Bucket::new().await else { return };
    let address = bucket.proxy.address();
    conformance::run(async || ObjectBackend::open(&options(address, &fresh_url())).unwrap()).await;
    assert!(bucket.proxy.count("POST", "uploads") > 0, "large objects go in parts");
}

/// Two processes on one bucket share nothing in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_clients_of_one_bucket_conform_with_a_layer_above() {
    let Some(bucket) = Bucket::new().await else { return };
    let address = bucket.proxy.address();
    conformance::run(async || {
        let url = fresh_url();
        let client = |_| ObjectBackend::open(&options(address, &url)).unwrap();
        let (one, two) = (Verified::new(client(1)), Verified::new(client(2)));
        kiln_storage::Tiered::new(Arc::new(one), Arc::new(two), kiln_storage::tiered::Writes::Slow)
    })
    .await;
}

#[test]
fn it_does_what_a_map_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(bucket) = runtime.block_on(Bucket::new()) else { return };
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() };
    TestRunner::new(config)
        .run(&model::operations(), |operations| {
            let backend =
                ObjectBackend::open(&options(bucket.proxy.address(), &fresh_url())).unwrap();
            runtime.block_on(model::check_exact(&backend, &operations))
        })
        .unwrap();
}

/// What comes back damaged from a bucket is never taken for something else.
#[test]
fn verified_over_a_faulty_bucket_never_returns_wrong_bytes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(bucket) = runtime.block_on(Bucket::new()) else { return };
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() };
    TestRunner::new(config)
        .run(&(model::operations(), model::faults()), |(operations, faults)| {
            let backend =
                ObjectBackend::open(&options(bucket.proxy.address(), &fresh_url())).unwrap();
            let faulty = FaultBackend::new(backend, faults);
            let switch = faulty.clone();
            let stop = || switch.set(kiln_storage::testing::faults::Faults::Never);
            let verified = Verified::new(faulty);
            runtime.block_on(model::check_faulted(&verified, stop, &operations))
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_objects_go_in_parts_of_one_size() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    let sizes = [PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 77];
    for (seed, size) in sizes.into_iter().enumerate() {
        for (i, kind) in KINDS.into_iter().enumerate() {
            let bytes = noise((seed * 10 + i) as u64, size);
            let name = blob_name(&bytes);
            bucket.proxy.forget();
            let put = backend.put_if_absent(&name, body(&bytes, kind)).await;
            assert_eq!(put.unwrap(), Put::Created, "{size} as {kind:?}");
            let sent: Vec<u64> = (bucket.proxy.seen().iter())
                .filter(|exchange| exchange.method == "PUT")
                .map(|exchange| exchange.sent)
                .collect();
            let parts = if size == PART_BYTES { 1 } else { size.div_ceil(PART_BYTES) };
            assert_eq!(sent.len(), parts, "{size} as {kind:?}");
            assert!(sent.iter().filter(|sent| **sent == PART_BYTES as u64).count() >= parts - 1);
            assert!(read(&backend, &name).await.unwrap() == Some(bytes.clone()));
            bucket.proxy.forget();
            let again = backend.put_if_absent(&name, body(&bytes, kind)).await;
            assert_eq!(again.unwrap(), Put::AlreadyThere);
            assert!(size == PART_BYTES || bucket.proxy.count("PUT", "") == 0, "sent for nothing");
        }
    }
}

/// Two that upload at the same time: the one that completes second finds it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_uploads_creates() {
    let Some(bucket) = Bucket::new().await else { return };
    let name = name("records/race/uploads.0");
    let offers: Vec<_> = (0..6).map(|i| noise(i, PART_BYTES + 1000)).collect();
    let puts = offers.iter().map(|bytes| {
        let backend = bucket.open();
        let (name, body) = (name.clone(), Body::Bytes(bytes.clone()));
        tokio::spawn(async move { backend.put_if_absent(&name, body).await.unwrap() })
    });
    let puts: Vec<Put> =
        futures_util::future::join_all(puts).await.into_iter().map(Result::unwrap).collect();
    let created: Vec<_> = (0..6).filter(|i| puts[*i] == Put::Created).collect();
    assert_eq!(created.len(), 1, "{puts:?}");
    let found = read(&bucket.open(), &name).await.unwrap();
    assert!(found.as_ref() == Some(&offers[created[0]]));
    let completed = bucket.proxy.seen();
    let refused = completed.iter().filter(|e| e.method == "POST" && e.status == 412).count();
    assert!(refused > 0, "none was refused: the race did not happen");
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_aborted() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend = bucket.open();
    let bytes = noise(1, 3 * PART_BYTES);
    let wrong = Body::Stream {
        stream: Box::pin(futures_util::stream::iter([Ok(bytes.slice(..PART_BYTES + 1))])),
        len: bytes.len() as u64,
    };
    let refused = backend.put_if_absent(&name("given-up"), wrong).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    while bucket.proxy.count("DELETE", "uploadId=") == 0 {
        tokio::task::yield_now().await;
    }
    // The same for a caller that goes away: the body is asked for when the upload has begun.
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let stream = Box::pin(futures_util::stream::once(async move {
        begun.send(()).unwrap();
        std::future::pending().await
    }));
    let len = bytes.len() as u64;
    let put = tokio::spawn(async move {
        backend.put_if_absent(&name("given-up"), Body::Stream { stream, len }).await
    });
    has_begun.await.unwrap();
    put.abort();
    while bucket.proxy.count("DELETE", "uploadId=") < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(list(&bucket.open(), "").await.unwrap(), []);
}

/// More than a page of a listing, other things in the bucket, and a neighbour whose prefix begins alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn listings_have_pages_and_see_nothing_of_others() {
    let Some(bucket) = Bucket::new().await else { return };
    let neighbour =
        ObjectBackend::open(&options(bucket.proxy.address(), &format!("{}x", bucket.url)));
    let neighbour = neighbour.unwrap();
    let above =
        ObjectBackend::open(&options(bucket.proxy.address(), &format!("s3://{}", moto::BUCKET)))
            .unwrap();
    let backend = bucket.open();
    let put = async |backend: &ObjectBackend, text: &str| {
        backend.put_if_absent(&name(text), Body::Bytes(noise(1, 1))).await.unwrap();
    };
    put(&neighbour, "a/1").await;
    put(&above, "elsewhere/1").await;
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let names: Vec<_> = (0..1005).map(|i| format!("a/{i:04}")).collect();
    for chunk in names.chunks(50) {
        futures_util::future::join_all(chunk.iter().map(|text| put(&backend, text))).await;
    }
    bucket.proxy.forget();
    let listed: Vec<_> = list(&backend, "a/").await.unwrap();
    assert_eq!(listed.iter().map(|n| n.as_str().to_owned()).collect::<Vec<_>>(), names);
    assert_eq!(bucket.proxy.count("GET", "list-type=2"), 2, "a thousand to a page");
    assert_eq!(list(&neighbour, "").await.unwrap(), [name("a/1")]);
    let mut one = backend.list("a/0000");
    let one = futures_util::StreamExt::next(&mut one).await.unwrap().unwrap();
    assert!(one.used_ms / 1000 + 2 >= before.as_secs(), "{one:?}");
    // A thousand go in one request.
    bucket.proxy.forget();
    let names: Vec<_> = names.iter().map(|text| name(text)).collect();
    backend.delete_all(&names).await.unwrap();
    assert_eq!(bucket.proxy.count("POST", "delete"), 2);
    assert_eq!(list(&backend, "").await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_asked_before_the_first_call_and_nothing_waits_for_long() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let backend = ObjectBackend::open(&options(dead, "s3://bucket/prefix")).unwrap();
    assert_eq!(backend.traffic().requests(), 0);
    for failed in [
        backend.get(&name("x")).await.map(drop),
        backend.size(&name("x")).await.map(drop),
        backend.put_if_absent(&name("x"), Body::Bytes(noise(1, 1))).await.map(drop),
        backend.delete(&name("x")).await.map(drop),
        list(&backend, "x").await.map(drop),
    ] {
        let Err(StoreError::Unavailable(text)) = failed else { panic!("{failed:?}") };
        assert_eq!(
            text,
            "s3://bucket/prefix: it cannot be reached: no connection; look at the endpoint and the network"
        );
    }
    // Reads are tried twice, and a deletion begins with one.
    assert_eq!(backend.traffic().requests(), 4 * 2 + 4);
    assert_eq!(backend.traffic().retries(), 4 + 3);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_said() {
    let Some(bucket) = Bucket::new().await else { return };
    let backend =
        ObjectBackend::open(&options(bucket.proxy.address(), "s3://no-such-bucket")).unwrap();
    for failed in [
        backend.get(&name("x")).await.map(drop),
        backend.put_if_absent(&name("x"), Body::Bytes(noise(1, 1))).await.map(drop),
        list(&backend, "").await.map(drop),
    ] {
        let Err(StoreError::Unavailable(text)) = failed else { panic!("{failed:?}") };
        assert_eq!(text, "s3://no-such-bucket: there is no such bucket; look at the URL");
    }
}

#[test]
fn options_are_checked_and_show_nothing() {
    let address = "127.0.0.1:9".parse().unwrap();
    let good = options(address, "s3://bucket/prefix");
    let backend = ObjectBackend::open(&good).unwrap();
    assert_eq!(format!("{backend:?}"), "ObjectBackend(s3://bucket/prefix)");
    assert!(!format!("{good:?}").contains("not-to-be-seen"));
    let refused =
        |url: &str, settings| match ObjectBackend::open(&ObjectOptions::new(url, settings)) {
            Err(ObjectError::Settings(text)) => text,
            other => panic!("{other:?}"),
        };
    let with = |name: &str, value: &str| {
        let mut settings = settings(address);
        settings.push((name.to_owned(), value.to_owned()));
        settings
    };
    let text = refused("s3://b", with("AWS_SKIP_SIGNATURE", "not-to-be-shown"));
    assert!(!text.contains("not-to-be-shown"), "{text}");
    let key_alone = vec![("AWS_ACCESS_KEY_ID".to_owned(), "k".to_owned())];
    let text = refused("s3://b", key_alone);
    assert_eq!(text, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
    refused("az://container", Vec::new());
    assert!(matches!(
        ObjectBackend::open(&ObjectOptions::new("s3://", Vec::new())),
        Err(ObjectError::Url(_))
    ));
}

/// The other services are built of their own settings, which nobody asks anything about.
#[test]
fn clients_of_all_services_are_built_without_a_network() {
    let set = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let token = tempfile::NamedTempFile::new().unwrap();
    let token = token.path().to_str().unwrap();
    for (url, settings) in [
        ("s3://b/p", set(&[])),
        ("s3://b/p", set(&[("AWS_WEB_IDENTITY_TOKEN_FILE", token), ("AWS_ROLE_ARN", "arn:x")])),
        ("s3://b/p", set(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")])),
        (
            "s3://b/p",
            set(&[
                ("AWS_ACCESS_KEY_ID", "a"),
                ("AWS_SECRET_ACCESS_KEY", "b"),
                ("AWS_SESSION_TOKEN", "c"),
            ]),
        ),
        (
            "gs://b/p",
            set(&[("GOOGLE_BASE_URL", "http://127.0.0.1:9"), ("GOOGLE_SKIP_SIGNATURE", "true")]),
        ),
        (
            "az://b/p",
            set(&[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "Zm9v")]),
        ),
        ("az://b/p", set(&[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_CLIENT_ID", "b")])),
    ] {
        let backend = ObjectBackend::open(&ObjectOptions::new(url, settings)).unwrap();
        assert_eq!(backend.place().to_string(), url);
    }
}
