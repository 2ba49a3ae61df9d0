//! [`KnowsLeases`]: who compiles what, asked of a place that knows it: another Kiln server.

use async_trait::async_trait;

use super::Arrived;
use crate::api::{HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, ReleaseRequest};
use crate::backend::StoreResult;
use crate::key::{ResultKey, Scope};

/// A place that knows who compiles what. A call that is dropped hangs up there, which tells it that whoever asked is
/// gone.
#[async_trait]
pub trait KnowsLeases: Send + Sync {
    /// Asks for a lease; none: the place is too old to know leases. Waits as long as the request says and a
    /// moment more.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn ask_lease(&self, request: &LeaseRequest) -> StoreResult<Option<LeaseResponse>>;

    /// Says that the holder of a lease lives; whether it has the lease.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn hold_lease(&self, id: &str, request: HoldRequest) -> StoreResult<bool>;

    /// Says how a lease ended; whether it was there.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn release_lease(&self, id: &str, outcome: ReleaseRequest) -> StoreResult<bool>;

    /// Who compiles what, of a run or of all; none: the place does not tell. The query is one of `GET /v1/leases`, as it
    /// stands in a URL.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list_leases(&self, query: Option<&str>) -> StoreResult<Option<LeasesResponse>>;

    /// A result that was told of instead of a lease, if it is there; the scope is given back.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn told_result(&self, scope: &Scope, result: ResultKey) -> StoreResult<Option<Arrived>>;
}
