//! Every backend and every layer runs the conformance and model suites.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use kiln_storage::disk::{DiskBackend, DiskOptions};
use kiln_storage::testing::faults::{FaultBackend, Faults};
use kiln_storage::testing::{conformance, model};
use kiln_storage::tiered::{Tiered, Writes};
use kiln_storage::{Backend, MemoryBackend, Verified};
use proptest::prelude::*;

const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

fn memory() -> MemoryBackend {
    MemoryBackend::new(MEMORY_BYTES)
}

/// Directories that last as long as the test.
struct Directories(tempfile::TempDir);

impl Directories {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A disk backend in a new directory.
    fn disk(&self) -> DiskBackend {
        let dir = tempfile::tempdir_in(self.0.path()).unwrap().keep();
        DiskBackend::open(dir, DiskOptions::default()).unwrap()
    }
}

fn tiered(fast: impl Backend + 'static, slow: impl Backend + 'static, writes: Writes) -> Tiered {
    Tiered::new(Arc::new(fast), Arc::new(slow), writes)
}

mod conforms {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memory_backend() {
        conformance::run(async || memory()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn disk_backend() {
        let dirs = Directories::new();
        conformance::run(async || dirs.disk()).await;
    }

    /// Two processes on one directory are two stores that share nothing in memory.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_disk_backends_on_one_directory() {
        let dirs = Directories::new();
        conformance::run(async || {
            let one = dirs.disk();
            let dir = one.store().dir().to_owned();
            let two = DiskBackend::open(dir, DiskOptions::default()).unwrap();
            tiered(one, two, Writes::Slow)
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_backend_behind_a_pointer() {
        conformance::run(async || Arc::new(memory()) as Arc<dyn Backend>).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn verified_memory() {
        conformance::run(async || Verified::new(memory())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn verified_disk() {
        let dirs = Directories::new();
        conformance::run(async || Verified::new(dirs.disk())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn tiers_in_every_mode() {
        let dirs = Directories::new();
        for writes in [Writes::Both, Writes::Fast, Writes::Slow] {
            conformance::run(async || tiered(memory(), dirs.disk(), writes)).await;
            conformance::run(async || tiered(dirs.disk(), memory(), writes)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_verified_tier_before_a_verified_tier() {
        let dirs = Directories::new();
        conformance::run(async || {
            let far = Verified::new(memory());
            tiered(Verified::new(dirs.disk()), far, Writes::Both)
        })
        .await;
    }

    /// A fast tier that keeps next to nothing changes no answer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_tier_that_is_too_small() {
        conformance::run(async || tiered(MemoryBackend::new(4096), memory(), Writes::Both)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_fault_tool_without_faults() {
        conformance::run(async || FaultBackend::new(memory(), Faults::Never)).await;
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory_does_what_a_map_does(operations in model::operations()) {
        block_on(model::check_exact(&memory(), &operations))?;
    }

    #[test]
    fn disk_does_what_a_map_does(operations in model::operations()) {
        let dirs = Directories::new();
        block_on(model::check_exact(&dirs.disk(), &operations))?;
    }

    #[test]
    fn verified_disk_does_what_a_map_does(operations in model::operations()) {
        let dirs = Directories::new();
        block_on(model::check_exact(&Verified::new(dirs.disk()), &operations))?;
    }

    #[test]
    fn tiers_do_what_a_map_does(operations in model::operations(), slow in any::<bool>()) {
        let dirs = Directories::new();
        let writes = if slow { Writes::Slow } else { Writes::Both };
        let tiers = tiered(MemoryBackend::new(200_000), dirs.disk(), writes);
        block_on(model::check_exact(&tiers, &operations))?;
    }

    #[test]
    fn verified_never_returns_wrong_bytes(
        operations in model::operations(),
        faults in model::faults(),
    ) {
        let (verified, stop) = model::verified_with_faults(faults);
        block_on(model::check_faulted(&verified, stop, &operations))?;
    }

    #[test]
    fn tiers_over_a_faulty_remote_never_return_wrong_bytes(
        operations in model::operations(),
        faults in model::faults(),
    ) {
        let dirs = Directories::new();
        let (far, stop) = model::verified_with_faults(faults);
        let tiers = tiered(Verified::new(dirs.disk()), far, Writes::Both);
        block_on(model::check_faulted(&tiers, stop, &operations))?;
    }

    #[test]
    fn tiers_over_a_faulty_fast_tier_never_return_wrong_bytes(
        operations in model::operations(),
        faults in model::faults(),
    ) {
        let (near, stop) = model::verified_with_faults(faults);
        let tiers = tiered(near, memory(), Writes::Both);
        block_on(model::check_faulted(&tiers, stop, &operations))?;
    }
}
