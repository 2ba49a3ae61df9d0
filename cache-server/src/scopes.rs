//! Which repository and ref are behind the id of a scope: an object of the store beside the records, so that a
//! rebuilt index knows whose blobs are whose ([`fill`]), and a row of the index.
//!
//! Called for each request with who asks ([`note`]), before a record is stored ([`keep`]), and by
//! [`crate::rebuild`].

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use kiln_storage::backend::StoreError;
use kiln_storage::{ObjectName, Scope};

use crate::error::ApiError;
use crate::index::owners;
use crate::limits::MAX_SCOPES_REMEMBERED;
use crate::principal::Rights;
use crate::service::Service;

/// Where the objects are.
const PREFIX: &str = "scopes/";

/// Scopes that the index knows, by id; and those that the store knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    index: Mutex<HashSet<String>>,
    store: Mutex<HashSet<String>>,
}

fn contains(known: &Mutex<HashSet<String>>, id: &str) -> bool {
    known.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
}

fn add(known: &Mutex<HashSet<String>>, id: &str) {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_SCOPES_REMEMBERED {
        known.clear();
    }
    known.insert(id.to_owned());
}

/// Has the index know the scopes of somebody. Where it takes no writes, there may be blobs less for them.
pub(crate) async fn note(service: &Service, rights: &Rights) {
    for scoped in rights.scopes() {
        if contains(&service.scopes.index, &scoped.id) {
            continue;
        }
        let scope = scoped.scope.clone();
        match service.index.write(move |index| owners::note_scope(index, &scope)).await {
            Ok(()) => add(&service.scopes.index, &scoped.id),
            Err(error) => service.log.debug(format_args!("a scope is not noted: {error}")),
        }
    }
}

/// Has the index know the scopes of who needs no name.
pub(crate) async fn note_own(service: &Service) {
    for principal in service.policy.own() {
        note(service, principal).await;
    }
}

/// Has store and index know a scope that a record is about to be in.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn keep(service: &Service, scope: &Scope) -> Result<(), ApiError> {
    let id = scope.id();
    if contains(&service.scopes.store, &id) {
        return Ok(());
    }
    let body = serde_json::to_vec(scope).map_err(|error| ApiError::Internal(error.to_string()))?;
    let Ok(name) = format!("{PREFIX}{id}").parse::<ObjectName>() else { return Ok(()) };
    service.store.put_framed(&name, &body).await?;
    let scope = scope.clone();
    service.index.write(move |index| owners::note_scope(index, &scope)).await?;
    add(&service.scopes.store, &id);
    Ok(())
}

/// Notes all scopes that the store knows. One that cannot be read is noted again when it is used.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn fill(service: &Service) -> Result<(), ApiError> {
    let mut found = service.store.list(PREFIX);
    while let Some(listed) = found.next().await {
        let name = listed?.name;
        let scope = match service.store.framed(&name).await {
            Ok(body) => body.and_then(|body| serde_json::from_slice::<Scope>(&body).ok()),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let scope = scope.filter(|scope| name.as_str() == format!("{PREFIX}{}", scope.id()));
        match scope {
            Some(scope) => {
                service.index.write(move |index| owners::note_scope(index, &scope)).await?;
            }
            // In its way, the next record would not get it there again.
            None => drop(service.store.delete(&name).await),
        }
    }
    Ok(())
}
