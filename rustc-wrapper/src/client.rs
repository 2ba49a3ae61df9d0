//! A small blocking HTTP/1.1 client: what a short-lived process needs to ask one server a few
//! questions over a unix socket or TCP, or by TLS over TCP (`tls`).
//!
//! No async runtime on this path: starting one costs more than a hit. TLS is not touched for an address without it.
//! Every question has a deadline (`timed`) and every answer a bound. Parsing is `httparse`'s.

mod timed;
mod tls;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use kiln_storage::api::{LookupRequest, LookupResponse};
use kiln_storage::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::timed::{Socket, Timed};
use crate::limits::SLOWEST_BLOB_BYTES_PER_S;

const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// What an answer begins with that is none of HTTP but one of TLS: that it was no question of TLS.
const TLS_ALERT: u8 = 0x15;
const NOT_JSON: &str = "not the JSON expected";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, and what to be known by there.
    Known(String, Bearer),
    /// `host:port` of one that speaks TLS, and what to be known by there, if there is something.
    Tls(String, Option<Bearer>),
}

/// A bearer token: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    /// One that can be sent: a line without control characters. Secrets of CI often end with a line break.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let sent = !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        sent.then(|| Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(not shown)")
    }
}

/// As settings name it.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) | Self::Known(host, _) => f.write_str(host),
            Self::Tls(host, _) => write!(f, "https://{host}"),
        }
    }
}

/// Why a server did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no server: {0}")]
    Absent(io::Error),
    /// Somebody listens there, and TLS refuses him; why, and what to do.
    #[error("{0}")]
    Untrusted(&'static str),
    /// The connection broke or took too long.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// The answer is none that Kiln gives.
    #[error("not an answer of Kiln: {0}")]
    Foreign(&'static str),
    /// The server refused; the status and what it said.
    #[error("status {0}: {1}")]
    Refused(u16, String),
}

trait Stream: Read + Write + Send {
    /// From now on it has so long for all that is asked of it.
    fn within(&mut self, time: Duration);
}

impl<S: Socket + Send> Stream for Timed<S> {
    fn within(&mut self, time: Duration) {
        Timed::within(self, time);
    }
}

/// One connection.
pub struct Client {
    stream: Box<dyn Stream>,
    address: Address,
    local: bool,
    alive: bool,
    /// The last answer was whole, and the connection ended with it.
    closed: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("local", &self.local).field("alive", &self.alive).finish()
    }
}

/// The head of an answer.
struct Head {
    status: u16,
    length: u64,
    close: bool,
    /// Bytes of the body that came with the head.
    start: Vec<u8>,
}

/// A connection to the first address of a name that takes one.
fn reach(host: &str) -> Result<Timed<TcpStream>, ClientError> {
    let mut last = io::Error::other("the name has no address");
    for address in timed::addresses(host).map_err(ClientError::Absent)? {
        match TcpStream::connect_timeout(&address, limits::CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Timed::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(ClientError::Absent(last))
}

impl Client {
    /// Connects within [`limits::CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`ClientError::Absent`]; by TLS [`ClientError::Untrusted`] too.
    pub fn connect(address: &Address) -> Result<Self, ClientError> {
        let (stream, local): (Box<dyn Stream>, bool) = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(ClientError::Absent)?;
                (Box::new(Timed::new(stream)), true)
            }
            Address::Tcp(host) | Address::Known(host, _) => (Box::new(reach(host)?), false),
            Address::Tls(host, _) => (Box::new(tls::agree(reach(host)?, host)?), false),
        };
        Ok(Self { stream, address: address.clone(), local, alive: true, closed: false })
    }

    /// A line of each head, where one is to be known by something.
    fn authorization(&self) -> String {
        match &self.address {
            Address::Known(_, Bearer(token)) | Address::Tls(_, Some(Bearer(token))) => {
                format!("authorization: Bearer {token}\r\n")
            }
            Address::Unix(_) | Address::Tcp(_) | Address::Tls(_, None) => String::new(),
        }
    }

    /// Whether the server is on this machine and sees the same files.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Whether another request may be sent.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// A request begins, on another connection where the server, or what is in between, ends one with each answer.
    fn begin(&mut self, timeout: Duration) -> Result<(), ClientError> {
        if self.closed {
            *self = Self::connect(&self.address)?;
        }
        self.alive = false;
        self.stream.within(timeout);
        Ok(())
    }

    /// Its answer is whole.
    fn ended(&mut self, head: &Head) {
        self.alive = !head.close;
        self.closed = head.close;
    }

    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(), ClientError> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: kiln\r\ncontent-type: application/json\r\n\
             {}content-length: {}\r\n\r\n",
            self.authorization(),
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        Ok(self.stream.flush()?)
    }

    fn head(&mut self) -> Result<Head, ClientError> {
        let mut bytes = Vec::with_capacity(4096);
        let mut chunk = [0_u8; 8192];
        loop {
            let read = match self.stream.read(&mut chunk) {
                // A signal, or that the process was stopped and goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Err(ClientError::Foreign("the connection was closed"));
            }
            bytes.extend_from_slice(&chunk[..read]);
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&bytes).map_err(|_| match bytes.first() {
                Some(&TLS_ALERT) => {
                    ClientError::Foreign("it speaks TLS there; is the address one of https://?")
                }
                _ => ClientError::Foreign("not HTTP"),
            });
            match parsed? {
                httparse::Status::Partial if bytes.len() > MAX_HEADER_BYTES => {
                    return Err(ClientError::Foreign("the head is too long"));
                }
                httparse::Status::Partial => {}
                httparse::Status::Complete(end) => {
                    let status = response.code.unwrap_or(0);
                    let header = |name: &str| {
                        let found =
                            response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                        found.and_then(|h| std::str::from_utf8(h.value).ok())
                    };
                    if header("transfer-encoding").is_some() {
                        return Err(ClientError::Foreign("no content length"));
                    }
                    let length = match header("content-length") {
                        Some(text) => {
                            text.parse().map_err(|_| ClientError::Foreign("content length"))?
                        }
                        None if status == 204 => 0,
                        None => return Err(ClientError::Foreign("no content length")),
                    };
                    let close =
                        header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                    return Ok(Head { status, length, close, start: bytes[end..].to_vec() });
                }
            }
        }
    }

    fn body(&mut self, head: &mut Head) -> Result<Vec<u8>, ClientError> {
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        if length > limits::MAX_JSON_RESPONSE_BYTES {
            return Err(ClientError::Foreign("the answer is too long"));
        }
        let mut body = std::mem::take(&mut head.start);
        let have = body.len().min(length);
        body.resize(length, 0);
        self.stream.read_exact(&mut body[have..])?;
        Ok(body)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for every status but 2xx; the connection then stays usable.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        self.begin(timeout)?;
        self.send(method, path, body)?;
        let mut head = self.head()?;
        let body = self.body(&mut head)?;
        self.ended(&head);
        match head.status {
            200..300 => Ok(body),
            status => Err(ClientError::Refused(status, brief(&body))),
        }
    }

    /// A request with JSON both ways.
    ///
    /// # Errors
    /// As [`Client::request`]; an answer of another shape is [`ClientError::Foreign`].
    pub fn json<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &Q,
        timeout: Duration,
    ) -> Result<A, ClientError> {
        let answer = self.ask(method, path, body, timeout)?;
        serde_json::from_slice(&answer).map_err(|_| ClientError::Foreign(NOT_JSON))
    }

    /// Sends a question as JSON and reads the answer, whatever it is.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let body = serde_json::to_vec(body).map_err(|_| ClientError::Foreign("the question"))?;
        self.request(method, path, &body, timeout)
    }

    /// Looks up.
    ///
    /// # Errors
    /// As [`Client::json`]. Records of another version are left out.
    pub fn lookup(&mut self, request: &LookupRequest) -> Result<LookupResponse, ClientError> {
        let answer = self.ask("POST", "/v1/lookup", request, limits::LOOKUP_TIMEOUT)?;
        LookupResponse::read(&answer).map_err(|_| ClientError::Foreign(NOT_JSON))
    }

    /// Reads a blob of known size into a writer.
    ///
    /// # Errors
    /// When it is not there, has another size, or the connection breaks.
    pub fn fetch(
        &mut self,
        path: &str,
        size: u64,
        to: &mut impl Write,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        self.begin(timeout + long_enough(size))?;
        self.send("GET", path, &[])?;
        let mut head = self.head()?;
        if head.status != 200 {
            let body = self.body(&mut head)?;
            return Err(ClientError::Refused(head.status, brief(&body)));
        }
        if head.length != size || head.start.len() as u64 > size {
            return Err(ClientError::Foreign("a blob of another size"));
        }
        to.write_all(&head.start)?;
        let rest = size - head.start.len() as u64;
        if copy(&mut self.stream, rest, to)? != rest {
            return Err(ClientError::Foreign("the blob ended early"));
        }
        self.ended(&head);
        Ok(())
    }

    /// Sends the bytes of a reader as a blob.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn upload(
        &mut self,
        path: &str,
        size: u64,
        from: &mut impl Read,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        self.begin(timeout + long_enough(size))?;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: kiln\r\n{}content-length: {size}\r\n\r\n",
            self.authorization()
        );
        self.stream.write_all(head.as_bytes())?;
        if copy(from, size, &mut self.stream)? != size {
            return Err(ClientError::Foreign("the file became shorter"));
        }
        self.stream.flush()?;
        let mut head = self.head()?;
        let body = self.body(&mut head)?;
        self.ended(&head);
        match head.status {
            200..300 => Ok(()),
            status => Err(ClientError::Refused(status, brief(&body))),
        }
    }
}

/// How long so many bytes may take.
fn long_enough(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST_BLOB_BYTES_PER_S)
}

/// Copies up to so many bytes, in large pieces: by `io::copy` a blob of megabytes is thousands of calls.
fn copy(from: &mut impl Read, size: u64, to: &mut impl Write) -> io::Result<u64> {
    let largest = usize::try_from(size).unwrap_or(usize::MAX).min(limits::COPY_BUFFER_BYTES);
    let mut buffer = vec![0_u8; largest];
    let mut left = size;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..want]) {
            Ok(0) => break,
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size - left)
}

/// The detail of a problem answer, or the beginning of another one.
fn brief(body: &[u8]) -> String {
    match serde_json::from_slice::<kiln_storage::api::Problem>(body) {
        Ok(problem) => problem.detail.unwrap_or(problem.title),
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_with_every_request_and_shown_nowhere() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for _ in 0..2 {
                let (mut stream, mut bytes) = (listener.accept().unwrap().0, [0_u8; 4096]);
                let read = stream.read(&mut bytes).unwrap();
                heads.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
            heads
        });
        let address = Address::Known(host, Bearer::new("secret\n").unwrap());
        let wait = Duration::from_secs(10);
        Client::connect(&address).unwrap().request("GET", "/", &[], wait).unwrap();
        Client::connect(&address).unwrap().upload("/", 0, &mut io::empty(), wait).unwrap();
        for head in server.join().unwrap() {
            assert!(head.contains("\r\nauthorization: Bearer secret\r\n"), "{head}");
        }
        assert!(!format!("{address:?} {address}").contains("secret"));
        for bad in ["", " \n", "a\r\nb", "ü"] {
            assert!(Bearer::new(bad).is_none(), "{bad:?}");
        }
    }
}
