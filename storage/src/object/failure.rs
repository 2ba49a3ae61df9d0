//! [`Failure`]: what went wrong with a request, as little of it as may be shown; and the one place where
//! errors of `object_store` become [`StoreError`]s. Those hold URLs and bodies, so no text of theirs is
//! passed on.

use std::error::Error;

use super::place::Place;
use crate::backend::StoreError;

/// Longest error code that is shown, bytes.
const MAX_CODE_BYTES: usize = 48;

/// Why a request was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody took the connection.
    #[error("no connection")]
    NoConnection,
    /// Nothing came in time.
    #[error("no answer in time")]
    NoAnswer,
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke")]
    Broken,
    /// Who gives a machine its credentials could not be asked.
    #[error("no credentials are set, and this machine has no role that gives some")]
    NoCredentials,
    /// An answer that is none.
    #[error("status {status}{}", .code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Status {
        /// The status.
        status: u16,
        /// What the service calls it.
        code: Option<String>,
    },
}

impl Failure {
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Status { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The text of the first `<Code>` in a body, when it is a plain word.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    plain_code(rest.split_once("</Code>")?.0)
}

/// A code, when it is a plain word.
pub(super) fn plain_code(code: &str) -> Option<String> {
    let plain = !code.is_empty() && code.bytes().all(|c| c.is_ascii_alphanumeric());
    (plain && code.len() <= MAX_CODE_BYTES).then(|| code.to_owned())
}

/// What was being done: a refusal means something else for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Read,
    Write,
}

/// The error of an operation on a place.
pub(super) fn project(place: &Place, doing: Doing, error: &object_store::Error) -> StoreError {
    use object_store::Error as E;
    let failure = find(error);
    let refused = matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. })
        || failure.is_some_and(|failure| matches!(failure.status(), Some(401 | 403)));
    let text = match failure {
        Some(failure) => match failure.code() {
            Some("NoSuchBucket" | "ContainerNotFound") => {
                format!("{place}: there is no such bucket")
            }
            Some("PermanentRedirect" | "AuthorizationHeaderMalformed") => {
                format!("{place}: the bucket is in another region")
            }
            _ => format!("{place}: {failure}"),
        },
        None if refused => format!("{place}: the credentials have no right to this"),
        None => match error {
            E::NotFound { .. } => format!("{place}: there is no such bucket"),
            E::Precondition { .. } | E::AlreadyExists { .. } => {
                format!("{place}: a condition did not hold")
            }
            _ => format!("{place}: the answer makes no sense, or there are no credentials"),
        },
    };
    match doing {
        Doing::Write if refused => StoreError::ReadOnly(text),
        _ => StoreError::Unavailable(text),
    }
}

/// The [`Failure`] at the bottom of an error.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_plain_words() {
        let code = |body: &str| error_code(body.as_bytes());
        assert_eq!(code("<Error><Code>SlowDown</Code></Error>").as_deref(), Some("SlowDown"));
        for odd in ["", "<Code>", "<Code></Code>", "<Code>a b</Code>", "<Code>http://x</Code>"] {
            assert_eq!(code(odd), None, "{odd:?}");
        }
        assert_eq!(code(&format!("<Code>{}</Code>", "x".repeat(60))), None);
    }

    #[test]
    fn nothing_of_an_error_is_shown_but_status_and_code() {
        let place = Place::parse("s3://bucket/p").unwrap();
        let secret = |_: ()| std::io::Error::other("https://host/?X-Amz-Signature=hunter2");
        let error = object_store::Error::Generic { store: "S3", source: Box::new(secret(())) };
        let shown = project(&place, Doing::Write, &error);
        assert!(!format!("{shown} {shown:?}").contains("hunter2"));
        let denied = object_store::Error::PermissionDenied {
            path: "x".into(),
            source: Box::new(secret(())),
        };
        let text = |doing| project(&place, doing, &denied);
        assert!(matches!(text(Doing::Write), StoreError::ReadOnly(_)));
        assert!(matches!(text(Doing::Read), StoreError::Unavailable(_)));
        assert!(!format!("{:?}", text(Doing::Write)).contains("hunter2"));
    }
}
