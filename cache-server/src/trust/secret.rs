//! [`Secret`]: a bearer token that this server made, and [`Hash`], all that is kept of it.
//!
//! 256 bits of chance from the system behind a prefix that scanners of secrets can know. With so many bits a plain
//! hash is enough: nobody tries them all. Hashes are compared in constant time.

use std::fmt;

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

/// What a token begins with that an administrator made.
pub(crate) const TOKEN_PREFIX: &str = "kiln_t_";

/// What a token begins with that was given for one of a CI service.
pub(crate) const SESSION_PREFIX: &str = "kiln_s_";

/// Bytes of chance in one.
const SECRET_BYTES: usize = 32;

/// A token; shown once, to who gets it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl Secret {
    /// A new one; none: the system has no chance to give.
    pub(crate) fn make(prefix: &str) -> Option<Self> {
        let mut bytes = [0_u8; SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(format!("{prefix}{}", Digest::from_bytes(bytes))))
    }

    /// The text, for who gets it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }
}

/// What is kept of a token.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Hash(Digest);

impl Hash {
    /// That of a token as somebody sent it.
    pub(crate) fn of(token: &str) -> Self {
        Self(Encoder::new("kiln token v1").text("token", token).finish())
    }

    /// As a key of a table. How long a look-up takes tells of the hash at most, which nobody can choose.
    pub(crate) fn digest(&self) -> Digest {
        self.0
    }

    /// Whether two are the same, in a time that does not tell where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let pairs = self.0.as_bytes().iter().zip(other.0.as_bytes());
        let differ = pairs.fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
        differ == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_and_none_is_shown() {
        let [one, two] = [(); 2].map(|()| Secret::make(TOKEN_PREFIX).unwrap());
        assert!(one != two && one.hash().is(&one.hash()) && !one.hash().is(&two.hash()));
        assert_eq!(one.expose().len(), TOKEN_PREFIX.len() + 64);
        let random = one.expose().strip_prefix(TOKEN_PREFIX).unwrap();
        assert!(!format!("{one:?} {:?}", one.hash()).contains(&random[..8]));
    }
}
