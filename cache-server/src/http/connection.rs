//! Connections: accepting them from the listeners, TLS before them where it is configured, serving HTTP/1.1 or, by
//! [`super::h2`], HTTP/2 on each, ending them when the server leaves, and knowing when the last request was.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::Service as _;

use super::audit;
use super::stall::Patient;
use crate::limits::{HEADER_READ_TIMEOUT, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_OWN_CONNECTIONS};
use crate::principal::Peer;
use crate::service::Service;
use crate::tls::{Agreed, Tls};

/// Requests in work and the time of the last one.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    in_work: AtomicUsize,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { begun: Instant::now(), in_work: AtomicUsize::new(0), last_ms: AtomicU64::new(0) }
    }
}

/// One of them; until it is dropped.
#[derive(Debug)]
pub(super) struct InWork(Arc<Activity>);

impl Activity {
    pub(super) fn begin(self: &Arc<Self>) -> InWork {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        InWork(self.clone())
    }

    /// How long there was no request; none while there is one.
    pub(crate) fn idle(&self) -> Option<Duration> {
        if self.in_work.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        Some(self.begun.elapsed().saturating_sub(last))
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(now, Ordering::Relaxed);
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where connections come from.
pub(crate) trait Listener: Send + Sync + 'static {
    /// Whether it is a socket of this machine, which others cannot reach.
    const IS_OWN: bool;

    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its other end.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for UnixListener {
    const IS_OWN: bool = true;

    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let uid = stream.peer_cred().ok().map(|cred| cred.uid());
        Ok((stream, Peer::Unix { uid }))
    }
}

impl Listener for TcpListener {
    const IS_OWN: bool = false;

    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = self.accept().await?;
        // Answers are written whole: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::Tcp(Some(address.ip()))))
    }
}

/// What every connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    service: Service,
    router: Router,
    activity: Arc<Activity>,
    permits: Arc<Semaphore>,
    /// Of sockets of this machine.
    own: Arc<Semaphore>,
}

impl Connections {
    /// Connections that are answered by a router.
    pub(crate) fn new(service: Service, router: Router) -> Self {
        Self {
            service,
            router,
            activity: Arc::default(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            own: Arc::new(Semaphore::new(MAX_OWN_CONNECTIONS)),
        }
    }

    /// Requests in work.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Accepts from a listener until the server leaves.
    pub(crate) async fn accept<L: Listener>(self, listener: L, tls: Option<Tls>) {
        let service = self.service.clone();
        let leaving = service.leaving();
        tokio::pin!(leaving);
        loop {
            let permits = if L::IS_OWN { &self.own } else { &self.permits };
            let Ok(permit) = permits.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.next() => accepted,
                () = &mut leaving => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (this, tls) = (self.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => this.serve(stream, peer).await,
                            // Boxed, so that others do not have its size.
                            Some(tls) => Box::pin(this.serve_tls(stream, peer, &tls)).await,
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some connections end first.
                    self.service.log.warn(format_args!("accept: {error}"));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Who speaks no TLS is hung up on, and no line of the log but for who looks closely: anybody can do that.
    async fn serve_tls<S>(self, stream: S, peer: Peer, tls: &Tls)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let agreed = tokio::select! {
            agreed = tls.accept(stream) => agreed,
            () = self.service.leaving() => return,
        };
        if let Ok((_, agreed)) = &agreed {
            self.service.log.debug(format_args!("TLS: {agreed} with {}", audit::Place(peer)));
        }
        match agreed {
            Ok((stream, Agreed::Http1)) => self.serve(stream, peer).await,
            Ok((stream, Agreed::Http2)) => self.serve_h2(stream, peer).await,
            Err(error) => self.service.log.debug(format_args!("TLS: {error}")),
        }
    }

    /// What the server is for, as connections need it.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// The answer to a request, whatever it came by.
    pub(super) fn answer(
        &self,
        peer: Peer,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let in_work = self.activity.begin();
        request.extensions_mut().insert(peer);
        let answer = self.router.clone().call(request);
        async move {
            let answer = answer.await;
            drop(in_work);
            answer
        }
    }

    async fn serve<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.service.clone();
        let handler = service_fn(move |request| self.answer(peer, request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_header_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(Patient::new(stream)), handler);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = service.leaving() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            service.log.debug(format_args!("connection: {error}"));
        }
    }

    /// Waits until every connection has ended.
    pub(crate) async fn ended(&self) {
        for (permits, all) in [(&self.permits, MAX_CONNECTIONS), (&self.own, MAX_OWN_CONNECTIONS)] {
            let _ = permits.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
        }
    }
}
