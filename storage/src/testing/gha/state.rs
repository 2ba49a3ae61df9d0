//! The entries of the fake and the rules of the service. No HTTP here: `http` and `v1` turn an answer of
//! this file into one of theirs.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::token::{Rights, hex};
use super::{Behaviour, Counted};

/// Longest key, characters.
const MAX_KEY: usize = 512;
/// Most keys in one lookup.
const MAX_KEYS: usize = 10;
/// Largest body of one upload, bytes: what tests need, and no more.
pub(super) const MAX_UPLOAD: usize = 256 << 20;

/// Why the service refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// What was asked is wrong.
    Invalid(&'static str),
    /// The key is taken.
    AlreadyExists,
    /// There is no such thing (yet).
    NotFound,
    /// The token does not write.
    WriteDenied,
    /// Too many new entries; seconds until there is room.
    RateLimited(u64),
    /// The signature of an address is wrong or over.
    Signature,
}

/// One entry, from its reservation on.
#[derive(Debug)]
struct Entry {
    id: u64,
    scope: String,
    key: String,
    version: String,
    blocks: BTreeMap<Vec<u8>, Bytes>,
    bytes: Option<Bytes>,
    /// When it was finalized, and as the how-manieth.
    finalized: Option<(u64, u64)>,
    /// Lookups that still miss it.
    hidden: u32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) key: String,
    pub(super) scope: String,
}

/// All of the service.
#[derive(Debug)]
pub(super) struct State {
    pub(super) behaviour: Behaviour,
    pub(super) counted: Counted,
    entries: Vec<Entry>,
    next: u64,
    /// When entries were reserved within the last minute.
    recent: VecDeque<u64>,
    calls: u64,
}

impl State {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            counted: Counted::default(),
            entries: Vec::new(),
            next: 1,
            recent: VecDeque::new(),
            calls: 0,
        }
    }

    /// Whether a token still holds; counts the call.
    pub(super) fn token_holds(&mut self) -> bool {
        self.calls += 1;
        self.behaviour.token_calls.is_none_or(|most| self.calls <= most)
    }

    /// Reserves an entry in the own scope.
    pub(super) fn reserve(
        &mut self,
        rights: &Rights,
        key: &str,
        version: &str,
        now_ms: u64,
    ) -> Result<u64, Refused> {
        check_key(key)?;
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Refused::Invalid("version"));
        }
        let scope = rights.own.as_ref().ok_or(Refused::WriteDenied)?;
        let taken = |e: &&Entry| e.key == key && e.version == version && e.scope == *scope;
        if !self.behaviour.lax_reservations && self.entries.iter().any(|e| taken(&e)) {
            return Err(Refused::AlreadyExists);
        }
        while self.recent.front().is_some_and(|at| at + 60_000 <= now_ms) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.behaviour.entries_per_minute {
            self.counted.rate_limited += 1;
            let until = self.recent.front().map_or(60_000, |at| at + 60_000 - now_ms);
            return Err(Refused::RateLimited(until.div_ceil(1000)));
        }
        self.recent.push_back(now_ms);
        self.counted.reserved += 1;
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry {
            id,
            scope: scope.clone(),
            key: key.to_owned(),
            version: version.to_owned(),
            blocks: BTreeMap::new(),
            bytes: None,
            finalized: None,
            hidden: 0,
        });
        Ok(id)
    }

    /// The whole of an entry at once.
    pub(super) fn put(&mut self, id: u64, bytes: Bytes) -> Result<(), Refused> {
        self.counted.bytes_in += bytes.len() as u64;
        self.open(id)?.bytes = Some(bytes);
        Ok(())
    }

    /// One block of an entry.
    pub(super) fn put_block(
        &mut self,
        id: u64,
        block: Vec<u8>,
        bytes: Bytes,
    ) -> Result<(), Refused> {
        self.counted.bytes_in += bytes.len() as u64;
        let entry = self.open(id)?;
        if block.is_empty() || entry.blocks.keys().any(|other| other.len() != block.len()) {
            return Err(Refused::Invalid("block id"));
        }
        entry.blocks.insert(block, bytes);
        Ok(())
    }

    /// Joins blocks in an order.
    pub(super) fn put_block_list(&mut self, id: u64, list: &[Vec<u8>]) -> Result<(), Refused> {
        let entry = self.open(id)?;
        let mut whole = Vec::new();
        for block in list {
            whole.extend_from_slice(entry.blocks.get(block).ok_or(Refused::Invalid("block"))?);
        }
        entry.bytes = Some(whole.into());
        Ok(())
    }

    /// The blocks of an entry one after another, by their offset: what v1 sends.
    pub(super) fn join_parts(&mut self, id: u64) -> Result<(), Refused> {
        let mut whole = Vec::new();
        for (offset, bytes) in &self.open(id)?.blocks {
            if offset.as_slice() != (whole.len() as u64).to_be_bytes() {
                return Err(Refused::Invalid("a part is missing"));
            }
            whole.extend_from_slice(bytes);
        }
        self.open(id)?.bytes = Some(whole.into());
        Ok(())
    }

    fn open(&mut self, id: u64) -> Result<&mut Entry, Refused> {
        let entry = self.entries.iter_mut().find(|e| e.id == id).ok_or(Refused::NotFound)?;
        if entry.finalized.is_some() { Err(Refused::AlreadyExists) } else { Ok(entry) }
    }

    /// The entry that was reserved under a key in the own scope and is not finalized.
    pub(super) fn reserved(
        &self,
        rights: &Rights,
        key: &str,
        version: &str,
    ) -> Result<u64, Refused> {
        let scope = rights.own.as_ref().ok_or(Refused::WriteDenied)?;
        self.entries
            .iter()
            .find(|e| e.key == key && e.version == version && e.scope == *scope)
            .map(|e| e.id)
            .ok_or(Refused::NotFound)
    }

    /// Makes an entry visible.
    pub(super) fn finalize(&mut self, id: u64, size: u64, now_ms: u64) -> Result<(), Refused> {
        let (hidden, order) = (self.behaviour.lag_lookups, self.next);
        let entry = self.open(id)?;
        let bytes = entry.bytes.as_ref().ok_or(Refused::NotFound)?;
        if bytes.len() as u64 != size {
            return Err(Refused::Invalid("size_bytes"));
        }
        entry.finalized = Some((now_ms, order));
        entry.hidden = hidden;
        entry.blocks.clear();
        self.next += 1;
        self.counted.finalized += 1;
        Ok(())
    }

    /// What a lookup finds: scope by scope, in each the exact key, then the newest that begins with a key.
    pub(super) fn lookup(
        &mut self,
        rights: &Rights,
        keys: &[String],
        version: &str,
        now_ms: u64,
    ) -> Result<Option<Found>, Refused> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(Refused::Invalid("keys"));
        }
        keys.iter().try_for_each(|key| check_key(key))?;
        for scope in &rights.read {
            for key in keys {
                for exact in [true, false] {
                    if let Some(found) = self.newest(scope, key, version, (exact, now_ms)) {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    fn newest(
        &mut self,
        scope: &str,
        key: &str,
        version: &str,
        (exact, now_ms): (bool, u64),
    ) -> Option<Found> {
        let lag_ms = self.behaviour.lag.as_millis() as u64;
        let lags = self.behaviour.lag_lookups > 0;
        let mut best: Option<(u64, Found)> = None;
        for entry in &mut self.entries {
            let Some((at, order)) = entry.finalized else { continue };
            let wanted = if exact { entry.key == key } else { entry.key.starts_with(key) };
            if entry.scope != scope || entry.version != version || !wanted {
                continue;
            }
            if lags && entry.hidden > 0 {
                entry.hidden -= 1;
                continue;
            }
            if at + lag_ms > now_ms || best.as_ref().is_some_and(|(newest, _)| *newest > order) {
                continue;
            }
            let found = Found { id: entry.id, key: entry.key.clone(), scope: entry.scope.clone() };
            best = Some((order, found));
        }
        best.map(|(_, found)| found)
    }

    /// The bytes of a finalized entry.
    pub(super) fn bytes(&self, id: u64) -> Result<Bytes, Refused> {
        self.entries
            .iter()
            .find(|e| e.id == id && e.finalized.is_some())
            .and_then(|e| e.bytes.clone())
            .ok_or(Refused::NotFound)
    }

    pub(super) fn evict(&mut self, prefix: &str) -> usize {
        let before = self.entries.len();
        self.entries.retain(|e| e.finalized.is_none() || !e.key.starts_with(prefix));
        before - self.entries.len()
    }

    pub(super) fn plant(&mut self, scope: &str, key: &str, bytes: Bytes) {
        let version = self.entries.last().map(|e| e.version.clone()).unwrap_or_default();
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry {
            id,
            scope: scope.to_owned(),
            key: key.to_owned(),
            version,
            blocks: BTreeMap::new(),
            bytes: Some(bytes),
            finalized: Some((0, id)),
            hidden: 0,
        });
    }

    pub(super) fn damage(&mut self, prefix: &str, change: impl Fn(&mut Vec<u8>)) -> usize {
        let mut damaged = 0;
        for entry in &mut self.entries {
            if let (Some(_), Some(bytes)) = (entry.finalized, &mut entry.bytes)
                && entry.key.starts_with(prefix)
            {
                let mut changed = bytes.to_vec();
                change(&mut changed);
                *bytes = changed.into();
                damaged += 1;
            }
        }
        damaged
    }

    pub(super) fn keys(&self) -> Vec<(String, String)> {
        let mut keys: Vec<_> = self
            .entries
            .iter()
            .filter_map(|e| e.finalized.map(|at| (at, (e.scope.clone(), e.key.clone()))))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }
}

fn check_key(key: &str) -> Result<(), Refused> {
    if key.is_empty() || key.chars().count() > MAX_KEY || key.contains(',') {
        return Err(Refused::Invalid("key"));
    }
    Ok(())
}

/// A path with a signature that holds until a time.
pub(super) fn sign(path: &str, until_ms: u64) -> String {
    format!("{path}?se={until_ms}&sig={}", signature(path, until_ms))
}

/// Whether path and query are what [`sign`] made, and hold.
pub(super) fn signed(path: &str, query: &str, now_ms: u64) -> Result<(), Refused> {
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let until: u64 = value("se").and_then(|se| se.parse().ok()).ok_or(Refused::Signature)?;
    let right = value("sig") == Some(signature(path, until).as_str());
    if right && now_ms < until { Ok(()) } else { Err(Refused::Signature) }
}

fn signature(path: &str, until_ms: u64) -> String {
    let text = format!("{until_ms} {path}");
    hex(&blake3::keyed_hash(&[7; 32], text.as_bytes()).as_bytes()[..16])
}
