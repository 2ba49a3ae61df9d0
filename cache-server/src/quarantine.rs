//! Quarantine: results that proved wrong. Each is an object of its own beside the records, so that a
//! rebuilt index knows them again ([`fill`]), and a row of the index, which publishing asks.
//!
//! Called by [`crate::routes::quarantine`] and [`crate::rebuild`].

use futures_util::StreamExt as _;
use kiln_storage::api::{QuarantineRequest, Quarantined};
use kiln_storage::backend::StoreError;
use kiln_storage::limits::MAX_QUARANTINE_TEXT_BYTES;
use kiln_storage::record::UnitName;
use kiln_storage::{ObjectName, ResultKey};

use crate::clock;
use crate::error::ApiError;
use crate::index::quarantine;
use crate::maker::again;
use crate::principal::{Principal, Scoped};
use crate::remote::fetch::reject;
use crate::service::Service;

/// Where the objects are.
const PREFIX: &str = "quarantine/";

/// Quarantines a result in the scope of who asks.
///
/// # Errors
/// What store and index fail with. When only the store takes no writes, the result is not answered
/// any more all the same, until the index is lost.
pub(crate) async fn add(
    service: &Service,
    principal: &Principal,
    key: ResultKey,
    request: QuarantineRequest,
) -> Result<(), ApiError> {
    let unit = UnitName {
        crate_name: bounded(request.unit.crate_name),
        version: bounded(request.unit.version),
        kind: bounded(request.unit.kind),
        target: bounded(request.unit.target),
    };
    let reason = bounded(request.reason);
    let entry = Quarantined { result_key: key, unit, at_ms: clock::now_ms(), reason };
    let body = serde_json::to_vec(&entry).map_err(|error| ApiError::Internal(error.to_string()))?;
    let Scoped { scope, id } = principal.writes()?;
    // No record becomes visible meanwhile.
    let _guard = service.commit.lock().await;
    service.log.warn(format_args!("result {key} quarantined: {}", entry.reason));
    // The object first: an index that is lost after this does not bring the record back.
    let name = ObjectName::quarantined(scope, &key);
    let noted = service.store.put_framed(&name, &body).await;
    let id = id.clone();
    let (stored, released) =
        service.index.write(move |index| quarantine::insert(index, &id, &entry)).await?;
    if let Some(name) = stored.as_ref().and_then(|stored| stored.afar.clone()) {
        reject(service, name);
    }
    if stored.as_ref().is_some_and(|stored| stored.again) {
        again::forget(service, &scope.id(), &key).await;
    }
    let record =
        stored.map(|stored| ObjectName::record(scope, &stored.unit_key, &key, stored.generation));
    let released = released.iter().map(|key| ObjectName::quarantined(scope, key));
    for name in released.chain(record) {
        // A record that stays is passed over by a rebuild.
        if let Err(error) = service.store.delete(&name).await {
            service.log.warn(format_args!("{name} stays: {error}"));
        }
    }
    noted?;
    Ok(())
}

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_QUARANTINE_TEXT_BYTES));
    text
}

/// Releases these results, where they are quarantined.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn release(
    service: &Service,
    principal: &Principal,
    keys: Vec<ResultKey>,
) -> Result<(), ApiError> {
    let Scoped { scope, id } = principal.writes()?;
    let _guard = service.commit.lock().await;
    for key in keys {
        service.store.delete(&ObjectName::quarantined(scope, &key)).await?;
        let id = id.clone();
        service.index.write(move |index| quarantine::release(index, &id, &key)).await?;
        service.log.info(format_args!("result {key} released from quarantine"));
    }
    Ok(())
}

/// Notes all that the store says is quarantined; how many there are. An object that cannot be read
/// counts by its name.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn fill(service: &Service) -> Result<u64, ApiError> {
    let mut count = 0;
    let mut found = service.store.list(PREFIX);
    while let Some(listed) = found.next().await {
        let listed = listed?;
        let Some((scope, key)) = parse_name(&listed.name) else { continue };
        let entry = match service.store.framed(&listed.name).await {
            Ok(None) => continue,
            Ok(Some(body)) => serde_json::from_slice(&body).ok(),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let entry = entry.filter(|entry: &Quarantined| entry.result_key == key);
        let entry = entry.unwrap_or_else(|| Quarantined {
            result_key: key,
            unit: UnitName::default(),
            at_ms: listed.used_ms,
            reason: "what was noted of it is damaged".to_owned(),
        });
        count += 1;
        let (_, released) =
            service.index.write(move |index| quarantine::insert(index, &scope, &entry)).await?;
        for key in released {
            let name = listed.name.as_str();
            let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
            if let Ok(name) = format!("{dir}/{key}").parse() {
                let _ = service.store.delete(&name).await;
            }
        }
    }
    Ok(count)
}

/// Scope and key of `quarantine/<scope>/<result>`.
fn parse_name(name: &ObjectName) -> Option<(String, ResultKey)> {
    let (scope, key) = name.as_str().strip_prefix(PREFIX)?.split_once('/')?;
    Some((scope.to_owned(), key.parse().ok()?))
}

/// Whether a result is quarantined in a scope, or in one of others that are read with it.
///
/// # Errors
/// What the index fails with.
pub(crate) async fn contains(
    service: &Service,
    mut others: Vec<String>,
    scope: &str,
    key: &ResultKey,
) -> Result<bool, ApiError> {
    let key = *key;
    others.push(scope.to_owned());
    Ok(service.index.read_few(move |index| quarantine::in_any(index, &others, &key)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::{Digest, Scope};

    #[test]
    fn names_are_read_back() {
        let (scope, key) = (Scope::local_user(3), ResultKey::new(Digest::of(b"r")));
        let name = ObjectName::quarantined(&scope, &key);
        assert_eq!(parse_name(&name), Some((scope.id(), key)));
        for other in ["quarantine/a/b", "quarantine/a", "records/a/b/c/d.0"] {
            assert_eq!(parse_name(&other.parse().unwrap()), None);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = format!("a{}", "ü".repeat(MAX_QUARANTINE_TEXT_BYTES));
        assert_eq!(bounded(long).len(), MAX_QUARANTINE_TEXT_BYTES - 1);
        assert_eq!(bounded("short".into()), "short");
    }
}
