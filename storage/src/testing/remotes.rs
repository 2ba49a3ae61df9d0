//! What the [`Remote`] trait promises, one check for each promise, and random operations of several clients
//! against a reference. Every kind of remote runs them: it says how a client is made and how time passes.

#![allow(clippy::expect_used, reason = "a suite fails by panicking, like the tests that call it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;

use super::bodies::noise;
use crate::backend::{Backend as _, Body, StoreError};
use crate::digest::Digest;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::limits;
use crate::memory::MemoryBackend;
use crate::output::{Content, Output};
use crate::record::{
    Cost, Member, Producer, RECORD_VERSION, Record, TokenPath, UnitName, result_key,
};
use crate::remote::{Arrived, Remote, ResultName, Stored};

/// Time for a flush: enough for any.
const FLUSH: Duration = Duration::from_secs(300);

/// A place that remotes reach, empty at first.
#[async_trait]
pub trait Place: Sync {
    /// A client as a process of its own has it: it knows nothing yet.
    fn client(&self) -> Box<dyn Remote>;

    /// So much time passes that what is stored from now on is newer, and that every client looks again.
    async fn later(&self);

    /// Whether the place itself says which scope a client sees, counts generations, and forgets only what it
    /// found damaged itself: a Kiln server does. The checks of these three are left out then.
    fn decides_itself(&self) -> bool {
        false
    }
}

fn main_scope() -> Scope {
    Scope::new("remotes", "refs/heads/main")
}

fn other_scope() -> Scope {
    Scope::new("remotes", "refs/pull/1/merge")
}

/// A result of a unit: its name, its record, its blobs (a small and a large one).
#[derive(Debug, Clone)]
struct Made {
    name: ResultName,
    record: Record,
    blobs: Vec<Bytes>,
}

fn made(scope: &Scope, unit: u64, value: u64) -> Made {
    let unit_key = UnitKey::new(Digest::of(&unit.to_le_bytes()));
    let members = vec![Member::File(TokenPath("<workspace>/src/lib.rs".into()))];
    let values = vec![Digest::of(&value.to_le_bytes())];
    let result = result_key(&unit_key, &members, &values);
    let blobs = vec![noise(unit * 1000 + value, 200), noise(unit * 1000 + value, 150_000)];
    let output = |bytes: &Bytes| Output {
        name: format!("lib{}.rlib", bytes.len()),
        executable: false,
        mode: None,
        content: Content::Blob { digest: Digest::of(bytes), size: bytes.len() as u64 },
    };
    let record = Record {
        version: RECORD_VERSION,
        unit_key,
        result_key: result,
        unit: UnitName::default(),
        parts: Vec::new(),
        members,
        values,
        variables: Default::default(),
        outputs: blobs.iter().map(output).collect(),
        status: 0,
        stdout: String::new(),
        stderr: format!("{value}"),
        cost: Cost::default(),
        producer: Producer::default(),
        conservative: Vec::new(),
    };
    let name = ResultName { scope: scope.clone(), unit: unit_key, result, generation: 0 };
    Made { name, record, blobs }
}

async fn local(results: &[Made]) -> MemoryBackend {
    let store = MemoryBackend::new(1 << 30);
    for bytes in results.iter().flat_map(|made| &made.blobs) {
        let name = ObjectName::blob(&Digest::of(bytes));
        store.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
    }
    store
}

async fn store(client: &dyn Remote, made: &Made) -> Stored {
    let local = local(std::slice::from_ref(made)).await;
    client.store(&made.name, &made.record, &local).await.unwrap()
}

async fn flush(client: &dyn Remote) {
    let flushed = client.flush(FLUSH).await.unwrap();
    assert_eq!(flushed.lost, [], "nothing is lost when all is well");
}

/// That a result came, and that all of it is to be had.
async fn assert_whole(client: &dyn Remote, arrived: &Arrived, made: &Made) {
    assert_eq!(arrived.record, made.record);
    assert_eq!(arrived.name, made.name);
    for (digest, bytes) in &arrived.blobs {
        assert_eq!(Digest::of(bytes), *digest, "what comes along is verified");
    }
    for bytes in &made.blobs {
        let digest = Digest::of(bytes);
        if !arrived.blobs.iter().any(|(along, _)| *along == digest) {
            let size = bytes.len() as u64;
            let body = client.blob(&digest, size).await.unwrap().expect("a blob of a record");
            assert_eq!(body.len(), size);
            let read = body.into_bytes(&ObjectName::blob(&digest), size).await.unwrap();
            assert!(read == *bytes, "other bytes");
        }
    }
}

/// All checks, each in a place of its own.
pub async fn conformance<P: Place>(place: impl AsyncFn() -> P) {
    what_is_not_there_is_a_miss(&place().await).await;
    what_is_stored_is_found_by_others(&place().await).await;
    newest_first_and_not_too_many(&place().await).await;
    what_is_there_is_not_stored_again(&place().await).await;
    if !place().await.decides_itself() {
        scopes_are_apart_and_in_order(&place().await).await;
        a_rejected_result_gets_a_new_generation(&place().await).await;
    }
    a_result_without_its_blobs_is_not_stored(&place().await).await;
    notes_are_replaced(&place().await).await;
}

async fn what_is_not_there_is_a_miss(place: &dyn Place) {
    let client = place.client();
    let one = made(&main_scope(), 1, 1);
    assert!(client.lookup(&[main_scope()], &[one.name.unit]).await.unwrap().is_empty());
    assert!(client.lookup(&[], &[one.name.unit]).await.unwrap().is_empty());
    assert!(client.lookup(&[main_scope()], &[]).await.unwrap().is_empty());
    assert!(client.results(std::slice::from_ref(&one.name)).await.unwrap().is_empty());
    assert!(client.results(&[]).await.unwrap().is_empty());
    assert!(client.blob(&Digest::of(b"x"), 1).await.unwrap().is_none());
    assert!(client.blobs(&[(Digest::of(b"x"), 1)]).await.unwrap().is_empty());
    assert_eq!(client.note(&[main_scope()], "note").await.unwrap(), None);
    assert_eq!(client.flush(FLUSH).await.unwrap().stored, 0);
    client.reject(&one.name).await.unwrap();
    assert!(!client.display().is_empty());
}

async fn what_is_stored_is_found_by_others(place: &dyn Place) {
    let client = place.client();
    let results: Vec<Made> = (0..5).map(|unit| made(&main_scope(), unit, 7)).collect();
    for one in &results {
        assert_ne!(store(&*client, one).await, Stored::AlreadyThere);
    }
    flush(&*client).await;
    let before = client.counters();
    assert!(before.requests > 0 && before.bytes_out > 0);
    let other = place.client();
    let mut units: Vec<UnitKey> = results.iter().map(|made| made.name.unit).collect();
    units.push(made(&main_scope(), 99, 1).name.unit);
    let arrived = other.lookup(&[main_scope()], &units).await.unwrap();
    assert_eq!(arrived.len(), 5);
    for one in &arrived {
        let made = results.iter().find(|made| made.name == one.name).expect("it was stored");
        assert_whole(&*other, one, made).await;
    }
    let mut names: Vec<ResultName> = results.iter().map(|made| made.name.clone()).collect();
    names.push(made(&main_scope(), 0, 8).name);
    let named = place.client();
    let arrived = named.results(&names).await.unwrap();
    assert_eq!(arrived.len(), 5);
    for one in &arrived {
        let made = results.iter().find(|made| made.name == one.name).expect("it was stored");
        assert_whole(&*named, one, made).await;
    }
    let wanted: Vec<_> = results
        .iter()
        .flat_map(|made| &made.blobs)
        .map(|bytes| (Digest::of(bytes), bytes.len() as u64))
        .collect();
    for (digest, bytes) in named.blobs(&wanted).await.unwrap() {
        assert_eq!(Digest::of(&bytes), digest, "what comes in one answer is verified");
        assert!(wanted.contains(&(digest, bytes.len() as u64)));
    }
    assert!(named.counters().bytes_in > 0);
}

async fn newest_first_and_not_too_many(place: &dyn Place) {
    let client = place.client();
    let many = limits::MAX_RECORDS_PER_UNIT as u64 + 2;
    for value in 0..many {
        store(&*client, &made(&main_scope(), 1, value)).await;
        place.later().await;
    }
    flush(&*client).await;
    let unit = made(&main_scope(), 1, 0).name.unit;
    let arrived = place.client().lookup(&[main_scope()], &[unit]).await.unwrap();
    let order: Vec<&str> = arrived.iter().map(|one| one.record.stderr.as_str()).collect();
    let newest: Vec<String> = (2..many).rev().map(|value| value.to_string()).collect();
    assert_eq!(order, newest);
    assert!(arrived.windows(2).all(|pair| pair[0].stored_ms >= pair[1].stored_ms));
}

async fn scopes_are_apart_and_in_order(place: &dyn Place) {
    let client = place.client();
    let (main, other) = (made(&main_scope(), 1, 1), made(&other_scope(), 1, 2));
    store(&*client, &main).await;
    store(&*client, &other).await;
    flush(&*client).await;
    let client = place.client();
    let unit = [main.name.unit];
    for (scopes, expected) in [
        (vec![main_scope()], vec![&main]),
        (vec![other_scope()], vec![&other]),
        (vec![other_scope(), main_scope()], vec![&other, &main]),
        (vec![main_scope(), other_scope()], vec![&main, &other]),
        (vec![Scope::new("elsewhere", "refs/heads/main")], vec![]),
    ] {
        let arrived = client.lookup(&scopes, &unit).await.unwrap();
        assert_eq!(arrived.len(), expected.len(), "{scopes:?}");
        for made in expected {
            let one = arrived.iter().find(|one| one.name == made.name).expect("it was stored");
            assert_whole(&*client, one, made).await;
        }
    }
}

async fn what_is_there_is_not_stored_again(place: &dyn Place) {
    let one = made(&main_scope(), 1, 1);
    let client = place.client();
    store(&*client, &one).await;
    flush(&*client).await;
    assert_eq!(store(&*client, &one).await, Stored::AlreadyThere);
    assert_eq!(store(&*place.client(), &one).await, Stored::AlreadyThere);
}

async fn a_rejected_result_gets_a_new_generation(place: &dyn Place) {
    let (one, kept) = (made(&main_scope(), 1, 1), made(&main_scope(), 2, 1));
    let client = place.client();
    store(&*client, &one).await;
    store(&*client, &kept).await;
    flush(&*client).await;
    let client = place.client();
    let units = [one.name.unit, kept.name.unit];
    assert_eq!(client.lookup(&[main_scope()], &units).await.unwrap().len(), 2);
    client.reject(&one.name).await.unwrap();
    let left = client.lookup(&[main_scope()], &units).await.unwrap();
    assert!(left.iter().all(|arrived| arrived.name == kept.name) && left.len() == 1);
    place.later().await;
    let mut newer = one;
    newer.name.generation = 1;
    assert_ne!(store(&*client, &newer).await, Stored::AlreadyThere);
    flush(&*client).await;
    let other = place.client();
    let arrived = other.lookup(&[main_scope()], &[newer.name.unit]).await.unwrap();
    assert_eq!(arrived.len(), 1, "one copy of a result");
    assert_whole(&*other, &arrived[0], &newer).await;
}

async fn a_result_without_its_blobs_is_not_stored(place: &dyn Place) {
    let one = made(&main_scope(), 1, 1);
    let client = place.client();
    let empty = MemoryBackend::new(1 << 20);
    let refused = client.store(&one.name, &one.record, &empty).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    flush(&*client).await;
    let unit = [one.name.unit];
    assert!(place.client().lookup(&[main_scope()], &unit).await.unwrap().is_empty());
}

async fn notes_are_replaced(place: &dyn Place) {
    let client = place.client();
    client.put_note(&main_scope(), "note", Bytes::from_static(b"one")).await.unwrap();
    client.put_note(&main_scope(), "another", Bytes::from_static(b"else")).await.unwrap();
    flush(&*client).await;
    place.later().await;
    let second = place.client();
    let read = second.note(&[main_scope()], "note").await.unwrap();
    assert_eq!(read.as_deref(), Some(&b"one"[..]));
    second.put_note(&main_scope(), "note", Bytes::from_static(b"two")).await.unwrap();
    flush(&*second).await;
    place.later().await;
    let third = place.client();
    for scopes in [vec![main_scope()], vec![other_scope(), main_scope()]] {
        let read = third.note(&scopes, "note").await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"two"[..]));
    }
    if !place.decides_itself() {
        assert_eq!(third.note(&[other_scope()], "note").await.unwrap(), None);
    }
    let kept = third.note(&[main_scope()], "another").await.unwrap();
    assert_eq!(kept.as_deref(), Some(&b"else"[..]));
}

/// One step of a model run.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client stores a value of a unit.
    Store(usize, u64, u64),
    /// A client makes durable what it has.
    Flush(usize),
    /// A client looks all units up.
    Lookup(usize),
    /// Time passes.
    Later,
    /// A process ends without a flush and another one starts.
    Restart(usize),
}

/// Clients in a model run.
const CLIENTS: usize = 3;
/// Units in a model run.
const UNITS: u64 = 3;

/// Random steps. A unit has at most as many values as a lookup answers with.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..CLIENTS, 0..UNITS, 0..limits::MAX_RECORDS_PER_UNIT as u64)
            .prop_map(|(client, unit, value)| Step::Store(client, unit, value)),
        3 => (0..CLIENTS).prop_map(Step::Flush),
        3 => (0..CLIENTS).prop_map(Step::Lookup),
        2 => Just(Step::Later),
        1 => (0..CLIENTS).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What is known of a result in a model run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// A client has it.
    Offered,
    /// It was flushed, or was there.
    Durable,
    /// Every client has to find it.
    Found,
}

/// Does the steps. A lookup has to find what was durable when time last passed, and nothing that was never
/// stored; in the end a new client finds all that was durable, whole.
pub async fn model(place: &dyn Place, steps: &[Step]) {
    let mut clients: Vec<Box<dyn Remote>> = (0..CLIENTS).map(|_| place.client()).collect();
    let mut results: BTreeMap<ResultKey, (Made, Known)> = BTreeMap::new();
    let mut held: Vec<BTreeSet<ResultKey>> = vec![BTreeSet::new(); CLIENTS];
    for step in steps {
        match step {
            Step::Store(client, unit, value) => {
                let made = made(&main_scope(), *unit, *value);
                let key = made.name.result;
                let stored = store(&*clients[*client], &made).await;
                let known = if stored == Stored::Collected {
                    held[*client].insert(key);
                    Known::Offered
                } else {
                    Known::Durable
                };
                let entry = results.entry(key).or_insert((made, known));
                entry.1 = entry.1.max(known);
            }
            Step::Flush(client) => {
                flush(&*clients[*client]).await;
                for key in std::mem::take(&mut held[*client]) {
                    let known = &mut results.get_mut(&key).expect("it was stored").1;
                    *known = Known::Durable.max(*known);
                }
            }
            Step::Lookup(client) => check(&*clients[*client], &results, Known::Found).await,
            Step::Later => {
                place.later().await;
                let durable = results.values_mut().filter(|(_, known)| *known == Known::Durable);
                durable.for_each(|(_, known)| *known = Known::Found);
            }
            Step::Restart(client) => {
                clients[*client] = place.client();
                held[*client].clear();
            }
        }
    }
    place.later().await;
    check(&*place.client(), &results, Known::Durable).await;
}

async fn check(client: &dyn Remote, results: &BTreeMap<ResultKey, (Made, Known)>, least: Known) {
    let units: Vec<UnitKey> =
        (0..UNITS).map(|unit| made(&main_scope(), unit, 0).name.unit).collect();
    let arrived = client.lookup(&[main_scope()], &units).await.unwrap();
    let mut found = BTreeSet::new();
    for one in &arrived {
        let (made, _) = results.get(&one.name.result).expect("somebody stored it");
        assert_whole(client, one, made).await;
        assert!(found.insert(one.name.result), "a result is there twice");
    }
    for (key, (_, known)) in results {
        assert!(*known < least || found.contains(key), "a result is lost: {known:?}");
    }
}
