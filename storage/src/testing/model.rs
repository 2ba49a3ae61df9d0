//! Random sequences of operations against a reference: [`check_exact`] for a backend that has to do
//! what a map does, [`check_faulted`] for one that has to survive a store with faults.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::bodies::{KINDS, Kind, blob_name, body, list, name, noise, read};
use super::faults::{FaultBackend, Faults};
use crate::backend::{Backend, Put};
use crate::key::ObjectName;
use crate::memory::MemoryBackend;
use crate::verify::Verified;

/// Objects that the operations are about; the first half are blobs.
const OBJECTS: usize = 8;
/// Bytes that are offered under the name of a record.
const VERSIONS: u64 = 3;

/// One operation on one of a few objects.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Read it.
    Get(usize),
    /// Offer one of its versions as one kind of body.
    Put(usize, u64, Kind),
    /// Ask for its size.
    Size(usize),
    /// Delete it.
    Delete(usize),
    /// List everything.
    List,
}

/// Sequences of operations.
pub fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let object = 0..OBJECTS;
    let kind = proptest::sample::select(&KINDS[..]);
    let operation = prop_oneof![
        3 => object.clone().prop_map(Operation::Get),
        3 => (object.clone(), 0..VERSIONS, kind)
            .prop_map(|(object, version, kind)| Operation::Put(object, version, kind)),
        1 => object.clone().prop_map(Operation::Size),
        1 => object.prop_map(Operation::Delete),
        1 => Just(Operation::List),
    ];
    proptest::collection::vec(operation, 1..60)
}

/// Faults from a random seed, from none to one in three calls.
pub fn faults() -> impl Strategy<Value = Faults> {
    (any::<u64>(), 0_u16..333).prop_map(|(seed, per_mille)| Faults::Seeded {
        seed,
        per_mille,
        faults: super::faults::ALL_FAULTS.to_vec(),
    })
}

/// The bytes of a version of an object. A blob has one version; sizes are around every bound at
/// which backends and layers change their ways.
fn content(object: usize, version: u64) -> Bytes {
    const SIZES: [usize; 4] = [0, 700, 70_000, 1_200_000];
    let version = if object < OBJECTS / 2 { 0 } else { version };
    let size = SIZES[object % SIZES.len()] + version as usize;
    noise(object as u64 * VERSIONS + version, size)
}

fn object_name(object: usize) -> ObjectName {
    if object < OBJECTS / 2 {
        blob_name(&content(object, 0))
    } else {
        name(&format!("records/{}/{object}.0", object % 2))
    }
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// Does the operations on an empty backend and on a map, and compares every answer.
///
/// # Errors
/// The first answer that differs.
pub async fn check_exact(
    backend: &dyn Backend,
    operations: &[Operation],
) -> Result<(), TestCaseError> {
    let mut model: HashMap<ObjectName, Bytes> = HashMap::new();
    for operation in operations {
        match *operation {
            Operation::Get(object) => {
                let name = object_name(object);
                let found = read(backend, &name).await.map_err(failed)?;
                prop_assert!(found.as_ref() == model.get(&name), "get {}", name);
            }
            Operation::Put(object, version, kind) => {
                let (name, bytes) = (object_name(object), content(object, version));
                let put = backend.put_if_absent(&name, body(&bytes, kind)).await;
                let expected = match model.contains_key(&name) {
                    true => Put::AlreadyThere,
                    false => Put::Created,
                };
                prop_assert_eq!(put.map_err(failed)?, expected, "put {}", name);
                model.entry(name).or_insert(bytes);
            }
            Operation::Size(object) => {
                let name = object_name(object);
                let found = backend.size(&name).await.map_err(failed)?;
                let expected = model.get(&name).map(|bytes| bytes.len() as u64);
                prop_assert_eq!(found, expected, "size {}", name);
            }
            Operation::Delete(object) => {
                let name = object_name(object);
                let deleted = backend.delete(&name).await.map_err(failed)?;
                prop_assert_eq!(deleted, model.remove(&name).is_some(), "delete {}", name);
            }
            Operation::List => {
                let mut expected: Vec<_> = model.keys().cloned().collect();
                expected.sort();
                prop_assert_eq!(list(backend, "").await.map_err(failed)?, expected);
            }
        }
    }
    Ok(())
}

/// Does the operations on `upper`, a backend over a store with faults. Whatever fails, no read may
/// return bytes that were never offered under its name. Then `stop` ends the faults, and the
/// store has to heal: what is offered can be read.
///
/// # Errors
/// The first wrong bytes, or what does not heal.
pub async fn check_faulted(
    upper: &dyn Backend,
    stop: impl FnOnce(),
    operations: &[Operation],
) -> Result<(), TestCaseError> {
    let mut offered: HashMap<ObjectName, Vec<Bytes>> = HashMap::new();
    for operation in operations {
        match *operation {
            Operation::Get(object) => {
                let name = object_name(object);
                // A failure is no answer; a body may fail on its way.
                if let Ok(Some(found)) = read(upper, &name).await {
                    let known = offered.get(&name).is_some_and(|all| all.contains(&found));
                    prop_assert!(known, "{} returned bytes nobody offered", name);
                }
            }
            Operation::Put(object, version, kind) => {
                let (name, bytes) = (object_name(object), content(object, version));
                let _ = upper.put_if_absent(&name, body(&bytes, kind)).await;
                offered.entry(name).or_default().push(bytes);
            }
            Operation::Size(object) => drop(upper.size(&object_name(object)).await),
            Operation::Delete(object) => drop(upper.delete(&object_name(object)).await),
            Operation::List => drop(list(upper, "").await),
        }
    }
    stop();
    for object in 0..OBJECTS {
        let (name, bytes) = (object_name(object), content(object, 0));
        // The read finds damage and removes it, so that the put is taken.
        let _ = read(upper, &name).await;
        let put = upper.put_if_absent(&name, body(&bytes, Kind::Bytes)).await;
        offered.entry(name.clone()).or_default().push(bytes.clone());
        let after = read(upper, &name).await.map_err(failed)?;
        match put.map_err(failed)? {
            Put::Created => prop_assert!(after == Some(bytes), "{} did not heal", name),
            Put::AlreadyThere => {
                let known = after.is_some_and(|found| offered[&name].contains(&found));
                prop_assert!(known, "{} is neither there nor can be stored", name);
            }
        }
    }
    Ok(())
}

/// [`Verified`] over a memory store with faults, and the switch that ends them.
pub fn verified_with_faults(
    faults: Faults,
) -> (Verified<FaultBackend<MemoryBackend>>, impl FnOnce()) {
    let faulty = FaultBackend::new(MemoryBackend::new(256 * 1024 * 1024), faults);
    let switch = faulty.clone();
    (Verified::new(faulty), move || switch.set(Faults::Never))
}
