//! Packs of jobs: what fetching ahead reads of them ([`open`], [`Coming::blobs`]), and writing them when all that
//! waited is sent ([`write`]). What of them is read and written is the policy of [`super::batches`].
//!
//! Packs only save requests: what one does not bring is asked for as ever.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use kiln_storage::backend::Body;
use kiln_storage::remote::together::{Incoming, PackName, Packed, ToWrite};
use kiln_storage::remote::{Arrived, ResultName};
use kiln_storage::{Digest, ObjectName, Record, ResultKey, StoreError, StoreResult};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::breaker::FaultKind;
use super::flights::Claim;
use super::{Edge, Side, ahead, count, through};
use crate::index::records;
use crate::limits::{JOB_UNPACK_LANES, MAX_JOB_PACKED_BYTES};
use crate::publish;
use crate::service::Service;

/// A pack that is read, and the right to fetch those of its blobs that are not here.
#[derive(Debug)]
pub(crate) struct Coming {
    pack: Incoming,
    claims: HashMap<Digest, Claim>,
}

/// What packs brought so far.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The packs, of which the blobs are to come.
    pub packs: Vec<Coming>,
    /// The results in them.
    pub arrived: Vec<Arrived>,
    /// Bytes of blobs that are to come.
    pub bytes: u64,
    /// Packs that are gone or damaged.
    pub broken: HashSet<PackName>,
}

impl Opened {
    /// Whether a blob is to come.
    pub(crate) fn brings(&self, digest: &Digest) -> bool {
        self.packs.iter().any(|coming| coming.claims.contains_key(digest))
    }
}

/// Begins to read packs: their results, as far as they are among those of the note. Blobs within the budget are
/// claimed before any of the results can be seen. Packs that cannot be read are left out.
pub(crate) async fn open(
    service: &Service,
    edge: &Edge,
    packs: &[PackName],
    (names, budget): (&[ResultName], u64),
) -> Opened {
    let mut opened = Opened::default();
    if packs.is_empty() {
        return opened;
    }
    let begun = through::answered(service, edge, edge.remote.packs(packs)).await;
    let Some(begun) = begun else { return opened };
    opened.broken.extend(packs.iter().cloned());
    for pack in begun {
        opened.broken.remove(&pack.name());
        let blobs: Vec<_> =
            pack.contents().blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let Some(claims) = claim(service, edge, &blobs, budget - opened.bytes).await else {
            continue;
        };
        let sizes: HashMap<Digest, u64> = blobs.into_iter().collect();
        opened.bytes += claims.keys().filter_map(|digest| sizes.get(digest)).sum::<u64>();
        opened.packs.push(Coming { pack, claims });
    }
    let named: HashSet<&ResultName> = names.iter().collect();
    let reads = std::mem::take(&mut opened.packs).into_iter().map(Coming::results);
    let read = futures_util::future::join_all(reads).await;
    for (coming, arrived) in read {
        opened.arrived.extend(arrived.into_iter().filter(|one| named.contains(&one.name)));
        match coming {
            Ok(coming) => opened.packs.push(coming),
            Err(broken) => {
                broken.iter().for_each(|_| tell_damaged(service, edge));
                opened.broken.extend(broken);
            }
        }
    }
    opened
}

/// A pack broke off because of what is in it.
fn tell_damaged(service: &Service, edge: &Edge) {
    count(&edge.counts.damaged, 1);
    edge.tell(&service.log, FaultKind::Damaged, "a pack of what a job used");
}

/// Claims those of some blobs that are not here, up to a number of bytes.
async fn claim(
    service: &Service,
    edge: &Edge,
    blobs: &[(Digest, u64)],
    mut left: u64,
) -> Option<HashMap<Digest, Claim>> {
    let mut claims = HashMap::new();
    for (digest, size) in blobs {
        if *size > left {
            break;
        }
        if let Some(claim) = Claim::take_for_pack(service, edge, *digest) {
            left -= size;
            claims.insert(*digest, claim);
        }
    }
    let asked: Vec<Digest> = claims.keys().copied().collect();
    let missing =
        service.index.read_few(move |index| records::missing(index, &asked)).await.ok()?;
    let missing: HashSet<Digest> = missing.into_iter().collect();
    claims.retain(|digest, _| missing.contains(digest));
    Some(claims)
}

impl Coming {
    /// All results of the pack, and the pack; where it broke off, its name if it is damaged.
    async fn results(mut self) -> (Result<Self, Option<PackName>>, Vec<Arrived>) {
        let mut arrived = Vec::new();
        loop {
            match self.pack.result().await {
                Ok(Some(result)) => arrived.push(result),
                Ok(None) => return (Ok(self), arrived),
                Err(StoreError::Damaged { .. }) => return (Err(Some(self.pack.name())), arrived),
                Err(_) => return (Err(None), arrived),
            }
        }
    }

    /// Takes over the blobs, as long as `goes_on`, and tells `came` of those that are here. The name of the pack
    /// where it is damaged.
    pub(crate) async fn blobs(
        mut self,
        service: &Service,
        lanes: &Semaphore,
        goes_on: impl Fn() -> bool,
        came: impl Fn(Vec<(Digest, u64)>),
    ) -> Option<PackName> {
        let _lane = lanes.acquire().await;
        let mut storing = JoinSet::new();
        let mut failed = None;
        while failed.is_none() && !self.claims.is_empty() && goes_on() {
            let packed = match self.pack.blobs().await {
                Ok(Some(packed)) => packed,
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let claims: Vec<Claim> =
                packed.blobs().filter_map(|(digest, _)| self.claims.remove(&digest)).collect();
            if claims.is_empty() {
                continue;
            }
            storing.spawn(store(service.clone(), packed, claims));
            if storing.len() >= JOB_UNPACK_LANES {
                failed = ended(storing.join_next().await, &came);
            }
        }
        // Whoever waits for the rest gets it himself.
        self.claims.clear();
        while let Some(one) = storing.join_next().await {
            let error = ended(Some(one), &came);
            failed = failed.or(error);
        }
        let damaged = matches!(failed, Some(StoreError::Damaged { .. }));
        if let Some(edge) = service.edge.as_ref().filter(|_| damaged) {
            tell_damaged(service, edge);
        }
        damaged.then(|| self.pack.name())
    }
}

type Stored = Result<StoreResult<Vec<(Digest, u64)>>, tokio::task::JoinError>;

/// Tells of blobs that are here, or why they are not.
fn ended(one: Option<Stored>, came: &impl Fn(Vec<(Digest, u64)>)) -> Option<StoreError> {
    match one? {
        Ok(Ok(stored)) => {
            came(stored);
            None
        }
        Ok(Err(error)) => Some(error),
        Err(error) => Some(StoreError::Unavailable(error.to_string())),
    }
}

/// Unpacks blobs and stores those that are claimed. Whoever waits for them finds them, or looks for them himself.
async fn store(
    service: Service,
    packed: Packed,
    claims: Vec<Claim>,
) -> StoreResult<Vec<(Digest, u64)>> {
    let first = packed.blobs().next().map(|(digest, _)| digest).unwrap_or(Digest::of(b""));
    let damaged = || StoreError::Damaged {
        name: ObjectName::blob(&first),
        why: "its frame in a pack is another".into(),
    };
    let unpacked = tokio::task::spawn_blocking(move || packed.unpack()).await;
    let blobs = unpacked.ok().flatten().ok_or_else(damaged)?;
    let mut stored = Vec::with_capacity(blobs.len());
    let mut failed = None;
    for (digest, bytes) in blobs {
        if claims.iter().any(|claim| claim.holds(&digest)) {
            let size = bytes.len() as u64;
            // The store verifies it.
            match service.store.put_blob(&digest, Body::Bytes(bytes)).await {
                Ok(_) => stored.push((digest, size)),
                Err(error) => failed = Some(error),
            }
        }
    }
    if let Err(error) = publish::note_blobs(&service, stored.clone()).await {
        error.tell(&service.log, format_args!("blobs of a pack"));
    }
    drop(claims);
    failed.map_or(Ok(stored), Err)
}

/// Writes what no pack of a job has, for all jobs that used something new, and their notes. What is not done at
/// that time is left out. Goes on when nobody waits for it any more.
pub(crate) async fn write(service: &Service, edge: &Edge, until: Instant) {
    if !edge.sends || !edge.remote.has_packs() {
        return;
    }
    let service = service.clone();
    let writing = tokio::spawn(async move {
        let Some(edge) = &service.edge else { return };
        let _one = edge.ahead.packing.lock().await;
        for work in ahead::to_pack(&service, edge).await {
            if Instant::now() >= until
                || edge.side(Side::Writes).left_alone(Instant::now()).is_some()
            {
                return;
            }
            write_one(&service, edge, work, until).await;
        }
    });
    let _ = writing.await;
}

async fn write_one(service: &Service, edge: &Edge, work: ahead::ToPack, until: Instant) {
    let results: Vec<ResultKey> = work.names.iter().map(|name| name.result).collect();
    let Some((kept, new)) = work.batches.next(&results) else { return };
    let new: HashSet<ResultKey> = new.into_iter().collect();
    let (wanted, packed) = of_index(service, &work, &new).await;
    let (scope, note) = (edge.own_scope(), ahead::note_name(&work.key.1));
    let what = ToWrite {
        scope: &scope,
        note: &note,
        results: &wanted,
        packed: &packed,
        bytes: MAX_JOB_PACKED_BYTES.saturating_sub(kept.bytes()),
        until,
    };
    let written = edge.remote.put_packs(&what, service.store.backend()).await;
    if let Some(error) = &written.failed {
        service.log.debug(format_args!("packs of {}: {error}", work.key.1));
    }
    let batches = kept.and(&written);
    let names = batches.packs();
    if batches == work.batches || !ahead::put_batches(service, edge, &work, batches).await {
        return;
    }
    if work.before.iter().any(|pack| !names.contains(pack))
        && let Err(error) = edge.remote.keep_packs(&scope, &note, &names).await
    {
        service.log.debug(format_args!("old packs of {}: {error}", work.key.1));
    }
}

/// The results to be written with their records, in order, and the blobs of the others, which packs have.
async fn of_index(
    service: &Service,
    work: &ahead::ToPack,
    new: &HashSet<ResultKey>,
) -> (Vec<(ResultName, Record)>, HashSet<Digest>) {
    let (scope, names) = (work.key.0.clone(), work.names.clone());
    let new = new.clone();
    let read = service.index.read(move |index| {
        let (mut wanted, mut packed) = (Vec::new(), HashSet::new());
        for name in names {
            let Some(row) = records::stored(index, &scope, &name.result)? else { continue };
            if !new.contains(&name.result) {
                packed.extend(row.blobs.iter().map(|(digest, _)| *digest));
            } else if row.blobs.iter().all(|(_, size)| size.is_some())
                && let Some(body) = records::body(index, row.id)?
                && let Ok(record) = serde_json::from_slice::<Record>(&body)
            {
                wanted.push((name, record));
            }
        }
        Ok((wanted, packed))
    });
    read.await.unwrap_or_default()
}
