//! The v2 face of the fake: three Twirp calls in JSON, and the blob half behind signed addresses.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::state::{MAX_UPLOAD, Refused, sign, signed};
use super::token::{self, Rights};
use super::{Call, Fault, Inner};

const TWIRP: &str = "/twirp/github.actions.results.api.v1.CacheService/";
const UPLOAD: &str = "/devstoreaccount1/upload/";
const DOWNLOAD: &str = "/devstoreaccount1/download/";

/// Answers one request.
pub(super) async fn answer(inner: &Inner, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    if let Some(method) = path.strip_prefix(TWIRP) {
        let call = match method {
            "CreateCacheEntry" => Call::Create,
            "FinalizeCacheEntryUpload" => Call::Finalize,
            "GetCacheEntryDownloadURL" => Call::Lookup,
            _ => return twirp(StatusCode::NOT_FOUND, "bad_route", "no such method"),
        };
        with_fault(inner, call, request, twirp_call).await
    } else if path.starts_with(UPLOAD) {
        with_fault(inner, Call::Upload, request, upload).await
    } else if path.starts_with(DOWNLOAD) {
        with_fault(inner, Call::Download, request, download).await
    } else {
        twirp(StatusCode::NOT_FOUND, "bad_route", "no such route")
    }
}

/// A request that was read whole.
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) ignore_range: bool,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn rights(&self) -> Option<Rights> {
        token::rights(self.header("authorization"))
    }
}

/// Reads the request, and does it or lets the scripted fault happen instead of, or after it.
pub(super) async fn with_fault(
    inner: &Inner,
    call: Call,
    request: Request<Body>,
    act: fn(&Inner, &Asked) -> Response,
) -> Response {
    let fault = inner.meets(call);
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_UPLOAD).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let asked = Asked {
        call,
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        ignore_range: fault == Some(Fault::WholeBody),
    };
    match fault {
        None | Some(Fault::WholeBody) => act(inner, &asked),
        Some(Fault::AnswerLost) => {
            act(inner, &asked);
            broken(Bytes::new(), None)
        }
        Some(Fault::Drop) => broken(Bytes::new(), None),
        Some(Fault::Stall) => std::future::pending().await,
        Some(fault @ (Fault::DropMidBody | Fault::FlipBit | Fault::Short)) => {
            spoil(act(inner, &asked), &fault).await
        }
        Some(fault) => refusal(&fault, asked.path.starts_with("/v1/")),
    }
}

fn refusal(fault: &Fault, older: bool) -> Response {
    match fault {
        Fault::WriteDenied if older => StatusCode::FORBIDDEN.into_response(),
        Fault::Status(status) => {
            let status = StatusCode::from_u16(*status).unwrap();
            twirp(status, "internal", "injected")
        }
        Fault::RetryAfter(seconds) => too_many(*seconds),
        Fault::NotFound => twirp(StatusCode::NOT_FOUND, "not_found", "entry not found"),
        Fault::WriteDenied => refused(&Refused::WriteDenied),
        Fault::NotOk if older => StatusCode::BAD_REQUEST.into_response(),
        Fault::NotOk => {
            answer_json(StatusCode::OK, &json!({"ok": false, "message": "not on a Sunday"}))
        }
        Fault::ReadDenied => {
            twirp(StatusCode::FORBIDDEN, "permission_denied", "cache read denied: cache-mode")
        }
        Fault::Quota => {
            twirp(StatusCode::FORBIDDEN, "permission_denied", "insufficient usage: over quota")
        }
        Fault::Unauthorized => unauthorized(),
        Fault::Expired => refused(&Refused::Signature),
        Fault::Garbage => (StatusCode::OK, "<html>maintenance</html>").into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer with half of its body gone or a bit of it changed.
async fn spoil(response: Response, fault: &Fault) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_UPLOAD).await.unwrap();
    let half = body.slice(..body.len() / 2);
    match fault {
        Fault::DropMidBody => {
            let mut response = broken(half, Some(body.len()));
            *response.status_mut() = parts.status;
            response
        }
        Fault::FlipBit => {
            let mut changed = body.to_vec();
            if let Some(byte) = changed.get_mut(body.len() / 2) {
                *byte ^= 0x10;
            }
            Response::from_parts(parts, Body::from(changed))
        }
        _ => {
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(half))
        }
    }
}

/// An answer whose connection ends after these bytes.
fn broken(bytes: Bytes, announced: Option<usize>) -> Response {
    let chunks = [Ok(bytes), Err(std::io::Error::other("injected"))];
    let mut response = Body::from_stream(stream::iter(chunks)).into_response();
    if let Some(len) = announced {
        response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    }
    response
}

pub(super) fn twirp(status: StatusCode, code: &str, msg: &str) -> Response {
    answer_json(status, &json!({"code": code, "msg": msg}))
}

pub(super) fn answer_json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

pub(super) fn unauthorized() -> Response {
    twirp(StatusCode::UNAUTHORIZED, "unauthenticated", "invalid token")
}

fn too_many(seconds: u64) -> Response {
    let mut response =
        twirp(StatusCode::TOO_MANY_REQUESTS, "resource_exhausted", "too many requests");
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn refused(why: &Refused) -> Response {
    match why {
        Refused::Invalid(what) => {
            twirp(StatusCode::BAD_REQUEST, "invalid_argument", &format!("{what} is invalid"))
        }
        Refused::AlreadyExists => {
            twirp(StatusCode::CONFLICT, "already_exists", "cache entry with the same key exists")
        }
        Refused::NotFound => twirp(StatusCode::NOT_FOUND, "not_found", "entry not found"),
        Refused::WriteDenied => answer_json(
            StatusCode::OK,
            &json!({"ok": false, "message": "cache write denied: the token is read-only"}),
        ),
        Refused::RateLimited(seconds) => too_many(*seconds),
        Refused::Signature => twirp(StatusCode::FORBIDDEN, "AuthenticationFailed", "signature"),
    }
}

/// One of the three calls.
fn twirp_call(inner: &Inner, asked: &Asked) -> Response {
    if asked.method != Method::POST {
        return twirp(StatusCode::NOT_FOUND, "bad_route", "POST only");
    }
    if !asked.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        return twirp(StatusCode::NOT_FOUND, "bad_route", "unexpected Content-Type");
    }
    let Some(rights) = asked.rights().filter(|_| inner.state().token_holds()) else {
        return unauthorized();
    };
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&asked.body) else {
        return twirp(StatusCode::BAD_REQUEST, "malformed", "the body is no JSON object");
    };
    let text = |name: &str| body.get(name).map_or(Some(""), Value::as_str);
    let (Some(key), Some(version)) = (text("key"), text("version")) else {
        return twirp(StatusCode::BAD_REQUEST, "malformed", "a field is no string");
    };
    let answered = match asked.call {
        Call::Create => create(inner, &rights, key, version),
        Call::Finalize => finalize(inner, &rights, (key, version), body.get("size_bytes")),
        _ => find(inner, &rights, (key, version), body.get("restore_keys")),
    };
    match answered {
        Ok(value) => answer_json(StatusCode::OK, &value),
        Err(why) => refused(&why),
    }
}

fn url(inner: &Inner, place: &str, id: u64) -> String {
    let state = inner.state();
    let lifetime = state.behaviour.url_lifetime.as_millis() as u64;
    let until = super::Clock::now_ms(&inner.clock) + lifetime;
    format!("http://{}{}", inner.address, sign(&format!("{place}{id}"), until))
}

fn create(inner: &Inner, rights: &Rights, key: &str, version: &str) -> Result<Value, Refused> {
    let now = super::Clock::now_ms(&inner.clock);
    let id = inner.state().reserve(rights, key, version, now)?;
    Ok(json!({"ok": true, "signed_upload_url": url(inner, UPLOAD, id)}))
}

fn finalize(
    inner: &Inner,
    rights: &Rights,
    (key, version): (&str, &str),
    size: Option<&Value>,
) -> Result<Value, Refused> {
    let size = match size {
        None => 0,
        // int64 travels as text; a number is read too.
        Some(Value::String(text)) => text.parse().map_err(|_| Refused::Invalid("size_bytes"))?,
        Some(other) => other.as_u64().ok_or(Refused::Invalid("size_bytes"))?,
    };
    let now = super::Clock::now_ms(&inner.clock);
    let mut state = inner.state();
    let id = state.reserved(rights, key, version)?;
    state.finalize(id, size, now)?;
    Ok(json!({"ok": true, "entry_id": id.to_string()}))
}

fn find(
    inner: &Inner,
    rights: &Rights,
    (key, version): (&str, &str),
    restore_keys: Option<&Value>,
) -> Result<Value, Refused> {
    let mut keys = vec![key.to_owned()];
    if let Some(more) = restore_keys {
        let more = more.as_array().ok_or(Refused::Invalid("restore_keys"))?;
        for key in more {
            keys.push(key.as_str().ok_or(Refused::Invalid("restore_keys"))?.to_owned());
        }
    }
    keys.dedup();
    let now = super::Clock::now_ms(&inner.clock);
    let found = inner.state().lookup(rights, &keys, version, now)?;
    Ok(match found {
        None => json!({"ok": false}),
        Some(found) => json!({
            "ok": true,
            "signed_download_url": url(inner, DOWNLOAD, found.id),
            "matched_key": found.key,
        }),
    })
}

/// Put Blob, Put Block, Put Block List.
fn upload(inner: &Inner, asked: &Asked) -> Response {
    match try_upload(inner, asked) {
        Ok(()) => {
            let headers = [
                (header::ETAG, "\"0x8DC0FFEE\""),
                (header::LAST_MODIFIED, "Wed, 01 Jan 2025 00:00:00 GMT"),
            ];
            (StatusCode::CREATED, headers).into_response()
        }
        Err(why) => refused(&why),
    }
}

fn try_upload(inner: &Inner, asked: &Asked) -> Result<(), Refused> {
    let id = signed_id(inner, asked, UPLOAD)?;
    if asked.method != Method::PUT {
        return Err(Refused::Invalid("method"));
    }
    let value = |name: &str| {
        asked.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let mut state = inner.state();
    match value("comp") {
        None if asked.header("x-ms-blob-type") == Some("BlockBlob") => {
            state.put(id, asked.body.clone())
        }
        None => Err(Refused::Invalid("x-ms-blob-type")),
        Some("block") => {
            let block = value("blockid").map(|id| id.replace("%3D", "=").replace("%2F", "/"));
            let block = block.and_then(|id| token::decode(&id.replace("%2B", "+")));
            let block = block.ok_or(Refused::Invalid("blockid"))?;
            state.put_block(id, block, asked.body.clone())
        }
        Some("blocklist") => {
            let list = block_list(&asked.body).ok_or(Refused::Invalid("block list"))?;
            state.put_block_list(id, &list)
        }
        Some(_) => Err(Refused::Invalid("comp")),
    }
}

/// The ids in `<BlockList><Latest>id</Latest>…</BlockList>`.
fn block_list(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, inside) = text.split_once("<BlockList>")?;
    let (inside, _) = inside.split_once("</BlockList>")?;
    inside
        .split("<Latest>")
        .skip(1)
        .map(|item| token::decode(item.split_once("</Latest>")?.0))
        .collect()
}

fn signed_id(inner: &Inner, asked: &Asked, place: &str) -> Result<u64, Refused> {
    signed(&asked.path, &asked.query, super::Clock::now_ms(&inner.clock))?;
    let id = asked.path.strip_prefix(place).and_then(|id| id.parse().ok());
    id.ok_or(Refused::NotFound)
}

fn download(inner: &Inner, asked: &Asked) -> Response {
    let bytes = match signed_id(inner, asked, DOWNLOAD) {
        Ok(id) => inner.state().bytes(id),
        Err(why) => Err(why),
    };
    match bytes {
        Ok(bytes) => ranged(inner, asked, &bytes),
        Err(why) => refused(&why),
    }
}

/// The whole body, or the range that was asked for.
pub(super) fn ranged(inner: &Inner, asked: &Asked, bytes: &Bytes) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    let all = bytes.len();
    let asked_range = asked.header("range").filter(|_| !asked.ignore_range);
    let (status, range) = match asked_range.map(|text| range(text, all)) {
        None => (StatusCode::OK, 0..all),
        Some(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(None) => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
    };
    let place = format!("bytes {}-{}/{all}", range.start, range.end.saturating_sub(1));
    let body = bytes.slice(range);
    if asked.method == Method::HEAD {
        return (kind, [(header::CONTENT_LENGTH, all.to_string())]).into_response();
    }
    inner.state().counted.bytes_out += body.len() as u64;
    let mut response = (status, kind, Body::from(body)).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        response.headers_mut().insert(header::CONTENT_RANGE, place.parse().unwrap());
    }
    response
}

/// `bytes=a-b` or `bytes=a-` within so many bytes.
fn range(text: &str, all: usize) -> Option<std::ops::Range<usize>> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { all } else { to.parse::<usize>().ok()?.saturating_add(1).min(all) };
    (from < to).then_some(from..to)
}
