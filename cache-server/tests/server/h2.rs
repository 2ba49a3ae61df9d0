//! HTTP/2 by a client that writes its own frames: the bounds that the server announces and keeps, who asks, and how a
//! connection ends.

use std::io::{Read as _, Write as _};

use crate::tls::{Connection, Secured};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A connection of HTTP/2.
struct H2(Connection);

fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut all = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend_from_slice(payload);
    all
}

/// A header that no table has, in the plainest form of HPACK.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut all = vec![0];
    for text in [name, value] {
        // A length with a prefix of seven bits.
        match text.len() {
            len @ 0..127 => all.push(len as u8),
            len => {
                all.push(127);
                let mut rest = len - 127;
                while rest >= 128 {
                    all.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                all.push(rest as u8);
            }
        }
        all.extend_from_slice(text.as_bytes());
    }
    all
}

/// The head of a GET.
fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // `:method: GET` and `:scheme: https` by their numbers.
    let mut all = vec![0x82, 0x87];
    all.extend(header(":path", path));
    all.extend(header(":authority", "kiln"));
    more.iter().for_each(|(name, value)| all.extend(header(name, value)));
    all
}

impl H2 {
    fn begin(secured: &Secured) -> Self {
        let mut this = Self(secured.connect(&["h2"]));
        assert_eq!(this.0.conn.alpn_protocol(), Some(&b"h2"[..]));
        this.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        this.send(&bytes(SETTINGS, 0, 0, b""));
        this
    }

    fn send(&mut self, frames: &[u8]) {
        // A server that has enough may be gone.
        let _ = self.0.write_all(frames).and_then(|()| self.0.flush());
    }

    /// The next frame that says something; none at the end.
    fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let mut payload = vec![0; (number(0) >> 8) as usize];
            self.0.read_exact(&mut payload).ok()?;
            let frame = Frame { kind: head[3], flags: head[4], stream: number(5), payload };
            match (frame.kind, frame.flags) {
                (SETTINGS | PING, ACK) => {}
                (PING, _) => self.send(&bytes(PING, ACK, 0, &frame.payload)),
                _ => return Some(frame),
            }
        }
    }

    /// The next frame of a kind.
    fn find(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// The answer to a GET: its status, as far as a table of HPACK has it, and its body.
    fn get(&mut self, stream: u32, path: &str, more: &[(&str, &str)]) -> (u16, Vec<u8>) {
        self.send(&bytes(HEADERS, END_STREAM | END_HEADERS, stream, &get(path, more)));
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.next() {
            match frame.kind {
                HEADERS if frame.stream == stream => status = status_of(&frame.payload),
                DATA if frame.stream == stream => body.extend(frame.payload),
                RESET | GOAWAY => panic!("{frame:?}"),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
        (status, body)
    }
}

/// The status of an answer.
fn status_of(head: &[u8]) -> u16 {
    match head {
        [0x88, ..] => 200,
        // A value of `:status` of its own: three digits, or bytes by Huffman's code.
        [0x48, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        [0x48, 0x82, 0x68, 0x01, ..] => 401,
        [0x48, 0x83, 0x69, 0x90, 0xff, ..] => 431,
        other => panic!("{:x?}", &other[..8.min(other.len())]),
    }
}

#[test]
fn its_bounds_are_announced() {
    let secured = Secured::start();
    let mut h2 = H2::begin(&secured);
    let settings = h2.find(SETTINGS).unwrap().payload;
    let value = |id: u16| {
        let of = settings.chunks(6).find(|one| one[..2] == id.to_be_bytes());
        of.map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()))
    };
    // Streams at once, the window of each, the size of a head.
    assert_eq!([3, 4, 6].map(value), [Some(1024), Some(1024 * 1024), Some(32 * 1024)]);
    assert_eq!(h2.get(1, "/healthz", &[]), (200, b"ok\n".to_vec()));
    assert_eq!(h2.get(3, "/healthz", &[]), (200, b"ok\n".to_vec()));
}

#[test]
fn who_asks_is_known_as_by_any_other_way() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["create", "--name", "a", "--repository", "r", "--ref", "main"];
    let (words, mut token) = (words.map(str::to_owned), Vec::new());
    kiln_server::token(&words, &dir.path().join("kiln"), &mut token).unwrap();
    let token = format!("Bearer {}", String::from_utf8(token).unwrap().trim());
    let secured = Secured::start_in(dir);
    let mut h2 = H2::begin(&secured);
    let (status, body) = h2.get(1, "/v1/stats", &[]);
    assert_eq!(status, 401);
    assert!(String::from_utf8_lossy(&body).contains("\"request_id\":\""));
    assert_eq!(h2.get(3, "/v1/stats", &[("authorization", &token)]).0, 200);
    let log = std::fs::read_to_string(secured.server.kiln_dir().join("server.log")).unwrap();
    assert!(log.contains("audit: ") && log.contains("GET /v1/stats 401"), "{log}");
}

#[test]
fn a_head_that_is_too_large_ends_no_other_request() {
    let secured = Secured::start();
    let mut h2 = H2::begin(&secured);
    let head = get("/healthz", &[("x-large", &"x".repeat(40_000))]);
    let mut parts = head.chunks(16_000);
    let mut frames = bytes(HEADERS, END_STREAM, 1, parts.next().unwrap());
    let parts: Vec<_> = parts.collect();
    for (at, part) in parts.iter().enumerate() {
        let flags = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        frames.extend(bytes(CONTINUATION, flags, 1, part));
    }
    h2.send(&frames);
    let answer = std::iter::from_fn(|| h2.next()).find(|frame| frame.stream == 1).unwrap();
    assert_eq!((answer.kind, status_of(&answer.payload)), (HEADERS, 431));
    assert_eq!(h2.get(3, "/healthz", &[]).0, 200);
    // A head that never ends ends the connection.
    h2.send(&bytes(HEADERS, END_STREAM, 5, &get("/healthz", &[])));
    let endless = bytes(CONTINUATION, 0, 5, &header("x", &"x".repeat(16_000)));
    (0..200).for_each(|_| h2.send(&endless));
    assert!(h2.find(GOAWAY).is_none_or(|frame| frame.stream == 0));
    assert!(h2.next().is_none());
}

/// "Rapid reset": requests that are taken back as soon as they are sent.
#[test]
fn requests_that_are_taken_back_end_the_connection() {
    let secured = Secured::start();
    let mut h2 = H2::begin(&secured);
    let mut frames = Vec::new();
    for stream in (1..2000).step_by(2) {
        frames.extend(bytes(HEADERS, END_STREAM | END_HEADERS, stream, &get("/v1/stats", &[])));
        frames.extend(bytes(RESET, 0, stream, &8_u32.to_be_bytes()));
    }
    h2.send(&frames);
    let goaway = h2.find(GOAWAY).unwrap();
    assert_eq!(goaway.payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
    assert_eq!(H2::begin(&secured).get(1, "/healthz", &[]).0, 200);
}

#[test]
fn a_server_that_leaves_says_so() {
    let secured = Secured::start();
    let mut h2 = H2::begin(&secured);
    assert_eq!(h2.get(1, "/healthz", &[]).0, 200);
    // Two more that go on as if nothing was said: they are not waited for.
    let _deaf = [H2::begin(&secured), H2::begin(&secured)];
    let left = std::thread::spawn(move || secured.server.stop());
    let goaway = h2.find(GOAWAY).unwrap();
    assert_eq!(goaway.payload[4..8], 0_u32.to_be_bytes());
    while h2.next().is_some() {}
    let dir = left.join().unwrap();
    let log = std::fs::read_to_string(dir.path().join("kiln/server.log")).unwrap();
    assert!(!log.contains("left before everything was finished"), "{log}");
}
