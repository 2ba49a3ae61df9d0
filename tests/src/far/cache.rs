//! [`Cache`]: the GitHub Actions cache of a repository, and what a job of a ref is told of it.

use kiln_storage::testing::gha::{Behaviour, FakeCache, token};
use tokio::runtime::Runtime;

use super::bucket::runtime;
use crate::call::Call;

/// Which of the two services a job is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// That of github.com.
    V2,
    /// That of Forgejo, Gitea, act and GitHub Enterprise Server.
    V1,
}

/// A cache of one repository.
#[derive(Debug)]
pub struct Cache {
    fake: FakeCache,
    face: Face,
    _runtime: Runtime,
}

impl Cache {
    /// An empty one.
    pub fn start(face: Face) -> Self {
        let runtime = runtime();
        let fake = runtime.block_on(FakeCache::start(Behaviour::default()));
        Self { fake, face, _runtime: runtime }
    }

    /// The service.
    pub fn fake(&self) -> &FakeCache {
        &self.fake
    }

    /// A call in a job whose token has these scopes and rights, the own one first.
    pub fn job(&self, call: Call, scopes: &[(&str, u8)]) -> Call {
        let call = call.env("KILN_STORAGE", "gha://").env("KILN_JOB", "dev");
        let call = call.env("ACTIONS_RUNTIME_TOKEN", token(scopes));
        match self.face {
            Face::V2 => call
                .env("ACTIONS_RESULTS_URL", self.fake.results_url())
                .env("ACTIONS_CACHE_SERVICE_V2", "True"),
            Face::V1 => call.env("ACTIONS_CACHE_URL", self.fake.cache_url()),
        }
    }
}
