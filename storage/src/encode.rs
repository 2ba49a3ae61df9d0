//! [`Encoder`]: the one way to turn structured values into a key.
//!
//! Every field is written as label length, label, value length, value (lengths as 64-bit little
//! endian), so no two different sequences of fields have the same bytes: nothing is ever joined
//! with separators. Sets are sorted before they are written. `std::hash::Hash` is not used: it has
//! neither labels nor a stable encoding.

use crate::digest::Digest;

/// Feeds labelled, length-prefixed fields into a BLAKE3 digest.
///
/// The domain given to [`Encoder::new`] keeps keys of different kinds apart.
#[derive(Debug, Clone)]
pub struct Encoder {
    hasher: blake3::Hasher,
}

impl Encoder {
    /// An encoder for one kind of key, e.g. `"kiln unit key v1"`.
    pub fn new(domain: &str) -> Self {
        let mut encoder = Self { hasher: blake3::Hasher::new() };
        encoder.raw(domain.as_bytes());
        encoder
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// One field of bytes.
    pub fn bytes(&mut self, label: &str, value: &[u8]) -> &mut Self {
        self.raw(label.as_bytes());
        self.raw(value);
        self
    }

    /// One field of text.
    pub fn text(&mut self, label: &str, value: &str) -> &mut Self {
        self.bytes(label, value.as_bytes())
    }

    /// A field that may be missing: missing and empty are different.
    pub fn optional(&mut self, label: &str, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.bytes(label, &[0]),
            Some(value) => {
                self.bytes(label, &[1]);
                self.raw(value);
                self
            }
        }
    }

    /// One number.
    pub fn number(&mut self, label: &str, value: u64) -> &mut Self {
        self.bytes(label, &value.to_le_bytes())
    }

    /// One digest.
    pub fn digest(&mut self, label: &str, value: &Digest) -> &mut Self {
        self.bytes(label, value.as_bytes())
    }

    /// A list, in its order, with its length.
    pub fn list<T: AsRef<[u8]>>(&mut self, label: &str, values: &[T]) -> &mut Self {
        self.raw(label.as_bytes());
        self.hasher.update(&(values.len() as u64).to_le_bytes());
        for value in values {
            self.raw(value.as_ref());
        }
        self
    }

    /// A set: sorted and without repetitions, so that its order does not matter.
    pub fn set<T: AsRef<[u8]>>(&mut self, label: &str, values: &[T]) -> &mut Self {
        let mut sorted: Vec<&[u8]> = values.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.list(label, &sorted)
    }

    /// The digest of all fields.
    pub fn finish(&self) -> Digest {
        Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: impl Fn(&mut Encoder)) -> Digest {
        let mut encoder = Encoder::new("test");
        fill(&mut encoder);
        encoder.finish()
    }

    #[test]
    fn different_fields_never_meet() {
        let all = [
            digest(|e| {
                e.text("a", "bc");
            }),
            digest(|e| {
                e.text("ab", "c");
            }),
            digest(|e| {
                e.text("a", "b").text("c", "");
            }),
            digest(|e| {
                e.optional("a", None);
            }),
            digest(|e| {
                e.optional("a", Some(b""));
            }),
            digest(|e| {
                e.list("a", &["b", "c"]);
            }),
            digest(|e| {
                e.list("a", &["bc"]);
            }),
            digest(|e| {
                e.list::<&str>("a", &[]);
            }),
            Encoder::new("other").finish(),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "field list {i} meets another");
        }
    }

    #[test]
    fn order_matters_in_lists_and_not_in_sets() {
        assert_ne!(
            digest(|e| {
                e.list("a", &["1", "2"]);
            }),
            digest(|e| {
                e.list("a", &["2", "1"]);
            })
        );
        assert_eq!(
            digest(|e| {
                e.set("a", &["1", "2", "1"]);
            }),
            digest(|e| {
                e.set("a", &["2", "1"]);
            })
        );
    }

    /// The encoding is part of the stored format: a change makes every cache cold.
    #[test]
    fn encoding_is_stable() {
        let value = digest(|e| {
            e.text("label", "value").number("n", 1).set("s", &["x"]);
        });
        assert_eq!(
            value.to_string(),
            "c4ea3c768b9ee20993c4a3964e886b8bb9e97a5559c2e2e5e4d8dd950e25303e"
        );
    }
}
