//! Fetching ahead of cargo what a job used last time, and noting what it uses now. Decides nothing: that
//! is [`super::prefetch`].
//!
//! The first lookup of a job starts it; lookups of the job wait until the records are here, and are then
//! answered without a question of their own. Blobs that are on their way are awaited by whoever needs them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use kiln_storage::api::Event;
use kiln_storage::limits::MAX_JOB_BYTES;
use kiln_storage::remote::together::PackName;
use kiln_storage::remote::{ResultName, via};
use kiln_storage::{Digest, ResultKey, StoreError, UnitKey};
use tokio::sync::{Semaphore, watch};

use super::batches::Batches;
use super::breaker::FaultKind;
use super::fetch;
use super::flights::Claim;
use super::prefetch::{self, Note, Yield};
use super::ready::{self, Ready};
use super::together::{self, Opened};
use super::{Edge, Side, lock, through};
use crate::index::records;
use crate::limits::{
    AHEAD_LARGE_LANES, AHEAD_PACK_LANES, JOB_PACK_LANES, MAX_AHEAD_JOBS, MAX_AHEAD_RESULTS,
    NOTE_HALVINGS, REMOTE_ANSWER,
};
use crate::principal::Scoped;
use crate::service::Service;
use crate::tally::is_hit;

/// A scope here and a job in it.
pub(crate) type Key = (String, String);

/// The jobs that asked since the server started.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    jobs: Mutex<HashMap<Key, Job>>,
    /// Held by who writes packs.
    pub packing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Job {
    /// What is still to come.
    ready: watch::Sender<Ready>,
    /// Whether they were waited for in vain.
    late: bool,
    previous: Option<Note>,
    /// Units of the note.
    expected: HashSet<UnitKey>,
    asked: u64,
    asked_expected: u64,
    /// Bytes fetched ahead, by result.
    fetched: HashMap<ResultKey, u64>,
    used: Vec<(UnitKey, ResultKey)>,
    used_keys: HashSet<ResultKey>,
    /// How many of them are in the note that was written last.
    written: usize,
    /// The packs of the job.
    batches: Batches,
    /// Those that are gone or damaged.
    broken: HashSet<PackName>,
    /// How many results were used when packs were written last.
    packed: usize,
}

impl Job {
    fn brought(&self) -> Yield {
        let used = self.fetched.iter().filter(|(key, _)| self.used_keys.contains(*key));
        Yield { fetched: self.fetched.values().sum(), used: used.map(|(_, bytes)| bytes).sum() }
    }
}

impl Ahead {
    /// Bytes fetched ahead, and bytes of these in results that were used.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let jobs = lock(&self.jobs);
        let all = jobs.values().map(Job::brought);
        all.fold((0, 0), |(fetched, used), one| (fetched + one.fetched, used + one.used))
    }

    /// Whether packs are being written.
    pub(crate) fn is_packing(&self) -> bool {
        self.packing.try_lock().is_err()
    }

    fn keys(&self) -> Vec<Key> {
        lock(&self.jobs).keys().cloned().collect()
    }

    /// Of what a job's note names, only these are still to come.
    fn comes<'a>(&self, key: &Key, names: impl IntoIterator<Item = &'a ResultName>) {
        self.with(key, |job| job.ready.send_replace(Ready::but(names)));
    }

    fn with<T>(&self, key: &Key, work: impl FnOnce(&mut Job) -> T) -> Option<T> {
        lock(&self.jobs).get_mut(key).map(work)
    }
}

/// What the note of a job is called.
pub(crate) fn note_name(job: &str) -> String {
    let digest = Digest::of(job.as_bytes()).to_string();
    format!("ahead-{}", &digest[..32])
}

/// A lookup of a job: starts fetching ahead with the first, and waits until the records are here. Whether it did
/// not wait in vain.
pub(crate) async fn touch(
    service: &Service,
    own: &Scoped,
    (job, units): (&str, &[UnitKey]),
    deadline: Instant,
) -> bool {
    let Some(edge) = &service.edge else { return true };
    if job.len() > MAX_JOB_BYTES {
        return true;
    }
    let key = (own.id.clone(), job.to_owned());
    let ready = {
        let mut jobs = lock(&edge.ahead.jobs);
        if !jobs.contains_key(&key) {
            if jobs.len() >= MAX_AHEAD_JOBS {
                return true;
            }
            let ready = watch::Sender::new(Ready::default());
            let job = Job {
                ready,
                late: false,
                previous: None,
                expected: HashSet::new(),
                asked: 0,
                asked_expected: 0,
                fetched: HashMap::new(),
                used: Vec::new(),
                used_keys: HashSet::new(),
                written: 0,
                batches: Batches::default(),
                broken: HashSet::new(),
                packed: 0,
            };
            jobs.insert(key.clone(), job);
            tokio::spawn(via::carry(run(service.clone(), own.clone(), key.clone())));
        }
        let Some(job) = jobs.get(&key) else { return true };
        (!job.late).then(|| job.ready.subscribe())
    };
    let is_left_alone = || edge.side(Side::Reads).left_alone(Instant::now()).is_some();
    let mut in_time = true;
    if let Some(mut ready) = ready.filter(|_| !is_left_alone()) {
        let wait = edge.side(Side::Reads).wait();
        let within = deadline.saturating_duration_since(Instant::now()).min(wait);
        let waited =
            tokio::time::timeout(within, ready.wait_for(|ready| ready.holds_for(units))).await;
        in_time = waited.is_ok();
        if !in_time
            && edge.ahead.with(&key, |job| std::mem::replace(&mut job.late, true)) == Some(false)
        {
            let why = "what a job used last time was not here in time";
            edge.fault(&service.log, Side::Reads, FaultKind::Slow, why);
        }
    }
    edge.ahead.with(&key, |job| {
        job.asked += units.len() as u64;
        job.asked_expected +=
            units.iter().filter(|unit| job.expected.contains(unit)).count() as u64;
    });
    in_time
}

/// Notes what events tell of results that jobs used.
pub(crate) fn note_used(service: &Service, scope: &str, events: &[Event]) {
    let Some(edge) = &service.edge else { return };
    let mut jobs = lock(&edge.ahead.jobs);
    for event in events {
        let key = (scope.to_owned(), event.lasting_job());
        let Some(job) = jobs.get_mut(&key) else { continue };
        if let (Some(unit), Some(result)) = (event.unit_key, event.result_key)
            && (is_hit(event.outcome) || event.outcome == kiln_storage::api::Outcome::Miss)
            && job.used.len() < MAX_AHEAD_RESULTS
            && job.used_keys.insert(result)
        {
            job.used.push((unit, result));
        }
    }
}

/// Fetches ahead for one job.
async fn run(service: Service, own: Scoped, key: Key) {
    let Some(edge) = &service.edge else { return };
    let begun = records_of(&service, edge, &own, &key).await;
    edge.ahead.comes(&key, []);
    let Some(Begun { names, budget, opened }) = begun else { return };
    let Some((blobs, of_result)) = blobs_of(&service, &own, &names).await else { return };
    let fetcher = Arc::new(Fetcher { service: service.clone(), key, of_result });
    let (rest, left) = (budget.saturating_sub(opened.bytes), !opened.packs.is_empty());
    let others: Vec<_> = blobs.into_iter().filter(|(digest, _)| !opened.brings(digest)).collect();
    let others = fetcher.clone().single(prefetch::plan(&others, rest));
    tokio::join!(fetcher.clone().packs(opened), others);
    if left {
        // What a pack did not bring after all.
        let Some((blobs, _)) = blobs_of(&service, &own, &names).await else { return };
        fetcher.single(prefetch::plan(&blobs, rest)).await;
    }
}

/// Fetches blobs for one job, as long as that makes sense.
struct Fetcher {
    service: Service,
    key: Key,
    of_result: HashMap<Digest, ResultKey>,
}

impl Fetcher {
    fn goes_on(&self) -> bool {
        let Some(edge) = &self.service.edge else { return false };
        let goes_on = |job: &mut Job| prefetch::goes_on(job.asked, job.asked_expected);
        edge.ahead.with(&self.key, goes_on) == Some(true)
            && edge.side(Side::Reads).left_alone(Instant::now()).is_none()
    }

    fn came(&self, blobs: Vec<(Digest, u64)>) {
        let Some(edge) = &self.service.edge else { return };
        edge.ahead.with(&self.key, |job| {
            for (digest, bytes) in blobs {
                if let Some(result) = self.of_result.get(&digest) {
                    *job.fetched.entry(*result).or_default() += bytes;
                }
            }
        });
    }

    /// Takes the blobs of packs over, some packs at a time.
    async fn packs(self: Arc<Self>, opened: Opened) {
        let Some(edge) = &self.service.edge else { return };
        let lanes = Semaphore::new(JOB_PACK_LANES);
        let packs = opened.packs.into_iter().map(|coming| {
            coming.blobs(&self.service, &lanes, || self.goes_on(), |blobs| self.came(blobs))
        });
        let broken = futures_util::future::join_all(packs).await;
        edge.ahead.with(&self.key, |job| job.broken.extend(broken.into_iter().flatten()));
    }

    /// Fetches blobs that no pack brings.
    async fn single(self: Arc<Self>, plan: prefetch::Plan) {
        let lanes = |blobs: Vec<Vec<(Digest, u64)>>, lanes| {
            let fetcher = self.clone();
            stream::iter(blobs)
                .for_each_concurrent(lanes, move |wanted| fetcher.clone().fetch(wanted))
        };
        let large = plan.large.into_iter().map(|blob| vec![blob]).collect();
        tokio::join!(lanes(plan.packs, AHEAD_PACK_LANES), lanes(large, AHEAD_LARGE_LANES));
    }

    async fn fetch(self: Arc<Self>, wanted: Vec<(Digest, u64)>) {
        let Some(edge) = &self.service.edge else { return };
        if !self.goes_on() {
            return;
        }
        let digests: Vec<Digest> = wanted.iter().map(|(digest, _)| *digest).collect();
        let (Some(claim), _) = Claim::take(&self.service, edge, &digests) else { return };
        let wanted = match fetch::claimed(&self.service, &wanted, &claim).await {
            Ok(wanted) if !wanted.is_empty() => wanted,
            _ => return,
        };
        let came = fetch::fetch_ahead(&self.service, edge, &wanted, &claim).await;
        self.came(came);
        drop(claim);
    }
}

/// What the note of a job began.
struct Begun {
    /// The results of the note.
    names: Vec<ResultName>,
    /// Bytes of blobs that may be fetched ahead.
    budget: u64,
    /// Packs of which the blobs are to come.
    opened: Opened,
}

/// Reads the note of a job and has its records here.
async fn records_of(service: &Service, edge: &Edge, own: &Scoped, key: &Key) -> Option<Begun> {
    if !edge.may(Side::Reads) {
        return None;
    }
    let name = note_name(&key.1);
    let note = edge.remote.note(&edge.scopes, &name);
    let text = through::answered(service, edge, note).await??;
    let note = Note::parse(&text)?;
    let (names, budget, batches) = (note.names(), note.budget(), note.batches());
    edge.ahead.with(key, |job| {
        job.expected = names.iter().map(|name| name.unit).collect();
        job.previous = Some(note);
        job.batches = batches.clone();
    });
    if budget == 0 {
        return None;
    }
    let mut unknown = unknown(service, own, &names).await?;
    let missing: Vec<ResultKey> = unknown.iter().map(|name| name.result).collect();
    let packs = batches.worth_reading(&missing);
    let mut opened = together::open(service, edge, &packs, (&names, budget)).await;
    let broken = std::mem::take(&mut opened.broken);
    edge.ahead.with(key, |job| job.broken.extend(broken));
    let arrived = std::mem::take(&mut opened.arrived);
    let came: HashSet<ResultKey> = arrived.iter().map(|arrived| arrived.name.result).collect();
    unknown.retain(|name| !came.contains(&name.result));
    let batches = ready::batches(&unknown);
    let asks = stream::iter(batches.clone()).map(|names| async move {
        through::answered(service, edge, edge.remote.results(&names)).await
    });
    // The next ones are on their way while some are taken over.
    let mut answers = std::pin::pin!(stream::iter([Some(arrived)]).chain(asks.buffered(2)));
    let mut here = 0;
    while let Some(arrived) = answers.next().await {
        if let Err(error) = through::arrive(service, edge, own, arrived?).await {
            error.tell(&service.log, format_args!("results from afar"));
            return None;
        }
        edge.ahead.comes(key, batches[here..].iter().flatten());
        here += 1;
    }
    Some(Begun { names, budget, opened })
}

/// Those of some results that the index does not know.
async fn unknown(service: &Service, own: &Scoped, names: &[ResultName]) -> Option<Vec<ResultName>> {
    let (scope, names) = (own.id.clone(), names.to_vec());
    let unknown = service.index.read(move |index| {
        let mut unknown = Vec::new();
        for name in names {
            if records::stored(index, &scope, &name.result)?.is_none() {
                unknown.push(name);
            }
        }
        Ok(unknown)
    });
    unknown.await.ok()
}

/// Blobs in the order they will be needed.
type Blobs = (Vec<(Digest, u64)>, HashMap<Digest, ResultKey>);

/// The blobs of results that are not here, in order, and the first result that has each.
async fn blobs_of(service: &Service, own: &Scoped, names: &[ResultName]) -> Option<Blobs> {
    let (mut blobs, mut of_result) = (Vec::new(), HashMap::new());
    for name in names {
        let wanted = fetch::wanted(service, &own.scope, &name.result).await.ok()?;
        for (digest, size) in wanted.map(|wanted| wanted.blobs).unwrap_or_default() {
            blobs.push((digest, size));
            of_result.entry(digest).or_insert(name.result);
        }
    }
    Some((blobs, of_result))
}

/// What a job leaves now.
struct Left {
    /// The results of it that the note names, and what became of fetching ahead; no packs yet.
    note: Note,
    /// The note that it began with.
    previous: Option<Note>,
    /// How many results it used.
    used: usize,
    /// The packs that there are.
    batches: Batches,
}

/// What a job leaves, where `is_new` says of it and the number of results that it used that this is to be written.
async fn left_by(
    service: &Service,
    edge: &Edge,
    key: &Key,
    is_new: impl FnOnce(&mut Job, usize) -> bool,
) -> Option<Left> {
    let state = edge.ahead.with(key, |job| {
        let new = is_new(job, job.used.len());
        new.then(|| {
            let batches = job.batches.without(&job.broken);
            (job.previous.clone(), job.used.clone(), job.brought(), batches)
        })
    });
    let (previous, results, brought, batches) = state??;
    let used = results.len();
    let names = names_of(service, edge, &key.0, results).await?;
    let note = prefetch::next_note(previous.as_ref(), &names, brought);
    Some(Left { note, previous, used, batches })
}

/// Writes the notes of all jobs that used something since they were written.
pub(crate) async fn write_notes(service: &Service, edge: &Edge) {
    if !edge.sends || service.reports.flush(service).await.is_err() {
        return;
    }
    for key in edge.ahead.keys() {
        let left = left_by(service, edge, &key, |job, used| used > job.written).await;
        let Some(Left { note, previous, used, batches }) = left else { continue };
        let note = note.with_batches(&batches);
        let written = previous.is_some_and(|previous| previous.says_as_much_as(&note));
        if written || put(service, edge, &key.1, note).await {
            edge.ahead.with(&key, |job| job.written = used);
        }
    }
}

/// What is to be done for the packs of a job.
#[derive(Debug)]
pub(crate) struct ToPack {
    /// The job.
    pub key: Key,
    /// The results of the note that it leaves.
    pub names: Vec<ResultName>,
    /// The packs that there are.
    pub batches: Batches,
    /// Those that its last note named.
    pub before: Vec<PackName>,
    note: Note,
}

/// The jobs that used something since packs were written for them; it counts as written then.
pub(crate) async fn to_pack(service: &Service, edge: &Edge) -> Vec<ToPack> {
    let mut all = Vec::new();
    for key in edge.ahead.keys() {
        let mut before = Vec::new();
        let left = left_by(service, edge, &key, |job, used| {
            before = job.batches.packs();
            used > std::mem::replace(&mut job.packed, used)
        });
        let Some(Left { note, batches, .. }) = left.await else { continue };
        all.push(ToPack { key, names: note.names(), batches, before, note });
    }
    all
}

/// Writes the note of a job with the packs that there are now. Whether it is there.
pub(crate) async fn put_batches(
    service: &Service,
    edge: &Edge,
    work: &ToPack,
    batches: Batches,
) -> bool {
    let note = work.note.clone().with_batches(&batches);
    let put = put(service, edge, &work.key.1, note).await;
    if put {
        edge.ahead.with(&work.key, |job| job.batches = batches);
    }
    put
}

/// Writes a note; one that is too long for the place is cut. Whether it is there.
async fn put(service: &Service, edge: &Edge, job: &str, mut note: Note) -> bool {
    let (scope, name) = (edge.own_scope(), note_name(job));
    for _ in 0..=NOTE_HALVINGS {
        let put = edge.remote.put_note(&scope, &name, note.encode());
        match tokio::time::timeout(REMOTE_ANSWER, put).await {
            Ok(Ok(())) => return true,
            Ok(Err(StoreError::TooLarge { .. })) => note.halve(),
            Ok(Err(error)) => {
                service.log.debug(format_args!("note of {job}: {error}"));
                return false;
            }
            Err(_) => break,
        }
    }
    service.log.debug(format_args!("note of {job}: not taken"));
    false
}

/// What results are called there: as they came, or as they are sent.
async fn names_of(
    service: &Service,
    edge: &Edge,
    scope: &str,
    used: Vec<(UnitKey, ResultKey)>,
) -> Option<Vec<ResultName>> {
    let (scope, own) = (scope.to_owned(), edge.own_scope());
    let names = service.index.read(move |index| {
        let mut names = Vec::with_capacity(used.len());
        for (unit, result) in used {
            let Some(row) = records::stored(index, &scope, &result)? else { continue };
            names.push(row.afar.unwrap_or_else(|| ResultName {
                scope: own.clone(),
                unit,
                result,
                generation: row.generation,
            }));
        }
        Ok(names)
    });
    names.await.ok()
}
