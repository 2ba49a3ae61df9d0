//! [`FaultProxy`]: an HTTP proxy that stands between a client and a real server and injects faults by a
//! script. Called by the tests of everything that speaks HTTP to a remote.
//!
//! It listens on a free loopback port, sends each request to one upstream address over a connection of its
//! own, counts requests and bytes, and closes the client's connection after each answer: what a client
//! does with a kept connection is not its subject. Bodies are held in memory. It speaks HTTP/1.1, with
//! bodies by `Content-Length` or in chunks, and no TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::wire::{Head, read_head, read_request_body, read_response_body};

/// What goes wrong with one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    /// Answered with this status, without asking the server; with `Retry-After` in seconds where given.
    Status(u16, Option<u32>),
    /// Answered with 409 and S3's code `ConditionalRequestConflict`, without asking the server.
    Conflict,
    /// Answered with this status and an error of S3 with this code, without asking the server.
    Code(u16, &'static str),
    /// The connection is reset before anything is answered; the server is not asked.
    ResetBefore,
    /// The server is asked and does it; the connection is reset instead of the answer.
    LostAnswer,
    /// The connection is reset in the middle of the answer's body.
    ResetInside,
    /// Half of the body comes under the full `Content-Length`; then the connection ends in order.
    Truncate,
    /// One bit in the middle of the body is another.
    BitFlip,
    /// This text is another one, in the bodies of request and answer.
    Rewrite(&'static str, &'static str),
    /// The request is taken and kept: the server is not asked, and nothing is answered until the client gives
    /// up.
    Hold,
    /// Half of the body comes, and then nothing, until the client gives up.
    Stall,
    /// The body comes in so many pieces with a pause between them.
    Slow {
        /// Pieces.
        pieces: usize,
        /// Between two of them.
        pause: Duration,
    },
}

/// Which exchanges have a fault.
#[derive(Debug, Clone)]
pub struct When {
    /// The method, or any.
    pub method: Option<&'static str>,
    /// A part of path and query; empty for all.
    pub part: String,
    /// Exchanges that match and pass first.
    pub after: u64,
    /// How many have the fault.
    pub times: u64,
}

impl When {
    /// The next exchange of a method, with a part of its path and query.
    pub fn next(method: &'static str, part: &str) -> Self {
        Self { method: Some(method), part: part.to_owned(), after: 0, times: 1 }
    }

    /// The next exchange of any kind.
    pub fn any() -> Self {
        Self { method: None, part: String::new(), after: 0, times: 1 }
    }

    /// As often as this.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// After so many that pass.
    #[must_use]
    pub fn after(self, after: u64) -> Self {
        Self { after, ..self }
    }

    /// Every one from now on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

/// One request that the proxy saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, or empty.
    pub query: String,
    /// What was injected.
    pub fault: Option<HttpFault>,
    /// The status of the answer; 0 while there is none.
    pub status: u16,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body that went to the client.
    pub received: u64,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    rules: Mutex<Vec<(When, HttpFault)>>,
    seen: Mutex<Vec<Exchange>>,
    /// Held while a request is with the server, where writes go one at a time.
    gate: Option<tokio::sync::Mutex<()>>,
}

/// A running proxy; it ends when it is dropped. See the module.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultProxy {
    /// A proxy before a server, in the current runtime.
    ///
    /// # Errors
    /// That no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::start_with(upstream, None).await
    }

    /// As [`FaultProxy::start`], with the writes (all but `GET` and `HEAD`) one at a time: for a server that
    /// looks first and writes then, without a lock between.
    ///
    /// # Errors
    /// That no port can be had.
    pub async fn start_serial(upstream: SocketAddr) -> io::Result<Self> {
        Self::start_with(upstream, Some(tokio::sync::Mutex::new(()))).await
    }

    async fn start_with(
        upstream: SocketAddr,
        gate: Option<tokio::sync::Mutex<()>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state =
            Arc::new(State { upstream, rules: Mutex::default(), seen: Mutex::default(), gate });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a fault to the script. Of several that match an exchange, the first added one counts.
    pub fn inject(&self, when: When, fault: HttpFault) {
        lock(&self.state.rules).push((when, fault));
    }

    /// From now on no faults.
    pub fn clear(&self) {
        lock(&self.state.rules).clear();
    }

    /// How many faults there were.
    pub fn injected(&self) -> u64 {
        lock(&self.state.seen).iter().filter(|exchange| exchange.fault.is_some()).count() as u64
    }

    /// All exchanges so far, by the time their request was whole.
    pub fn seen(&self) -> Vec<Exchange> {
        lock(&self.state.seen).clone()
    }

    /// Forgets the exchanges so far.
    pub fn forget(&self) {
        lock(&self.state.seen).clear();
    }

    /// How many requests of a method had this in path or query.
    pub fn count(&self, method: &str, part: &str) -> u64 {
        let seen = lock(&self.state.seen);
        seen.iter().filter(|e| e.method == method && target(e).contains(part)).count() as u64
    }
}

fn target(exchange: &Exchange) -> String {
    format!("{}?{}", exchange.path, exchange.query)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The fault of an exchange, and its place among those seen.
    fn begin(&self, head: &Head, sent: u64) -> (usize, Option<HttpFault>) {
        let fault = self.fault(head);
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let mut seen = lock(&self.seen);
        seen.push(Exchange {
            method: head.method.clone(),
            path: path.to_owned(),
            query: query.to_owned(),
            fault,
            status: 0,
            sent,
            received: 0,
        });
        (seen.len() - 1, fault)
    }

    fn fault(&self, head: &Head) -> Option<HttpFault> {
        for (when, fault) in lock(&self.rules).iter_mut() {
            let matches = when.method.is_none_or(|method| method == head.method)
                && head.target.contains(&when.part);
            if !matches || when.times == 0 {
                continue;
            }
            if when.after > 0 {
                when.after -= 1;
                continue;
            }
            when.times = when.times.saturating_sub(1);
            return Some(*fault);
        }
        None
    }

    /// Noted before the bytes go out: whoever has an answer finds it counted.
    fn note(&self, at: usize, status: u16, received: u64) {
        if let Some(exchange) = lock(&self.seen).get_mut(at) {
            exchange.status = status;
            exchange.received = received;
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            // A connection that breaks is what a client has to live with.
            let _ = exchange(client, &state).await;
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn exchange(client: TcpStream, state: &State) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let Some(head) = read_head(&mut client).await? else { return Ok(()) };
    let body = read_request_body(&mut client, &head).await?;
    let client = client.into_inner();
    let (at, fault) = state.begin(&head, body.len() as u64);
    match fault {
        Some(HttpFault::ResetBefore) => return reset(&client),
        Some(HttpFault::Hold) => return hold(client).await,
        Some(HttpFault::Status(status, after)) => {
            let after = after.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
            state.note(at, status, 0);
            return answer(client, status, &after, b"").await;
        }
        Some(HttpFault::Conflict | HttpFault::Code(..)) => {
            let (status, code) = match fault {
                Some(HttpFault::Code(status, code)) => (status, code),
                _ => (409, "ConditionalRequestConflict"),
            };
            let body = format!("<Error><Code>{code}</Code></Error>");
            let body = if head.method == "HEAD" { "" } else { &body };
            state.note(at, status, body.len() as u64);
            let of = "content-type: application/xml\r\n";
            return answer(client, status, of, body.as_bytes()).await;
        }
        _ => {}
    }
    let (head, body) = ask(state, &head, &rewritten(body, fault)).await?;
    let body = rewritten(body, fault);
    let status = head.status();
    if fault == Some(HttpFault::LostAnswer) {
        state.note(at, status, 0);
        return reset(&client);
    }
    forward(client, &head, body, fault, |received| state.note(at, status, received)).await
}

/// A body with another text in it, where the fault says so.
fn rewritten(body: Vec<u8>, fault: Option<HttpFault>) -> Vec<u8> {
    let Some(HttpFault::Rewrite(from, to)) = fault else { return body };
    match String::from_utf8(body) {
        Ok(text) => text.replace(from, to).into_bytes(),
        Err(other) => other.into_bytes(),
    }
}

/// Ends when the client closes its side.
async fn hold(mut client: TcpStream) -> io::Result<()> {
    while client.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// An answer of the proxy itself.
async fn answer(mut client: TcpStream, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} injected\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body).await?;
    end(client).await
}

async fn ask(state: &State, head: &Head, body: &[u8]) -> io::Result<(Head, Vec<u8>)> {
    let writes = !matches!(head.method.as_str(), "GET" | "HEAD");
    let _one = match &state.gate {
        Some(gate) if writes => Some(gate.lock().await),
        _ => None,
    };
    let mut server = BufReader::new(TcpStream::connect(state.upstream).await?);
    server.get_mut().write_all(&head.request_bytes(body.len())).await?;
    server.get_mut().write_all(body).await?;
    let answer = read_head(&mut server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = read_response_body(&mut server, &answer, &head.method).await?;
    Ok((answer, body))
}

/// The server's answer, with a fault in its body.
async fn forward(
    mut client: TcpStream,
    head: &Head,
    mut body: Vec<u8>,
    fault: Option<HttpFault>,
    note: impl Fn(u64),
) -> io::Result<()> {
    let half = body.len() / 2;
    let keep = match fault {
        Some(HttpFault::ResetInside | HttpFault::Truncate | HttpFault::Stall) => half,
        _ => body.len(),
    };
    if fault == Some(HttpFault::BitFlip)
        && let Some(byte) = body.get_mut(half)
    {
        *byte ^= 1 << 3;
    }
    note(keep as u64);
    client.write_all(&head.response_bytes(body.len())).await?;
    match fault {
        Some(HttpFault::Slow { pieces, pause }) => {
            for piece in body.chunks(body.len().div_ceil(pieces.max(1)).max(1)) {
                client.write_all(piece).await?;
                tokio::time::sleep(pause).await;
            }
        }
        _ => client.write_all(&body[..keep]).await?,
    }
    client.flush().await?;
    match fault {
        Some(HttpFault::ResetInside) => reset(&client),
        // Ends when the client closes its side.
        Some(HttpFault::Stall) => client.read_u8().await.map(drop),
        _ => end(client).await,
    }
}

/// Ends the connection in order: the client has read all when it closes its side.
async fn end(mut client: TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let mut rest = [0; 1024];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The connection goes with a reset, not in order, as soon as it is dropped.
fn reset(client: &TcpStream) -> io::Result<()> {
    client.set_zero_linger()
}
