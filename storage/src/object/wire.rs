//! [`Wire`]: every request to an object store passes here: bounded in number, counted, and sent again
//! where that helps. `object_store` has retries of its own, but they know no `Retry-After`; they are left
//! with bodies that break off, which they resume.
//!
//! Called by the clients that [`super::connect`] builds. Every request may be sent again: reads, deletes
//! and parts say the same twice, and a conditional write whose answer was lost finds itself there.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use tokio::sync::Semaphore;

use super::failure::{Failure, error_code, plain_code};
use super::patience::{self, Patience};
use super::traffic::Traffic;
use crate::limits;
use crate::remote::tls;

/// What all clients of one backend share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) patience: Patience,
    pub(super) slots: Arc<Semaphore>,
    pub(super) traffic: Arc<Traffic>,
    /// Completing an upload is conditional, where the service knows that: `object_store` has no way to
    /// say so. The header needs no signature.
    pub(super) completes_once: bool,
    pub(super) told: Arc<Told>,
}

/// The status and the code of the last refusal that said why.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<(u16, String)>>);

impl Told {
    /// The code of a refusal. What is asked with HEAD is refused without a body: the last one of that status says why.
    fn code(&self, status: u16, code: Option<String>, has_body: bool) -> Option<String> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match code {
            Some(code) => {
                *last = Some((status, code.clone()));
                Some(code)
            }
            None if has_body => None,
            None => last.as_ref().filter(|(of, _)| *of == status).map(|(_, code)| code.clone()),
        }
    }
}

/// Makes HTTP clients with [`Wire`] before them.
#[derive(Debug, Clone)]
pub(super) struct Connector(pub(super) Shared);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        tls::install();
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { inner, shared: self.0.clone() }))
    }
}

/// See the module.
#[derive(Debug)]
struct Wire {
    inner: HttpClient,
    shared: Shared,
}

/// What to do with an answer.
enum Verdict {
    Take(HttpResponse),
    Refuse(Failure),
    Again(Failure, Option<std::time::Duration>),
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.shared.completes_once && completes_upload(&request) {
            let any = object_store::HeaderValue::from_static("*");
            request.headers_mut().insert("if-none-match", any);
        }
        let began = Instant::now();
        let mut done = 0;
        loop {
            let verdict = self.once(request.clone()).await;
            done += 1;
            let (failure, asked) = match verdict {
                Verdict::Take(answer) => return Ok(answer),
                Verdict::Refuse(failure) => return Err(final_error(failure)),
                Verdict::Again(failure, asked) => (failure, asked),
            };
            let chance = RandomState::new().build_hasher().finish();
            let pause = self.shared.patience.pause(done, began.elapsed(), asked, chance);
            let Some(pause) = pause.filter(|_| !in_vain(&request, &failure, done)) else {
                return Err(final_error(failure));
            };
            match asked {
                Some(_) => self.shared.traffic.wait_as_asked(pause).await,
                None => tokio::time::sleep(pause).await,
            }
            self.shared.traffic.again();
        }
    }
}

/// Of a kind that `object_store` does not retry once more.
fn final_error(failure: Failure) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, failure)
}

/// Whether somebody may be waiting for what nobody takes the connection for: a build waits for reads, and what is
/// written waits behind it.
fn in_vain(request: &HttpRequest, failure: &Failure, done: u32) -> bool {
    let reads = matches!(request.method().as_str(), "GET" | "HEAD");
    reads && *failure == Failure::NoConnection && done >= limits::MAX_OBJECT_CONNECTS
}

fn completes_upload(request: &HttpRequest) -> bool {
    request.method().as_str() == "POST"
        && request.uri().query().is_some_and(|query| query.starts_with("uploadId="))
}

impl Wire {
    /// One attempt. The slot is given back when the head of the answer is there: whoever reads many bodies
    /// at once does not wait for himself.
    async fn once(&self, request: HttpRequest) -> Verdict {
        let Ok(_slot) = self.shared.slots.acquire().await else {
            return Verdict::Refuse(Failure::Broken);
        };
        self.shared.traffic.sent(request.body().content_length() as u64);
        let for_credentials = gives_credentials(request.uri().path());
        let has_body = request.method().as_str() != "HEAD";
        match self.inner.execute(request).await {
            Ok(answer) => {
                self.note_time(&answer);
                judge(answer, |status, code| self.shared.told.code(status, code, has_body)).await
            }
            Err(error) if let Some(why) = tls::refusal(&error) => {
                Verdict::Refuse(Failure::Tls(why))
            }
            Err(_) if for_credentials => Verdict::Again(Failure::NoCredentials, None),
            Err(error) => match error.kind() {
                HttpErrorKind::Connect => Verdict::Again(Failure::NoConnection, None),
                HttpErrorKind::Timeout => Verdict::Again(Failure::NoAnswer, None),
                _ => Verdict::Again(Failure::Broken, None),
            },
        }
    }
}

impl Wire {
    /// Notes what time it is there, unless the answer was kept by somebody on the way.
    fn note_time(&self, answer: &HttpResponse) {
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let there = header("date").filter(|_| header("age").is_none()).and_then(patience::date);
        if let Some(there) = there {
            self.shared.traffic.told_time(there, now_s());
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether this is what a machine asks for the credentials of its role: at Amazon, Google, Azure.
fn gives_credentials(path: &str) -> bool {
    let asked =
        ["/latest/api/token", "/latest/meta-data/", "/computeMetadata/", "/metadata/identity/"];
    asked.iter().any(|begin| path.starts_with(begin))
}

async fn judge(
    answer: HttpResponse,
    told: impl Fn(u16, Option<String>) -> Option<String>,
) -> Verdict {
    let status = answer.status().as_u16();
    // S3 sends who asks in the wrong region away, and does not say where to.
    let nowhere =
        matches!(status, 301 | 302 | 307 | 308) && !answer.headers().contains_key("location");
    if status < 400 && !nowhere {
        return Verdict::Take(answer);
    }
    let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let asked = header.and_then(|header| patience::asked(header, now_s()));
    let (answer, code) = with_code(answer).await;
    let code = if matches!(status, 400 | 401 | 403) { told(status, code) } else { code };
    let failure = Failure::Status { status, code };
    match (status, failure.code()) {
        // Azure's way to say that there is one; `object_store` knows it.
        (409, Some("BlobAlreadyExists")) => Verdict::Take(answer),
        // Another conditional write of the same name is on its way; afterwards one is there.
        (409, _) => Verdict::Again(failure, asked),
        (501 | 505, _) => Verdict::Refuse(failure),
        (408 | 425 | 429 | 500.., _) => Verdict::Again(failure, asked),
        // Told apart from an object that is not there.
        (404, Some("NoSuchBucket" | "ContainerNotFound")) => Verdict::Refuse(failure),
        // What `object_store` has a word for.
        (404 | 412 | 416, _) | (401 | 403, None) => Verdict::Take(answer),
        _ => Verdict::Refuse(failure),
    }
}

/// The answer, and the service's code for what is wrong: in a header, or in the beginning of the body.
async fn with_code(answer: HttpResponse) -> (HttpResponse, Option<String>) {
    let header = answer.headers().get("x-ms-error-code").and_then(|value| value.to_str().ok());
    let header = header.and_then(plain_code);
    let (head, body) = answer.into_parts();
    let mut chunks = body.bytes_stream();
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        let room = limits::MAX_OBJECT_ERROR_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    let code = header.or_else(|| error_code(&body));
    (HttpResponse::from_parts(head, body.into()), code)
}
