//! Jobs, results and checks for the tests of the GitHub Actions cache as a remote.

#![allow(unreachable_pub, reason = "it is of all files of the suite")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_storage::digest::Digest;
use kiln_storage::output::{Content, Output};
use kiln_storage::record::{
    Cost, Member, Producer, RECORD_VERSION, TokenPath, UnitName, result_key,
};
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::remote::gha::settings::{Secret, Service, Settings};
use kiln_storage::remote::{Arrived, Remote, ResultName, Stored, tls};
use kiln_storage::testing::bodies::noise;
use kiln_storage::testing::gha::{FakeCache, READ_WRITE, token};
use kiln_storage::{Backend, Body, MemoryBackend, ObjectName, Record, Scope, UnitKey};

pub const MAIN: &str = "refs/heads/main";
pub const MINUTE: Duration = Duration::from_secs(60);

/// Which face of the fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    V1,
    V2,
}

pub fn scope(reference: &str) -> Scope {
    Scope::new("4711", reference)
}

/// Settings of a job with these rights.
pub fn settings(fake: &FakeCache, face: Face, rights: &[(&str, u8)]) -> Settings {
    let service = match face {
        Face::V1 => Service::V1 { cache_url: Secret::new(fake.cache_url()) },
        Face::V2 => Service::V2 { results_url: fake.results_url() },
    };
    let mut settings = Settings::new(service, Secret::new(token(rights)));
    settings.clock = Arc::new(fake.clock());
    settings.client = Some(CLIENT.with(Clone::clone));
    settings
}

thread_local! {
    /// One HTTP client for all jobs of a test: to make one takes longer than most of what they do.
    static CLIENT: reqwest::Client = {
        tls::install();
        reqwest::Client::new()
    };
}

/// A job on the main branch.
pub fn job(fake: &FakeCache) -> GhaRemote {
    GhaRemote::new(settings(fake, Face::V2, &[(MAIN, READ_WRITE)])).unwrap()
}

/// A result: its record and its blobs.
#[derive(Debug, Clone)]
pub struct Made {
    pub name: ResultName,
    pub record: Record,
    pub blobs: Vec<Bytes>,
}

/// The result of a unit with this number in a scope, with blobs of these sizes.
pub fn made(reference: &str, number: u64, sizes: &[usize]) -> Made {
    let unit = UnitKey::new(Digest::of(format!("unit {number}").as_bytes()));
    let members = vec![Member::File(TokenPath(format!("<workspace>/src/{number}.rs")))];
    let values = vec![Digest::of(&number.to_le_bytes())];
    let result = result_key(&unit, &members, &values);
    let blobs: Vec<Bytes> =
        sizes.iter().zip(0..).map(|(size, at)| noise(number * 100 + at, *size)).collect();
    let output = |(at, bytes): (usize, &Bytes)| Output {
        name: format!("lib{number}-{at}.rlib"),
        executable: false,
        mode: None,
        content: Content::Blob { digest: Digest::of(bytes), size: bytes.len() as u64 },
    };
    let record = Record {
        version: RECORD_VERSION,
        unit_key: unit,
        result_key: result,
        unit: UnitName { crate_name: format!("crate{number}"), ..UnitName::default() },
        parts: Vec::new(),
        members,
        values,
        variables: Default::default(),
        outputs: blobs.iter().enumerate().map(output).collect(),
        status: 0,
        stdout: String::new(),
        stderr: format!("warning: {number}"),
        cost: Cost::default(),
        producer: Producer::default(),
        conservative: Vec::new(),
    };
    let name = ResultName { scope: scope(reference), unit, result, generation: 0 };
    Made { name, record, blobs }
}

/// Results of the main branch, numbered, of one shape: small blobs, and a large one.
pub fn some(numbers: std::ops::Range<u64>) -> Vec<Made> {
    numbers.map(|number| made(MAIN, number, &[300, 3000, 100_000])).collect()
}

/// A local store with the blobs of results.
pub async fn local(results: &[Made]) -> MemoryBackend {
    let store = MemoryBackend::new(1 << 30);
    for bytes in results.iter().flat_map(|made| &made.blobs) {
        let name = ObjectName::blob(&Digest::of(bytes));
        store.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
    }
    store
}

/// Stores results, without a flush.
pub async fn store(remote: &GhaRemote, results: &[Made]) {
    let local = local(results).await;
    for made in results {
        let stored = remote.store(&made.name, &made.record, &local).await.unwrap();
        assert_eq!(stored, Stored::Collected);
    }
}

/// Stores results and flushes; all of them have to become durable.
pub async fn store_all(remote: &GhaRemote, results: &[Made]) {
    store(remote, results).await;
    let flushed = remote.flush(MINUTE * 2).await.unwrap();
    assert_eq!((flushed.stored, flushed.lost.len()), (results.len() as u64, 0));
    assert_eq!(remote.collected(), 0);
}

/// That what arrived is what was made, byte for byte.
pub fn assert_right(arrived: &Arrived, made: &Made) {
    assert_eq!(arrived.record, made.record);
    assert_eq!(arrived.name.result, made.name.result);
    for (digest, bytes) in &arrived.blobs {
        assert_eq!(Digest::of(bytes), *digest);
        assert!(made.blobs.contains(bytes), "a blob of something else came along");
    }
}

/// How many of these results are found. Each one that is, is right, with all of its blobs that come.
pub async fn found(remote: &GhaRemote, scopes: &[Scope], results: &[Made]) -> usize {
    let mut found = 0;
    for some in results.chunks(300) {
        let units: Vec<UnitKey> = some.iter().map(|made| made.name.unit).collect();
        let Ok(arrived) = remote.lookup(scopes, &units).await else { continue };
        for one in arrived {
            let made = some.iter().find(|made| made.name.unit == one.name.unit).unwrap();
            assert_right(&one, made);
            let mut whole = true;
            for bytes in &made.blobs {
                let digest = Digest::of(bytes);
                if one.blobs.iter().any(|(along, _)| *along == digest) {
                    continue;
                }
                match remote.blob(&digest, bytes.len() as u64).await {
                    Ok(Some(Body::Bytes(read))) => assert!(read == *bytes, "wrong bytes"),
                    Ok(Some(_)) => panic!("another kind of body"),
                    Ok(None) | Err(_) => whole = false,
                }
            }
            found += usize::from(whole);
        }
    }
    found
}

/// How many are found by a job that knows nothing yet.
pub async fn found_by_next(fake: &FakeCache, results: &[Made]) -> usize {
    found(&job(fake), &[scope(MAIN)], results).await
}
