//! Results in a bucket of a real server: how many requests and bytes they cost, and two servers on one
//! bucket with faults on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::support::{Bucket, options};
use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_storage::object::ObjectBackend;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{RemoteCounters, ResultName, Stored};
use kiln_storage::testing::proxy::{FaultProxy, HttpFault, When};
use kiln_storage::testing::results::{keep, outputs_like_a_crate, result, scope};
use kiln_storage::{Digest, MemoryBackend, ObjectName, Record, Remote, UnitKey, entry, limits};

/// Metadata and library of a debug build of ripgrep 14.1: the middle of each tenth of its 32 libraries,
/// thousands of bytes.
const SIZES: [(usize, usize); 10] = [
    (5, 7),
    (71, 185),
    (140, 346),
    (170, 786),
    (181, 1148),
    (329, 1534),
    (522, 1921),
    (1285, 3876),
    (1859, 5829),
    (4492, 13817),
];
const RESULTS: usize = 50;
/// Every so many sizes are taken as they are; the large ones would only take longer.
const WHOLE: usize = 9;

struct Unit {
    name: ResultName,
    record: Record,
    blobs: Vec<Bytes>,
}

fn units() -> Vec<Unit> {
    (0..RESULTS)
        .map(|i| {
            let (rmeta, rlib) = SIZES[i % WHOLE];
            let blobs = outputs_like_a_crate(i as u64, rmeta * 1000, rlib * 1000);
            let (name, record) = result(&format!("crate{i}"), "v", &blobs);
            Unit { name, record, blobs }
        })
        .collect()
}

/// How long the frames of a unit's blobs are, of those that are objects of their own.
fn large(unit: &Unit) -> Vec<usize> {
    let [rmeta, rlib] = &unit.blobs[..] else { panic!() };
    let mut large = Vec::new();
    if is_large(rmeta) {
        large.push(frame(rmeta));
    }
    if is_large(rlib) {
        large.push(frame(&frame_rest(rmeta, rlib)));
    }
    large
}

/// What is stored of a library: where the metadata is an object of its own, it is left out.
fn frame_rest(rmeta: &Bytes, rlib: &Bytes) -> Bytes {
    if !is_large(rmeta) {
        return rlib.clone();
    }
    let at = rlib.windows(rmeta.len()).position(|window| window == &rmeta[..]).unwrap();
    [&rlib[..at], &rlib[at + rmeta.len()..]].concat().into()
}

fn frame(bytes: &Bytes) -> usize {
    entry::encode(&ObjectName::blob(&Digest::of(bytes)), bytes).unwrap().len()
}

/// Whether a blob is an object of its own.
fn is_large(bytes: &Bytes) -> bool {
    bytes.len() as u64 > limits::INLINE_BLOB_PLAIN_BYTES || frame(bytes) > limits::INLINE_BLOB_BYTES
}

fn open(bucket: &Bucket) -> ObjectRemote {
    let mut options = options(bucket.proxy.address(), &bucket.url);
    options.limits.part_bytes = limits::OBJECT_PART_BYTES;
    ObjectRemote::in_bucket(ObjectBackend::open(&options).unwrap())
}

/// Prints and returns the requests since the last time.
#[allow(clippy::print_stdout, reason = "the table of the docs")]
fn row(what: &str, proxy: &FaultProxy, counted: RemoteCounters) -> [u64; 4] {
    let requests = [
        proxy.count("GET", "list-type"),
        proxy.count("GET", "") - proxy.count("GET", "list-type"),
        proxy.count("HEAD", ""),
        proxy.count("PUT", ""),
    ];
    let seen = proxy.seen();
    let (sent, received): (u64, u64) =
        seen.iter().fold((0, 0), |(s, r), e| (s + e.sent, r + e.received));
    assert_eq!(requests.iter().sum::<u64>(), seen.len() as u64, "there are others: {seen:?}");
    assert_eq!(counted.requests, seen.len() as u64, "the remote counts its requests");
    assert_eq!(counted.bytes_out, sent, "and its bytes");
    println!(
        "| {what} | {} | {} | {} | {} | {:.1} MB | {:.1} MB |",
        requests[0],
        requests[1],
        requests[2],
        requests[3],
        sent as f64 / 1e6,
        received as f64 / 1e6
    );
    proxy.forget();
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fifty_results_cost() {
    let Some(bucket) = Bucket::new().await else { return };
    let units = units();
    let plain: usize = units.iter().flat_map(|unit| &unit.blobs).map(Bytes::len).sum();
    let frames: Vec<usize> = units.iter().flat_map(large).collect();
    let asked = frames.iter().filter(|len| **len >= limits::ASK_BEFORE_BYTES).count() as u64;
    let with_large = units.iter().filter(|unit| !self::large(unit).is_empty()).count() as u64;
    let (results, large) = (RESULTS as u64, frames.len() as u64);
    println!("{RESULTS} results, {:.1} MB of outputs, {large} large blobs", plain as f64 / 1e6);
    println!("| what | lists | reads | asks | writes | sent | received |");

    let keys: Vec<UnitKey> = units.iter().map(|unit| unit.name.unit).collect();
    let reader = open(&bucket);
    assert!(reader.lookup(&[scope()], &keys).await.unwrap().is_empty());
    let counts = row("nothing there: look up", &bucket.proxy, reader.counters());
    assert_eq!(counts, [results, 0, 0, 0]);

    let writer = open(&bucket);
    store_all(&writer, &units, Stored::Durable).await;
    let sent = writer.counters().bytes_out;
    let counts = row("first machine: store", &bucket.proxy, writer.counters());
    assert_eq!(counts, [0, 0, with_large + asked, large + results]);
    assert!(sent < plain as u64 / 4, "{sent} of {plain}");

    // What another machine stored at the same time.
    let again = open(&bucket);
    store_all(&again, &units, Stored::AlreadyThere).await;
    let counts = row("a second one: store the same", &bucket.proxy, again.counters());
    assert_eq!(counts, [0, 0, with_large + large, results - with_large]);

    let reader = open(&bucket);
    let found = reader.lookup(&[scope()], &keys).await.unwrap();
    assert_eq!(found.len(), RESULTS);
    let counts = row("second machine: look up", &bucket.proxy, reader.counters());
    assert_eq!(counts, [results, results, 0, 0]);

    let bringer = open(&bucket);
    let bring = units.iter().zip(&found).map(|(unit, arrived)| {
        assert_eq!(arrived.record, unit.record);
        bring(&bringer, unit, arrived.blobs.len())
    });
    futures_util::stream::iter(bring).for_each_concurrent(8, |bring| bring).await;
    let counts = row("second machine: bring blobs", &bucket.proxy, bringer.counters());
    assert_eq!(counts, [0, large, 0, 0]);
    let received = bringer.counters().bytes_in + reader.counters().bytes_in;
    assert!(received <= sent + 1000 * results, "{received} of {sent}");

    let prefetcher = open(&bucket);
    let names: Vec<_> = units.iter().map(|unit| unit.name.clone()).collect();
    assert_eq!(prefetcher.results(&names).await.unwrap().len(), RESULTS);
    let counts = row("by name, without a lookup", &bucket.proxy, prefetcher.counters());
    assert_eq!(counts, [0, results, 0, 0]);
    prefetcher.flush(std::time::Duration::from_secs(30)).await.unwrap();
    assert_eq!(prefetcher.counters().requests, results + 1, "what was used, in one object");
    prefetcher.flush(std::time::Duration::from_secs(30)).await.unwrap();
    assert_eq!(prefetcher.counters().requests, results + 1);
}

async fn store_all(remote: &ObjectRemote, units: &[Unit], expected: Stored) {
    for unit in units {
        let local = MemoryBackend::new(u64::MAX);
        keep(&local, &unit.blobs).await;
        assert_eq!(remote.store(&unit.name, &unit.record, &local).await.unwrap(), expected);
    }
}

/// Gets the blobs that did not come along, all at once.
async fn bring(remote: &ObjectRemote, unit: &Unit, along: usize) {
    let large: Vec<_> = unit.blobs.iter().filter(|bytes| is_large(bytes)).collect();
    assert_eq!(large.len() + along, unit.blobs.len());
    let gets = large.into_iter().rev().map(async |bytes| {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        let body = remote.blob(&digest, size).await.unwrap().unwrap();
        let found = body.into_bytes(&ObjectName::blob(&digest), size).await.unwrap();
        assert!(found == *bytes);
    });
    futures_util::future::join_all(gets).await;
}

/// Two servers that store the same through a bad network, and a third that reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_on_one_bucket_behind_faults() {
    let Some(bucket) = Bucket::new().await else { return };
    for (i, fault) in [
        HttpFault::Status(429, Some(0)),
        HttpFault::Status(503, None),
        HttpFault::ResetBefore,
        HttpFault::LostAnswer,
        HttpFault::Conflict,
    ]
    .into_iter()
    .enumerate()
    {
        bucket.proxy.clear();
        bucket.proxy.forget();
        let blobs = outputs_like_a_crate(i as u64, 300_000, 900_000);
        let (name, record) = result(&format!("crate{i}"), "v", &blobs);
        let unit = Unit { name, record, blobs };
        for part in ["packed/", "results/"] {
            bucket.proxy.inject(When::next("PUT", part).times(2), fault);
        }
        let servers = [open(&bucket), open(&bucket)];
        let local = MemoryBackend::new(u64::MAX);
        keep(&local, &unit.blobs).await;
        let stores = servers.iter().map(|server| server.store(&unit.name, &unit.record, &local));
        let stored = futures_util::future::join_all(stores).await;
        let stored: Vec<_> = stored.into_iter().map(Result::unwrap).collect();
        let durable = stored.iter().filter(|stored| **stored == Stored::Durable).count();
        // Who lost the answer finds what he wrote himself.
        let fewest = usize::from(fault != HttpFault::LostAnswer);
        assert!((fewest..=1).contains(&durable), "{fault:?}: {stored:?}");
        assert_eq!(bucket.proxy.injected(), 4, "{fault:?}");
        let reader = open(&bucket);
        for fault in [HttpFault::Truncate, HttpFault::BitFlip, HttpFault::ResetInside] {
            bucket.proxy.inject(When::next("GET", "results/1"), fault);
            bucket.proxy.inject(When::next("GET", "packed/"), fault);
            let found = reader.lookup(&[scope()], &[unit.name.unit]).await.unwrap();
            assert_eq!((found.len(), &found[0].record), (1, &unit.record));
            bring(&reader, &unit, found[0].blobs.len()).await;
        }
        assert_eq!(reader.counters().damaged, 0);
        assert_eq!(bucket.proxy.injected(), 10);
    }
}

#[tokio::test]
async fn an_unreachable_bucket_fails_calls_and_not_the_start() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let backend = ObjectBackend::open(&options(dead, "s3://bucket/owner/repo")).unwrap();
    let remote = ObjectRemote::in_bucket(backend);
    assert_eq!(remote.display(), "s3://bucket/owner/repo");
    let blobs = outputs_like_a_crate(0, 1000, 2000);
    let (name, record) = result("crate", "v", &blobs);
    let local = MemoryBackend::new(u64::MAX);
    keep(&local, &blobs).await;
    assert!(remote.lookup(&[scope()], &[name.unit]).await.is_err());
    assert!(remote.store(&name, &record, &local).await.is_err());
    assert!(remote.note(&[scope()], "x").await.is_err());
    assert!(remote.reject(&name).await.is_err());
    assert!(!format!("{remote:?}").contains("not-to-be-seen"));
}
