//! Adding entries to the log: without a lock and without waiting, by any thread of any process.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::log::{self, ENTRY_BYTES, HEADER_BYTES, Kind, Lost, MAX_NAME};

/// How many slots a search looks at before it takes an entry for new.
const PROBES: u32 = 8;

/// The bits of a slot that number an entry's place in words of eight bytes, from 1. The others are a tag, from
/// the entry's hash.
const INDEX: u32 = (1 << 25) - 1;

/// A mapped log.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    base: *mut u8,
    capacity: u32,
    slots: u32,
}

impl Log {
    /// Takes a mapping for a log; none when its header is none.
    pub unsafe fn new(base: *mut u8, bytes: usize) -> Option<Self> {
        if bytes < HEADER_BYTES {
            return None;
        }
        // SAFETY: the module `preload` says why.
        let header = unsafe { core::slice::from_raw_parts(base, HEADER_BYTES) };
        let head = log::head(header).ok()?;
        let slots = u32::try_from((head.entries_at - HEADER_BYTES) / 4).ok()?;
        let capacity = header.get(log::CAPACITY_AT..)?.first_chunk::<4>()?;
        let capacity = u32::from_le_bytes(*capacity);
        let whole = log::file_bytes(capacity, slots) <= bytes as u64;
        (whole && slots.is_power_of_two()).then_some(Self { base, capacity, slots })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: the module `preload` says why. Words of the log are aligned and only used so.
        unsafe { AtomicU32::from_ptr(self.base.add(at).cast()) }
    }

    fn slot(&self, index: u32) -> &AtomicU32 {
        self.word(HEADER_BYTES + 4 * (index & (self.slots - 1)) as usize)
    }

    fn entry_at(&self, offset: u32) -> usize {
        HEADER_BYTES + 4 * self.slots as usize + offset as usize
    }

    /// Says that something could not be noted.
    pub fn lose(&self, what: u32) {
        self.word(log::LOST_AT).fetch_or(what, Ordering::Relaxed);
    }

    /// A number for a new process, from 1.
    pub fn next_process(&self) -> Option<u16> {
        let before = self.word(log::PROCESSES_AT).fetch_add(1, Ordering::Relaxed);
        u16::try_from(before.wrapping_add(1)).ok().filter(|n| *n > 0)
    }

    /// Adds an entry whose name is made of parts. One that is there already is not added again,
    /// unless it tells of a process.
    pub fn note(&self, process: u16, kind: Kind, flags: u8, parts: &[&[u8]]) {
        let name_len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        if name_len > MAX_NAME {
            return self.lose(Lost::PATH);
        }
        let [p0, p1] = process.to_le_bytes();
        let head = [p0, p1, kind as u8, flags];
        let unique = matches!(kind, Kind::Program | Kind::ProgramFailed | Kind::Process);
        let hash = parts.iter().fold(mix(FIRST, &head), |hash, part| mix(hash, part));
        let hash = spread(hash);
        // Where all slots are taken, the first one is taken over: the newest entries come again soonest.
        let mut place = None;
        for probe in 0..if unique { 0 } else { PROBES } {
            let slot = self.slot(hash.wrapping_add(probe));
            let there = slot.load(Ordering::Acquire);
            if there == 0 {
                place = Some((slot, 0));
                break;
            }
            // Of a full table most are others: the tag spares a look at each of them.
            if there & !INDEX == hash & !INDEX
                && self.is((there & INDEX).wrapping_sub(1).wrapping_mul(8), head, parts, name_len)
            {
                return;
            }
            place = place.or(Some((slot, there)));
        }
        let Some(offset) = self.add(head, parts, name_len) else { return };
        let index = offset / 8 + 1;
        if let Some((slot, there)) = place
            && index <= INDEX
        {
            let now = index | (hash & !INDEX);
            // Another entry may have taken it; then this one is found by nobody, and may come twice.
            let _ = slot.compare_exchange(there, now, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Whether the entry at an offset is whole and says the same.
    fn is(&self, offset: u32, head: [u8; 4], parts: &[&[u8]], name_len: usize) -> bool {
        let len = ENTRY_BYTES + name_len;
        if offset as usize + len > self.capacity as usize || !offset.is_multiple_of(8) {
            return false;
        }
        let at = self.entry_at(offset);
        if self.word(at).load(Ordering::Acquire) as usize != len {
            return false;
        }
        // SAFETY: the module `preload` says why.
        let bytes = unsafe { core::slice::from_raw_parts(self.base.add(at + 4), 4 + name_len) };
        let Some((there, mut rest)) = bytes.split_first_chunk::<4>() else { return false };
        *there == head
            && parts.iter().all(|part| match rest.strip_prefix(*part) {
                Some(after) => {
                    rest = after;
                    true
                }
                None => false,
            })
    }

    fn add(&self, head: [u8; 4], parts: &[&[u8]], name_len: usize) -> Option<u32> {
        let len = ENTRY_BYTES + name_len;
        let tail = self.word(log::TAIL_AT);
        let mut offset = tail.load(Ordering::Relaxed);
        loop {
            let end = offset as usize + log::padded(len);
            if end > self.capacity as usize {
                self.lose(Lost::FULL);
                return None;
            }
            let end = u32::try_from(end).ok()?;
            match tail.compare_exchange_weak(offset, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => offset = now,
            }
        }
        let at = self.entry_at(offset);
        // SAFETY: the module `preload` says why. The bytes were reserved above for this call alone.
        unsafe {
            let mut to = self.base.add(at + 4);
            to.copy_from_nonoverlapping(head.as_ptr(), head.len());
            to = to.add(head.len());
            for part in parts {
                to.copy_from_nonoverlapping(part.as_ptr(), part.len());
                to = to.add(part.len());
            }
        }
        self.word(at).store(u32::try_from(len).ok()?, Ordering::Release);
        Some(offset)
    }
}

const FIRST: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, eight bytes at a time. A collision costs a comparison.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
        hash ^= hash >> 29;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

/// A place in the table: every bit of a hash has its say.
fn spread(hash: u64) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    ((hash ^ (hash >> 32)).wrapping_mul(ODD) >> 32) as u32
}
