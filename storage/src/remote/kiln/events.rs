//! Events for another Kiln server, and what it tells of runs. Called by [`super`].

use bytes::Bytes;
use reqwest::{Method, StatusCode};

use super::KilnRemote;
use super::http::{Answer, Refused, json};
use crate::api::EventsRequest;
use crate::backend::{StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;
use crate::limits;
use crate::remote::events::{EventBatch, Page};

impl KilnRemote {
    pub(super) async fn send_events(&self, batch: &EventBatch) -> StoreResult<()> {
        for events in batch.events.chunks(limits::MAX_EVENTS) {
            let body = json(&EventsRequest { events: events.to_vec() })?;
            let size = body.len() as u64;
            match self.http.ask(Method::POST, "/v1/events", body).await? {
                Answer::Good(_) => {}
                Answer::Refused(Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) => {
                    // For the error only.
                    let name = ObjectName::blob(&Digest::of(batch.run.as_bytes()));
                    return Err(StoreError::TooLarge { name, size });
                }
                Answer::Refused(refused) => return Err(refused.of_read()),
            }
        }
        Ok(())
    }

    pub(super) async fn page(&self, path: &str) -> StoreResult<Option<Page>> {
        match self.http.ask(Method::GET, path, Bytes::new()).await? {
            Answer::Good(response) => {
                Ok(Some(self.http.read(response, limits::MAX_JSON_RESPONSE_BYTES).await?))
            }
            Answer::Refused(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Answer::Refused(refused) => Err(refused.of_read()),
        }
    }
}
