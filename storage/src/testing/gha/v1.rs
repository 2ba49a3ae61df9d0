//! The v1 face of the fake, `_apis/artifactcache`: the same entries, asked for as Forgejo, Gitea, act and
//! GitHub Enterprise Server are.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::http::{Asked, answer_json, ranged, twirp, unauthorized, with_fault};
use super::state::{Refused, sign, signed};
use super::{Call, Clock as _, Inner};

const BASE: &str = "/v1/_apis/artifactcache/";
const ARTIFACTS: &str = "/v1/_apis/artifactcache/artifacts/";

/// Answers one request.
pub(super) async fn answer(inner: &Inner, request: Request<Body>) -> Response {
    let rest = request.uri().path().strip_prefix(BASE).unwrap_or_default();
    let call = match (request.method(), rest.split('/').next(), rest.contains('/')) {
        (&Method::GET, Some("cache"), false) => Call::Lookup,
        (&Method::POST, Some("caches"), false) => Call::Create,
        (&Method::PATCH, Some("caches"), true) => Call::Upload,
        (&Method::POST, Some("caches"), true) => Call::Finalize,
        (&Method::GET, Some("artifacts"), true) => Call::Download,
        _ => return twirp(StatusCode::NOT_FOUND, "bad_route", "no such route"),
    };
    with_fault(inner, call, request, act).await
}

fn act(inner: &Inner, asked: &Asked) -> Response {
    let answered = match asked.call {
        Call::Download => download(inner, asked),
        _ => {
            if asked.rights().is_none() || !inner.state().token_holds() {
                return unauthorized();
            }
            match asked.call {
                Call::Lookup => find(inner, asked),
                Call::Create => reserve(inner, asked),
                Call::Upload => upload(inner, asked),
                _ => commit(inner, asked),
            }
        }
    };
    answered.unwrap_or_else(|why| {
        let (status, seconds) = match why {
            Refused::Invalid(_) => (StatusCode::BAD_REQUEST, None),
            Refused::AlreadyExists => (StatusCode::CONFLICT, None),
            Refused::NotFound => (StatusCode::NOT_FOUND, None),
            Refused::WriteDenied | Refused::Signature => (StatusCode::FORBIDDEN, None),
            Refused::RateLimited(seconds) => (StatusCode::TOO_MANY_REQUESTS, Some(seconds)),
        };
        let mut response = answer_json(status, &json!({"message": format!("{why:?}")}));
        if let Some(seconds) = seconds {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    })
}

fn find(inner: &Inner, asked: &Asked) -> Result<Response, Refused> {
    let value = |name: &str| {
        asked.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let keys = value("keys").unwrap_or_default().replace("%2C", ",");
    let keys: Vec<String> = keys.split(',').map(ToOwned::to_owned).collect();
    let rights = asked.rights().unwrap_or_default();
    let now = inner.clock.now_ms();
    let version = value("version").unwrap_or_default();
    let Some(found) = inner.state().lookup(&rights, &keys, version, now)? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let until = now + inner.state().behaviour.url_lifetime.as_millis() as u64;
    let place = sign(&format!("{ARTIFACTS}{}", found.id), until);
    let answer = json!({
        "cacheKey": found.key,
        "scope": found.scope,
        "archiveLocation": format!("http://{}{place}", inner.address),
    });
    Ok(answer_json(StatusCode::OK, &answer))
}

fn body(asked: &Asked) -> Result<Value, Refused> {
    serde_json::from_slice(&asked.body).map_err(|_| Refused::Invalid("body"))
}

fn reserve(inner: &Inner, asked: &Asked) -> Result<Response, Refused> {
    let body = body(asked)?;
    let key = body["key"].as_str().ok_or(Refused::Invalid("key"))?;
    let version = body["version"].as_str().ok_or(Refused::Invalid("version"))?;
    let rights = asked.rights().unwrap_or_default();
    let id = inner.state().reserve(&rights, key, version, inner.clock.now_ms())?;
    Ok(answer_json(StatusCode::CREATED, &json!({"cacheId": id})))
}

fn id(asked: &Asked) -> Result<u64, Refused> {
    let id = asked.path.rsplit('/').next().and_then(|id| id.parse().ok());
    id.ok_or(Refused::NotFound)
}

fn upload(inner: &Inner, asked: &Asked) -> Result<Response, Refused> {
    let range = asked.header("content-range").and_then(|text| {
        let (from, to) = text.strip_prefix("bytes ")?.strip_suffix("/*")?.split_once('-')?;
        Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?))
    });
    let (from, to) = range.ok_or(Refused::Invalid("content-range"))?;
    if from + asked.body.len() as u64 != to + 1 {
        return Err(Refused::Invalid("content-range"));
    }
    inner.state().put_block(id(asked)?, from.to_be_bytes().to_vec(), asked.body.clone())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn commit(inner: &Inner, asked: &Asked) -> Result<Response, Refused> {
    let size = body(asked)?["size"].as_u64().ok_or(Refused::Invalid("size"))?;
    let mut state = inner.state();
    state.join_parts(id(asked)?)?;
    state.finalize(id(asked)?, size, inner.clock.now_ms())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn download(inner: &Inner, asked: &Asked) -> Result<Response, Refused> {
    signed(&asked.path, &asked.query, inner.clock.now_ms())?;
    let bytes = inner.state().bytes(id(asked)?)?;
    Ok(ranged(inner, asked, &bytes))
}
