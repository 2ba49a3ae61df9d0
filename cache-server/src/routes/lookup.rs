//! `POST /v1/lookup`: the hot path of every compiler run. Encoded records go from the index to
//! the wire as they are.

use std::collections::HashSet;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kiln_storage::api::{LookupRequest, LookupResponse, Problem};
use kiln_storage::limits::{MAX_JSON_RESPONSE_BYTES, MAX_LOOKUP_KEYS};
use rusqlite::Connection;

use crate::error::ApiError;
use crate::http::body;
use crate::index::records;
use crate::limits::{FEW_LOOKUP_KEYS, LOOKUP_WAIT};
use crate::principal::Principal;
use crate::service::Service;

/// Records of units and of results. Waits a moment for what is being taken over right now.
#[utoipa::path(
    post,
    path = "/v1/lookup",
    request_body = LookupRequest,
    responses(
        (status = 200, description = "What there is", body = LookupResponse),
        (status = "4XX", description = "Malformed or too many keys", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn lookup(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Response, ApiError> {
    let request: LookupRequest = body::json(request).await?;
    if request.units.len() + request.results.len() > MAX_LOOKUP_KEYS {
        return Err(ApiError::TooLarge("the number of keys"));
    }
    wait(&service, &principal, &request).await;
    let scope = principal.scope_id;
    let few = request.units.len() + request.results.len() <= FEW_LOOKUP_KEYS;
    let read = move |index: &Connection| {
        let mut answer = Answer::default();
        for result in &request.results {
            answer.extend(records::of_result(index, &scope, result)?);
        }
        for unit in &request.units {
            answer.extend(records::of_unit(index, &scope, unit)?);
        }
        Ok(answer)
    };
    let records =
        if few { service.index.read_few(read).await? } else { service.index.read(read).await? };
    let local = principal.local.then(|| service.store.local_dir()).flatten();
    let local = local.and_then(|dir| dir.into_os_string().into_string().ok());
    let json = records.finish(local.as_deref())?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

/// Waits, within a bound, for the index to be whole and for records of these keys that are being
/// taken over.
async fn wait(service: &Service, principal: &Principal, request: &LookupRequest) {
    let keys = request
        .units
        .iter()
        .map(|key| *key.digest())
        .chain(request.results.iter().map(|key| *key.digest()));
    let wait = async {
        if !*service.complete.borrow() {
            let mut complete = service.complete.subscribe();
            let _ = complete.wait_for(|complete| *complete).await;
        }
        service.pending.wait(&principal.scope_id, keys).await;
    };
    let _ = tokio::time::timeout(LOOKUP_WAIT, wait).await;
}

/// Encoded records, each once, up to what a client reads.
#[derive(Debug, Default)]
struct Answer {
    seen: HashSet<i64>,
    bodies: Vec<Vec<u8>>,
    bytes: usize,
}

impl Answer {
    /// Adds records until the answer is full; what is left out is a miss.
    fn extend(&mut self, found: impl IntoIterator<Item = (i64, Vec<u8>)>) {
        for (id, body) in found {
            let room = self.bytes + body.len() + 2 * MAX_ROW_OVERHEAD <= MAX_JSON_RESPONSE_BYTES;
            if room && self.seen.insert(id) {
                self.bytes += body.len() + 1;
                self.bodies.push(body);
            }
        }
    }

    /// The JSON of a [`LookupResponse`].
    fn finish(self, local_store: Option<&str>) -> Result<Bytes, ApiError> {
        let mut json = Vec::with_capacity(self.bytes + MAX_ROW_OVERHEAD);
        json.extend_from_slice(b"{\"records\":[");
        for (i, body) in self.bodies.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json.extend_from_slice(body);
        }
        json.push(b']');
        if let Some(dir) = local_store {
            json.extend_from_slice(b",\"local_store\":");
            serde_json::to_writer(&mut json, dir)
                .map_err(|error| ApiError::Internal(error.to_string()))?;
        }
        json.push(b'}');
        Ok(json.into())
    }
}

/// More than what is around the records.
const MAX_ROW_OVERHEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_json_of_its_type() {
        let mut answer = Answer::default();
        let json = |answer: Answer, dir| answer.finish(dir).unwrap();
        let parsed: LookupResponse =
            serde_json::from_slice(&json(Answer::default(), None)).unwrap();
        assert_eq!(parsed, LookupResponse::default());
        answer.extend([(1, b"1".to_vec()), (2, b"2".to_vec()), (1, b"1".to_vec())]);
        assert_eq!(
            json(answer, Some("/a\"b")),
            br#"{"records":[1,2],"local_store":"/a\"b"}"#.as_slice()
        );
    }

    #[test]
    fn the_answer_is_bounded() {
        let mut answer = Answer::default();
        for id in 0..40 {
            answer.extend([(id, vec![b' '; 1024 * 1024])]);
        }
        assert!(answer.bodies.len() < 33);
        assert!(answer.finish(None).unwrap().len() <= MAX_JSON_RESPONSE_BYTES);
    }
}
