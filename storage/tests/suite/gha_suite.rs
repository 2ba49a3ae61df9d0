//! The GitHub Actions cache as a remote keeps the promises of the trait: the suite of all remotes, on both
//! faces of the fake, and with lookups that lag.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use crate::gha_support::{Face, MAIN, MINUTE, settings};
use async_trait::async_trait;
use kiln_storage::Remote;
use kiln_storage::remote::gha::GhaRemote;
use kiln_storage::testing::gha::{Behaviour, FakeCache, READ_WRITE};
use kiln_storage::testing::remotes::{self, Place};
use proptest::prelude::*;

struct Cache(FakeCache, Face);

#[async_trait]
impl Place for Cache {
    fn client(&self) -> Box<dyn Remote> {
        let mut settings = settings(&self.0, self.1, &[(MAIN, READ_WRITE)]);
        settings.sharers = 4;
        // Connections end with the runtime of a case.
        settings.client = None;
        Box::new(GhaRemote::new(settings).unwrap())
    }

    async fn later(&self) {
        self.0.clock().advance(MINUTE * 2);
    }
}

#[tokio::test]
async fn the_promises_of_the_trait_are_kept() {
    for face in [Face::V2, Face::V1] {
        remotes::conformance(async || Cache(FakeCache::start(Behaviour::default()).await, face))
            .await;
    }
}

fn run(behaviour: Behaviour, steps: &[remotes::Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = Cache(FakeCache::start(behaviour).await, Face::V2);
        remotes::model(&cache, steps).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn clients_agree_with_the_model(steps in remotes::steps()) {
        run(Behaviour::default(), &steps);
    }

    #[test]
    fn clients_agree_with_the_model_while_lookups_lag(steps in remotes::steps()) {
        run(Behaviour { lag: Duration::from_secs(90), ..Behaviour::default() }, &steps);
    }
}
