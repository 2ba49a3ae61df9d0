//! Theme: a shared server that very many ask at once, and one that is sent what nobody should send. It answers who asks
//! rightly, keeps within its memory, and has no descriptor more afterwards.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln::client::{Address, Client, ClientError};
use kiln_storage::Digest;
use kiln_storage::api::{LookupRequest, LookupResponse, PublishRequest};
use kiln_storage::limits::MAX_JSON_BODY_BYTES;
use kiln_storage::record::Record;
use kiln_storage::testing::bodies::noise;
use kiln_storage::testing::results::result;
use kiln_tests::far::standing::Standing;
use kiln_tests::server::{Server, wait_until};
use kiln_tests::world;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Clients at the same time.
const CLIENTS: usize = 1_000;
/// Most that a server may take for them, KiB.
const MOST_KIB: u64 = 256 * 1024;
/// Results that are there, and the size of the one blob of each.
const RESULTS: u64 = 100;
const BLOB_BYTES: usize = 64 * 1024;
/// An answer may take this long: all of them share two processors with the server.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that nobody should send.
const RUBBISH: u64 = 4_000;
/// Connections that say a little and then nothing.
const MUTE: usize = 300;

fn start(world: &kiln_tests::World) -> (Standing, Server) {
    // Nobody reads what it says until it ends.
    let call = world.kiln(&["serve", "--listen", "127.0.0.1:0"]).env("KILN_LOG", "error");
    let standing = Standing::start(call);
    let mut client = connect(standing.address());
    let info = client.request("GET", "/v1/server", &[], PATIENCE).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let pid = u32::try_from(info["pid"].as_u64().unwrap()).unwrap();
    (standing, Server { pid })
}

fn connect(address: SocketAddr) -> Client {
    Client::connect(&Address::Tcp(address.to_string())).unwrap()
}

/// As many descriptors as this process may have: each client is one.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The most memory that the server ever had, KiB.
fn most_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A result, with the digest of its one blob.
type Made = (Record, Digest);

/// Stores a result; what it is.
fn publish(client: &mut Client, n: u64) -> Made {
    let blob = noise(n, BLOB_BYTES);
    let digest = Digest::of(&blob);
    let record = result(&format!("crowd{n}"), "1", std::slice::from_ref(&blob)).1;
    let size = blob.len() as u64;
    client.upload(&format!("/v1/blobs/{digest}"), size, &mut &blob[..], PATIENCE).unwrap();
    let path = format!("/v1/results/{}", record.result_key);
    let request = PublishRequest { record: record.clone(), offers: Vec::new(), replace: false };
    client.request("PUT", &path, &serde_json::to_vec(&request).unwrap(), PATIENCE).unwrap();
    (record, digest)
}

/// Asks until the time is up: mostly for records, sometimes for a blob, seldom to store; how many answers there were.
fn ask(mut client: Client, made: &[Made], number: u64, until: Instant) -> u64 {
    let (mut done, mut turn) = (0, number);
    while Instant::now() < until {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (record, digest) = &made[usize::try_from((turn >> 33) % RESULTS).unwrap()];
        match turn >> 60 {
            0 => {
                let mut bytes = Vec::new();
                let path = format!("/v1/blobs/{digest}");
                client.fetch(&path, BLOB_BYTES as u64, &mut bytes, PATIENCE).unwrap();
                assert_eq!(Digest::of(&bytes), *digest);
            }
            1 if number.is_multiple_of(10) => drop(publish(&mut client, RESULTS + number)),
            _ => {
                let units = vec![record.unit_key];
                let request = LookupRequest { units, ..LookupRequest::default() };
                let found: LookupResponse =
                    client.json("POST", "/v1/lookup", &request, PATIENCE).unwrap();
                assert_eq!(found.records, std::slice::from_ref(record));
            }
        }
        done += 1;
    }
    done
}

fn crowd(seconds: u64) {
    let world = world!();
    let (standing, server) = start(&world);
    let mut first = connect(standing.address());
    let made: Vec<Made> = (0..RESULTS).map(|n| publish(&mut first, n)).collect();
    let descriptors = server.descriptors().len();
    // They are all there before the first one asks.
    allow_many_files();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| connect(standing.address())).collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let answers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (number, client) in (0..).zip(clients) {
            let (answers, made) = (&answers, &made);
            let work = move || {
                answers.fetch_add(ask(client, made, number, until), Ordering::Relaxed);
            };
            let thread = std::thread::Builder::new().stack_size(256 * 1024);
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    let (answers, most) = (answers.into_inner(), most_kib(&server));
    println!("{CLIENTS} clients, {seconds} s: {answers} answers, at most {} MiB", most / 1024);
    assert!(answers >= CLIENTS as u64);
    assert!(most <= MOST_KIB, "{most} KiB");
    wait_until("connections are gone", || server.descriptors().len() <= descriptors);
    let said = standing.end(Signal::TERM);
    assert_eq!(said, "");
}

#[test]
fn a_thousand_clients_at_once() {
    crowd(8);
}

#[test]
#[ignore = "five minutes"]
fn a_thousand_clients_for_five_minutes() {
    crowd(300);
}

/// What is made of a body takes several times as many bytes: however many come at once, few are taken at a time.
#[test]
fn large_bodies_at_once() {
    const BODIES: usize = 24;
    let event = r#"{"id":"","at_ms":0,"run":"","job":"","build":"","unit":{"crate_name":"","version":"","kind":"","target":""},"outcome":"miss"}"#;
    let events = vec![event; (MAX_JSON_BODY_BYTES - 1024) / (event.len() + 1)].join(",");
    let body = format!("{{\"events\":[{events}]}}");
    let world = world!();
    let (standing, server) = start(&world);
    let (record, _) = publish(&mut connect(standing.address()), 0);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let send = || match connect(standing.address()).request(
            "POST",
            "/v1/events",
            body.as_bytes(),
            PATIENCE,
        ) {
            Err(ClientError::Refused(status, _)) => status,
            answer => panic!("{answer:?}"),
        };
        let sending: Vec<_> = (0..BODIES).map(|_| scope.spawn(send)).collect();
        // Who asks little is answered meanwhile.
        let units = vec![record.unit_key];
        let request = LookupRequest { units, ..LookupRequest::default() };
        let found: LookupResponse =
            connect(standing.address()).json("POST", "/v1/lookup", &request, PATIENCE).unwrap();
        assert_eq!(found.records, [record]);
        sending.into_iter().map(|sending| sending.join().unwrap()).collect()
    });
    println!("{statuses:?}, at most {} MiB", most_kib(&server) / 1024);
    // So many events are too many; whoever cannot be heard now is to come again.
    assert!(statuses.contains(&413), "{statuses:?}");
    assert!(statuses.iter().all(|status| [413, 503].contains(status)), "{statuses:?}");
    assert!(most_kib(&server) <= MOST_KIB, "{} KiB", most_kib(&server));
    assert_eq!(standing.end(Signal::TERM), "");
}

/// Numbers that are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const METHODS: [&str; 7] = ["GET", "PUT", "POST", "DELETE", "HEAD", "get", "\u{fffd}"];
const PATHS: [&str; 14] = [
    "/v1/blobs/../../../../etc/passwd",
    "/v1/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/v1/blobs/..%00",
    "//etc/passwd",
    "/v1/results/%ff%fe/maker",
    "/v1/blobs/0000000000000000000000000000000000000000000000000000000000000000",
    "/v1/notes/../server",
    "/v1/runs/%2e%2e/jobs",
    "http://elsewhere/v1/stats",
    "*",
    "/v1/lookup?x=%",
    "/v1/events",
    "/v1/leases/%00/hold",
    "/v1/session",
];
const HEADS: [&str; 9] = [
    "content-length: -1",
    "content-length: 99999999999999999999",
    "content-length: 5\r\ncontent-length: 6",
    "content-length: 4\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked, chunked",
    "range: bytes=18446744073709551615-",
    "content-encoding: zstd\r\ncontent-length: 4",
    "expect: 100-continue\r\ncontent-length: 1000000000000",
    "authorization: Bearer \u{7f}",
];
const BODIES: [&str; 6] =
    ["{", "[[[[[[[[", "{\"units\":[\"", "ffffffff\r\n", "1e999999", "{\"units\":{\"\":1}}"];

/// A request that is wrong in one way or another.
fn rubbish(chance: &mut Chance) -> Vec<u8> {
    let (method, path) = (chance.one(&METHODS), chance.one(&PATHS));
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: kiln\r\n");
    if chance.below(2) == 0 {
        request += &format!("{}\r\n", chance.one(&HEADS));
    }
    if chance.below(16) == 0 {
        request += &format!("x-long: {}\r\n", "x".repeat(1 << (10 + chance.below(8))));
    }
    request += "\r\n";
    let body = chance.one(&BODIES);
    request += &body.repeat(1 + chance.below(4_000));
    let mut bytes = request.into_bytes();
    // Some bytes are others, and it may end early.
    for _ in 0..chance.below(4) {
        let at = chance.below(bytes.len());
        bytes[at] = u8::try_from(chance.below(256)).unwrap();
    }
    if chance.below(4) == 0 {
        bytes.truncate(chance.below(bytes.len()));
    }
    bytes
}

/// Sends it and hangs up; what came back.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may hang up before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("no end of the answer: {:?}", String::from_utf8_lossy(bytes));
        }
        _ => answer,
    }
}

#[test]
fn what_nobody_should_send_by_the_thousand() {
    let world = world!();
    let (standing, server) = start(&world);
    let (record, _) = publish(&mut connect(standing.address()), 0);
    let descriptors = server.descriptors().len();
    let mute: Vec<TcpStream> = (0..MUTE)
        .map(|n| {
            let mut stream = TcpStream::connect(standing.address()).unwrap();
            let said = &b"PUT /v1/events HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"[..n % 45];
            stream.write_all(said).unwrap();
            stream
        })
        .collect();
    let mut chance = Chance(0x4b69_6c6e);
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..RUBBISH {
        let bytes = rubbish(&mut chance);
        let answer = send(standing.address(), &bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("root:"), "{text}");
        let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        *statuses.entry(status.unwrap_or("hung up").to_owned()).or_insert(0) += 1;
        assert!(!text.contains("HTTP/1.1 500"), "{text} to {:?}", String::from_utf8_lossy(&bytes));
    }
    println!("{statuses:?}, at most {} MiB", most_kib(&server) / 1024);
    assert!(statuses.contains_key("400") && statuses.contains_key("404"), "{statuses:?}");
    assert!(most_kib(&server) <= MOST_KIB);
    // Who asks rightly is answered beside those that say nothing.
    let request = LookupRequest { units: vec![record.unit_key], ..LookupRequest::default() };
    let mut client = connect(standing.address());
    let found: LookupResponse = client.json("POST", "/v1/lookup", &request, PATIENCE).unwrap();
    assert_eq!(found.records, [record]);
    drop((client, mute));
    wait_until("connections are gone", || server.descriptors().len() <= descriptors);
    assert_eq!(standing.end(Signal::TERM), "");
}
