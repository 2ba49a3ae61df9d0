//! As much of HTTP/1.1 as [`super::proxy`] needs: heads, and bodies in memory. Called by nothing else.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Longest line of a head, bytes, and most lines.
const MAX_LINE_BYTES: u64 = 16 * 1024;
const MAX_LINES: usize = 200;
/// Longest body, bytes.
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;

/// The head of a request or of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// The first line.
    start: String,
    /// Of a request: its method.
    pub(super) method: String,
    /// Of a request: path and query.
    pub(super) target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn content_length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok().filter(|len| *len <= MAX_BODY_BYTES)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"))
    }

    /// Of an answer: its status.
    pub(super) fn status(&self) -> u16 {
        self.target.parse().unwrap_or(0)
    }

    /// The request as it goes to the server: one per connection, the length said.
    pub(super) fn request_bytes(&self, len: usize) -> Vec<u8> {
        let says_length = self.content_length().is_some() || self.is_chunked();
        self.bytes(says_length.then_some(len), &["expect"])
    }

    /// The answer as it goes to the client: the length said, unless it belongs to a body that was not
    /// asked for (`HEAD`).
    pub(super) fn response_bytes(&self, len: usize) -> Vec<u8> {
        let said = if len == 0 { self.content_length() } else { Some(len) };
        let none = matches!(self.status(), 100..200 | 204 | 304);
        self.bytes(if none { None } else { said.or(Some(len)) }, &[])
    }

    fn bytes(&self, len: Option<usize>, without: &[&str]) -> Vec<u8> {
        let own = ["content-length", "transfer-encoding", "connection", "keep-alive"];
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            if !own.contains(&lower.as_str()) && !without.contains(&lower.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if let Some(len) = len {
            head.push_str(&format!("content-length: {len}\r\n"));
        }
        head.push_str("connection: close\r\n\r\n");
        head.into_bytes()
    }
}

/// The next head; `None` when the peer closed before one began. Interim answers (1xx) are skipped.
pub(super) async fn read_head(from: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    loop {
        let Some(start) = read_line(from).await? else { return Ok(None) };
        let mut headers = Vec::new();
        loop {
            let line = read_line(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                break;
            }
            if headers.len() == MAX_LINES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut words = start.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        if method.starts_with("HTTP/") && target.starts_with('1') {
            continue;
        }
        return Ok(Some(Head { start, method, target, headers }));
    }
}

async fn read_line(from: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The body of a request; a client that waits for leave to send it gets it.
pub(super) async fn read_request_body(
    from: &mut BufReader<TcpStream>,
    head: &Head,
) -> io::Result<Vec<u8>> {
    if head.header("expect").is_some() {
        from.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if head.is_chunked() {
        return read_chunks(from).await;
    }
    read_exactly(from, head.content_length().unwrap_or(0)).await
}

/// The body of an answer to a method.
pub(super) async fn read_response_body(
    from: &mut BufReader<TcpStream>,
    head: &Head,
    method: &str,
) -> io::Result<Vec<u8>> {
    if method == "HEAD" || matches!(head.status(), 204 | 304) {
        return Ok(Vec::new());
    }
    if head.is_chunked() {
        return read_chunks(from).await;
    }
    if let Some(len) = head.content_length() {
        return read_exactly(from, len).await;
    }
    let mut body = Vec::new();
    from.take(MAX_BODY_BYTES as u64).read_to_end(&mut body).await?;
    Ok(body)
}

async fn read_exactly(from: &mut BufReader<TcpStream>, len: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; len];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn read_chunks(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size > MAX_BODY_BYTES - body.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if size == 0 {
            while read_line(from).await?.is_some_and(|line| !line.is_empty()) {}
            return Ok(body);
        }
        body.extend(read_exactly(from, size).await?);
        read_line(from).await?;
    }
}
