//! Reading request bodies within their bounds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use kiln_storage::limits::MAX_JSON_BODY_BYTES;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::limits::{
    BODIES_BYTES, MAX_DRAIN_BYTES, MEDIUM_BODIES_BYTES, MEDIUM_BODY_BYTES, REQUEST_TURN_TIMEOUT,
    SMALL_BODY_BYTES,
};

/// The room that the body of one request takes of what there is for all, as long as the request goes on: what is made of
/// the bytes takes several times as many. Small bodies take none.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    all: Arc<Rooms>,
    own: Mutex<Option<OwnedSemaphorePermit>>,
}

/// The room for all bodies: so many bytes may be taken.
#[derive(Debug)]
pub(crate) struct Rooms {
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Rooms {
    pub(crate) fn new() -> Arc<Self> {
        let room = |bytes| Arc::new(Semaphore::new(bytes));
        Arc::new(Self { medium: room(MEDIUM_BODIES_BYTES), large: room(BODIES_BYTES) })
    }

    fn of(&self, bytes: usize) -> Arc<Semaphore> {
        let room = if bytes <= MEDIUM_BODY_BYTES { &self.medium } else { &self.large };
        room.clone()
    }
}

impl Room {
    /// Nothing taken yet of the room for all.
    pub(crate) fn of(all: &Arc<Rooms>) -> Self {
        Self(Arc::new(Taken { all: all.clone(), own: Mutex::default() }))
    }

    /// Has the body be so many bytes, all that it may come to; waits a little while others take up too much.
    async fn take(&self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(SMALL_BODY_BYTES);
        if more == 0 || lock(&self.0.own).is_some() {
            return Ok(());
        }
        let busy = || ApiError::Busy("too many large requests at once");
        let more = u32::try_from(more).map_err(|_| busy())?;
        let room = self.0.all.of(bytes).acquire_many_owned(more);
        let got = timeout(REQUEST_TURN_TIMEOUT, room).await;
        *lock(&self.0.own) = Some(got.map_err(|_| busy())?.map_err(|_| busy())?);
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
            && let Err(busy) = room.take(whole).await
        {
            // It hears the answer when it has been listened to.
            drain_stream(Body::from_stream(stream)).await;
            return Err(busy);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Whether the body of a request has come.
#[derive(Debug, Clone)]
pub(crate) struct Arrival(Arc<AtomicBool>);

impl Arrival {
    /// Watches the body of a request while it is read.
    pub(crate) fn of(request: Request) -> (Request, Self) {
        let arrival = Self(Arc::new(AtomicBool::new(request.body().is_end_stream())));
        if arrival.is_over() {
            return (request, arrival);
        }
        let length = content_length(&request).unwrap_or(u64::MAX);
        let (all, end) = (arrival.clone(), arrival.clone());
        let mut come = 0;
        let request = request.map(|body| {
            let chunks = body.into_data_stream().inspect(move |chunk| {
                come += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
                if come >= length {
                    all.ends();
                }
            });
            Body::from_stream(chunks.chain(stream::poll_fn(move |_| {
                end.ends();
                Poll::Ready(None)
            })))
        });
        (request, arrival)
    }

    fn ends(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether there is no more to come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
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
    use std::convert::Infallible;
    use std::future::ready;

    use axum::http::HeaderValue;
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_small_takes_no_room_and_what_is_large_waits_for_it() {
        let all = Rooms::new();
        let left = || (all.medium.available_permits(), all.large.available_permits());
        let small: Vec<Room> = (0..1000).map(|_| Room::of(&all)).collect();
        for room in &small {
            room.take(SMALL_BODY_BYTES).await.unwrap();
        }
        assert_eq!(left(), (MEDIUM_BODIES_BYTES, BODIES_BYTES));
        let (one, other) = (Room::of(&all), Room::of(&all));
        for _ in 0..2 {
            one.take(BODIES_BYTES).await.unwrap();
        }
        assert_eq!(left(), (MEDIUM_BODIES_BYTES, SMALL_BODY_BYTES));
        let busy = other.take(MEDIUM_BODY_BYTES + 1).await;
        assert!(matches!(busy, Err(ApiError::Busy(_))), "{busy:?}");
        let waits = tokio::spawn(async move { other.take(BODIES_BYTES).await.map(|()| other) });
        tokio::task::yield_now().await;
        drop(one);
        let other = waits.await.unwrap().unwrap();
        drop(other);
        assert_eq!(left(), (MEDIUM_BODIES_BYTES, BODIES_BYTES));
    }

    /// Whoever announces much and sends it slowly keeps it from others who send as much, and from nobody else.
    #[tokio::test(start_paused = true)]
    async fn a_huge_body_is_not_in_the_way_of_others() {
        let all = Rooms::new();
        let huge = Room::of(&all);
        huge.take(BODIES_BYTES).await.unwrap();
        let rooms: Vec<Room> = (0..8).map(|_| Room::of(&all)).collect();
        for room in &rooms {
            room.take(MEDIUM_BODY_BYTES).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whose_time_is_over_says_who_was_slow() {
        let chunks = |more: bool| {
            let sent = stream::iter(["{", "}"]).map(|text| Ok::<_, Infallible>(Bytes::from(text)));
            let rest = match more {
                true => stream::pending().boxed(),
                false => stream::empty().boxed(),
            };
            Body::from_stream(sent.chain(rest))
        };
        for (body, length, has_come) in [
            (Body::empty(), None, true),
            (chunks(false), None, true),
            (chunks(true), None, false),
            (chunks(true), Some("2"), true),
            (chunks(true), Some("3"), false),
        ] {
            let mut request = Request::new(body);
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let (request, arrival) = Arrival::of(request);
            let read = request.into_body().into_data_stream().for_each(|_| ready(()));
            let _ = timeout(REQUEST_TURN_TIMEOUT, read).await;
            assert_eq!(arrival.is_over(), has_come, "{length:?}");
        }
    }
}
