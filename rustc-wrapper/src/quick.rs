//! [`QuickMap`] and [`QuickSet`]: tables of paths and names that live as long as one run. A build script's
//! log has hundreds of thousands of them.
//!
//! The hash is quick and no secret: who chooses the names can only make this one run slower.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map with a quick hash.
pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;
/// A set with a quick hash.
pub type QuickSet<K> = HashSet<K, BuildHasherDefault<Quick>>;

/// The hash: a word at a time is turned in and multiplied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quick(u64);

impl Quick {
    fn add(&mut self, word: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(ODD);
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    /// Tables take the place from the lowest bits, which a multiplication mixes least.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn names_that_differ_little_lie_apart() {
        let build = BuildHasherDefault::<Quick>::default();
        let names = || (0..20_000).map(|n| format!("/usr/include/x86_64/part{n}/file{}.h", n % 7));
        let places = |bits: u32, shift: u32| {
            let place = |name: String| (build.hash_one(name.as_str()) >> shift) % (1 << bits);
            names().map(place).collect::<HashSet<_>>().len()
        };
        // So many different ones are to be expected of chance: of n places n (1 - e^(-20000/n)).
        assert!(places(15, 0) > 14_000, "{}", places(15, 0));
        assert_eq!(places(7, 57), 128);
        let distinct: HashSet<u64> = names().map(|name| build.hash_one(name.as_str())).collect();
        assert_eq!(distinct.len(), 20_000);
    }
}
