//! Leases of another Kiln server. Called by whoever passes questions for them on.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::KilnRemote;
use super::http::{Answer, Refused, json};
use crate::api::{
    HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, LookupRequest, ReleaseRequest,
};
use crate::backend::{StoreError, StoreResult};
use crate::key::{ResultKey, Scope};
use crate::limits;
use crate::remote::Arrived;
use crate::remote::lease::KnowsLeases;

/// Statuses of a path that a server does not know.
const UNKNOWN: [StatusCode; 2] = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];

impl KilnRemote {
    /// The answer to a question about leases, which may take a time; none: the server knows nothing of that.
    async fn of_leases(
        &self,
        (method, path): (Method, &str),
        body: Bytes,
        takes: Duration,
    ) -> StoreResult<Option<reqwest::Response>> {
        let answer = timeout(takes + limits::LEASE_ANSWER, self.http.ask(method, path, body));
        let late = |_| StoreError::Unavailable("it does not answer in time".into());
        match answer.await.map_err(late)?? {
            Answer::Good(response) => Ok(Some(response)),
            Answer::Refused(Refused { status, .. }) if UNKNOWN.contains(&status) => Ok(None),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }

    async fn parsed<T: DeserializeOwned>(&self, response: reqwest::Response) -> StoreResult<T> {
        let body = self.http.read(response, limits::MAX_JSON_RESPONSE_BYTES).await?;
        let foreign = |_| StoreError::Unavailable("its answer is none of a Kiln server".into());
        serde_json::from_slice(&body).map_err(foreign)
    }

    /// Says something about a lease; whether it is there.
    async fn of_lease(
        &self,
        (id, what): (&str, &str),
        body: &(impl Serialize + Sync),
        takes: Duration,
    ) -> StoreResult<bool> {
        let path = format!("/v1/leases/{id}/{what}");
        let answer = self.of_leases((Method::POST, &path), json(body)?, takes);
        Ok(answer.await?.is_some())
    }
}

#[async_trait]
impl KnowsLeases for KilnRemote {
    async fn ask_lease(&self, request: &LeaseRequest) -> StoreResult<Option<LeaseResponse>> {
        let takes = Duration::from_millis(request.wait_ms);
        let answer = self.of_leases((Method::POST, "/v1/leases"), json(request)?, takes);
        match answer.await? {
            Some(response) => self.parsed(response).await.map(Some),
            None => Ok(None),
        }
    }

    async fn hold_lease(&self, id: &str, request: HoldRequest) -> StoreResult<bool> {
        self.of_lease((id, "hold"), &request, limits::LEASE_HOLD).await
    }

    async fn release_lease(&self, id: &str, outcome: ReleaseRequest) -> StoreResult<bool> {
        self.of_lease((id, "release"), &outcome, Duration::ZERO).await
    }

    async fn list_leases(&self, query: Option<&str>) -> StoreResult<Option<LeasesResponse>> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/v1/leases{query}");
        match self.of_leases((Method::GET, &path), Bytes::new(), Duration::ZERO).await? {
            Some(response) => self.parsed(response).await.map(Some),
            None => Ok(None),
        }
    }

    async fn told_result(&self, scope: &Scope, result: ResultKey) -> StoreResult<Option<Arrived>> {
        let request = LookupRequest { results: vec![result], ..LookupRequest::default() };
        Ok(self.look(std::slice::from_ref(scope), request).await?.arrived.pop())
    }
}
