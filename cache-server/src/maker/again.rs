//! That somebody else made a result, too: the first one who publishes what is there already. An object beside the
//! records, so that an index that is made anew knows it ([`fill`]), and a column of its row.
//!
//! Only told: nothing that they sent is in the store. Called by [`crate::publish`] and [`crate::rebuild`].

use futures_util::StreamExt as _;
use kiln_storage::ResultKey;
use kiln_storage::backend::StoreError;

use super::{By, Made, again_name};
use crate::clock;
use crate::error::ApiError;
use crate::index::makers;
use crate::service::Service;

/// Where the objects are.
pub(super) const PREFIX: &str = "again/";

/// Notes that somebody published a result that is there. Whatever fails, the result is there all the same.
pub(crate) async fn note(service: &Service, scope: &str, key: &ResultKey, by: &By) {
    if let Err(error) = try_note(service, scope, key, by).await {
        service.log.debug(format_args!("result {key}: who else made it is not noted: {error}"));
    }
}

async fn try_note(
    service: &Service,
    scope: &str,
    key: &ResultKey,
    by: &By,
) -> Result<(), ApiError> {
    let (of, key) = (scope.to_owned(), *key);
    let known = service.index.read(move |index| makers::of_result(index, &of, &key)).await?;
    let Some(known) = known.filter(|known| known.again.is_none() && known.origin.made.by != *by)
    else {
        return Ok(());
    };
    let made = Made { by: by.clone(), at_ms: clock::now_ms() };
    let body = serde_json::to_vec(&made).map_err(|error| ApiError::Internal(error.to_string()))?;
    // Before it is noted: whoever removes the result looks at its row.
    let Some(name) = again_name(scope, &key) else { return Ok(()) };
    service.store.put_framed(&name, &body).await?;
    Ok(service.index.write(move |index| makers::note_again(index, known.record, &made.by)).await?)
}

/// Removes what says so of a result that goes.
pub(crate) async fn forget(service: &Service, scope: &str, key: &ResultKey) {
    if let Some(name) = again_name(scope, key)
        && let Err(error) = service.store.delete(&name).await
    {
        service.log.debug(format_args!("{name} stays: {error}"));
    }
}

/// Notes all that the store says of that. What is of no result, or cannot be read, goes.
///
/// # Errors
/// What store and index fail with.
pub(crate) async fn fill(service: &Service) -> Result<(), ApiError> {
    let mut found = service.store.list(PREFIX);
    while let Some(listed) = found.next().await {
        let name = listed?.name;
        let parsed = name.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split_once('/'));
        let parsed = parsed.and_then(|(scope, key)| Some((scope.to_owned(), key.parse().ok()?)));
        let Some((scope, key)) = parsed else { continue };
        let made = match service.store.framed(&name).await {
            Ok(body) => body.and_then(|body| serde_json::from_slice::<Made>(&body).ok()),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let noted = service.index.write(move |index| {
            let known = makers::of_result(index, &scope, &key)?;
            let Some((known, made)) = known.zip(made) else { return Ok(false) };
            makers::note_again(index, known.record, &made.by).map(|()| true)
        });
        if !noted.await? {
            let _ = service.store.delete(&name).await;
        }
    }
    Ok(())
}
