//! The GitHub Actions cache as a remote when things go wrong: every fault is a miss or a loss that is told,
//! never other bytes and never a wait without an end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use crate::gha_support::{
    Face, MAIN, MINUTE, assert_right, found, found_by_next, job, local, made, scope, settings,
    some, store, store_all,
};
use kiln_storage::digest::Digest;
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::remote::{Remote, Stored};
use kiln_storage::testing::gha::{Behaviour, Call, FakeCache, Fault, READ_WRITE};
use kiln_storage::{Body, StoreError};

/// Every fault that an answer can have, but for those that take real time.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(400),
        Fault::Status(404),
        Fault::Status(409),
        Fault::Status(500),
        Fault::Status(503),
        Fault::RetryAfter(3),
        Fault::RetryAfter(100_000),
        Fault::Drop,
        Fault::AnswerLost,
        Fault::DropMidBody,
        Fault::FlipBit,
        Fault::Short,
        Fault::WholeBody,
        Fault::NotFound,
        Fault::WriteDenied,
        Fault::NotOk,
        Fault::ReadDenied,
        Fault::Quota,
        Fault::Unauthorized,
        Fault::Expired,
        Fault::Garbage,
    ]
}

fn on_face(fake: &FakeCache, face: Face) -> GhaRemote {
    GhaRemote::new(settings(fake, face, &[(MAIN, READ_WRITE)])).unwrap()
}

#[tokio::test]
async fn a_fault_of_a_reader_is_a_miss_and_never_other_bytes() {
    for face in [Face::V2, Face::V1] {
        let fake = FakeCache::start(Behaviour::default()).await;
        let results = some(0..4);
        store_all(&on_face(&fake, face), &results).await;
        for call in [Call::Lookup, Call::Download] {
            for fault in faults() {
                // The fault meets one call after another, and then all of them.
                for (first, times) in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 100)] {
                    let before = fake.counted().injected;
                    fake.script(call, std::iter::repeat_n(None, first));
                    fake.fail(call, &fault, times);
                    let next = on_face(&fake, face);
                    // `found` checks every byte.
                    let some = found(&next, &[scope(MAIN)], &results).await;
                    fake.heal();
                    let injected = fake.counted().injected - before;
                    assert!(injected > 0, "{face:?} {call:?} {fault:?}: it was not met");
                    let passing = matches!(fault, Fault::Status(500 | 503) | Fault::Drop);
                    if passing && times == 1 {
                        assert_eq!(some, 4, "{face:?} {call:?} {fault:?}: it is tried again");
                    }
                    assert!(next.counters().requests < 200, "{face:?} {call:?} {fault:?}");
                }
            }
        }
        let next = on_face(&fake, face);
        assert_eq!(found(&next, &[scope(MAIN)], &results).await, 4, "nothing was spoiled");
        assert_eq!(fake.counted().finalized, 2, "and nothing was written");
    }
}

/// One flush that meets a fault so often, after so many calls that do not.
async fn flush_with(face: Face, call: Call, fault: &Fault, (first, times): (usize, usize)) {
    let fake = FakeCache::start(Behaviour::default()).await;
    let shown = format!("{face:?} {call:?} {fault:?} {first} {times}");
    // There is a manifest to be read and merged.
    let (before, results) = ([made(MAIN, 10, &[10])], [made(MAIN, 1, &[10]), made(MAIN, 2, &[10])]);
    let remote = on_face(&fake, face);
    store_all(&remote, &before).await;
    // What is known is old by then.
    fake.clock().advance(MINUTE * 2);
    store(&remote, &results).await;
    fake.script(call, std::iter::repeat_n(None, first));
    fake.fail(call, fault, times);
    let flushed = remote.flush(MINUTE).await;
    let (stored, lost) = match &flushed {
        Ok(flushed) => (flushed.stored, flushed.lost.len() as u64),
        Err(StoreError::Unavailable(why)) => {
            assert!(!why.contains("127.0.0.1"), "{shown}: {why}");
            (0, 0)
        }
        Err(other) => panic!("{shown}: {other}"),
    };
    assert_eq!(stored + lost + remote.collected(), 2, "{shown}: {flushed:?}");
    fake.heal();
    let next = on_face(&fake, face);
    let there = found(&next, &[scope(MAIN)], &results).await as u64;
    assert!(there >= stored, "{shown}: {stored} were told as stored, {there} are there");
    if lost == 0 {
        fake.clock().advance(MINUTE * 2);
        let again = remote.flush(MINUTE).await.unwrap();
        assert_eq!(stored + again.stored, 2, "{shown}");
        assert_eq!(found(&next, &[scope(MAIN)], &results).await, 2, "{shown}");
    }
    assert_eq!(found(&next, &[scope(MAIN)], &before).await, 1, "{shown}: what was there before");
}

#[tokio::test]
async fn a_fault_of_a_writer_is_told_and_the_next_flush_has_it_all() {
    for call in [Call::Create, Call::Upload, Call::Finalize, Call::Lookup, Call::Download] {
        for fault in faults() {
            for times in [(0, 1), (1, 1), (0, 100)] {
                flush_with(Face::V2, call, &fault, times).await;
            }
        }
    }
}

#[tokio::test]
async fn a_fault_of_a_writer_to_the_older_service_is_told_too() {
    for call in [Call::Create, Call::Upload, Call::Finalize, Call::Lookup, Call::Download] {
        for fault in faults() {
            for times in [(0, 1), (0, 100)] {
                flush_with(Face::V1, call, &fault, times).await;
            }
        }
    }
}

#[tokio::test]
async fn finalizing_that_is_not_known_at_first_is_tried_again() {
    let fake = FakeCache::start(Behaviour::default()).await;
    fake.fail(Call::Finalize, &Fault::NotFound, 3);
    store_all(&job(&fake), &some(0..2)).await;
    assert_eq!(fake.counted().injected, 3);
    assert_eq!(found_by_next(&fake, &some(0..2)).await, 2);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_blocks_nothing() {
    let fake = FakeCache::start(Behaviour::default()).await;
    // That of the pack, and that of the manifest.
    fake.script(Call::Create, [Some(Fault::AnswerLost), None, None, Some(Fault::AnswerLost)]);
    store_all(&job(&fake), &some(0..2)).await;
    assert_eq!(fake.counted().injected, 2);
    assert_eq!(fake.counted().reserved, 4, "two of them are blocked for ever");
    assert_eq!(found_by_next(&fake, &some(0..2)).await, 2);
    store_all(&job(&fake), &some(2..4)).await;
    assert_eq!(found_by_next(&fake, &some(0..4)).await, 4);
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up() {
    let fake = FakeCache::start(Behaviour::default()).await;
    store_all(&job(&fake), &some(0..2)).await;
    for call in [Call::Lookup, Call::Download] {
        let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
        settings.request_timeout = Duration::from_millis(30);
        let next = GhaRemote::new(settings).unwrap();
        fake.fail(call, &Fault::Stall, 1000);
        assert_eq!(found(&next, &[scope(MAIN)], &some(0..2)).await, 0);
        let before = fake.counted().all_requests();
        assert_eq!(found(&next, &[scope(MAIN)], &some(0..2)).await, 0);
        if call == Call::Lookup {
            assert_eq!(fake.counted().all_requests(), before, "it is left alone for a while");
        }
        fake.heal();
        fake.clock().advance(MINUTE);
        let before = fake.counted().all_requests();
        found(&next, &[scope(MAIN)], &some(0..2)).await;
        assert!(fake.counted().all_requests() > before, "and asked again then");
        // That it answers: with a time that a busy machine keeps, too.
        assert_eq!(found_by_next(&fake, &some(0..2)).await, 2);
    }
    for call in [Call::Create, Call::Upload, Call::Finalize, Call::Lookup] {
        let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
        settings.request_timeout = Duration::from_millis(30);
        let remote = GhaRemote::new(settings).unwrap();
        store(&remote, &some(5..6)).await;
        fake.fail(call, &Fault::Stall, 1000);
        assert!(matches!(remote.flush(MINUTE).await, Err(StoreError::Unavailable(_))));
        assert_eq!(remote.collected(), 1);
        fake.heal();
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_asked_again_only_later() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    settings.service = kiln_storage::remote::gha::settings::Service::V2 {
        results_url: format!("http://127.0.0.1:{port}/"),
    };
    let remote = GhaRemote::new(settings).unwrap();
    let unit = [some(0..1)[0].name.unit];
    let began = Instant::now();
    assert!(matches!(
        remote.lookup(&[scope(MAIN)], &unit).await,
        Err(StoreError::Unavailable(why)) if why.contains("no connection")
    ));
    let asked = remote.counters().requests;
    assert!(asked > 1, "it was tried again");
    assert!(remote.lookup(&[scope(MAIN)], &unit).await.is_err());
    assert_eq!(remote.counters().requests, asked);
    store(&remote, &some(0..1)).await;
    assert!(matches!(remote.flush(MINUTE).await, Err(StoreError::Unavailable(_))));
    assert_eq!(remote.collected(), 1);
    println!("all of that took {:?}", began.elapsed());
}

#[tokio::test]
async fn addresses_that_are_over_are_asked_for_again() {
    let behaviour = Behaviour { url_lifetime: Duration::from_secs(10), ..Behaviour::default() };
    let fake = FakeCache::start(behaviour).await;
    let results = some(0..2);
    store_all(&job(&fake), &results).await;
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 2);
    fake.clock().advance(Duration::from_secs(20));
    let before = fake.counted();
    let large = &results[0].blobs[2];
    let body = next.blob(&Digest::of(large), large.len() as u64).await.unwrap();
    assert!(matches!(body, Some(Body::Bytes(read)) if read == *large));
    let after = fake.counted();
    assert_eq!(after.of(Call::Download) - before.of(Call::Download), 2, "refused, then read");
    assert_eq!(after.of(Call::Lookup) - before.of(Call::Lookup), 1);
}

#[tokio::test]
async fn a_token_that_is_over_ends_nothing_but_the_remote() {
    let fake = FakeCache::start(Behaviour::default()).await;
    store_all(&job(&fake), &some(0..2)).await;
    let remote = job(&fake);
    store(&remote, &some(2..3)).await;
    fake.behave(|behaviour| behaviour.token_calls = Some(0));
    let error = remote.flush(MINUTE).await;
    assert!(matches!(error, Err(StoreError::Unavailable(why)) if why.contains("token")));
    assert_eq!(remote.collected(), 1);
    assert_eq!(found_by_next(&fake, &some(0..2)).await, 0);
}

#[tokio::test]
async fn evicted_packs_are_misses_and_are_forgotten_in_time() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..3);
    store_all(&job(&fake), &results).await;
    assert_eq!(fake.evict("kiln-pack-"), 1);
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 0);
    let asked = next.counters().requests;
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 0);
    assert_eq!(next.counters().requests, asked, "it is known for a while");
    // The results are made again, and stored again.
    store_all(&next, &results).await;
    assert_eq!(found_by_next(&fake, &results).await, 3);
    // After an hour it is no lag any more, and others are told.
    fake.evict("kiln-pack-");
    fake.clock().advance(Duration::from_secs(2 * 3600));
    let later = job(&fake);
    assert_eq!(found(&later, &[scope(MAIN)], &results).await, 0);
    store_all(&later, &some(5..6)).await;
    let reader = job(&fake);
    let before = fake.counted().of(Call::Lookup);
    assert_eq!(found(&reader, &[scope(MAIN)], &results).await, 0);
    assert_eq!(fake.counted().of(Call::Lookup) - before, 3, "no pack was asked for");
    assert_eq!(found(&reader, &[scope(MAIN)], &some(5..6)).await, 1);
}

/// A compile may take longer than it is known for that a pack was not found: its result is stored again all the same.
#[tokio::test]
async fn what_takes_long_to_make_again_is_stored_again() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..3);
    store_all(&job(&fake), &results).await;
    assert_eq!(fake.evict("kiln-pack-"), 1);
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 0);
    fake.clock().advance(MINUTE * 10);
    store_all(&next, &results).await;
    assert_eq!(found_by_next(&fake, &results).await, 3);
    // By then it is known where they are.
    let again = next.store(&results[0].name, &results[0].record, &local(&results).await).await;
    assert_eq!(again.unwrap(), Stored::AlreadyThere);
}

/// A pack that was found late, not gone, is not stored again once it was read.
#[tokio::test]
async fn what_was_found_late_is_there() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..3);
    store_all(&job(&fake), &results).await;
    let next = job(&fake);
    // The manifest is found, the pack is not.
    let lag = [None, None, None, Some(Fault::NotFound)];
    fake.script(Call::Lookup, lag);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 0);
    fake.clock().advance(MINUTE * 2);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 3);
    let again = next.store(&results[0].name, &results[0].record, &local(&results).await).await;
    assert_eq!(again.unwrap(), Stored::AlreadyThere);
}

#[tokio::test]
async fn an_evicted_or_damaged_manifest_leaves_what_the_ones_before_had() {
    let fake = FakeCache::start(Behaviour::default()).await;
    store_all(&job(&fake), &some(0..2)).await;
    store_all(&job(&fake), &some(2..4)).await;
    let newest = fake.keys().last().unwrap().1.clone();
    assert!(newest.starts_with("kiln-idx-") && newest.ends_with("-0000000002"), "{newest}");
    assert_eq!(fake.damage(&newest, |bytes| bytes[100] ^= 1), 1);
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &some(0..4)).await, 2);
    assert_eq!(next.counters().damaged, 1);
    assert_eq!(fake.evict(&newest), 1);
    assert_eq!(found_by_next(&fake, &some(0..4)).await, 2);
    store_all(&job(&fake), &some(2..6)).await;
    assert_eq!(found_by_next(&fake, &some(0..6)).await, 6);
}

#[tokio::test]
async fn damaged_results_are_misses_and_heal() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..3);
    store_all(&job(&fake), &results).await;
    // The middle of the pack: a result, or a blob of one.
    assert_eq!(
        fake.damage("kiln-pack-", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        1
    );
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 2);
    assert_eq!(next.counters().damaged, 1);
    let spoiled = &results[1];
    store_all(&next, std::slice::from_ref(spoiled)).await;
    let reader = job(&fake);
    assert_eq!(found(&reader, &[scope(MAIN)], &results).await, 3, "the copy is found instead");
    assert_eq!(reader.counters().damaged, 0, "nobody else comes across the damage");
}

#[tokio::test]
async fn a_prefix_match_is_not_the_entry() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = [made(MAIN, 1, &[10])];
    store_all(&job(&fake), &results).await;
    let key = fake.keys().iter().find(|(_, key)| key.starts_with("kiln-pack-")).unwrap().1.clone();
    // Somebody else's entry, whose key begins with that of the pack, takes its place.
    fake.evict("kiln-pack-");
    fake.plant(MAIN, &format!("{key}-more"), b"something else");
    let next = job(&fake);
    let unit = [results[0].name.unit];
    assert_eq!(next.lookup(&[scope(MAIN)], &unit).await.unwrap().len(), 0);
    assert_eq!(fake.counted().of(Call::Download), 1, "the manifest alone was read");
}

#[tokio::test]
async fn a_server_without_ranges_is_read_all_the_same() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..3);
    store_all(&job(&fake), &results).await;
    fake.fail(Call::Download, &Fault::WholeBody, 100);
    let next = job(&fake);
    let units: Vec<_> = results.iter().map(|made| made.name.unit).collect();
    let arrived = next.lookup(&[scope(MAIN)], &units).await.unwrap();
    assert_eq!(arrived.len(), 3);
    arrived.iter().zip(&results).for_each(|(one, made)| assert_right(one, made));
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 3);
}
