//! [`Failure`]: what went wrong with a request, as little of it as may be shown; and the one place where
//! errors of `object_store` become [`StoreError`]s. Those hold URLs and bodies, so no text of theirs is
//! passed on.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use super::place::{Place, Service};
use crate::backend::StoreError;

/// Longest error code that is shown, bytes.
const MAX_CODE_BYTES: usize = 48;

/// Why a request was given up: for people, with what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody took the connection.
    #[error("it cannot be reached: no connection; look at the endpoint and the network")]
    NoConnection,
    /// Nothing came in time.
    #[error("it does not answer in time")]
    NoAnswer,
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke before an answer came")]
    Broken,
    /// The body of an answer ended early, and so did those that were asked for instead.
    #[error("its answer broke off, and again when the rest was asked for")]
    Cut,
    /// What came is none of the service's answers.
    #[error("its answer makes no sense; is the endpoint one of this service?")]
    Foreign,
    /// A file that settings name cannot be read.
    #[error("a file that the settings of the bucket name cannot be read; look at them")]
    NoFile,
    /// TLS refuses.
    #[error("{0}")]
    Tls(&'static str),
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
        || failure.as_ref().is_some_and(|failure| matches!(failure.status(), Some(401 | 403)));
    let text = match (error, failure) {
        (_, Some(failure)) => sentence(place, &failure),
        _ if refused => format!("the credentials have no right to this; look at {}", keys(place)),
        (E::NotFound { .. }, _) => "there is no such bucket; look at the URL".to_owned(),
        (E::Precondition { .. } | E::AlreadyExists { .. }, _) => {
            "a condition did not hold".to_owned()
        }
        _ => Failure::Foreign.to_string(),
    };
    let text = format!("{place}: {text}");
    match doing {
        Doing::Write if refused => StoreError::ReadOnly(text),
        _ => StoreError::Unavailable(text),
    }
}

/// A failure of a place, with what to do next where that hangs on the service.
fn sentence(place: &Place, failure: &Failure) -> String {
    let next = match (failure.status(), failure.code()) {
        (_, Some("NoSuchBucket" | "ContainerNotFound")) => {
            return "there is no such bucket; look at the URL".to_owned();
        }
        (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed")) => {
            let setting = match place.service {
                Service::S3 => "; name that in AWS_REGION",
                Service::Gcs | Service::Azure => "",
            };
            return format!("the bucket is in another region{setting}");
        }
        (_, Some("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired")) => {
            "; the session of AWS_SESSION_TOKEN is over: set another one and stop the server, which keeps \
             what it was started with"
                .to_owned()
        }
        (_, Some("RequestTimeTooSkewed")) => "; the clock of this machine is wrong".to_owned(),
        (Some(401 | 403), _) => {
            format!("; it lets nobody in like that: look at {} and at what they allow", keys(place))
        }
        (Some(408 | 429 | 500..), _) => "; it is busy or broken, which passes".to_owned(),
        _ if *failure == Failure::NoCredentials => format!("; set {}", keys(place)),
        _ => String::new(),
    };
    format!("{failure}{next}")
}

/// The settings that let somebody in.
fn keys(place: &Place) -> &'static str {
    match place.service {
        Service::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        Service::Gcs => "GOOGLE_APPLICATION_CREDENTIALS",
        Service::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    }
}

/// The [`Failure`] at the bottom of an error, or what the cause there comes to.
fn find(error: &(dyn Error + 'static)) -> Option<Failure> {
    let (mut next, mut known) = (Some(error), None);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure.clone());
        }
        if let Some(error) = error.downcast_ref::<HttpError>() {
            known = match error.kind() {
                HttpErrorKind::Connect => Some(Failure::NoConnection),
                HttpErrorKind::Timeout => Some(Failure::NoAnswer),
                HttpErrorKind::Request | HttpErrorKind::Interrupted | HttpErrorKind::Decode => {
                    Some(Failure::Cut)
                }
                _ => known,
            };
        }
        if known.is_none() && error.is::<std::io::Error>() {
            known = Some(Failure::NoFile);
        }
        next = error.source();
    }
    known
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
