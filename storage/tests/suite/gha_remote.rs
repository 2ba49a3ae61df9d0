//! The GitHub Actions cache as a remote, against the strict fake of it: what is stored is found, by whom it
//! has to be, in few requests and few entries.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use crate::gha_support::{
    Face, MAIN, MINUTE, assert_right, found, found_by_next, job, local, made, scope, settings,
    some, store, store_all,
};
use futures_util::future::join_all;
use kiln_storage::digest::Digest;
use kiln_storage::output::Content;
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::remote::gha::clock::Clock as _;
use kiln_storage::remote::{Flushed, Remote, Stored};
use kiln_storage::testing::gha::{
    Behaviour, Call, FakeCache, Fault, ManualClock, READ, READ_WRITE,
};
use kiln_storage::{Body, ObjectName, StoreError};

const PULL_1: &str = "refs/pull/1/merge";
const PULL_2: &str = "refs/pull/2/merge";

#[tokio::test]
async fn what_is_stored_is_found_by_the_next_job_in_few_requests() {
    for face in [Face::V2, Face::V1] {
        let fake = FakeCache::start(Behaviour::default()).await;
        let rights = [(MAIN, READ_WRITE)];
        let results = some(0..20);
        store_all(&GhaRemote::new(settings(&fake, face, &rights)).unwrap(), &results).await;
        assert_eq!(fake.counted().finalized, 2, "a pack and a manifest");

        let next = GhaRemote::new(settings(&fake, face, &rights)).unwrap();
        let before = fake.counted();
        let units: Vec<_> = results.iter().map(|made| made.name.unit).collect();
        let arrived = next.lookup(&[scope(MAIN)], &units).await.unwrap();
        assert_eq!(arrived.len(), 20);
        for (one, made) in arrived.iter().zip(&results) {
            assert_right(one, made);
            assert_eq!(one.blobs.len(), 2, "the small ones came along");
        }
        let after = fake.counted();
        let asked = after.all_requests() - before.all_requests();
        // The manifest: found, read, two higher numbers looked for. The pack: found, one range.
        assert_eq!(asked, 6, "{face:?}: {after:?}");
        assert_eq!(next.counters().requests, asked);

        let large = &results[7].blobs[2];
        let body = next.blob(&Digest::of(large), large.len() as u64).await.unwrap();
        let Some(Body::Bytes(read)) = body else { panic!("no such blob") };
        assert_eq!(read, large);
        assert_eq!(fake.counted().all_requests() - after.all_requests(), 1);

        let names: Vec<_> = results.iter().map(|made| made.name.clone()).collect();
        let whole = next.results(&names).await.unwrap();
        assert_eq!(whole.len(), 20);
        assert!(whole.iter().all(|one| one.blobs.len() == 3), "all blobs came along");
        assert_eq!(fake.counted().all_requests() - after.all_requests(), 2, "in one range");
        assert_eq!(next.lookup(&[scope(MAIN)], &[]).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn scopes_are_those_of_the_service() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let (main, pull) = (some(0..3), [made(PULL_1, 7, &[10]), made(PULL_1, 8, &[10])]);
    store_all(&job(&fake), &main).await;
    let rights = [(PULL_1, READ_WRITE), (MAIN, READ)];
    let first = GhaRemote::new(settings(&fake, Face::V2, &rights)).unwrap();
    let scopes = [scope(PULL_1), scope(MAIN)];
    assert_eq!(found(&first, &scopes, &main).await, 3, "a pull request reads the default branch");
    store_all(&first, &pull).await;
    assert_eq!(found(&first, &scopes, &pull).await, 2);

    let rights = [(PULL_2, READ_WRITE), (MAIN, READ)];
    let second = GhaRemote::new(settings(&fake, Face::V2, &rights)).unwrap();
    let scopes = [scope(PULL_2), scope(MAIN), scope(PULL_1)];
    assert_eq!(found(&second, &scopes, &pull).await, 0, "another pull request sees nothing of it");
    assert_eq!(found(&second, &scopes, &main).await, 3);
    assert_eq!(found(&job(&fake), &[scope(MAIN), scope(PULL_1)], &pull).await, 0);
}

#[tokio::test]
async fn a_matrix_of_20_jobs_stays_under_200_entries_and_loses_nothing() {
    let fake = FakeCache::start(Behaviour {
        lag_lookups: 2,
        lag: Duration::from_secs(3),
        ..Behaviour::default()
    })
    .await;
    let results: Vec<_> = (0..6000).map(|number| made(MAIN, number, &[200, 700, 2500])).collect();
    let jobs = results.chunks(300).map(|results| async {
        let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
        settings.sharers = 20;
        let remote = GhaRemote::new(settings).unwrap();
        store_all(&remote, results).await;
    });
    join_all(jobs).await;
    let counted = fake.counted();
    assert_eq!(counted.rate_limited, 0);
    assert!(counted.reserved < 200, "{counted:?}");
    assert_eq!(counted.reserved, 40, "a pack and a manifest for each job");
    println!("20 jobs, 6000 results: {counted:?}");

    fake.clock().advance(Duration::from_secs(10));
    fake.behave(|behaviour| behaviour.lag_lookups = 0);
    let next = job(&fake);
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 6000);
    println!("the next run: {:?}", next.counters());
}

#[tokio::test]
async fn writers_at_once_with_lagging_lookups_lose_nothing() {
    let fake =
        FakeCache::start(Behaviour { lag: Duration::from_secs(40), ..Behaviour::default() }).await;
    for round in 0..3 {
        let from = round * 100;
        let jobs = (0..6).map(|at| {
            let fake = fake.clone();
            async move { store_all(&job(&fake), &some(from + at * 5..from + at * 5 + 5)).await }
        });
        join_all(jobs).await;
    }
    fake.clock().advance(MINUTE);
    for from in [0, 100, 200] {
        assert_eq!(found_by_next(&fake, &some(from..from + 30)).await, 30);
    }
}

#[tokio::test]
async fn what_is_there_is_not_stored_again_and_what_is_newer_is_found_first() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..2);
    store_all(&job(&fake), &results).await;
    let next = job(&fake);
    let local = local(&results).await;
    let again = next.store(&results[0].name, &results[0].record, &local).await.unwrap();
    assert_eq!(again, Stored::AlreadyThere);
    let flushed = next.flush(MINUTE).await.unwrap();
    assert_eq!(flushed, Flushed::default(), "there is nothing to flush");
    assert_eq!(fake.counted().finalized, 2);

    next.reject(&results[0].name).await.unwrap();
    assert_eq!(found(&next, &[scope(MAIN)], &results).await, 1, "a rejected one is not found");
    let mut newer = results[0].clone();
    newer.name.generation = 1;
    fake.clock().advance(Duration::from_secs(1));
    store_all(&next, std::slice::from_ref(&newer)).await;
    let unit = [newer.name.unit];
    let arrived = job(&fake).lookup(&[scope(MAIN)], &unit).await.unwrap();
    assert_eq!(arrived.len(), 1, "one copy of a result");
    assert_eq!(arrived[0].name.generation, 1);
    assert_right(&arrived[0], &newer);
}

#[tokio::test]
async fn a_share_of_the_rate_is_kept_and_what_is_left_stays_collected() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.sharers = 100;
    let remote = GhaRemote::new(settings).unwrap();
    // Two packs: the share is two entries a minute, so one pack and a manifest.
    let results: Vec<_> = (0..2).map(|number| made(MAIN, number, &[20 << 20])).collect();
    store(&remote, &results).await;
    let told = remote.flush(Duration::from_secs(50)).await;
    let account = "1 results are stored, 1 are not yet: the rate of requests is limited";
    assert!(matches!(told, Err(StoreError::Unavailable(why)) if why.contains(account)));
    assert_eq!(remote.collected(), 1);
    assert_eq!(fake.counted().reserved, 2);
    assert!(matches!(remote.flush(MINUTE / 60).await, Err(StoreError::Unavailable(_))));
    assert_eq!((remote.collected(), fake.counted().reserved), (1, 2));
    let flushed = remote.flush(MINUTE * 3).await.unwrap();
    assert_eq!((flushed.stored, remote.collected()), (1, 0));
    assert_eq!(found_by_next(&fake, &results).await, 2);
}

#[tokio::test]
async fn the_services_own_rate_is_waited_for_within_the_time() {
    let behaviour = Behaviour { entries_per_minute: 1, ..Behaviour::default() };
    let fake = FakeCache::start(behaviour).await;
    store_all(&job(&fake), &some(0..2)).await;
    assert!(fake.counted().rate_limited > 0);
    assert_eq!(found_by_next(&fake, &some(0..2)).await, 2);
}

/// A server that leaves gives a silent service up; one that says when to come again is not silent meanwhile.
#[tokio::test]
async fn what_the_service_asks_to_wait_is_counted_as_it_passes() {
    let fake = FakeCache::start(Behaviour::default()).await;
    fake.fail(Call::Create, &Fault::RetryAfter(30), 1);
    let job = job(&fake);
    store_all(&job, &some(0..1)).await;
    assert_eq!(job.counters().asked_to_wait_ms, 30_000);
    assert_eq!(found_by_next(&fake, &some(0..1)).await, 1);
}

#[tokio::test]
async fn notes_travel_with_the_manifest_and_the_latest_wins() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let (first, scopes) = (job(&fake), [scope(MAIN)]);
    assert_eq!(first.note(&scopes, "job").await.unwrap(), None);
    first.put_note(&scopes[0], "job", "one".into()).await.unwrap();
    assert_eq!(first.note(&scopes, "job").await.unwrap(), Some("one".into()), "at once here");
    first.flush(MINUTE).await.unwrap();
    assert_eq!(fake.counted().reserved, 1, "a manifest alone");
    let second = job(&fake);
    assert_eq!(second.note(&scopes, "job").await.unwrap(), Some("one".into()));
    fake.clock().advance(Duration::from_secs(1));
    second.put_note(&scopes[0], "job", "two".into()).await.unwrap();
    second.flush(MINUTE).await.unwrap();
    let third = job(&fake);
    assert_eq!(third.note(&scopes, "job").await.unwrap(), Some("two".into()));
    assert_eq!(third.note(&[scope(PULL_1), scope(MAIN)], "job").await.unwrap().unwrap(), "two");
    let long = "x".repeat(100_000).into();
    assert!(matches!(
        third.put_note(&scopes[0], "job", long).await,
        Err(StoreError::TooLarge { .. })
    ));
}

/// A note of a machine whose clock is hours ahead is replaced by the next one all the same.
#[tokio::test]
async fn a_note_from_a_time_to_come_is_replaced() {
    let (fake, scopes) = (FakeCache::start(Behaviour::default()).await, [scope(MAIN)]);
    let mut ahead = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    ahead.clock = Arc::new(ManualClock::at(fake.clock().now_ms() + 5 * 3600 * 1000));
    let ahead = GhaRemote::new(ahead).unwrap();
    ahead.put_note(&scopes[0], "job", "of tomorrow".into()).await.unwrap();
    ahead.flush(MINUTE).await.unwrap();
    for text in ["one", "two"] {
        let next = job(&fake);
        next.put_note(&scopes[0], "job", text.into()).await.unwrap();
        next.flush(MINUTE).await.unwrap();
        assert_eq!(job(&fake).note(&scopes, "job").await.unwrap(), Some(text.into()));
    }
}

#[tokio::test]
async fn what_is_collected_has_a_bound() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.spool_bytes = 250_000;
    let remote = GhaRemote::new(settings).unwrap();
    let results = some(0..3);
    store(&remote, &results[..2]).await;
    let (third, local) = (&results[2], local(&results).await);
    // What was collected is uploaded first. While that fails, nothing more is taken.
    fake.fail(Call::Create, &Fault::Status(503), 4);
    let error = remote.store(&third.name, &third.record, &local).await;
    assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");
    assert_eq!((remote.collected(), fake.counted().finalized), (2, 0));
    let stored = remote.store(&third.name, &third.record, &local).await;
    assert_eq!(stored.unwrap(), Stored::Collected);
    let repeated = remote.store(&third.name, &third.record, &local).await;
    assert_eq!((repeated.unwrap(), remote.collected()), (Stored::Collected, 3));
    assert_eq!(fake.counted().finalized, 1, "the pack of the first two");
    remote.flush(MINUTE).await.unwrap();
    assert_eq!((fake.counted().finalized, found_by_next(&fake, &results).await), (3, 3));
}

#[tokio::test]
async fn a_full_bound_waits_for_the_share_of_entries() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.spool_bytes = 250_000;
    settings.sharers = 1_000_000;
    let remote = GhaRemote::new(settings).unwrap();
    let results = some(0..3);
    store(&remote, &results[..2]).await;
    let (third, local) = (&results[2], local(&results).await);
    let error = remote.store(&third.name, &third.record, &local).await;
    assert!(matches!(error, Err(StoreError::ReadOnly(why)) if why.contains("bound")));
    assert_eq!(fake.counted().of(Call::Create), 0, "both entries are for the flush");
    remote.flush(MINUTE).await.unwrap();
    let stored = remote.store(&third.name, &third.record, &local).await;
    assert_eq!((stored.unwrap(), remote.collected()), (Stored::Collected, 1));
}

/// Results that together are far more than what may be framed at a time, all at once.
#[tokio::test]
async fn many_results_at_once_take_turns() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.spool_bytes = 250_000;
    let remote = GhaRemote::new(settings).unwrap();
    let results = some(0..12);
    let local = local(&results).await;
    let storing = results.iter().map(|made| remote.store(&made.name, &made.record, &local));
    for stored in join_all(storing).await {
        assert_eq!(stored.unwrap(), Stored::Collected);
    }
    remote.flush(MINUTE).await.unwrap();
    assert_eq!(found_by_next(&fake, &results).await, 12);
}

/// Several ranges of a pack are read side by side: its address is asked for once.
#[tokio::test]
async fn an_address_is_asked_for_once() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results: Vec<_> = (0..3).map(|number| made(MAIN, number, &[9 << 20])).collect();
    store_all(&job(&fake), &results).await;
    let next = job(&fake);
    let names: Vec<_> = results.iter().map(|made| made.name.clone()).collect();
    next.note(&[scope(MAIN)], "none").await.unwrap();
    let before = fake.counted();
    assert_eq!(next.results(&names).await.unwrap().len(), 3);
    let after = fake.counted();
    assert_eq!(after.of(Call::Lookup) - before.of(Call::Lookup), 1);
    assert!(after.of(Call::Download) - before.of(Call::Download) > 1);
}

#[tokio::test]
async fn a_result_without_its_blobs_or_too_large_is_refused() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let remote = job(&fake);
    let one = &some(0..1)[0];
    let error = remote.store(&one.name, &one.record, &local(&[]).await).await;
    assert!(matches!(error, Err(StoreError::Damaged { .. })));
    let mut large = made(MAIN, 9, &[10]);
    if let Content::Blob { size, .. } = &mut large.record.outputs[0].content {
        *size = (256 << 20) + 1;
    }
    let error = remote.store(&large.name, &large.record, &local(&[]).await).await;
    assert!(matches!(error, Err(StoreError::TooLarge { .. })));
    let mut other = one.clone();
    other.name.unit = large.name.unit;
    let error = remote.store(&other.name, &other.record, &local(&[]).await).await;
    assert!(matches!(error, Err(StoreError::Damaged { .. })));
    assert_eq!((remote.collected(), fake.counted().of(Call::Create)), (0, 0));
}

#[tokio::test]
async fn a_blob_that_is_too_large_for_a_frame_is_read_part_by_part() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let one = made(MAIN, 1, &[(64 << 20) + 5, 100]);
    store_all(&job(&fake), std::slice::from_ref(&one)).await;
    let next = job(&fake);
    let names = std::slice::from_ref(&one.name);
    let arrived = next.results(names).await.unwrap();
    assert_right(&arrived[0], &one);
    assert_eq!(arrived[0].blobs.len(), 1, "the large one does not come along");
    let before = fake.counted().of(Call::Download);
    let large = &one.blobs[0];
    let (name, size) = (ObjectName::blob(&Digest::of(large)), large.len() as u64);
    let body = next.blob(&Digest::of(large), size).await.unwrap().unwrap();
    assert!(matches!(body, Body::Stream { .. }));
    assert!(body.into_bytes(&name, size).await.unwrap() == *large, "other bytes");
    assert_eq!(fake.counted().of(Call::Download) - before, 5);
    let body = next.blob(&Digest::of(large), size).await.unwrap().unwrap();
    fake.evict("kiln-pack-");
    let error = body.into_bytes(&name, size).await;
    assert!(matches!(error, Err(StoreError::Unavailable(_))), "the rest of it went away");
}

#[tokio::test]
async fn many_blobs_come_in_one_range() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let results = some(0..10);
    store_all(&job(&fake), &results).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.scopes = vec![scope(MAIN)];
    // A process that has looked nothing up, as after a restart.
    let next = GhaRemote::new(settings).unwrap();
    let bytes: Vec<_> = results.iter().flat_map(|made| &made.blobs).collect();
    let mut wanted: Vec<_> =
        bytes.iter().map(|bytes| (Digest::of(bytes), bytes.len() as u64)).collect();
    wanted.push((Digest::of(b"nobody's"), 8));
    let before = fake.counted().of(Call::Download);
    let arrived = next.blobs(&wanted).await.unwrap();
    assert_eq!(fake.counted().of(Call::Download) - before, 2, "the manifest, and one range");
    assert_eq!(arrived.len(), 30);
    for (digest, read) in arrived {
        assert_eq!(Digest::of(&read), digest);
        assert!(bytes.contains(&&read));
    }
    assert!(next.blob(&Digest::of(b"nobody's"), 8).await.unwrap().is_none());
}

#[tokio::test]
async fn full_packs_are_uploaded_before_the_flush() {
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut settings = settings(&fake, Face::V2, &[(MAIN, READ_WRITE)]);
    settings.spool_bytes = 70 << 20;
    let remote = GhaRemote::new(settings).unwrap();
    let results: Vec<_> = (0..9).map(|number| made(MAIN, number, &[15 << 20])).collect();
    store(&remote, &results).await;
    // 135 MiB went through 70 MiB: two results a pack, and the last one is still open.
    assert_eq!(fake.counted().finalized, 4);
    assert_eq!((remote.collected(), found_by_next(&fake, &results).await), (9, 0));
    let flushed = remote.flush(MINUTE).await.unwrap();
    assert_eq!((flushed.stored, remote.collected()), (9, 0));
    assert_eq!(fake.counted().finalized, 6);
    assert_eq!(found_by_next(&fake, &results).await, 9);
}

#[tokio::test]
async fn a_server_where_a_number_can_be_claimed_twice_gives_no_wrong_result() {
    let behaviour =
        Behaviour { lax_reservations: true, lag: Duration::from_secs(30), ..Behaviour::default() };
    let fake = FakeCache::start(behaviour).await;
    let at = |from: u64| {
        let remote = settings(&fake, Face::V1, &[(MAIN, READ_WRITE)]);
        (GhaRemote::new(remote).unwrap(), some(from..from + 2))
    };
    // Neither sees the other: both write the first manifest.
    for (remote, results) in [at(0), at(2)] {
        store_all(&remote, &results).await;
    }
    assert_eq!(fake.counted().finalized, 4);
    fake.clock().advance(MINUTE);
    let (next, more) = at(4);
    let there = found(&next, &[scope(MAIN)], &some(0..4)).await;
    assert_eq!(there, 2, "the other manifest is covered, and what is read is right");
    store_all(&next, &more).await;
    fake.clock().advance(MINUTE);
    assert_eq!(found(&at(0).0, &[scope(MAIN)], &some(2..6)).await, 4);
}
