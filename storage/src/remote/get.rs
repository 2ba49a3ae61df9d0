//! [`get`]: one small document from a service, whole or not at all. For the keys of who makes tokens, and for a token
//! itself. Follows no redirect and uses no proxy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::kiln::unavailable;
use super::tls;
use crate::backend::{StoreError, StoreResult};
use crate::limits;

/// Longest that a document may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks for a document of at most so many bytes, with a bearer token where there is one.
///
/// # Errors
/// [`StoreError::Unavailable`], in words that hold neither the address nor the token.
pub async fn get(url: &str, bearer: Option<&str>, max: usize) -> StoreResult<Bytes> {
    tls::install();
    let fail = |why: &str| StoreError::Unavailable(why.to_owned());
    let client = Client::builder()
        .connect_timeout(limits::REMOTE_CONNECT_TIMEOUT)
        .timeout(WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|_| fail("no client for it can be made"))?;
    let mut request = client.get(url);
    if let Some(token) = bearer {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| fail("the token has characters of no token"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let response = request.send().await.map_err(|error| unavailable(&error))?;
    if !response.status().is_success() {
        return Err(fail(&format!("it answers {}", response.status().as_u16())));
    }
    let mut stream = response.bytes_stream();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| unavailable(&error))?;
        if bytes.len() + chunk.len() > max {
            return Err(fail("its answer is too long"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
