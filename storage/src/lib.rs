//! What every part of Kiln shares: the words (digests, keys, records, wire types) and the places
//! that keep objects (backends and the layers over them), here and far away.
//!
//! This crate knows nothing of rustc, of serving HTTP, or of the environment.

pub mod api;
pub mod backend;
pub mod calendar;
pub mod digest;
pub mod disk;
pub mod encode;
pub mod entry;
pub mod eviction;
pub mod key;
pub mod limits;
pub mod memory;
pub mod object;
pub mod output;
pub mod parts;
pub mod reasons;
pub mod record;
pub mod remote;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tiered;
pub mod verify;

pub use backend::{Backend, Body, Listed, Put, StoreError, StoreResult};
pub use digest::Digest;
pub use disk::{DiskBackend, DiskOptions, DiskStore};
pub use key::{LeaseKey, ObjectName, ResultKey, Scope, UnitKey};
pub use memory::MemoryBackend;
pub use object::{ObjectBackend, ObjectOptions};
pub use record::Record;
pub use remote::Remote;
pub use tiered::Tiered;
pub use verify::Verified;
