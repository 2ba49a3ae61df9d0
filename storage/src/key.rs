//! The names of things: [`UnitKey`], [`ResultKey`], [`Scope`] and [`ObjectName`], each with its
//! grammar. A string becomes a name only through the check here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ParseDigestError};
use crate::encode::Encoder;
use crate::limits;

macro_rules! digest_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The key with this digest.
            pub const fn new(digest: Digest) -> Self {
                Self(digest)
            }
            /// The digest inside.
            pub const fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

digest_key! {
    /// Names a unit by all that is known before any input is opened: tool, arguments, crate.
    UnitKey
}
digest_key! {
    /// Names what is about to be compiled, as far as that is known before the compiler has read it: two jobs with
    /// the same key most likely make the same result. Nothing but waiting depends on it.
    LeaseKey
}
digest_key! {
    /// Names a result: the unit key and the value of every member of one input set.
    ResultKey
}

/// Who may see and write records: a repository and a ref in it.
///
/// Without a principal it is the operating-system user ([`Scope::local_user`]). The scope is not
/// part of any key; it is part of where an answer is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    repository: String,
    reference: String,
}

impl Scope {
    /// A repository (any stable name of it) and a ref such as `refs/heads/main`.
    pub fn new(repository: impl Into<String>, reference: impl Into<String>) -> Self {
        Self { repository: repository.into(), reference: reference.into() }
    }

    /// The scope of an operating-system user on this machine.
    pub fn local_user(uid: u32) -> Self {
        Self::new(format!("local-user-{uid}"), "local")
    }

    /// The repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The ref.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// A name of fixed length for object names and index rows: 32 hexadecimal characters.
    pub fn id(&self) -> String {
        let mut encoder = Encoder::new("kiln scope v1");
        encoder.text("repository", &self.repository).text("reference", &self.reference);
        let mut id = encoder.finish().to_string();
        id.truncate(32);
        id
    }
}

/// The name of a stored object: segments of `[a-z0-9._-]`, joined by `/`, none of them `.` or `..`.
///
/// No name that Kiln stores is a directory of another (`a` and `a/b`): a disk could not keep both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// The text is no name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object name (segments of a-z, 0-9, '.', '_', '-' joined by '/')")]
pub struct ParseObjectNameError(String);

impl ObjectName {
    /// The object that holds a blob.
    pub fn blob(digest: &Digest) -> Self {
        let hex = digest.to_string();
        Self(format!("blobs/{}/{hex}", &hex[..2]))
    }

    /// The object that holds one generation of a result. All results of a unit key share the
    /// prefix [`ObjectName::unit_prefix`].
    pub fn record(scope: &Scope, unit: &UnitKey, result: &ResultKey, generation: u32) -> Self {
        Self(format!("{}{result}.{generation}", Self::unit_prefix(scope, unit)))
    }

    /// The prefix of all records of a unit in a scope; ends with `/`.
    pub fn unit_prefix(scope: &Scope, unit: &UnitKey) -> String {
        let hex = unit.to_string();
        format!("records/{}/{}/{hex}/", scope.id(), &hex[..2])
    }

    /// The object that says that a result is quarantined in a scope.
    pub fn quarantined(scope: &Scope, result: &ResultKey) -> Self {
        Self(format!("quarantine/{}/{result}", scope.id()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest, when this is the name of a blob.
    pub fn blob_digest(&self) -> Option<Digest> {
        let (_, hex) = self.0.strip_prefix("blobs/")?.split_once('/')?;
        hex.parse().ok()
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = ParseObjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if text.len() <= limits::MAX_OBJECT_NAME_BYTES && text.split('/').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseObjectNameError(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_stay_inside_their_store() {
        for bad in ["", "/", "a//b", "../a", "a/../b", "a/.", "A", "a b", "/a", "a/", "ü"] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?}");
        }
        let digest = Digest::of(b"x");
        let blob = ObjectName::blob(&digest);
        assert_eq!(blob.as_str().parse(), Ok(blob.clone()));
        assert_eq!(blob.blob_digest(), Some(digest));
        let quarantined = ObjectName::quarantined(&Scope::local_user(1), &ResultKey::new(digest));
        assert_eq!(quarantined.as_str().parse(), Ok(quarantined.clone()));
    }

    #[test]
    fn scopes_are_apart() {
        assert_ne!(Scope::new("a", "b").id(), Scope::new("ab", "").id());
        assert_ne!(Scope::local_user(0).id(), Scope::local_user(1).id());
    }
}
