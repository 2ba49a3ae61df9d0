//! The text of `tokens.json`: [`parse`] and [`text`], and a [`Token`] as it is there.
//!
//! Pure. What it does not know, it refuses: [`super::tokens`] then lets nobody in.

use kiln_storage::Scope;
use serde::{Deserialize, Serialize};

use super::secret::Hash;
use crate::limits::{MAX_TOKENS, MAX_TOKENS_BYTES};

/// Version of the file.
const VERSION: u32 = 1;

/// A token as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What it is called, for people.
    pub name: String,
    /// The hash of it.
    pub hash: Hash,
    /// The scopes that it reads, in order.
    pub reads: Vec<Scope>,
    /// The scope that it writes.
    pub writes: Option<Scope>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// How many requests it may make in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u64>,
    /// How many bytes it may send in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_upload: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Token>,
}

/// The tokens in a text; none: it is no list of tokens that this version knows.
pub(crate) fn parse(text: &[u8]) -> Option<Vec<Token>> {
    let document = serde_json::from_slice::<Document>(text).ok()?;
    let (version, count) = (document.version, document.tokens.len());
    let fits = version == VERSION && count <= MAX_TOKENS && text.len() <= MAX_TOKENS_BYTES;
    fits.then_some(document.tokens)
}

/// The text with these tokens.
///
/// # Errors
/// Never, as far as is known.
pub(crate) fn text(tokens: Vec<Token>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&Document { version: VERSION, tokens })
}
