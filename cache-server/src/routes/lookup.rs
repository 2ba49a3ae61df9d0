//! `POST /v1/lookup`: the hot path of every compiler run. Encoded records go from the index to
//! the wire as they are.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use kiln_storage::api::{LookupRequest, LookupResponse, Problem};
use kiln_storage::limits::{MAX_JSON_RESPONSE_BYTES, MAX_LOOKUP_KEYS, MAX_RECORDS_PER_UNIT};
use kiln_storage::remote::via;
use kiln_storage::{ResultKey, UnitKey};
use rusqlite::Connection;
use serde::Serialize;

use crate::error::ApiError;
use crate::http::body;
use crate::index::quarantine;
use crate::index::records::{self, Found};
use crate::limits::{FEW_LOOKUP_KEYS, LOOKUP_ANSWER, LOOKUP_WAIT, MAX_QUESTION_BYTES};
use crate::principal::Principal;
use crate::remote::ways::Way;
use crate::remote::{ahead, through};
use crate::service::Service;

/// Records of units and of results. Waits a moment for what is being taken over right now, and asks what
/// is behind the server for units of which nothing is here.
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
    let edge = service.edge.as_ref();
    let mut ways = edge.map(|edge| edge.ways(&principal)).unwrap_or_default();
    let edge = edge.filter(|_| !ways.is_empty());
    let through = edge.and_then(|edge| edge.via(&service.log, request.headers()));
    if through.is_none() {
        ways.clear();
    }
    let request: LookupRequest = body::json_within(request, MAX_QUESTION_BYTES).await?;
    let answered = answer(&service, &principal, request, ways);
    let begun = Instant::now();
    let answer = match through {
        Some(through) => via::within(through, answered).await,
        None => answered.await,
    };
    if answer.is_ok() {
        service.metrics.lookup(begun.elapsed());
    }
    answer
}

/// The answer; `ways`: how what is behind the server is asked, too.
async fn answer(
    service: &Service,
    principal: &Principal,
    request: LookupRequest,
    mut ways: Vec<Way>,
) -> Result<Response, ApiError> {
    let keys = request.units.len() + request.results.len();
    if keys > MAX_LOOKUP_KEYS || request.known.len() > MAX_LOOKUP_KEYS {
        return Err(ApiError::TooLarge("the number of keys"));
    }
    let deadline = Instant::now() + LOOKUP_ANSWER;
    wait(service, principal, &request).await;
    let own = principal.farther().filter(|_| !ways.is_empty());
    if let (Some(job), Some(own)) = (request.job.as_ref(), own)
        && !ahead::touch(service, own, (job, &request.units), deadline).await
    {
        // Whoever has waited for one question in vain does not wait for another one.
        ways.clear();
    }
    let request = Arc::new(request);
    let mut answer = read(service, principal, &request).await?;
    if let Some(edge) = service.edge.as_ref().filter(|_| !ways.is_empty()) {
        let deep = !request.known.is_empty();
        let wanted: Vec<UnitKey> = request
            .units
            .iter()
            .filter(|unit| deep || !answer.units.contains(unit))
            .copied()
            .collect();
        if !wanted.is_empty() {
            let question = through::Question {
                units: wanted,
                known: request.known.clone(),
                results: if deep { request.results.clone() } else { Vec::new() },
            };
            through::look(service, &ways, &question, deadline).await;
            // Also when it was not asked: what another one asked for may have come meanwhile.
            answer = read(service, principal, &request).await?;
        }
        let open = |way: &Way| {
            !through::open_questions(edge, &way.here.id, &request.units, true).is_empty()
        };
        let more = !answer.units.is_empty() && ways.iter().any(open);
        answer.farther = !deep && more;
    }
    let local = principal.local().then(|| service.store.local_dir()).flatten();
    let local = local.and_then(|dir| dir.into_os_string().into_string().ok());
    let json = answer.finish(local)?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

/// What the index has for a request.
async fn read(
    service: &Service,
    principal: &Principal,
    request: &Arc<LookupRequest>,
) -> Result<Answer, ApiError> {
    let (scopes, is_edge) = (principal.read_ids(), service.edge.is_some());
    let few = request.units.len() + request.results.len() <= FEW_LOOKUP_KEYS;
    let request = request.clone();
    let read = move |index: &Connection| {
        let mut answer = Answer::default();
        for result in &request.results {
            for scope in &scopes {
                let found = records::of_result(index, scope, result, is_edge)?;
                answer.extend(good(index, &scopes, found)?);
            }
        }
        for unit in &request.units {
            let mut left = MAX_RECORDS_PER_UNIT;
            for scope in &scopes {
                let found = records::of_unit(index, scope, unit, (&request.known, is_edge))?;
                let found = good(index, &scopes, found)?;
                if !found.is_empty() {
                    answer.units.insert(*unit);
                }
                let new = answer.unseen(found);
                left -= answer.extend(new.into_iter().take(left));
            }
        }
        Ok(answer)
    };
    Ok(if few { service.index.read_few(read).await? } else { service.index.read(read).await? })
}

/// Those of some records that are quarantined in no scope that is read. In its own scope none is; what proved wrong
/// in one is not answered from another either.
fn good(
    index: &Connection,
    scopes: &[String],
    found: impl IntoIterator<Item = Found>,
) -> rusqlite::Result<Vec<Found>> {
    let mut good = Vec::new();
    for one in found {
        if scopes.len() == 1 || !quarantine::in_any(index, scopes, &one.result_key)? {
            good.push(one);
        }
    }
    Ok(good)
}

/// Waits, within a bound, for the index to be whole and for records of these keys that are being
/// taken over.
async fn wait(service: &Service, principal: &Principal, request: &LookupRequest) {
    let keys = || {
        let units = request.units.iter().map(|key| *key.digest());
        units.chain(request.results.iter().map(|key| *key.digest()))
    };
    let wait = async {
        if !*service.complete.borrow() {
            let mut complete = service.complete.subscribe();
            let _ = complete.wait_for(|complete| *complete).await;
        }
        for scoped in &principal.reads {
            service.pending.wait(&scoped.id, keys()).await;
        }
    };
    let _ = tokio::time::timeout(LOOKUP_WAIT, wait).await;
}

/// Encoded records, each once, up to what a client reads.
#[derive(Debug, Default)]
struct Answer {
    seen: HashSet<ResultKey>,
    bodies: Vec<Vec<u8>>,
    bytes: usize,
    /// Units that have records.
    units: HashSet<UnitKey>,
    absent: Vec<ResultKey>,
    arrived: Vec<ResultKey>,
    farther: bool,
}

/// What stands behind the records in a [`LookupResponse`].
#[derive(Serialize)]
struct Rest {
    #[serde(skip_serializing_if = "Option::is_none")]
    local_store: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<ResultKey>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arrived: Vec<ResultKey>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    farther: bool,
}

impl Answer {
    /// Those of some records whose result it does not have: of two scopes that have one, the first answers.
    fn unseen(&self, mut found: Vec<Found>) -> Vec<Found> {
        found.retain(|one| !self.seen.contains(&one.result_key));
        found
    }

    /// Adds records until the answer is full; what is left out is a miss. How many it was given.
    fn extend(&mut self, found: impl IntoIterator<Item = Found>) -> usize {
        let mut given = 0;
        for Found { result_key, body, absent, arrived, .. } in found {
            given += 1;
            // Its key may be named twice more.
            let bytes = body.len() + 1 + 2 * KEY_BYTES;
            let room = self.bytes + bytes + 2 * MAX_ROW_OVERHEAD <= MAX_JSON_RESPONSE_BYTES;
            if room && self.seen.insert(result_key) {
                self.bytes += bytes;
                self.bodies.push(body);
                self.absent.extend(absent.then_some(result_key));
                self.arrived.extend(arrived.then_some(result_key));
            }
        }
        given
    }

    /// The JSON of a [`LookupResponse`].
    fn finish(self, local_store: Option<String>) -> Result<Bytes, ApiError> {
        let mut json = Vec::with_capacity(self.bytes + MAX_ROW_OVERHEAD);
        json.extend_from_slice(b"{\"records\":[");
        for (i, body) in self.bodies.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json.extend_from_slice(body);
        }
        json.push(b']');
        let Self { absent, arrived, farther, .. } = self;
        let rest = Rest { local_store, absent, arrived, farther };
        let rest =
            serde_json::to_vec(&rest).map_err(|error| ApiError::Internal(error.to_string()))?;
        // The fields of the one object go on in the other.
        if rest != b"{}" {
            json.push(b',');
        }
        json.extend_from_slice(rest.get(1..).unwrap_or(b"}"));
        Ok(json.into())
    }
}

/// A key in JSON, with its quotes and its comma.
const KEY_BYTES: usize = 67;

/// More than what is around the records.
const MAX_ROW_OVERHEAD: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::Digest;

    fn found(id: i64, body: Vec<u8>) -> Found {
        let result_key = ResultKey::new(Digest::of(&id.to_le_bytes()));
        Found { id, result_key, body, absent: false, arrived: false }
    }

    #[test]
    fn the_answer_is_the_json_of_its_type() {
        let mut answer = Answer::default();
        let json =
            |answer: Answer, dir: Option<&str>| answer.finish(dir.map(str::to_owned)).unwrap();
        let parse = |bytes: &[u8]| serde_json::from_slice::<LookupResponse>(bytes).unwrap();
        assert_eq!(parse(&json(Answer::default(), None)), LookupResponse::default());
        answer.extend([(1, "1"), (2, "2"), (1, "1")].map(|(id, body)| found(id, body.into())));
        assert_eq!(
            json(answer, Some("/a\"b")),
            br#"{"records":[1,2],"local_store":"/a\"b"}"#.as_slice()
        );
        let mut answer = Answer { farther: true, ..Answer::default() };
        answer.absent.push(found(1, Vec::new()).result_key);
        answer.arrived = answer.absent.clone();
        let parsed = parse(&json(answer, None));
        assert!(parsed.farther && parsed.absent.len() == 1 && parsed.arrived == parsed.absent);
    }

    #[test]
    fn the_answer_is_bounded() {
        let mut answer = Answer::default();
        for id in 0..40 {
            answer.extend([found(id, vec![b' '; 1024 * 1024])]);
        }
        assert!(answer.bodies.len() < 33);
        assert!(answer.finish(None).unwrap().len() <= MAX_JSON_RESPONSE_BYTES);
    }
}
