//! A server in a thread of the test (or as a process), and a client that writes its own requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use kiln_server::{ServeConfig, ServeError, Server, StorageUrl};
use kiln_storage::api::{
    LookupRequest, LookupResponse, Offer, Problem, PublishRequest, StatsResponse,
};
use kiln_storage::record::{
    Content, Cost, Member, Output, Producer, RECORD_VERSION, Record, TokenPath, UnitName,
    result_key,
};
use kiln_storage::{Digest, UnitKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The kind of problem, after checking that the document is whole.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem: Problem = self.json();
        assert_eq!(problem.status, self.status);
        assert_eq!(Some(problem.request_id.as_str()), self.header("x-request-id"));
        problem.kind
    }
}

/// One request on one connection.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses a body may close before it has read it all.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: bytes[end + 4..].to_vec() }
}

/// A running server and the directory it works in.
pub(crate) struct TestServer {
    pub(crate) dir: TempDir,
    pub(crate) tcp: SocketAddr,
    pub(crate) socket: PathBuf,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// The configuration of a local server below a directory, with TCP beside its socket.
pub(crate) fn config(dir: &Path) -> ServeConfig {
    let uid = rustix::process::geteuid().as_raw();
    let mut config = ServeConfig::local(&dir.join("kiln"), Some(&dir.join("run")), uid);
    config.listen.tcp = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), |_| {})
    }

    pub(crate) fn start_with(dir: TempDir, change: impl FnOnce(&mut ServeConfig)) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let socket = config.listen.socket.clone().unwrap();
        let server = Server::bind(config).unwrap();
        Self {
            dir,
            tcp: server.tcp_address().unwrap(),
            socket,
            thread: Some(std::thread::spawn(move || server.run())),
        }
    }

    pub(crate) fn kiln_dir(&self) -> PathBuf {
        self.dir.path().join("kiln")
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.kiln_dir().join("store")
    }

    pub(crate) fn unix(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let stream = UnixStream::connect(&self.socket).unwrap();
        exchange(stream, method, path, &[], body)
    }

    pub(crate) fn tcp(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let stream = TcpStream::connect(self.tcp).unwrap();
        exchange(stream, method, path, headers, body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &impl Serialize) -> Reply {
        self.unix(method, path, &serde_json::to_vec(body).unwrap())
    }

    pub(crate) fn lookup(&self, record: &Record) -> LookupResponse {
        let request = LookupRequest {
            units: vec![record.unit_key],
            results: Vec::new(),
            ..LookupRequest::default()
        };
        let reply = self.send("POST", "/v1/lookup", &request);
        assert_eq!(reply.status, 200);
        reply.json()
    }

    /// Publishes a record with the files of the fixture offered.
    pub(crate) fn publish(&self, fixture: &Fixture) -> Reply {
        self.send("PUT", &fixture.path(), &fixture.request())
    }

    pub(crate) fn stats(&self) -> StatsResponse {
        self.unix("GET", "/v1/stats", b"").json()
    }

    /// Asks the server to leave and waits until it has.
    pub(crate) fn stop(mut self) -> TempDir {
        assert_eq!(self.unix("POST", "/v1/shutdown", b"").status, 202);
        self.join().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Waits until the server has left by itself.
    pub(crate) fn join(&mut self) -> Result<(), ServeError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // A test that failed leaves it running; without its directory it leaves, too.
        if self.thread.is_some()
            && let Ok(stream) = UnixStream::connect(&self.socket)
        {
            exchange(stream, "POST", "/v1/shutdown", &[], b"");
        }
    }
}

/// A record and the files that hold its blobs.
pub(crate) struct Fixture {
    pub(crate) record: Record,
    pub(crate) offers: Vec<Offer>,
    pub(crate) replace: bool,
}

impl Fixture {
    /// A result of `unit` for the input `variant`, with these outputs, written below `dir`.
    pub(crate) fn new(dir: &Path, unit: &str, variant: &str, outputs: &[&[u8]]) -> Self {
        let unit_key = UnitKey::new(Digest::of(unit.as_bytes()));
        let members = vec![Member::File(TokenPath("<workspace>/lib.rs".into()))];
        let values = vec![Digest::of(variant.as_bytes())];
        let mut offers = Vec::new();
        let mut files = Vec::new();
        for (i, bytes) in outputs.iter().enumerate() {
            let digest = Digest::of(bytes);
            let path = dir.join(format!("{unit}-{variant}-{i}"));
            std::fs::write(&path, bytes).unwrap();
            offers.push(Offer { digest, path: path.to_str().unwrap().to_owned() });
            files.push(Output {
                name: format!("out-{i}"),
                executable: false,
                mode: None,
                content: Content::Blob { digest, size: bytes.len() as u64 },
            });
        }
        let record = Record {
            version: RECORD_VERSION,
            unit_key,
            result_key: result_key(&unit_key, &members, &values),
            unit: UnitName::default(),
            parts: Vec::new(),
            members,
            values,
            variables: Default::default(),
            outputs: files,
            status: 0,
            stdout: "out".into(),
            stderr: String::new(),
            cost: Cost { wall_ms: 1000, cpu_ms: 1000 },
            producer: Producer::default(),
            conservative: Vec::new(),
        };
        Self { record, offers, replace: false }
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/results/{}", self.record.result_key)
    }

    pub(crate) fn request(&self) -> PublishRequest {
        PublishRequest {
            record: self.record.clone(),
            offers: self.offers.clone(),
            replace: self.replace,
        }
    }
}

/// Where the store keeps a blob.
pub(crate) fn blob_file(store: &Path, bytes: &[u8]) -> PathBuf {
    kiln_storage::disk::blob_path(store, &Digest::of(bytes))
}

/// A local server as a process; waits until it listens.
pub(crate) fn spawn(dir: &Path) -> (Child, PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.env_clear();
    spawn_by(command, dir)
}

/// The same by a command that says more.
pub(crate) fn spawn_by(mut command: Command, dir: &Path) -> (Child, PathBuf) {
    let kiln_dir = dir.join("kiln");
    let socket = kiln_dir.join("kiln.sock");
    let mut child = command
        .args(["--role", "local", "--log", "debug", "--dir"])
        .arg(&kiln_dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        if UnixStream::connect(&socket).is_ok() {
            return (child, socket);
        }
        assert!(child.try_wait().unwrap().is_none(), "the server has left");
        std::thread::yield_now();
    }
}

/// Memory instead of the disk.
pub(crate) fn in_memory(config: &mut ServeConfig) {
    config.storage = StorageUrl::Memory;
}
