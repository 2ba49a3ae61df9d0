//! [`take`]: removes some results here, and in the place behind the server where they went or came from.
//!
//! The objects of records go first, then the rows: whoever is cut off in between is asked again and finds the rows. A
//! blob goes with the last result that names it. Nothing is published meanwhile. What is being sent at that moment is
//! taken back by who sends it ([`crate::remote::outbox`]).

use std::time::Instant;

use futures_util::StreamExt as _;
use kiln_storage::ObjectName;
use kiln_storage::remote::ResultName;
use rusqlite::Connection;
use tokio::time::timeout;

use super::BehindIt;
use crate::error::ApiError;
use crate::index::evicted::{self, Evicted};
use crate::index::makers::{self, Of};
use crate::index::outbox::{self, Meanwhile};
use crate::index::{owners, records};
use crate::limits::{REVOKE_BEHIND, REVOKE_DELETES, REVOKE_FAULTS};
use crate::maker;
use crate::remote::Edge;
use crate::service::Service;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Objects that are still there.
    pub stay: u64,
    /// Why.
    pub stay_why: Option<String>,
    /// What became of the results behind the server.
    pub behind: Option<BehindIt>,
}

/// Removes results; `here`: nothing is taken back behind the server.
///
/// # Errors
/// What the index fails with. A store that takes no writes keeps the objects; the results are forgotten all the same.
pub(crate) async fn take(
    service: &Service,
    results: Vec<Of>,
    here: bool,
) -> Result<Taken, ApiError> {
    let mut taken = Taken::default();
    // No record becomes visible meanwhile, and nothing is evicted.
    let guard = service.commit.lock().await;
    let records = results.iter().flat_map(|Of { place, .. }| {
        let (unit, key) = (&place.unit_key, &place.result_key);
        let record = records::object_name(&place.scope, unit, key, place.generation);
        let again = maker::again_name(&place.scope, key).filter(|_| place.again);
        record.into_iter().chain(again)
    });
    delete(service, records.collect(), &mut taken).await;
    let owner = service.clone();
    let forgotten = service.index.write(move |index| {
        let (mut blobs, mut afar) = (Vec::new(), Vec::new());
        for one in &results {
            let Some(stored) = records::stored(index, &one.place.scope, &one.place.result_key)?
                .filter(|stored| stored.id == one.record)
            else {
                continue;
            };
            if let Some(edge) = owner.edge.as_ref().filter(|_| !here)
                && let named = owners::scope(index, &one.place.scope)?
                && let Some(scope) = edge.written(&owner.policy, &one.place.scope, named.as_ref())
            {
                let name = there(index, one, (scope, stored.afar.clone()))?;
                outbox::replace(index, &one.place.scope, &name.result, name.generation)?;
                afar.push((one.place.scope.clone(), name));
            }
            records::forget(index, stored.id)?;
            for (digest, size) in &stored.blobs {
                if size.is_some() && makers::is_unnamed(index, digest)? {
                    records::forget_blob(index, digest)?;
                    blobs.push(*digest);
                }
            }
        }
        Ok((blobs, afar))
    });
    let (blobs, afar) = forgotten.await?;
    // Their results are gone: one that stays is named by nothing.
    delete(service, blobs.iter().map(ObjectName::blob).collect(), &mut Taken::default()).await;
    drop(guard);
    if let Some(edge) = service.edge.as_ref().filter(|_| !afar.is_empty()) {
        taken.behind = Some(take_back_all(service, edge, afar).await?);
    }
    Ok(taken)
}

/// Has results taken back behind the server that were sent there and are not here any more, or have come back.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn take_evicted(
    service: &Service,
    results: Vec<Evicted>,
) -> Result<Option<BehindIt>, ApiError> {
    let Some(edge) = &service.edge else { return Ok(None) };
    let owner = service.clone();
    let found = service.index.write(move |index| {
        let (mut names, mut back, mut nameless) = (Vec::new(), Vec::new(), 0);
        for Evicted { scope: id, unit_key: unit, result_key: result, generation } in results {
            let Some(edge) = &owner.edge else { continue };
            if edge.sends && !edge.sends_of(&owner.policy, &id) {
                // What is stored in its scope is not sent.
                evicted::forget(index, &id, &result)?;
                continue;
            }
            if records::stored(index, &id, &result)?.is_some_and(|row| row.afar.is_some()) {
                back.extend(makers::one(index, &id, &result)?);
            }
            let named = owners::scope(index, &id)?;
            let Some(scope) = edge.written(&owner.policy, &id, named.as_ref()) else {
                nameless += 1;
                continue;
            };
            let generation = generation.max(outbox::replaced(index, &id, &result)?);
            outbox::replace(index, &id, &result, generation)?;
            names.push((id, ResultName { scope, unit, result, generation }));
        }
        Ok((names, back, nameless))
    });
    let (names, back, nameless) = found.await?;
    if !back.is_empty() {
        take(service, back, true).await?;
    }
    let mut behind = take_back_all(service, edge, names).await?;
    if nameless > 0 {
        behind.left += nameless;
        behind.why.get_or_insert_with(|| "it is not known which scope they are of".to_owned());
    }
    Ok(Some(behind))
}

/// Has results of scopes here (by their ids) taken back behind the server, and remembers those for a later time that
/// are not.
async fn take_back_all(
    service: &Service,
    edge: &Edge,
    results: Vec<(String, ResultName)>,
) -> Result<BehindIt, ApiError> {
    let names = results.iter().map(|(_, name)| name.clone()).collect();
    let behind = take_back(edge, names).await;
    if behind.left == 0 {
        let forget = move |index: &_| {
            results.iter().try_for_each(|(id, name)| evicted::forget(index, id, &name.result))
        };
        service.index.write(forget).await?;
    }
    Ok(behind)
}

/// What a result is called in the place behind the server.
fn there(
    index: &Connection,
    one: &Of,
    (scope, afar): (kiln_storage::Scope, Option<ResultName>),
) -> rusqlite::Result<ResultName> {
    let place = &one.place;
    let replaced = outbox::replaced(index, &place.scope, &place.result_key)?;
    Ok(afar.unwrap_or(ResultName {
        scope,
        unit: place.unit_key,
        result: place.result_key,
        generation: replaced.max(place.generation),
    }))
}

async fn delete(service: &Service, names: Vec<ObjectName>, taken: &mut Taken) {
    let deletions = futures_util::stream::iter(names)
        .map(|name| async move { service.store.delete(&name).await });
    let mut deletions = deletions.buffer_unordered(REVOKE_DELETES);
    while let Some(deleted) = deletions.next().await {
        if let Err(error) = deleted {
            taken.stay += 1;
            taken.stay_why = Some(error.to_string());
        }
    }
}

/// Has results taken back behind the server, until it fails a few times.
pub(crate) async fn take_back(edge: &Edge, names: Vec<ResultName>) -> BehindIt {
    let mut behind = BehindIt { place: edge.remote.display(), ..BehindIt::default() };
    if !edge.sends {
        let (left, why) = (names.len() as u64, Some("nothing is sent there".to_owned()));
        return BehindIt { left, why, ..behind };
    }
    let (begun, mut faults) = (Instant::now(), 0);
    let mut names = names.into_iter().peekable();
    while names.peek().is_some() && faults < REVOKE_FAULTS {
        let some: Vec<ResultName> = names.by_ref().take(REVOKE_DELETES).collect();
        let asked: Vec<_> = some.iter().map(|name| edge.remote.take_back(name)).collect();
        let (count, left) = (asked.len() as u64, REVOKE_BEHIND.saturating_sub(begun.elapsed()));
        let Ok(answers) = timeout(left, futures_util::future::join_all(asked)).await else {
            behind.left += count;
            behind.why = Some("it does not answer in time".to_owned());
            break;
        };
        for answer in answers {
            match answer {
                Ok(true) => behind.gone += 1,
                Ok(false) => {
                    behind.left += 1;
                    behind.why.get_or_insert_with(|| "it takes nothing back".to_owned());
                }
                Err(error) => {
                    behind.left += 1;
                    faults += 1;
                    behind.why = Some(error.to_string());
                }
            }
        }
    }
    behind.left += names.count() as u64;
    behind
}

/// Takes back what was sent at the moment when it was taken away here.
pub(crate) async fn unsend(service: &Service, edge: &Edge, name: ResultName, meanwhile: Meanwhile) {
    let result = name.result;
    let left = match meanwhile {
        Meanwhile::Stays => return,
        // The next one of its key may be there already, and stays.
        Meanwhile::Again if edge.remote.counts_generations() => {
            edge.remote.reject(&name).await.err().map(|error| error.to_string())
        }
        Meanwhile::Again | Meanwhile::Gone => {
            let BehindIt { left, why, .. } = take_back(edge, vec![name]).await;
            (left > 0).then(|| why.unwrap_or_default())
        }
    };
    if let Some(why) = left {
        service.log.warn(format_args!(
            "result {result}: removed here, and sent at that moment; it may be there still: {why}"
        ));
    }
}
