//! What is behind an edge: a shared server of this process, and a relay before it that counts what goes
//! by and fails when it is told to.
//!
//! - `between`: a proxy before a shared server, which changes what is said;
//! - `bucket`: a place in a server of S3's API;
//! - `cache`: the GitHub Actions cache;
//! - `standing`: a shared server that is a process of its own;
//! - `tls`: what ends TLS before a server.

pub mod between;
pub mod bucket;
pub mod cache;
pub mod standing;
pub mod tls;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_server::{ServeConfig, ServeError, Server, TlsFiles};
use kiln_storage::Scope;
use kiln_storage::testing::certificates::Certified;
use tempfile::TempDir;

use crate::host::host;

/// A shared Kiln server with a store of its own, on a port of this machine.
#[derive(Debug)]
pub struct Shared {
    dir: TempDir,
    address: SocketAddr,
    socket: PathBuf,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Shared {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts one that speaks TLS, with a certificate.
    pub fn start_tls(files: &Certified) -> Self {
        Self::start_with(|config| {
            config.tls = Some(TlsFiles { cert: files.cert.clone(), key: files.key.clone() });
        })
    }

    /// Starts one at another address of this machine.
    pub fn start_at(ip: Ipv4Addr) -> Self {
        Self::start_with(|config| config.listen.tcp = Some(SocketAddr::from((ip, 0))))
    }

    /// Starts one with a change of its configuration.
    pub fn start_with(change: impl FnOnce(&mut ServeConfig)) -> Self {
        let dir = tempfile::Builder::new().prefix("kt").tempdir_in(&host().tmp);
        let dir = dir.expect("a temporary directory");
        let mut config = ServeConfig::shared(&dir.path().join("k"));
        let socket = dir.path().join("s");
        config.listen.tcp = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.listen.socket = Some(socket.clone());
        // Where it is not loopback it is a network of the test's own.
        config.allow_anyone = true;
        change(&mut config);
        let server = Server::bind(config).expect("a server");
        let address = server.tcp_address().expect("an address");
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { dir, address, socket, thread }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("k/server.log")).unwrap_or_default()
    }

    /// The records of a scope, as they are stored.
    pub fn records(&self, scope: &Scope) -> BTreeMap<PathBuf, Vec<u8>> {
        let dir = self.dir.path().join("k/store/records").join(scope.id());
        let files = if dir.exists() { crate::project::files_below(&dir) } else { Vec::new() };
        let read = |file: &PathBuf| std::fs::read(dir.join(file)).expect("a record");
        files.into_iter().map(|file| (file.clone(), read(&file))).collect()
    }

    /// How many results it has.
    pub fn results(&self) -> usize {
        let records = self.dir.path().join("k/store/records");
        if records.exists() { crate::project::files_below(&records).len() } else { 0 }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Ok(mut stream) = UnixStream::connect(&self.socket) {
            let request = "POST /v1/shutdown HTTP/1.1\r\nhost: kiln\r\ncontent-length: 0\r\n\
                           connection: close\r\n\r\n";
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the relay does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Hands it on.
    Pass,
    /// Hangs up.
    HangUp,
    /// Never answers.
    Silent,
    /// Answers what is none of Kiln's.
    Garbage,
    /// Hands on what only reads; answers what writes with this status, and for 503 as a read-only server.
    NoWrites(u16),
    /// Hands on all but how leases end: hangs up then.
    NoReleases,
}

/// Requests and bytes of bodies, both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Bytes to the server, heads included.
    pub sent: u64,
    /// Bytes from the server, heads included.
    pub received: u64,
}

/// Prints what went by, for who looks at the figures; the sum.
#[allow(clippy::print_stdout, reason = "figures of a test")]
pub fn show(what: &str, traffic: &BTreeMap<String, Traffic>) -> Traffic {
    let mut all = Traffic::default();
    for (call, Traffic { requests, sent, received }) in traffic {
        println!("{what}: {call}: {requests} requests, {sent} bytes sent, {received} received");
        all.requests += requests;
        all.sent += sent;
        all.received += received;
    }
    println!("{what}: {all:?}");
    all
}

/// How many requests of a kind there were.
pub fn requests(traffic: &BTreeMap<String, Traffic>, call: &str) -> u64 {
    traffic.get(call).copied().unwrap_or_default().requests
}

#[derive(Debug)]
struct State {
    mode: Mode,
    by_call: BTreeMap<String, Traffic>,
    refused: u64,
    // Connections that are kept open and never answered.
    held: Vec<TcpStream>,
}

/// A relay on a port of its own.
#[derive(Debug, Clone)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// A relay before a server, which hands everything on.
    pub fn before(shared: &Shared) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state =
            State { mode: Mode::Pass, by_call: BTreeMap::new(), refused: 0, held: Vec::new() };
        let relay = Self { address, state: Arc::new(Mutex::new(state)) };
        let (this, server) = (relay.clone(), shared.address);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.serve(client, server));
            }
        });
        relay
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it does from now on.
    pub fn set(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        state.held.clear();
    }

    /// How many requests it did not hand on.
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// What went by since it was asked last, by call.
    pub fn take(&self) -> BTreeMap<String, Traffic> {
        std::mem::take(&mut self.state().by_call)
    }

    /// One request of a connection.
    fn serve(&self, mut client: TcpStream, server: SocketAddr) -> Option<()> {
        let mut reader = BufReader::new(client.try_clone().ok()?);
        let (call, request) = message(&mut reader)?;
        let mode = self.state().mode;
        let writes = call.starts_with("PUT") || call.ends_with("/missing");
        match mode {
            Mode::Pass => {}
            Mode::NoWrites(_) if !writes => {}
            Mode::NoReleases if !call.ends_with("/release") => {}
            Mode::HangUp | Mode::NoReleases => return self.refuse(),
            Mode::Silent => {
                self.state().held.push(client);
                return self.refuse();
            }
            Mode::Garbage => {
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html>???");
                return self.refuse();
            }
            Mode::NoWrites(status) => {
                let kind = if status == 503 { "read-only" } else { "insufficient-storage" };
                let body = format!(
                    "{{\"type\":\"/problems/{kind}\",\"title\":\"\",\"status\":{status},\"request_id\":\"\"}}"
                );
                let answer = format!(
                    "HTTP/1.1 {status} No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = client.write_all(answer.as_bytes());
                let _ = client.shutdown(Shutdown::Write);
                return self.refuse();
            }
        }
        let mut upstream = TcpStream::connect(server).ok()?;
        upstream.write_all(&request).ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).ok()?;
        let mut state = self.state();
        let traffic = state.by_call.entry(call).or_default();
        traffic.requests += 1;
        traffic.sent += request.len() as u64;
        traffic.received += answer.len() as u64;
        drop(state);
        client.write_all(&answer).ok()
    }

    fn refuse(&self) -> Option<()> {
        self.state().refused += 1;
        None
    }
}

/// One request: the call without names of single things, and its bytes, so that the server closes the
/// connection after its answer.
fn message(from: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut length, mut call, mut is_chunked) = (Vec::new(), 0, None, false);
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&line).to_lowercase();
        if call.is_none() {
            call = Some(name(&text));
        }
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        is_chunked |= text.starts_with("transfer-encoding:");
        if text.trim().is_empty() {
            bytes.extend_from_slice(b"connection: close\r\n\r\n");
            match is_chunked {
                true => chunks(from, &mut bytes)?,
                false => {
                    let mut body = vec![0; length];
                    from.read_exact(&mut body).ok()?;
                    bytes.extend(body);
                }
            }
            return Some((call?, bytes));
        }
        if !text.starts_with("connection:") {
            bytes.extend(line);
        }
    }
}

/// Reads a body in chunks as it is.
fn chunks(from: &mut impl BufRead, bytes: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line).ok()?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        from.read_exact(&mut chunk).ok()?;
        bytes.extend(line);
        bytes.extend(chunk);
        if size == 0 {
            return Some(());
        }
    }
}

/// `PUT /v1/blobs/*` of a request line.
fn name(line: &str) -> String {
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_uppercase();
    let named = |part: &str| part.len() >= 32;
    let path = words.next().unwrap_or_default();
    let parts = path.split('/').map(|part| if named(part) { "*" } else { part });
    format!("{method} {}", parts.collect::<Vec<_>>().join("/"))
}
