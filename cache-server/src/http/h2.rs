//! HTTP/2 on a connection, by what was agreed on in the handshake of TLS. The same requests with the same answers as by
//! HTTP/1.1 ([`super::connection`]); here are its own bounds, and when a connection ends.
//!
//! On a port without TLS there is no HTTP/2: a client would have to begin with it unasked, and telling the two apart
//! by the first bytes leaves a client that says nothing without a time limit.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Activity, Connections, InWork};
use super::stall::{Answer, Answers, Patient};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, GOAWAY_GRACE, HEADER_READ_TIMEOUT, MAX_HEADER_BYTES, MAX_STREAMS,
    MAX_TAKEN_BACK, MAX_WRONG_STREAMS, PING_INTERVAL, PING_TIMEOUT, STREAM_SEND_BYTES,
    STREAM_WINDOW_BYTES,
};
use crate::principal::Peer;
use crate::service::Service;

/// An answer that counts as in work until the last of it is sent.
struct Held {
    body: Body,
    answer: Answer,
    _in_work: InWork,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answer.goes_on();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Connections {
    /// Serves HTTP/2 until the client leaves, the server leaves, or nothing was asked for a time.
    pub(super) async fn serve_h2<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.service().clone();
        let own = Arc::<Activity>::default();
        let (open, answers) = (own.clone(), Arc::<Answers>::default());
        let sent = answers.clone();
        let handler = service_fn(move |request| {
            let in_work = open.begin();
            let (answer, answers) = (self.answer(peer, request), answers.clone());
            async move {
                let hold = |body| Held { body, answer: answers.begin(), _in_work: in_work };
                answer.await.map(|answer: Response| answer.map(hold)) as Result<_, Infallible>
            }
        });
        let stream = TokioIo::new(Patient::new(stream));
        let mut connection = pin!(builder().serve_connection(stream, handler));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = sent.stalled() => Ok(()),
            () = over(&service, &own) => {
                // Says which request was the last one; those before it are answered.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = gone(&own) => Ok(()),
                    () = sent.stalled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            service.log.debug(format_args!("connection: {error}"));
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
        .max_local_error_reset_streams(MAX_WRONG_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// When a connection takes no further requests.
async fn over(service: &Service, own: &Activity) {
    tokio::select! {
        () = service.leaving() => {}
        () = quiet(own, HEADER_READ_TIMEOUT) => {}
    }
}

/// When nobody may be there any more who would end it, and nothing is left to be answered.
async fn gone(own: &Activity) {
    tokio::time::sleep(GOAWAY_GRACE).await;
    quiet(own, GOAWAY_GRACE).await;
}

/// Until nothing was in work for so long.
async fn quiet(own: &Activity, limit: Duration) {
    loop {
        match own.idle() {
            Some(idle) if idle >= limit => return,
            Some(idle) => tokio::time::sleep(limit.saturating_sub(idle)).await,
            None => tokio::time::sleep(limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_when_nothing_was_asked_for_a_time() {
        let (own, begun) = (Arc::<Activity>::default(), Instant::now());
        let seconds = Duration::from_secs;
        quiet(&own, seconds(60)).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
        // An answer is sent for a long time; then it counts from its end.
        let in_work = own.begin();
        let waiting = quiet(&own, seconds(60));
        let mut waiting = pin!(waiting);
        assert!(tokio::time::timeout(seconds(1000), waiting.as_mut()).await.is_err());
        drop(in_work);
        let ended = Instant::now();
        waiting.await;
        assert!(ended.elapsed() >= seconds(60) && ended.elapsed() <= seconds(120));
    }
}
