//! [`LeaseId`]: names a lease. Whoever knows it may hold and release it, so nobody can guess it.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::str::FromStr;

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;

/// The name of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(u128);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is no name of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoLeaseId;

impl FromStr for LeaseId {
    type Err = NoLeaseId;

    fn from_str(text: &str) -> Result<Self, NoLeaseId> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(NoLeaseId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NoLeaseId)
    }
}

/// Makes ids: from one seed always the same ones, which nobody foretells without it.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    seed: Digest,
    made: u64,
}

impl Ids {
    /// Those of a seed.
    pub(crate) fn of(seed: Digest) -> Self {
        Self { seed, made: 0 }
    }

    /// Those of a seed that nobody knows. `chance` is what else tells this process from others.
    pub(crate) fn secret(chance: &[u8]) -> Self {
        let mut encoder = Encoder::new("kiln lease seed v1");
        // The keys of the hashers come from the system.
        for _ in 0..4 {
            encoder.number("chance", RandomState::new().build_hasher().finish());
        }
        Self::of(encoder.bytes("system", chance).finish())
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> LeaseId {
        self.made += 1;
        let mut encoder = Encoder::new("kiln lease id v1");
        let id = encoder.digest("seed", &self.seed).number("made", self.made).finish();
        let (half, _) = id.as_bytes().split_at(16);
        LeaseId(half.iter().fold(0, |id, byte| id << 8 | u128::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_they_are_written() {
        let (mut one, mut two) = (Ids::secret(b""), Ids::secret(b""));
        for _ in 0..100 {
            let id = one.next();
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_ne!(id, two.next());
        }
        for bad in ["", "up-", &"A".repeat(32), &"+".repeat(32), &"0".repeat(31)] {
            assert_eq!(bad.parse::<LeaseId>(), Err(NoLeaseId), "{bad}");
        }
    }
}
