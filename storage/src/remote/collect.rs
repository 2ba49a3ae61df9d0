//! Takes out of a bucket what is not used any more: [`Inventory::read`], [`plan`], [`Plan::describe`] and
//! [`act`]. Called by a command and by tests; no server needs it to run.
//!
//! **Last use.** A bucket knows when an object was written and not when it was read. Servers write down which
//! results they used, once a day each, many in one object (`used/<scope>/<day>/…`); a result was last used
//! when it was stored or at the end of the last such day. Results that nobody used for
//! [`Policy::max_unused`] go; of a scope over its quota those of least value go, as [`crate::eviction`]
//! reckons it. What is pinned, and what is younger than the grace, stays.
//!
//! **Blobs.** One that no result names goes once it is older than the grace: its result may be on its way.
//! That alone would not do for an old blob that a writer finds there and relies on. So a collection first
//! announces which blobs it is about to delete, and then looks for results that came meanwhile; a writer first
//! stores its record, and then looks for announcements. Whichever comes second sees the other: the collection
//! spares the blob, or the writer takes its record back and is told to come again (once the collection says
//! that it is over, only if the blob is gone). An announcement is heeded for twice the time that a collection
//! has, so clocks may differ by [`limits::COLLECTION_TIME`], and that long may be between a writer's look at a
//! blob and its record.
//!
//! **Packs.** What jobs use is in packs as well, which only save requests. They go once they were stored longer ago
//! than [`Policy::max_unused`], the next run of the job writes new ones; and of a scope that has no room for them
//! under its quota, the oldest go. What is rejected is remembered for twice as long as a pack may be there.
//!
//! **Events.** What became of the units of a run goes when it was stored longer ago than [`Policy::max_unused`].
//!
//! **Other formats.** What a result of another format names cannot be known here. Such results go when they
//! were not used for long; while there are any, only blobs of that age go.
//!
//! A collection may stop anywhere, and several may run: results go before their blobs, and what is left over
//! is for the next one.

mod act;
mod inventory;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::digest::Digest;
use crate::eviction::{self, BlobUse, Budget, ResultUse, State};
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::limits;

pub use act::{Collected, act, pin, unpin};

/// What may stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most bytes of a scope, blobs that it shares included.
    pub quota_bytes: u64,
    /// Other quotas, for some scopes, by [`Scope::id`].
    pub quotas: BTreeMap<String, u64>,
    /// Results that were not used for longer go.
    pub max_unused: Duration,
    /// What is younger stays.
    pub grace: Duration,
}

impl Policy {
    /// The same quota for all scopes, with [`limits::MAX_UNUSED`] and [`limits::ORPHAN_GRACE`].
    pub fn new(quota_bytes: u64) -> Self {
        Self {
            quota_bytes,
            quotas: BTreeMap::new(),
            max_unused: limits::MAX_UNUSED,
            grace: limits::ORPHAN_GRACE,
        }
    }

    /// Another quota for a scope.
    #[must_use]
    pub fn with_quota(mut self, scope: &Scope, bytes: u64) -> Self {
        self.quotas.insert(scope.id(), bytes);
        self
    }
}

/// A result in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptResult {
    /// Its object.
    pub object: ObjectName,
    /// Its scope, by [`Scope::id`].
    pub scope_id: String,
    /// The unit.
    pub unit: UnitKey,
    /// The result.
    pub result: ResultKey,
    /// Which of several.
    pub generation: u32,
    /// Bytes of the object.
    pub bytes: u64,
    /// When it was stored, milliseconds since 1970.
    pub stored_ms: u64,
    /// When it was last used, as far as that was written down.
    pub used_ms: u64,
    /// What is in it.
    pub content: ResultContent,
    /// Somebody wants it to stay.
    pub pinned: bool,
}

/// What is known of the content of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultContent {
    /// It was read.
    Read {
        /// What people call the unit.
        unit_name: String,
        /// What making it cost, wall milliseconds.
        cost_ms: u64,
        /// The blobs that are objects of their own.
        blobs: Vec<Digest>,
    },
    /// It is damaged: nobody can use it.
    Damaged,
    /// It is of another format.
    Foreign,
}

/// A blob in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBlob {
    /// Its object.
    pub object: ObjectName,
    /// Its digest.
    pub digest: Digest,
    /// Bytes of the object.
    pub bytes: u64,
    /// When it was stored, milliseconds since 1970.
    pub stored_ms: u64,
}

/// A pack in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPack {
    /// Its object.
    pub object: ObjectName,
    /// Its scope, by [`Scope::id`].
    pub scope_id: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// When it was stored, milliseconds since 1970.
    pub stored_ms: u64,
}

/// All that is in a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The results.
    pub results: Vec<KeptResult>,
    /// The blobs.
    pub blobs: Vec<KeptBlob>,
    /// The packs of jobs.
    pub packs: Vec<KeptPack>,
    /// Objects that say that a result is rejected, with their time.
    pub rejections: Vec<(ObjectName, u64)>,
    /// What became of units, with the time it was stored.
    pub events: Vec<(ObjectName, u64)>,
    /// Objects of what was used, with their day (days since 1970).
    pub used_pages: Vec<(ObjectName, u64)>,
    /// Announcements of collections, with their time.
    pub announcements: Vec<(ObjectName, u64)>,
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A newer generation took its place.
    Replaced,
    /// It is damaged, or a blob of it is missing.
    Broken,
    /// Nobody used it for long.
    Unused,
    /// Its scope is over its quota, and it is worth least.
    Quota,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Broken => "broken",
            Self::Unused => "not used",
            Self::Quota => "over quota",
        }
    }
}

/// What a plan does to a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScopeAccount {
    /// Results before.
    pub results: u64,
    /// Results that go.
    pub results_gone: u64,
    /// Bytes of results and the blobs they name, before and after.
    pub bytes_before: u64,
    /// The same after.
    pub bytes_after: u64,
    /// What making the results that go anew would cost, wall milliseconds.
    pub rebuild_ms: u64,
}

/// What should go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Results, and why.
    pub results: Vec<(ObjectName, Why)>,
    /// Blobs that no result names then.
    pub blobs: Vec<(ObjectName, Digest)>,
    /// Packs of jobs; events of old runs; accounts of the collections, of uses and of what was rejected that count
    /// no more.
    pub others: Vec<ObjectName>,
    /// Bytes of all that goes.
    pub bytes: u64,
    /// By scope id.
    pub scopes: BTreeMap<String, ScopeAccount>,
    /// The results that go and cost most to make anew: what people call them, and wall milliseconds.
    pub dearest: Vec<(String, u64)>,
}

/// What should go of an inventory. Pure; the order of the inventory does not matter.
pub fn plan(inventory: &Inventory, policy: &Policy, now_ms: u64) -> Plan {
    let reckoning = Reckoning::of(inventory, policy, now_ms);
    let mut gone: BTreeMap<usize, Why> = BTreeMap::new();
    for (i, result) in inventory.results.iter().enumerate() {
        if let Some(why) = reckoning.useless(result) {
            gone.insert(i, why);
        }
    }
    for (scope_id, of_scope) in &reckoning.scopes {
        let quota = policy.quotas.get(*scope_id).copied().unwrap_or(policy.quota_bytes);
        let left: Vec<usize> = of_scope.iter().copied().filter(|i| !gone.contains_key(i)).collect();
        let over = eviction::plan(&reckoning.state(&left), now_ms, &Budget::new(quota));
        gone.extend(over.results.into_iter().map(|object| (reckoning.index[object], Why::Quota)));
    }
    let mut plan = reckoning.write_down(&gone);
    for pack in reckoning.packs(policy, &plan) {
        plan.bytes += pack.bytes;
        plan.others.push(pack.object.clone());
    }
    plan.others.sort();
    plan
}

/// An inventory, as a plan looks at it.
struct Reckoning<'a> {
    inventory: &'a Inventory,
    now_ms: u64,
    grace_ms: u64,
    unused_ms: u64,
    blobs: HashMap<Digest, &'a KeptBlob>,
    index: HashMap<&'a ObjectName, usize>,
    newest: HashMap<(&'a str, ResultKey), u32>,
    scopes: BTreeMap<&'a str, Vec<usize>>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> Reckoning<'a> {
    fn of(inventory: &'a Inventory, policy: &Policy, now_ms: u64) -> Self {
        let mut newest = HashMap::new();
        let mut scopes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, result) in inventory.results.iter().enumerate() {
            scopes.entry(&result.scope_id).or_default().push(i);
            if matches!(result.content, ResultContent::Read { .. }) {
                let generation = newest.entry((&*result.scope_id, result.result)).or_default();
                *generation = result.generation.max(*generation);
            }
        }
        Self {
            inventory,
            now_ms,
            grace_ms: millis(policy.grace),
            unused_ms: millis(policy.max_unused),
            blobs: inventory.blobs.iter().map(|blob| (blob.digest, blob)).collect(),
            index: inventory.results.iter().enumerate().map(|(i, r)| (&r.object, i)).collect(),
            newest,
            scopes,
        }
    }

    fn age(&self, at_ms: u64) -> u64 {
        self.now_ms.saturating_sub(at_ms)
    }

    fn stays(&self, result: &KeptResult) -> bool {
        result.pinned || self.age(result.stored_ms) < self.grace_ms
    }

    /// Why a result goes whatever the quota is.
    fn useless(&self, result: &KeptResult) -> Option<Why> {
        if self.stays(result) {
            return None;
        }
        let broken = match &result.content {
            ResultContent::Damaged => true,
            ResultContent::Foreign => false,
            ResultContent::Read { blobs, .. } => {
                blobs.iter().any(|digest| !self.blobs.contains_key(digest))
            }
        };
        let newest = self.newest.get(&(&*result.scope_id, result.result));
        if broken {
            Some(Why::Broken)
        } else if newest.is_some_and(|newest| *newest > result.generation) {
            Some(Why::Replaced)
        } else {
            let used_ms = result.used_ms.max(result.stored_ms);
            (self.age(used_ms) >= self.unused_ms).then_some(Why::Unused)
        }
    }

    /// Some results and the blobs they name, as the eviction wants them.
    fn state(&self, results: &[usize]) -> State<&'a ObjectName> {
        let mut named = HashSet::new();
        let uses = results.iter().map(|i| {
            let result = &self.inventory.results[*i];
            let (cost_ms, blobs) = known(result);
            named.extend(blobs.iter().copied());
            ResultUse {
                id: &result.object,
                bytes: result.bytes,
                blobs: blobs.to_vec(),
                cost_ms,
                used_ms: result.used_ms.max(result.stored_ms),
                pinned: self.stays(result),
            }
        });
        let results = uses.collect();
        let blobs = named.iter().filter_map(|digest| self.blobs.get(digest)).map(|blob| BlobUse {
            digest: blob.digest,
            bytes: blob.bytes,
            used_ms: blob.stored_ms,
            pinned: false,
        });
        State { results, blobs: blobs.collect() }
    }

    fn bytes(&self, results: &[usize]) -> u64 {
        let state = self.state(results);
        let blobs: u64 = state.blobs.iter().map(|blob| blob.bytes).sum();
        blobs + state.results.iter().map(|result| result.bytes).sum::<u64>()
    }

    /// Blobs that none of the results that stay names, and that are old enough.
    fn orphans(&self, gone: &BTreeMap<usize, Why>) -> Vec<&'a KeptBlob> {
        let left = || {
            let all = self.inventory.results.iter().enumerate();
            all.filter(|(i, _)| !gone.contains_key(i)).map(|(_, result)| result)
        };
        let foreign = left().any(|result| result.content == ResultContent::Foreign);
        let least = if foreign { self.grace_ms.max(self.unused_ms) } else { self.grace_ms };
        let named: HashSet<Digest> = left().flat_map(|result| known(result).1).copied().collect();
        let all = self.inventory.blobs.iter();
        all.filter(|blob| !named.contains(&blob.digest) && self.age(blob.stored_ms) >= least)
            .collect()
    }

    /// Packs that are too old, and those for which a scope has no room, the oldest first.
    fn packs(&self, policy: &Policy, plan: &Plan) -> Vec<&'a KeptPack> {
        let mut newest: Vec<&KeptPack> = self.inventory.packs.iter().collect();
        newest.sort_by_key(|pack| (std::cmp::Reverse(pack.stored_ms), &pack.object));
        let mut taken: HashMap<&str, u64> = HashMap::new();
        newest.retain(|pack| {
            let quota = policy.quotas.get(&pack.scope_id).copied().unwrap_or(policy.quota_bytes);
            let others = plan.scopes.get(&pack.scope_id).map_or(0, |scope| scope.bytes_after);
            let taken = taken.entry(&pack.scope_id).or_default();
            *taken = taken.saturating_add(pack.bytes);
            let fits = others.saturating_add(*taken) <= quota;
            let age = self.age(pack.stored_ms);
            age >= self.grace_ms && (age >= self.unused_ms || !fits)
        });
        newest
    }

    fn others(&self) -> impl Iterator<Item = &'a ObjectName> {
        let last_day = crate::remote::uses::day(self.now_ms.saturating_sub(self.unused_ms));
        let pages = self.inventory.used_pages.iter();
        let pages = pages.filter(move |(_, day)| *day < last_day);
        let over = self.now_ms.saturating_sub(2 * millis(limits::COLLECTION_TIME));
        let announced = self.inventory.announcements.iter().filter(move |(_, at)| *at < over);
        let forgotten = self.now_ms.saturating_sub(self.unused_ms.saturating_mul(2));
        let forgotten = forgotten.min(self.now_ms.saturating_sub(self.grace_ms));
        let rejected = self.inventory.rejections.iter().filter(move |(_, at)| *at < forgotten);
        let old = self.now_ms.saturating_sub(self.unused_ms.max(self.grace_ms));
        let events = self.inventory.events.iter().filter(move |(_, at)| *at < old);
        pages.chain(announced).chain(rejected).chain(events).map(|(object, _)| object)
    }

    fn write_down(&self, gone: &BTreeMap<usize, Why>) -> Plan {
        let mut plan = Plan::default();
        for (scope_id, of_scope) in &self.scopes {
            let (go, stay): (Vec<usize>, Vec<usize>) =
                of_scope.iter().partition(|i| gone.contains_key(*i));
            let cost = |i: &usize| known(&self.inventory.results[*i]).0;
            let account = ScopeAccount {
                results: of_scope.len() as u64,
                results_gone: go.len() as u64,
                bytes_before: self.bytes(of_scope),
                bytes_after: self.bytes(&stay),
                rebuild_ms: go.iter().map(cost).sum(),
            };
            plan.scopes.insert((*scope_id).to_owned(), account);
        }
        let mut dearest = BTreeSet::new();
        for (i, why) in gone {
            let result = &self.inventory.results[*i];
            plan.bytes += result.bytes;
            plan.results.push((result.object.clone(), *why));
            if let ResultContent::Read { unit_name, cost_ms, .. } = &result.content {
                dearest.insert((*cost_ms, unit_name.clone(), &result.object));
                if dearest.len() > limits::MAX_DEAREST {
                    dearest.pop_first();
                }
            }
        }
        plan.dearest = dearest.into_iter().rev().map(|(cost, name, _)| (name, cost)).collect();
        for blob in self.orphans(gone) {
            plan.bytes += blob.bytes;
            plan.blobs.push((blob.object.clone(), blob.digest));
        }
        plan.others = self.others().cloned().collect();
        plan.results.sort();
        plan.blobs.sort();
        plan.others.sort();
        plan
    }
}

/// Cost and blobs of a result, as far as they are known.
fn known(result: &KeptResult) -> (u64, &[Digest]) {
    match &result.content {
        ResultContent::Read { cost_ms, blobs, .. } => (*cost_ms, blobs),
        ResultContent::Damaged | ResultContent::Foreign => (0, &[]),
    }
}

impl Plan {
    /// The plan for people: what would go, and what making it anew would cost.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
        let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
        let rebuild_ms = self.scopes.values().map(|scope| scope.rebuild_ms).sum();
        // Writing into a text does not fail.
        let _ = writeln!(
            text,
            "{} results and {} blobs go, {}; making them anew would take {}",
            self.results.len(),
            self.blobs.len(),
            mebibytes(self.bytes),
            seconds(rebuild_ms)
        );
        for why in [Why::Replaced, Why::Broken, Why::Unused, Why::Quota] {
            let count = self.results.iter().filter(|(_, reason)| *reason == why).count();
            if count > 0 {
                let _ = writeln!(text, "  {}: {count}", why.word());
            }
        }
        for (scope_id, account) in &self.scopes {
            let _ = writeln!(
                text,
                "scope {scope_id}: {} of {} results, {} of {}, {} to make anew",
                account.results_gone,
                account.results,
                mebibytes(account.bytes_before.saturating_sub(account.bytes_after)),
                mebibytes(account.bytes_before),
                seconds(account.rebuild_ms)
            );
        }
        for (name, cost_ms) in &self.dearest {
            let _ = writeln!(text, "  {name}: {}", seconds(*cost_ms));
        }
        text
    }
}

#[cfg(test)]
mod tests;
