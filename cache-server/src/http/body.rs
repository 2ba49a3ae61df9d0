//! Reading request bodies within their bounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use kiln_storage::limits::MAX_JSON_BODY_BYTES;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::limits::{BODIES_BYTES, MAX_DRAIN_BYTES, REQUEST_TURN_TIMEOUT, SMALL_BODY_BYTES};

/// The room that the body of one request takes of what there is for all, as long as the request goes on: what is made of
/// the bytes takes several times as many. Small bodies take none.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    all: Arc<Semaphore>,
    own: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Room {
    /// The room for all: so many bytes may be taken.
    pub(crate) fn for_all() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(BODIES_BYTES))
    }

    /// Nothing taken yet of the room for all.
    pub(crate) fn of(all: &Arc<Semaphore>) -> Self {
        Self(Arc::new(Taken { all: all.clone(), own: Mutex::default() }))
    }

    /// Has the body be so many bytes; waits a little while others take up too much.
    async fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let has = lock(&self.0.own).as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.saturating_sub(SMALL_BODY_BYTES).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        let busy = || ApiError::Busy("too many large requests at once");
        let more = u32::try_from(more).map_err(|_| busy())?;
        let got = timeout(REQUEST_TURN_TIMEOUT, self.0.all.clone().acquire_many_owned(more)).await;
        let got = got.map_err(|_| busy())?.map_err(|_| busy())?;
        let mut own = lock(&self.0.own);
        match own.as_mut() {
            Some(own) => own.merge(got),
            None => *own = Some(got),
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The JSON body of a request.
///
/// # Errors
/// [`ApiError::TooLarge`]; [`ApiError::BadRequest`] for anything but the JSON of a `T`.
pub(crate) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    json_within(request, MAX_JSON_BODY_BYTES).await
}

/// The JSON body of a request that is small.
///
/// # Errors
/// As [`json`].
pub(crate) async fn json_within<T: DeserializeOwned>(
    request: Request,
    max: usize,
) -> Result<T, ApiError> {
    parsed(&bytes(request, max, "the JSON body").await?)
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text: String = error.to_string().chars().take(200).collect();
        ApiError::BadRequest(format!("the JSON body: {text}"))
    })
}

/// The body of a request, up to a size; `what` is for the error.
///
/// # Errors
/// [`ApiError::TooLarge`]; [`ApiError::BadRequest`] for one that breaks off.
pub(crate) async fn bytes(
    request: Request,
    max: usize,
    what: &'static str,
) -> Result<BytesMut, ApiError> {
    if content_length(&request).is_some_and(|len| len > max as u64) {
        drain(request).await;
        return Err(ApiError::TooLarge(what));
    }
    // All of it at once: several that each had a part would wait for each other.
    let whole = content_length(&request).map_or(max, |len| usize::try_from(len).unwrap_or(max));
    let room = request.extensions().get::<Room>().cloned();
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| ApiError::BadRequest("the body broke off".into()))?;
        if bytes.len() + chunk.len() > max {
            drain_stream(Body::from_stream(stream)).await;
            return Err(ApiError::TooLarge(what));
        }
        let is_small = bytes.len() + chunk.len() <= SMALL_BODY_BYTES;
        if let Some(room) = room.as_ref().filter(|_| !is_small)
            && let Err(busy) = room.grow(whole).await
        {
            // It hears the answer when it has been listened to.
            drain_stream(Body::from_stream(stream)).await;
            return Err(busy);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The announced length of a body, bytes.
pub(crate) fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A header that is a number.
pub(crate) fn number(request: &Request, name: &str) -> Option<u64> {
    request.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// Reads a body that is not wanted, within a bound. A client that waits to be asked for it is not
/// asked.
pub(crate) async fn drain(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        drain_stream(request.into_body()).await;
    }
}

async fn drain_stream(body: Body) {
    let mut stream = body.into_data_stream();
    let mut drained = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        drained += chunk.len();
        if drained > MAX_DRAIN_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_small_takes_no_room_and_what_is_large_waits_for_it() {
        let all = Room::for_all();
        let small: Vec<Room> = (0..1000).map(|_| Room::of(&all)).collect();
        for room in &small {
            room.grow(SMALL_BODY_BYTES).await.unwrap();
        }
        assert_eq!(all.available_permits(), BODIES_BYTES);
        let (one, other) = (Room::of(&all), Room::of(&all));
        for bytes in [1, SMALL_BODY_BYTES + 1, BODIES_BYTES / 2, BODIES_BYTES / 2, BODIES_BYTES] {
            one.grow(bytes).await.unwrap();
        }
        assert_eq!(all.available_permits(), SMALL_BODY_BYTES);
        other.grow(2 * SMALL_BODY_BYTES).await.unwrap();
        let busy = other.grow(2 * SMALL_BODY_BYTES + 1).await;
        assert!(matches!(busy, Err(ApiError::Busy(_))), "{busy:?}");
        let waits = tokio::spawn(async move { other.grow(BODIES_BYTES).await.map(|()| other) });
        tokio::task::yield_now().await;
        drop(one);
        let other = waits.await.unwrap().unwrap();
        drop(other);
        assert_eq!(all.available_permits(), BODIES_BYTES);
    }
}
