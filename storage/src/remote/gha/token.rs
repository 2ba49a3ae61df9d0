//! What a runtime token says of itself: which refs its job reads and which one it writes.
//!
//! Pure. For choosing the scopes that are asked for, the default branch among them, which the runner tells
//! nowhere else, and for not writing what nobody could find. Nothing else is allowed or refused by it: the
//! signature is not looked at, and the service decides.

use serde::Deserialize;

use super::limits;
use super::settings::Secret;

/// Bit of a permission that allows to read.
const READ: u64 = 1;
/// Bit of a permission that allows to write.
const WRITE: u64 = 2;

/// The refs of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// The ref that is written to; `None` for a token that only reads.
    pub own: Option<String>,
    /// The refs that are read, the own one first: what to look through, in this order.
    pub read: Vec<String>,
}

#[derive(Deserialize)]
struct Claims {
    /// A list as JSON in a text.
    ac: String,
}

#[derive(Deserialize)]
struct Access {
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "Permission")]
    permission: u64,
}

impl Refs {
    /// The refs of a token of github.com; `None` when it is none, or says nothing of them.
    pub fn of(token: &Secret) -> Option<Self> {
        let payload = decode(token.expose().split('.').nth(1)?)?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        let all: Vec<Access> = serde_json::from_str(&claims.ac).ok()?;
        let mut refs = Self::default();
        for access in all.into_iter().take(limits::MAX_REFS) {
            let own = access.permission & WRITE != 0 && refs.own.is_none();
            if own {
                refs.own = Some(access.scope.clone());
            }
            if access.permission & READ != 0 {
                let at = if own { 0 } else { refs.read.len() };
                refs.read.insert(at, access.scope);
            }
        }
        Some(refs)
    }
}

impl Refs {
    /// Whether no ref may be written to.
    pub fn writes_nothing(&self) -> bool {
        self.own.is_none()
    }

    /// Whether the ref that is written to is one that is not read: what it has already cannot be known.
    pub fn writes_unread(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !self.read.contains(own))
    }
}

/// The bytes of base64url without padding, as tokens have it.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(payload: &str) -> Option<Refs> {
        Refs::of(&Secret::new(format!("head.{payload}.signature")))
    }

    #[test]
    fn base64url_as_in_the_standard() {
        let known = [("", ""), ("Zg", "f"), ("Zm8", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")];
        for (text, bytes) in known {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode("-_-_"), Some(vec![0xfb, 0xff, 0xbf]));
        assert_eq!(decode("Zg=="), None);
    }

    /// The payload is `{"ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":1},
    /// {\"Scope\":\"refs/pull/7/merge\",\"Permission\":3}]"}` without the line break.
    #[test]
    fn a_pull_request_reads_its_own_ref_first() {
        let payload = "eyJhYyI6Ilt7XCJTY29wZVwiOlwicmVmcy9oZWFkcy9tYWluXCIsXCJQZXJtaXNzaW9uXCI6MX0s\
                       e1wiU2NvcGVcIjpcInJlZnMvcHVsbC83L21lcmdlXCIsXCJQZXJtaXNzaW9uXCI6M31dIn0";
        let expected = Refs {
            own: Some("refs/pull/7/merge".into()),
            read: vec!["refs/pull/7/merge".into(), "refs/heads/main".into()],
        };
        assert_eq!(refs(payload), Some(expected));
    }

    #[test]
    fn what_is_no_token_has_no_refs() {
        for payload in ["", "e30", "!", "eyJhYyI6Im5vbmUifQ"] {
            assert_eq!(refs(payload), None, "{payload:?}");
        }
        assert_eq!(Refs::of(&Secret::new("opaque")), None);
    }
}
