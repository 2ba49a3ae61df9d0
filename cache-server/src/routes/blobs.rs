//! `GET`, `HEAD` and `PUT /v1/blobs/{digest}`, `POST /v1/blobs/missing` and
//! `POST /v1/blobs/pack`. Bytes stream both ways.

use std::collections::HashSet;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, RANGE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kiln_storage::api::{MissingRequest, Problem};
use kiln_storage::backend::{Body, Put, StoreError, StoreResult};
use kiln_storage::limits::{MAX_BLOB_BYTES, MAX_PACK_BLOBS, MAX_PACK_BYTES, MAX_PACKED_BLOB_BYTES};
use kiln_storage::remote::{pack, squeeze};
use kiln_storage::{Digest, ObjectName};

use super::range::{self, Asked};
use crate::error::ApiError;
use crate::http::body;
use crate::index::{owners, records};
use crate::limits::{FEW_LOOKUP_KEYS, MAX_MISSING_BLOBS, MAX_QUESTION_BYTES};
use crate::principal::Principal;
use crate::publish;
use crate::service::Service;

fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|_| {
        ApiError::BadRequest("the digest is not 64 lower-case hexadecimal digits".into())
    })
}

/// Of some blobs, those that somebody may not read, besides those that are not there.
async fn refused(
    service: &Service,
    principal: &Principal,
    asked: Vec<Digest>,
) -> Result<Vec<Digest>, ApiError> {
    // They have the store at hand.
    if principal.local() {
        return Ok(Vec::new());
    }
    let repositories = principal.repositories();
    let few = asked.len() <= FEW_LOOKUP_KEYS;
    let read = move |index: &_| owners::missing(index, &asked, &repositories);
    Ok(if few { service.index.read_few(read).await? } else { service.index.read(read).await? })
}

/// Refuses a blob that somebody may not read, as one that is not there.
async fn check(service: &Service, principal: &Principal, digest: Digest) -> Result<(), ApiError> {
    match refused(service, principal, vec![digest]).await?.is_empty() {
        true => Ok(()),
        false => Err(ApiError::NotFound),
    }
}

/// The bytes of a blob, or a range of them.
#[utoipa::path(
    get,
    path = "/v1/blobs/{digest}",
    params(("digest" = String, Path, description = "BLAKE3 digest, hexadecimal")),
    responses(
        (status = 200, description = "The bytes", content_type = "application/octet-stream"),
        (status = 206, description = "The range", content_type = "application/octet-stream"),
        (status = 404, description = "No such blob", body = Problem,
         content_type = "application/problem+json"),
        (status = 416, description = "Nothing is in the range", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(service): State<Service>,
    principal: Principal,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let digest = parse_digest(&digest)?;
    check(&service, &principal, digest).await?;
    let blob = service.store.blob(&digest).await?;
    let blob = blob.ok_or(ApiError::NotFound)?;
    let size = blob.len();
    let header = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (first, last) = match range::parse(header, size) {
        Asked::Unsatisfiable => return Ok(unsatisfiable(size)),
        Asked::Part { first, last } => (first, last),
        Asked::Whole if takes_compressed(&headers) && size >= squeeze::MIN_BYTES => {
            let body = squeeze::compress(blob.into_stream())?;
            service.metrics.sent(size);
            let head = [
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (CONTENT_ENCODING, squeeze::ENCODING.to_owned()),
                (HeaderName::from_static(squeeze::LENGTH), size.to_string()),
                (ETAG, format!("\"{digest}\"")),
            ];
            return Ok((StatusCode::OK, head, HttpBody::from_stream(body)).into_response());
        }
        Asked::Whole => {
            let body = section(blob, 0, size);
            service.metrics.sent(size);
            return Ok((StatusCode::OK, head_of(&digest, size), body).into_response());
        }
    };
    let len = last - first + 1;
    let body = section(blob, first, len);
    service.metrics.sent(len);
    let range = [(CONTENT_RANGE, format!("bytes {first}-{last}/{size}"))];
    let status = StatusCode::PARTIAL_CONTENT;
    Ok((status, head_of(&digest, len), range, body).into_response())
}

/// Whether a client takes nothing but what Kiln compresses with: others may take it, too, and want to see
/// a length.
fn takes_compressed(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT_ENCODING).is_some_and(|value| value == squeeze::ENCODING)
}

fn unsatisfiable(size: u64) -> Response {
    let range = [(CONTENT_RANGE, format!("bytes */{size}"))];
    let mut response = ApiError::RangeNotSatisfiable(size).into_response();
    response
        .headers_mut()
        .extend(range.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))));
    response
}

fn head_of(digest: &Digest, len: u64) -> impl axum::response::IntoResponseParts {
    [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, len.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, format!("\"{digest}\"")),
    ]
}

/// `len` bytes of a blob from an offset, as the body of an answer.
fn section(blob: Body, offset: u64, len: u64) -> HttpBody {
    match blob {
        // Whole, so that it goes out with the head.
        Body::Bytes(bytes) if offset == 0 && len == bytes.len() as u64 => HttpBody::from(bytes),
        blob => HttpBody::from_stream(blob.into_section(offset, len)),
    }
}

/// Whether there is a blob, and its size.
#[utoipa::path(
    head,
    path = "/v1/blobs/{digest}",
    params(("digest" = String, Path, description = "BLAKE3 digest, hexadecimal")),
    responses(
        (status = 200, description = "It is there"),
        (status = 404, description = "It is not"),
    )
)]
pub(crate) async fn head(
    State(service): State<Service>,
    principal: Principal,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let digest = parse_digest(&digest)?;
    check(&service, &principal, digest).await?;
    let size = service.store.blob_size(&digest).await?;
    let size = size.ok_or(ApiError::NotFound)?;
    Ok((StatusCode::OK, head_of(&digest, size), HttpBody::empty()).into_response())
}

/// Stores a blob; its digest is verified on the way in.
#[utoipa::path(
    put,
    path = "/v1/blobs/{digest}",
    params(("digest" = String, Path, description = "BLAKE3 digest, hexadecimal")),
    request_body(content_type = "application/octet-stream", description = "Raw, or by zstd"),
    responses(
        (status = 200, description = "It is there already"),
        (status = 201, description = "Stored"),
        (status = 411, description = "No Content-Length", body = Problem,
         content_type = "application/problem+json"),
        (status = 413, description = "Over the limit", body = Problem,
         content_type = "application/problem+json"),
        (status = 422, description = "`digest-mismatch`: nothing is stored", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put(
    State(service): State<Service>,
    principal: Principal,
    Path(digest): Path<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let digest = parse_digest(&digest)?;
    let repository = principal.writes()?.scope.repository();
    let compressed =
        request.headers().get(CONTENT_ENCODING).is_some_and(|v| v == squeeze::ENCODING);
    let len = match compressed {
        true => body::number(&request, squeeze::LENGTH),
        false => body::content_length(&request),
    };
    let len = len.ok_or(ApiError::LengthRequired)?;
    if len > MAX_BLOB_BYTES {
        return Err(ApiError::TooLarge("the blob"));
    }
    let is_here = service.store.blob_size(&digest).await?.is_some();
    if is_here && refused(&service, &principal, vec![digest]).await?.is_empty() {
        body::drain(request).await;
        note(&service, digest, repository).await?;
        return Ok(StatusCode::OK);
    }
    if let Err(error) = service.store.check_writable() {
        body::drain(request).await;
        return Err(error);
    }
    let stream = request.into_body().into_data_stream().map(|chunk| {
        chunk.map_err(|error| StoreError::Unavailable(format!("upload broke off: {error}")))
    });
    let stream = match compressed {
        true => squeeze::expand(stream, (digest, len))?,
        false => stream.boxed(),
    };
    let put = match is_here {
        // Who has it may own it, too; that others have it is not told.
        true => shown(stream, (digest, len)).await,
        false => service.store.put_blob(&digest, Body::Stream { stream, len }).await,
    };
    match put {
        Ok(put) => {
            service.metrics.received(len);
            note(&service, digest, repository).await?;
            Ok(match put {
                Put::Created => StatusCode::CREATED,
                Put::AlreadyThere => StatusCode::OK,
            })
        }
        Err(StoreError::Damaged { .. }) => Err(ApiError::DigestMismatch),
        Err(error) => Err(error.into()),
    }
}

/// Reads bytes that are here already, to see that whoever sends them has them.
async fn shown(
    mut stream: BoxStream<'static, StoreResult<Bytes>>,
    (digest, len): (Digest, u64),
) -> StoreResult<Put> {
    let (mut hasher, mut read) = (blake3::Hasher::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        read += chunk.len() as u64;
        hasher.update(&chunk);
        if read > len {
            break;
        }
    }
    match read == len && hasher.finalize().as_bytes() == digest.as_bytes() {
        true => Ok(Put::Created),
        false => Err(StoreError::Damaged {
            name: ObjectName::blob(&digest),
            why: "the bytes offered have another digest".to_owned(),
        }),
    }
}

/// Notes a stored blob in the index, with the size that the store says, as one of a repository.
async fn note(service: &Service, digest: Digest, repository: &str) -> Result<(), ApiError> {
    let Some(size) = service.store.blob_size(&digest).await? else {
        return Ok(());
    };
    publish::note_blobs(service, vec![(digest, size)]).await?;
    let repository = repository.to_owned();
    Ok(service.index.write(move |index| owners::own(index, &digest, &repository)).await?)
}

/// Which of these blobs are not stored, or not known as blobs of the repository.
#[utoipa::path(
    post,
    path = "/v1/blobs/missing",
    request_body = MissingRequest,
    responses(
        (status = 200, description = "Those that are not", body = MissingRequest),
        (status = 413, description = "Too many", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn missing(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Json<MissingRequest>, ApiError> {
    let MissingRequest { blobs } = body::json_within(request, MAX_QUESTION_BYTES).await?;
    if blobs.len() > MAX_MISSING_BLOBS {
        return Err(ApiError::TooLarge("the number of blobs"));
    }
    if !principal.local() {
        let blobs = refused(&service, &principal, blobs).await?;
        return Ok(Json(MissingRequest { blobs }));
    }
    let blobs = service.index.read(move |index| records::missing(index, &blobs)).await?;
    Ok(Json(MissingRequest { blobs }))
}

/// Many small blobs in one answer. What is not here, too large, or too much for one answer is left out;
/// the first one that may come always does.
#[utoipa::path(
    post,
    path = "/v1/blobs/pack",
    request_body = MissingRequest,
    responses(
        (status = 200, description = "Blobs, each verifiable; see storage/src/remote/pack.rs",
         content_type = "application/octet-stream"),
        (status = 413, description = "Too many", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(crate) async fn packed(
    State(service): State<Service>,
    principal: Principal,
    request: Request,
) -> Result<Response, ApiError> {
    let MissingRequest { mut blobs } = body::json_within(request, MAX_QUESTION_BYTES).await?;
    if blobs.len() > MAX_PACK_BLOBS {
        return Err(ApiError::TooLarge("the number of blobs"));
    }
    let refused = refused(&service, &principal, blobs.clone()).await?;
    let refused: HashSet<Digest> = refused.into_iter().collect();
    blobs.retain(|digest| !refused.contains(digest));
    let (mut chosen, mut bytes) = (Vec::new(), 0);
    for digest in blobs {
        let size = service.store.blob_size(&digest).await?;
        let Some(size) = size.filter(|size| *size <= MAX_PACKED_BLOB_BYTES) else { continue };
        if bytes + size > MAX_PACK_BYTES {
            break;
        }
        bytes += size;
        chosen.push(digest);
    }
    service.metrics.sent(bytes);
    let magic = futures_util::stream::once(async { Ok(Bytes::from_static(pack::MAGIC)) });
    let entries = futures_util::stream::iter(chosen).then(move |digest| {
        let service = service.clone();
        async move { entry(&service, digest).await }
    });
    let body = HttpBody::from_stream(magic.chain(entries));
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// A blob as it is in a pack; nothing for one that has gone meanwhile.
async fn entry(service: &Service, digest: Digest) -> StoreResult<Bytes> {
    let Some(body) = service.store.blob(&digest).await? else { return Ok(Bytes::new()) };
    let bytes = body.into_bytes(&ObjectName::blob(&digest), MAX_PACKED_BLOB_BYTES).await?;
    tokio::task::spawn_blocking(move || pack::entry(&digest, &bytes))
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))
}
