//! The fault tool does what it says: other tests rest on it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use kiln_storage::testing::bodies::{list, name, noise, read};
use kiln_storage::testing::faults::{ALL_FAULTS, Call, Fault, FaultBackend, Faults};
use kiln_storage::{Backend, Body, MemoryBackend, ObjectName, Put, StoreError, StoreResult};

type Faulty = FaultBackend<MemoryBackend>;

/// A backend that holds `one` and `two`, and from then on has faults.
async fn faulty(faults: Faults) -> (Faulty, Bytes) {
    let backend = FaultBackend::new(MemoryBackend::new(1 << 20), Faults::Never);
    let bytes = noise(1, 1000);
    for object in ["one", "two"] {
        put(&backend, &name(object), &bytes).await.unwrap();
    }
    backend.set(faults);
    (backend, bytes)
}

async fn put(backend: &dyn Backend, name: &ObjectName, bytes: &Bytes) -> StoreResult<Put> {
    let body = Body::Bytes(bytes.clone());
    backend.put_if_absent(name, body).await
}

fn bits_that_differ(a: &[u8], b: &[u8]) -> u32 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[tokio::test]
async fn the_nth_call_fails_and_no_other() {
    for call in [Call::Get, Call::Put, Call::Size, Call::Delete, Call::List] {
        let (backend, bytes) = faulty(Faults::Nth(call, 3, Fault::Unavailable)).await;
        for i in 1..=5 {
            let absent = name(&format!("absent-{i}"));
            let failed = [
                backend.get(&absent).await.is_err(),
                put(&backend, &absent, &bytes).await.is_err(),
                backend.size(&absent).await.is_err(),
                list(&backend, "").await.is_err(),
                backend.delete(&absent).await.is_err(),
            ];
            let calls = [Call::Get, Call::Put, Call::Size, Call::List, Call::Delete];
            let expected = calls.map(|kind| kind == call && i == 3);
            assert_eq!(failed, expected, "{call:?}, round {i}");
        }
        assert_eq!(backend.injected(), 1);
    }
}

#[tokio::test]
async fn a_fault_of_a_get_changes_the_answer_and_not_the_object() {
    let one = name("one");
    for fault in ALL_FAULTS {
        let (backend, bytes) = faulty(Faults::Nth(Call::Get, 1, fault)).await;
        let found = read(&backend, &one).await;
        match fault {
            Fault::Truncate => {
                let found = found.unwrap().unwrap();
                assert!(found.len() < bytes.len() && bytes.starts_with(&found));
            }
            Fault::BitFlip => {
                let found = found.unwrap().unwrap();
                assert_eq!(found.len(), bytes.len());
                assert_eq!(bits_that_differ(&found, &bytes), 1);
            }
            Fault::Unavailable | Fault::ReadOnly | Fault::LostAnswer | Fault::Break => {
                assert!(matches!(found, Err(StoreError::Unavailable(_))), "{fault:?}");
            }
        }
        assert_eq!(read(&backend, &one).await.unwrap(), Some(bytes), "{fault:?}");
        assert_eq!(backend.injected(), 1);
    }
}

#[tokio::test]
async fn a_fault_of_a_put_does_what_it_is_called() {
    let three = name("three");
    for fault in ALL_FAULTS {
        let (backend, bytes) = faulty(Faults::Nth(Call::Put, 1, fault)).await;
        let stored = put(&backend, &three, &bytes).await;
        let found = read(&backend, &three).await.unwrap();
        match fault {
            Fault::ReadOnly => {
                assert!(matches!(stored, Err(StoreError::ReadOnly(_))));
                assert_eq!(found, None);
            }
            Fault::Unavailable | Fault::Break => {
                assert!(matches!(stored, Err(StoreError::Unavailable(_))));
                assert_eq!(found, None, "{fault:?}");
            }
            Fault::LostAnswer => {
                assert!(stored.is_err());
                assert_eq!(found, Some(bytes));
            }
            Fault::Truncate => {
                assert_eq!(stored.unwrap(), Put::Created);
                assert!(found.is_some_and(|found| found.len() < bytes.len()));
            }
            Fault::BitFlip => {
                assert_eq!(stored.unwrap(), Put::Created);
                assert!(found.is_some_and(|found| bits_that_differ(&found, &bytes) == 1));
            }
        }
    }
}

#[tokio::test]
async fn deletes_and_listings_fail_halfway() {
    let one = name("one");
    let (backend, _) = faulty(Faults::Nth(Call::Delete, 1, Fault::LostAnswer)).await;
    assert!(backend.delete(&one).await.is_err());
    assert!(!backend.delete(&one).await.unwrap(), "it was deleted");
    let (backend, _) = faulty(Faults::Nth(Call::Delete, 1, Fault::ReadOnly)).await;
    let refused = backend.delete(&one).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))));
    assert!(backend.delete(&one).await.unwrap());

    use futures_util::StreamExt as _;
    let (backend, _) = faulty(Faults::Nth(Call::List, 1, Fault::Break)).await;
    let items: Vec<_> = backend.list("").collect().await;
    assert!(items.len() == 2 && items[0].is_ok() && items[1].is_err());
    assert_eq!(list(&backend, "").await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_empty_object_cannot_be_damaged_unnoticed() {
    for fault in [Fault::Truncate, Fault::BitFlip, Fault::Break] {
        let (backend, _) = faulty(Faults::Nth(Call::Get, 1, fault)).await;
        put(&backend, &name("empty"), &Bytes::new()).await.unwrap();
        assert!(backend.get(&name("empty")).await.is_err(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_faults_again_and_about_as_many_as_asked() {
    let failures = async |seed| {
        let faults = Faults::Seeded { seed, per_mille: 200, faults: vec![Fault::Unavailable] };
        let (backend, _) = faulty(faults).await;
        let mut failures = Vec::new();
        for i in 0..1000 {
            if backend.size(&name("one")).await.is_err() {
                failures.push(i);
            }
        }
        assert_eq!(backend.injected(), failures.len() as u64);
        failures
    };
    let first = failures(1).await;
    assert_eq!(first, failures(1).await);
    assert_ne!(first, failures(2).await);
    assert!((150..250).contains(&first.len()), "{} of 1000", first.len());
}

#[tokio::test]
async fn faults_can_be_ended() {
    let always = Faults::Seeded { seed: 1, per_mille: 1000, faults: vec![Fault::Unavailable] };
    let (backend, bytes) = faulty(always).await;
    let clone = backend.clone();
    assert!(backend.get(&name("one")).await.is_err());
    clone.set(Faults::Never);
    assert_eq!(read(&backend, &name("one")).await.unwrap(), Some(bytes));
}
