//! Runtime tokens of the fake: making them, and what one allows. No signature is looked at: what is tested
//! is the service behind it.

use std::fmt::Write as _;

/// The right to read, as the `ac` claim has it.
pub const READ: u8 = 1;
/// The right to write.
pub const WRITE: u8 = 2;
/// Both.
pub const READ_WRITE: u8 = 3;

/// A runtime token with these scopes and rights, the own ref first.
pub fn token(scopes: &[(&str, u8)]) -> String {
    let rows: Vec<_> = scopes
        .iter()
        .map(|(scope, permission)| serde_json::json!({"Scope": scope, "Permission": permission}))
        .collect();
    let ac = serde_json::Value::Array(rows).to_string();
    let claims = serde_json::json!({"ac": ac, "repository_id": "4711"}).to_string();
    format!("{}.{}.unsigned", encode(br#"{"alg":"RS256"}"#), encode(claims.as_bytes()))
}

/// What a token allows.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    /// The scope that is written to.
    pub(super) own: Option<String>,
    /// The scopes that are read, the own one first.
    pub(super) read: Vec<String>,
}

/// The rights in the header `Authorization: Bearer …`; `None` for what is no token.
pub(super) fn rights(header: Option<&str>) -> Option<Rights> {
    let claims = decode(header?.strip_prefix("Bearer ")?.split('.').nth(1)?)?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(claims["ac"].as_str()?).ok()?;
    let mut rights = Rights::default();
    for row in rows {
        let scope = row["Scope"].as_str()?.to_owned();
        let permission = row["Permission"].as_u64()?;
        let writable = permission & u64::from(WRITE) != 0;
        if permission & u64::from(READ) != 0 {
            let at = if writable { 0 } else { rights.read.len() };
            rights.read.insert(at, scope.clone());
        }
        if writable && rights.own.is_none() {
            rights.own = Some(scope);
        }
    }
    Some(rights)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

/// The bytes of base64 of either alphabet, padded or not; `None` for what is none.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let byte = match byte {
            b'+' => b'-',
            b'/' => b'_',
            byte => byte,
        };
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Some(bytes)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
