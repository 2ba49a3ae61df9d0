//! Results as objects keep the promises of a remote: the suite of all remotes, over memory and over a disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_storage::disk::{DiskBackend, DiskOptions};
use kiln_storage::remote::objects::ObjectRemote;
use kiln_storage::testing::remotes::{self, Place};
use kiln_storage::testing::stamped::Stamped;
use kiln_storage::{Backend, MemoryBackend, Remote};
use proptest::prelude::*;

/// A backend, and a directory that lasts as long where it needs one.
struct Objects {
    backend: Stamped,
    _dir: Option<tempfile::TempDir>,
}

impl Objects {
    fn in_memory() -> Self {
        Self { backend: Stamped::new(Arc::new(MemoryBackend::new(1 << 30))), _dir: None }
    }

    fn on_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskBackend::open(dir.path(), DiskOptions::default()).unwrap();
        Self { backend: Stamped::new(Arc::new(disk)), _dir: Some(dir) }
    }
}

#[async_trait]
impl Place for Objects {
    fn client(&self) -> Box<dyn Remote> {
        let backend: Arc<dyn Backend> = Arc::new(self.backend.clone());
        Box::new(ObjectRemote::new(backend, "objects"))
    }

    async fn later(&self) {
        self.backend.advance(Duration::from_secs(2));
    }
}

#[tokio::test]
async fn the_promises_of_the_trait_are_kept_in_memory() {
    remotes::conformance(async || Objects::in_memory()).await;
}

#[tokio::test]
async fn the_promises_of_the_trait_are_kept_on_a_disk() {
    remotes::conformance(async || Objects::on_disk()).await;
}

fn run(place: &Objects, steps: &[remotes::Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(remotes::model(place, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn clients_agree_with_the_model_in_memory(steps in remotes::steps()) {
        run(&Objects::in_memory(), &steps);
    }

    #[test]
    fn clients_agree_with_the_model_on_a_disk(steps in remotes::steps()) {
        run(&Objects::on_disk(), &steps);
    }
}
