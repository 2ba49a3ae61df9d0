//! Questions that wait, on a clock that goes on when nothing else does. `soak`: many jobs that die and are cut off.

mod soak;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use kiln_storage::limits::{LEASE_GRACE, MAX_LEASE_WAITERS};
use kiln_storage::{Digest, LeaseKey, ResultKey};
use tokio::task::JoinHandle;

use super::*;

const SCOPE: &str = "s";

fn leases() -> Arc<Leases> {
    let leases = Arc::new(Leases::of(Ids::of(Digest::of(b"seed"))));
    let runs = leases.clone();
    tokio::spawn(async move { runs.run().await });
    leases
}

fn request(unit: usize, asker: &str) -> LeaseRequest {
    LeaseRequest {
        key: LeaseKey::new(Digest::of(&unit.to_le_bytes())),
        asker: asker.to_owned(),
        unit: UnitName::default(),
        run: "r".to_owned(),
        job: asker.to_owned(),
        wait_ms: 60_000,
        known: Vec::new(),
        over_ms: None,
    }
}

fn asks(leases: &Arc<Leases>, unit: usize, asker: &str) -> JoinHandle<LeaseResponse> {
    let (leases, request) = (leases.clone(), request(unit, asker));
    tokio::spawn(async move { leases.ask(SCOPE, request).await })
}

fn holds(leases: &Arc<Leases>, id: LeaseId) -> JoinHandle<bool> {
    let leases = leases.clone();
    tokio::spawn(async move { leases.hold(SCOPE, id, 0).await })
}

fn granted(answer: LeaseResponse) -> LeaseId {
    let LeaseResponse::Granted { id } = answer else { panic!("{answer:?}") };
    id.parse().unwrap()
}

fn result(n: usize) -> ResultKey {
    ResultKey::new(Digest::of(&n.to_le_bytes()))
}

/// Lets tasks come as far as they can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn thousands_wait_and_all_are_told() {
    const UNITS: usize = 5;
    let leases = leases();
    let mut ids = Vec::new();
    for unit in 0..UNITS {
        ids.push(granted(leases.ask(SCOPE, request(unit, "first")).await));
    }
    let waiters = (0..UNITS * MAX_LEASE_WAITERS)
        .map(|n| asks(&leases, n % UNITS, &n.to_string()))
        .collect::<Vec<_>>();
    settle().await;
    let all = UNITS * MAX_LEASE_WAITERS;
    assert_eq!((leases.figures().held, leases.figures().waiting), (UNITS, all));
    for (unit, id) in ids.into_iter().enumerate() {
        assert!(leases.release(SCOPE, id, ReleaseRequest::Stored { result: result(unit) }));
    }
    for (n, told) in join_all(waiters).await.into_iter().enumerate() {
        assert_eq!(told.unwrap(), LeaseResponse::Stored { result: result(n % UNITS) });
    }
    assert!(leases.is_idle() && leases.table().open.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_hangs_up_is_replaced_at_once() {
    let leases = leases();
    let begun = Instant::now();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    let hold = holds(&leases, id);
    settle().await;
    let waits = asks(&leases, 1, "b");
    settle().await;
    hold.abort();
    granted(waits.await.unwrap());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(leases.figures().totals.lost, 1);
    assert!(!leases.hold(SCOPE, id, 0).await, "it is another's now");
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_is_replaced_after_a_while() {
    let leases = leases();
    let begun = Instant::now();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    let waits = asks(&leases, 1, "b");
    assert!(leases.hold(SCOPE, id, 5).await);
    assert_eq!(begun.elapsed(), LEASE_HOLD);
    settle().await;
    let listed = leases.list(SCOPE, None);
    assert_eq!((listed[0].holder.cpu_ms, listed[0].waiting.len()), (5, 1));
    // It does not ask again.
    let id = granted(waits.await.unwrap());
    let late = begun.elapsed() - LEASE_HOLD - LEASE_GRACE;
    assert!(late < Duration::from_millis(10), "{late:?}");
    // Nor does this one: that was the second. Nobody waits for it, and it is over all the same.
    tokio::time::sleep(LEASE_GRACE + Duration::from_millis(10)).await;
    assert!(!leases.release(SCOPE, id, ReleaseRequest::Failed));
    assert_eq!(leases.ask(SCOPE, request(1, "c")).await, LeaseResponse::Free);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_asks_in_time_stays() {
    let leases = leases();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    for _ in 0..6 {
        tokio::time::sleep(LEASE_GRACE / 2).await;
        assert!(leases.hold(SCOPE, id, 0).await);
    }
    assert!(leases.release(SCOPE, id, ReleaseRequest::Abandoned));
    assert!(leases.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_as_long_as_it_says_within_a_bound() {
    let leases = leases();
    granted(leases.ask(SCOPE, request(1, "a")).await);
    for wait in [Duration::ZERO, Duration::from_secs(3)] {
        let begun = Instant::now();
        let wait_ms = u64::try_from(wait.as_millis()).unwrap();
        let answer = leases.ask(SCOPE, LeaseRequest { wait_ms, ..request(1, "b") }).await;
        assert!(matches!(&answer, LeaseResponse::Held { holder } if holder.job == "a"));
        let late = begun.elapsed() - wait;
        assert!(late < Duration::from_millis(10), "{late:?}");
    }
    // The holder stays all the time, which it tells.
    let id = granted(leases.ask(SCOPE, request(2, "a")).await);
    let begun = Instant::now();
    let held = async { while leases.hold(SCOPE, id, 0).await {} };
    tokio::select! {
        () = held => panic!("it is lost"),
        answer = leases.ask(SCOPE, request(2, "b")) => {
            assert!(matches!(answer, LeaseResponse::Held { .. }), "{answer:?}");
        }
    }
    let late = begun.elapsed() - MAX_LEASE_WAIT;
    assert!(late < Duration::from_millis(10), "{late:?}");
    assert!(leases.table().open.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_and_hangs_up_waits_no_longer() {
    let leases = leases();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    let (first, second) = (asks(&leases, 1, "b"), asks(&leases, 1, "c"));
    settle().await;
    assert_eq!(leases.figures().waiting, 2);
    first.abort();
    settle().await;
    assert_eq!((leases.figures().waiting, leases.table().open.len()), (1, 1));
    leases.release(SCOPE, id, ReleaseRequest::Abandoned);
    granted(second.await.unwrap());
}

/// The lease is in the answer of a question whose future is dropped before it takes it.
#[tokio::test(start_paused = true)]
async fn a_lease_in_an_answer_that_nobody_takes_goes_on() {
    let leases = leases();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    let mut dropped = Box::pin(leases.ask(SCOPE, request(1, "b")));
    assert!(dropped.as_mut().now_or_never().is_none());
    let waits = asks(&leases, 1, "c");
    settle().await;
    leases.release(SCOPE, id, ReleaseRequest::Abandoned);
    drop(dropped);
    granted(waits.await.unwrap());
    assert_eq!((leases.figures().totals.lost, leases.figures().held), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_answers_everybody_at_once() {
    let leases = leases();
    let begun = Instant::now();
    let id = granted(leases.ask(SCOPE, request(1, "a")).await);
    let (hold, waits) = (holds(&leases, id), asks(&leases, 1, "b"));
    settle().await;
    leases.close();
    assert_eq!(waits.await.unwrap(), LeaseResponse::Free);
    assert!(hold.await.unwrap());
    assert_eq!(leases.ask(SCOPE, request(2, "c")).await, LeaseResponse::Free);
    assert!(leases.hold(SCOPE, id, 0).await);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
