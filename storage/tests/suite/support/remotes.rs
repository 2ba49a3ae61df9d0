//! Results in a backend in memory, for the tests of remotes.

use std::sync::Arc;

use bytes::Bytes;
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::remote::{Arrived, ResultName, Stored};
use kiln_storage::testing::bodies::noise;
use kiln_storage::testing::results::{keep, result, scope};
use kiln_storage::{Backend, Digest, MemoryBackend, ObjectName, Record, Remote, StoreResult};

pub const MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// Sizes of blobs: empty, small, of the size that is tried, and those that are objects of their own.
pub const SIZES: [usize; 5] = [0, 1000, 60_000, 100_000, 600_000];

pub fn memory() -> Arc<dyn Backend> {
    Arc::new(MemoryBackend::new(MEMORY_BYTES))
}

pub fn remote(backend: &Arc<dyn Backend>) -> ObjectRemote {
    ObjectRemote::new(Arc::clone(backend), "memory")
}

/// A result of one of a few units, with blobs of all sizes, one of which all results share.
pub fn some_result(of_unit: usize, value: usize) -> (ResultName, Record, Vec<Bytes>) {
    let mut blobs: Vec<_> =
        SIZES.iter().map(|size| noise((of_unit * 100 + value) as u64, *size)).collect();
    blobs.push(noise(7, 200_000));
    let (name, record) = result(&format!("unit{of_unit}"), &value.to_string(), &blobs);
    (name, record, blobs)
}

pub async fn store(
    remote: &ObjectRemote,
    name: &ResultName,
    record: &Record,
    blobs: &[Bytes],
) -> StoreResult<Stored> {
    let local = MemoryBackend::new(MEMORY_BYTES);
    keep(&local, blobs).await;
    remote.store(name, record, &local).await
}

/// All blobs of what arrived, each checked; the first one that is not to be had.
pub async fn blobs_of(remote: &ObjectRemote, arrived: &Arrived) -> StoreResult<Result<(), Digest>> {
    for (digest, size) in arrived.record.blobs() {
        let along = arrived.blobs.iter().find(|(along, _)| *along == digest);
        let bytes = match along {
            Some((_, bytes)) => bytes.clone(),
            None => match remote.blob(&digest, size).await? {
                None => return Ok(Err(digest)),
                Some(body) => body.into_bytes(&ObjectName::blob(&digest), size).await?,
            },
        };
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
    }
    Ok(Ok(()))
}

pub async fn find(remote: &ObjectRemote, name: &ResultName) -> StoreResult<Vec<Arrived>> {
    remote.lookup(&[scope()], &[name.unit]).await
}
