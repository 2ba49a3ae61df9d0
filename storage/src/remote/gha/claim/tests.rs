//! Writers at once, under every interleaving that chance comes up with: each of their calls may be held up
//! for as long as the others like, lookups lag, writers die or are told errors, old manifests are evicted.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::remote::gha::pack::{PackId, PackIndex};

/// More steps than any of the runs here takes: whoever needs them loops.
const MOST_STEPS: usize = 200_000;

#[derive(Debug, Clone)]
struct Finished {
    manifest: Manifest,
    order: u64,
    visible_ms: u64,
}

#[derive(Debug, Default)]
struct Service {
    /// Claimed numbers, and what they became.
    numbers: BTreeMap<u64, Option<Finished>>,
    /// What goes wrong, call by call.
    trouble: Vec<u8>,
    lags_ms: Vec<u16>,
    calls: usize,
    finished: u64,
    evictions: usize,
}

#[derive(Debug, Clone, Default)]
struct World {
    service: Arc<Mutex<Service>>,
    now_ms: Arc<AtomicU64>,
}

/// Comes back once: the others may go on in between.
fn others() -> impl Future<Output = ()> {
    let mut first = true;
    std::future::poll_fn(
        move |_| {
            if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
        },
    )
}

#[async_trait]
impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    async fn sleep(&self, time: Duration) {
        let until = self.now_ms() + time.as_millis() as u64;
        while self.now_ms() < until {
            self.now_ms.fetch_add(100, Ordering::SeqCst);
            others().await;
        }
    }
}

/// What may happen to a call.
#[derive(PartialEq)]
enum Trouble {
    None,
    /// Nothing is done.
    Before,
    /// All is done, and the caller is told an error.
    After,
}

impl World {
    fn trouble(&self) -> Trouble {
        self.now_ms.fetch_add(10, Ordering::SeqCst);
        let mut service = self.service.lock().unwrap();
        service.calls += 1;
        let at = service.calls;
        match service.trouble.get(at % service.trouble.len().max(1)) {
            Some(0) => Trouble::Before,
            Some(1) => Trouble::After,
            _ => Trouble::None,
        }
    }

    fn visible(&self) -> Vec<(u64, Finished)> {
        let now = self.now_ms();
        let service = self.service.lock().unwrap();
        let finished = service.numbers.iter().filter_map(|(n, f)| Some((*n, f.clone()?)));
        finished.filter(|(_, finished)| finished.visible_ms <= now).collect()
    }

    /// Drops the lowest manifest that another one has taken in which can be found: what is evicted was not
    /// used for days, or is among the oldest.
    fn evict(&self) {
        let now = self.now_ms();
        let mut service = self.service.lock().unwrap();
        let finished: Vec<_> =
            service.numbers.iter().filter_map(|(n, f)| Some((*n, f.clone()?))).collect();
        let merged = finished.iter().find(|(number, _)| {
            let took = |f: &Finished| f.visible_ms <= now && f.manifest.seen.has(*number);
            finished.iter().any(|(n, f)| n != number && took(f))
        });
        if let Some((number, _)) = merged {
            service.numbers.remove(number);
            service.evictions += 1;
        }
    }
}

fn failed() -> CacheError {
    CacheError::Unavailable("injected".into())
}

#[async_trait]
impl Numbers for World {
    async fn newest(&self, _: Deadline) -> Result<Option<u64>, CacheError> {
        others().await;
        if self.trouble() != Trouble::None {
            return Err(failed());
        }
        let newest = self.visible().into_iter().max_by_key(|(_, f)| f.order);
        Ok(newest.map(|(number, _)| number))
    }

    async fn read(&self, number: u64, _: Deadline) -> Result<Option<Manifest>, CacheError> {
        others().await;
        if self.trouble() != Trouble::None {
            return Err(failed());
        }
        let found = self.visible().into_iter().find(|(n, _)| *n == number);
        Ok(found.map(|(_, finished)| finished.manifest))
    }

    async fn claim(&self, number: u64, _: Deadline) -> Result<Option<Slot>, CacheError> {
        others().await;
        let trouble = self.trouble();
        if trouble == Trouble::Before {
            return Err(failed());
        }
        let mut service = self.service.lock().unwrap();
        if service.numbers.contains_key(&number) {
            return Ok(None);
        }
        service.numbers.insert(number, None);
        if trouble == Trouble::After { Err(failed()) } else { Ok(Some(Slot::Number(number))) }
    }

    async fn write(
        &self,
        number: u64,
        slot: &Slot,
        manifest: &Manifest,
        _: Deadline,
    ) -> Result<(), CacheError> {
        others().await;
        assert_eq!(*slot, Slot::Number(number));
        let trouble = self.trouble();
        if trouble == Trouble::Before {
            return Err(failed());
        }
        let now = self.now_ms();
        let mut service = self.service.lock().unwrap();
        service.finished += 1;
        let order = service.finished;
        let lags = service.lags_ms.len().max(1);
        let lag = service.lags_ms.get(order as usize % lags).copied().unwrap_or_default();
        let finished =
            Finished { manifest: manifest.clone(), order, visible_ms: now + u64::from(lag) };
        let before = service.numbers.insert(number, Some(finished));
        assert!(matches!(before, Some(None)), "number {number} was written twice");
        if trouble == Trouble::After { Err(failed()) } else { Ok(()) }
    }
}

fn mine(writer: usize) -> Manifest {
    let mut manifest = Manifest::default();
    let id = PackId(Digest::of(&writer.to_le_bytes()));
    manifest.packs.insert(id, Arc::new(PackIndex { created_ms: 1, ..PackIndex::default() }));
    manifest
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Manifest, CacheError>> + 'a>>;

fn publishing(world: &World, writer: usize) -> Running<'_> {
    Box::pin(async move {
        let until = Deadline::after(world, Duration::from_secs(600));
        publish(world, world, (&Manifest::default(), &mine(writer)), until).await
    })
}

fn finish<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..MOST_STEPS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it does not end");
}

/// Runs the writers by a schedule: which one goes a step further, dies, or whether something is evicted.
/// Those that were told that their results are stored.
fn run(world: &World, writers: usize, schedule: &[(u8, u8)]) -> Vec<usize> {
    let mut running: Vec<(usize, Running<'_>)> =
        (0..writers).map(|writer| (writer, publishing(world, writer))).collect();
    let mut done = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut steps = schedule.iter().copied().chain((0..MOST_STEPS).map(|at| (at as u8, 255)));
    while !running.is_empty() {
        let (pick, what) = steps.next().expect("they do not end");
        let at = usize::from(pick) % running.len();
        match what {
            0 => drop(running.swap_remove(at)),
            1..4 => world.evict(),
            _ => {
                if let Poll::Ready(result) = running[at].1.as_mut().poll(&mut context) {
                    let (writer, _) = running.swap_remove(at);
                    if result.is_ok() {
                        done.push(writer);
                    }
                }
            }
        }
    }
    done
}

fn assert_holds(all: &Manifest, done: &[usize]) {
    for writer in done {
        let (id, _) = mine(*writer).packs.pop_first().unwrap();
        assert!(all.packs.contains_key(&id), "writer {writer} is lost; found {:?}", all.seen);
    }
}

fn after_the_lag(world: &World) {
    world.now_ms.fetch_add(200_000, Ordering::SeqCst);
    world.service.lock().unwrap().trouble.clear();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nobody dies and nothing fails: every reader after the lag sees everything.
    #[test]
    fn nothing_is_lost_between_writers_at_once(
        writers in 1_usize..8,
        schedule in proptest::collection::vec((any::<u8>(), 1_u8..30), 0..400),
        lags_ms in proptest::collection::vec(0_u16..20_000, 1..8),
    ) {
        let world = World::default();
        world.service.lock().unwrap().lags_ms = lags_ms;
        let done = run(&world, writers, &schedule);
        prop_assert_eq!(done.len(), writers);
        after_the_lag(&world);
        let until = Deadline::after(&world, Duration::from_secs(600));
        let all = finish(Box::pin(read_all(&world, &world, &Manifest::default(), until)));
        assert_holds(&all.unwrap(), &done);
        // One manifest for each writer: nobody takes two numbers.
        let service = world.service.lock().unwrap();
        prop_assert_eq!(service.numbers.len() + service.evictions, writers);
    }

    /// Whatever goes wrong: who was told that it is stored is in the next manifest that is written.
    #[test]
    fn what_was_stored_survives_deaths_and_errors(
        writers in 1_usize..8,
        schedule in proptest::collection::vec((any::<u8>(), 0_u8..60), 0..400),
        trouble in proptest::collection::vec(0_u8..40, 1..60),
        lags_ms in proptest::collection::vec(0_u16..20_000, 1..8),
    ) {
        let world = World::default();
        {
            let mut service = world.service.lock().unwrap();
            service.lags_ms = lags_ms;
            service.trouble = trouble;
        }
        let done = run(&world, writers, &schedule);
        after_the_lag(&world);
        let all = finish(publishing(&world, writers)).unwrap();
        assert_holds(&all, &done);
        after_the_lag(&world);
        let until = Deadline::after(&world, Duration::from_secs(600));
        let read = finish(Box::pin(read_all(&world, &world, &Manifest::default(), until))).unwrap();
        assert_holds(&read, &done);
        assert_holds(&read, &[writers]);
    }
}

#[test]
fn a_number_that_nobody_finished_is_skipped_and_remembered() {
    let world = World::default();
    world.service.lock().unwrap().numbers.insert(1, None);
    let all = finish(publishing(&world, 0)).unwrap();
    assert_eq!(all.seen.high(), 2);
    assert_eq!(all.seen.missing().keys().copied().collect::<Vec<_>>(), [1]);
    assert_holds(&all, &[0]);
}

/// A number that is free again, since its manifest was taken in and evicted, is nobody's.
#[test]
fn a_number_that_was_used_before_is_not_used_again() {
    let world = World::default();
    finish(publishing(&world, 0)).unwrap();
    finish(publishing(&world, 1)).unwrap();
    {
        let mut service = world.service.lock().unwrap();
        service.numbers.remove(&1);
        // Found only after the third writer has looked for it.
        let second = service.numbers.get_mut(&2).unwrap().as_mut().unwrap();
        second.visible_ms = world.now_ms() + 15;
    }
    let all = finish(publishing(&world, 2)).unwrap();
    assert_eq!(all.seen.high(), 3);
    after_the_lag(&world);
    let until = Deadline::after(&world, Duration::from_secs(600));
    let read = finish(Box::pin(read_all(&world, &world, &Manifest::default(), until))).unwrap();
    assert_holds(&read, &[0, 1, 2]);
}

#[test]
fn a_claim_that_is_never_free_ends() {
    let world = World::default();
    {
        let mut service = world.service.lock().unwrap();
        service.numbers.extend((1..=5000).map(|number| (number, None)));
    }
    assert!(matches!(finish(publishing(&world, 0)), Err(CacheError::Unavailable(_))));
    assert!(world.service.lock().unwrap().calls <= limits::MAX_CLAIMS as usize + 20);
}

#[test]
fn one_that_is_far_behind_jumps() {
    let world = World::default();
    let until = Deadline::after(&world, Duration::from_secs(600));
    let known = finish(publishing(&world, 0)).unwrap();
    for writer in 1..200 {
        finish(publishing(&world, writer)).unwrap();
    }
    let before = world.service.lock().unwrap().calls;
    let both = (&known, &mine(200));
    let all = finish(Box::pin(publish(&world, &world, both, until))).unwrap();
    assert_holds(&all, &(0..=200).collect::<Vec<_>>());
    let calls = world.service.lock().unwrap().calls - before;
    assert!(calls < 12, "{calls} calls");
}
