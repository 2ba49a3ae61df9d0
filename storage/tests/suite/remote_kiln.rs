//! Another Kiln server as a remote, against a server that answers what a test tells it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use kiln_storage::api::{HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, ReleaseRequest};
use kiln_storage::record::{Content, Cost, Output, Producer, RECORD_VERSION, UnitName, result_key};
use kiln_storage::remote::kiln::{KilnOptions, KilnRemote};
use kiln_storage::remote::pack;
use kiln_storage::remote::{ResultName, Stored};
use kiln_storage::{
    Backend as _, Body, Digest, LeaseKey, MemoryBackend, ObjectName, Record, Remote as _, Scope,
    StoreError, UnitKey,
};

/// Answers in the order they are given, one a connection; what it was asked.
struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn problem(status: u16, kind: &str, headers: &str) -> Vec<u8> {
    let body = format!(
        "{{\"type\":\"/problems/{kind}\",\"title\":\"t\",\"status\":{status},\"request_id\":\"1\"}}"
    );
    answer(&format!("{status} x"), headers, body.as_bytes())
}

impl Scripted {
    fn new(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = asked.clone();
        let mut answers = VecDeque::from(answers);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Some(answer) = answers.pop_front() else { return };
                noted.lock().unwrap().push(read(client.as_ref().unwrap()));
                let _ = client.unwrap().write_all(&answer);
            }
        });
        Self { url, asked }
    }

    fn remote(&self) -> KilnRemote {
        let token = Some("geheim".to_owned());
        KilnRemote::new(KilnOptions { url: self.url.clone(), token, job: None }).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A request as text: its head, and its body where that has a length.
fn read(client: &TcpStream) -> String {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        reader.read_line(&mut head).unwrap();
        let line = head[start..].to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8_lossy(&body)
}

fn scope() -> Scope {
    Scope::new("r", "main")
}

fn record(unit: &str, bytes: &[u8]) -> Record {
    let unit_key = UnitKey::new(Digest::of(unit.as_bytes()));
    Record {
        version: RECORD_VERSION,
        unit_key,
        result_key: result_key(&unit_key, &[], &[]),
        unit: UnitName::default(),
        parts: Vec::new(),
        members: Vec::new(),
        values: Vec::new(),
        variables: Default::default(),
        outputs: vec![Output {
            name: "out".into(),
            executable: false,
            mode: None,
            content: Content::Blob { digest: Digest::of(bytes), size: bytes.len() as u64 },
        }],
        status: 0,
        stdout: String::new(),
        stderr: String::new(),
        cost: Cost::default(),
        producer: Producer::default(),
        conservative: Vec::new(),
    }
}

fn found(records: &[&Record]) -> Vec<u8> {
    let json = serde_json::json!({ "records": records });
    answer("200 OK", "", json.to_string().as_bytes())
}

fn name(record: &Record, generation: u32) -> ResultName {
    let (unit, result) = (record.unit_key, record.result_key);
    ResultName { scope: scope(), unit, result, generation }
}

#[tokio::test]
async fn records_are_checked_and_the_token_is_sent_and_not_shown() {
    let (good, other) = (record("a", b"x"), record("b", b"x"));
    let mut bad = record("a", b"y");
    bad.version += 1;
    let server = Scripted::new(vec![found(&[&bad, &good, &other])]);
    let remote = server.remote();
    let arrived = remote.lookup(&[scope()], &[good.unit_key]).await.unwrap();
    assert_eq!(arrived.len(), 1);
    assert_eq!((&arrived[0].record, &arrived[0].name), (&good, &name(&good, 0)));
    // The other one was not asked for. That of another version is none of its server's faults.
    assert_eq!(remote.counters().damaged, 1);
    let asked = server.asked();
    assert!(asked[0].to_lowercase().contains("authorization: bearer geheim"), "{asked:?}");
    let shown = format!(
        "{remote:?} {} {:?}",
        remote.display(),
        KilnOptions { url: server.url.clone(), token: Some("geheim".into()), job: None }
    );
    assert!(!shown.contains("geheim"), "{shown}");
}

#[tokio::test]
async fn one_that_is_busy_is_asked_again_for_a_moment_only() {
    let a = record("a", b"x");
    let busy = || problem(503, "busy", "retry-after: 0\r\n");
    let server = Scripted::new(vec![busy(), problem(429, "", "retry-after: 0\r\n"), found(&[&a])]);
    let remote = server.remote();
    assert_eq!(remote.lookup(&[scope()], &[a.unit_key]).await.unwrap().len(), 1);
    let counters = remote.counters();
    assert_eq!((counters.requests, counters.retries), (3, 2));

    // A third time is enough, and nobody waits for minutes.
    for answers in [vec![busy(), busy(), busy()], vec![problem(429, "", "retry-after: 300\r\n")]] {
        let count = answers.len();
        let server = Scripted::new(answers);
        let failed = server.remote().lookup(&[scope()], &[a.unit_key]).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
        assert_eq!(server.asked().len(), count);
    }
}

#[tokio::test]
async fn what_is_no_answer_of_kiln_is_a_failure_and_not_a_miss() {
    let a = record("a", b"x");
    for body in ["<html>", "{}", "{\"records\":[1]}"] {
        let server = Scripted::new(vec![answer("200 OK", "", body.as_bytes())]);
        let failed = server.remote().lookup(&[scope()], &[a.unit_key]).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{body}: {failed:?}");
    }
}

#[tokio::test]
async fn a_blob_of_another_size_is_none() {
    let digest = Digest::of(b"x");
    let server = Scripted::new(vec![
        answer("200 OK", "", b"xx"),
        problem(404, "not-found", ""),
        answer("200 OK", "", b"x"),
    ]);
    let remote = server.remote();
    assert!(remote.blob(&digest, 1).await.unwrap().is_none());
    assert!(remote.blob(&digest, 1).await.unwrap().is_none());
    let body = remote.blob(&digest, 1).await.unwrap().unwrap();
    assert_eq!(body.into_bytes(&ObjectName::blob(&digest), 1).await.unwrap(), "x");
}

/// A body that cannot be expanded is no connection that broke.
#[tokio::test]
async fn a_compressed_body_that_is_none_is_damaged() {
    let digest = Digest::of(b"x");
    let headers = "content-encoding: zstd\r\nx-kiln-length: 5000\r\n";
    let server = Scripted::new(vec![answer("200 OK", headers, b"no such body")]);
    let body = server.remote().blob(&digest, 5000).await.unwrap().unwrap();
    let failed = body.into_bytes(&ObjectName::blob(&digest), 5000).await;
    assert!(matches!(failed, Err(StoreError::Damaged { .. })), "{failed:?}");
}

/// What came before a pack broke off is kept, what was not asked for is not.
#[tokio::test]
async fn packs_are_taken_as_far_as_they_are_good() {
    let [one, two, three] = [b"one".as_slice(), b"two", b"three"];
    let wanted: Vec<_> = [one, three].map(|b| (Digest::of(b), b.len() as u64)).into();
    let entry = |bytes: &[u8]| pack::entry(&Digest::of(bytes), bytes);
    let whole = [pack::MAGIC.as_slice(), &entry(one), &entry(two), &entry(three)].concat();
    let server = Scripted::new(vec![answer("200 OK", "", &whole)]);
    assert_eq!(server.remote().blobs(&wanted).await.unwrap().len(), 2);

    let cut = &whole[..whole.len() - 2];
    let none = answer("200 OK", "", pack::MAGIC);
    let server = Scripted::new(vec![answer("200 OK", "", cut), none]);
    let came = server.remote().blobs(&wanted).await.unwrap();
    assert_eq!(came, [(Digest::of(one), one.into())]);

    let mut bad = whole.clone();
    bad[8 + 49] ^= 1;
    let server = Scripted::new(vec![answer("200 OK", "", &bad)]);
    let remote = server.remote();
    assert!(remote.blobs(&wanted).await.unwrap().is_empty());
    assert_eq!(remote.counters().damaged, 1);
}

#[tokio::test]
async fn storing_sends_what_is_missing_and_tells_refusals_apart() {
    let a = record("a", b"x");
    let local = MemoryBackend::new(u64::MAX);
    let missing = || {
        let json = serde_json::json!({ "blobs": [Digest::of(b"x"), Digest::of(b"not asked for")] });
        answer("200 OK", "", json.to_string().as_bytes())
    };
    let server = Scripted::new(vec![missing()]);
    let absent = server.remote().store(&name(&a, 0), &a, &local).await;
    assert!(matches!(absent, Err(StoreError::Damaged { .. })), "{absent:?}");

    let blob = ObjectName::blob(&Digest::of(b"x"));
    local.put_if_absent(&blob, Body::Bytes("x".into())).await.unwrap();
    let created = || answer("201 Created", "", b"");
    let server = Scripted::new(vec![missing(), created(), created()]);
    let stored = server.remote().store(&name(&a, 0), &a, &local).await.unwrap();
    assert_eq!(stored, Stored::Durable);
    let asked = server.asked();
    assert!(asked.iter().map(|a| &a[..4]).eq(["POST", "PUT ", "PUT "]), "{asked:?}");
    assert!(asked[2].contains("\"replace\":false"), "{}", asked[2]);

    let none = || answer("200 OK", "", b"{\"blobs\":[]}");
    let server = Scripted::new(vec![none(), answer("200 OK", "", b"")]);
    let there = server.remote().store(&name(&a, 1), &a, &local).await.unwrap();
    assert_eq!(there, Stored::AlreadyThere);
    assert!(server.asked()[1].contains("\"replace\":true"), "{}", server.asked()[1]);

    let refused = async |status, kind: &str| {
        let server = Scripted::new(vec![none(), problem(status, kind, "")]);
        server.remote().store(&name(&a, 0), &a, &local).await.unwrap_err()
    };
    for (status, kind) in [(503, "read-only"), (507, "insufficient-storage"), (401, ""), (403, "")]
    {
        let error = refused(status, kind).await;
        assert!(matches!(error, StoreError::ReadOnly(_)), "{status}: {error}");
    }
    let error = refused(413, "too-large").await;
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    for (status, kind) in [(422, "unprocessable"), (423, "quarantined"), (400, "bad-request")] {
        let error = refused(status, kind).await;
        assert!(matches!(error, StoreError::Refused(_)), "{status}: {error}");
    }
    for (status, kind) in [(500, "internal"), (409, "missing-blobs"), (418, "")] {
        let error = refused(status, kind).await;
        assert!(matches!(error, StoreError::Unavailable(_)), "{status}: {error}");
    }
}

fn lease_request() -> LeaseRequest {
    LeaseRequest {
        key: LeaseKey::new(Digest::of(b"key")),
        asker: "a".into(),
        unit: UnitName::default(),
        run: "r".into(),
        job: "j".into(),
        wait_ms: 0,
        known: Vec::new(),
        over_ms: None,
    }
}

#[tokio::test]
async fn leases_are_asked_for_held_and_released() {
    let granted = answer("200 OK", "", b"{\"state\":\"granted\",\"id\":\"7\"}");
    let (there, gone) = (answer("204 x", "", b""), problem(404, "not-found", ""));
    let listed = answer("200 OK", "", b"{\"leases\":[]}");
    let scripted = Scripted::new(vec![granted, there.clone(), gone.clone(), there, gone, listed]);
    let remote = scripted.remote();
    let leases = remote.leases().unwrap();
    let asked = leases.ask_lease(&lease_request()).await.unwrap();
    assert_eq!(asked, Some(LeaseResponse::Granted { id: "7".into() }));
    for held in [true, false] {
        assert_eq!(leases.hold_lease("7", HoldRequest { cpu_ms: 5 }).await.unwrap(), held);
    }
    for there in [true, false] {
        assert_eq!(leases.release_lease("7", ReleaseRequest::Failed).await.unwrap(), there);
    }
    let listed = leases.list_leases(Some("run=r")).await.unwrap();
    assert_eq!(listed, Some(LeasesResponse::default()));
    let asked = scripted.asked();
    for (asked, (path, body)) in asked.iter().zip([
        ("POST /v1/leases ", "\"asker\":\"a\""),
        ("POST /v1/leases/7/hold ", "{\"cpu_ms\":5}"),
        ("POST /v1/leases/7/hold ", ""),
        ("POST /v1/leases/7/release ", "{\"outcome\":\"failed\"}"),
        ("POST /v1/leases/7/release ", ""),
        ("GET /v1/leases?run=r ", ""),
    ]) {
        assert!(asked.starts_with(path) && asked.contains(body), "{asked}");
        assert!(asked.contains("authorization: Bearer geheim"), "{asked}");
    }
}

#[tokio::test]
async fn a_server_without_leases_is_told_from_one_that_fails() {
    let garbage = || answer("200 OK", "", b"{\"state\":\"new\"}");
    let unknown = [problem(404, "not-found", ""), problem(405, "method-not-allowed", "")];
    let busy = problem(503, "busy", "retry-after: 0\r\n");
    let answers = unknown.into_iter().chain([garbage(), problem(500, "internal", ""), busy]);
    let free = answer("200 OK", "", b"{\"state\":\"free\"}");
    let remote = Scripted::new(answers.chain([free]).collect()).remote();
    let leases = remote.leases().unwrap();
    for _ in 0..2 {
        assert_eq!(leases.ask_lease(&lease_request()).await.unwrap(), None);
    }
    for _ in 0..2 {
        let failed = leases.ask_lease(&lease_request()).await;
        assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    }
    assert_eq!(leases.ask_lease(&lease_request()).await.unwrap(), Some(LeaseResponse::Free));
}
