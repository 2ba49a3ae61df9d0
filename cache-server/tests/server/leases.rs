//! Leases over real connections: who hangs up is noticed, and who waits keeps nobody from work.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_server::limits::{MAX_SHOWN_WAITERS, WATCH_INTERVAL};
use kiln_storage::api::{
    HoldRequest, LeaseRequest, LeaseResponse, LeasesResponse, LookupRequest, ReleaseRequest,
};
use kiln_storage::limits::{LEASE_GRACE, MAX_LOOKUP_KEYS};
use kiln_storage::record::UnitName;
use kiln_storage::{Digest, LeaseKey, ResultKey};

use crate::harness::{Reply, TestServer, exchange};
use crate::metrics::value;

pub(crate) fn request(unit: &str, asker: &str) -> LeaseRequest {
    LeaseRequest {
        key: LeaseKey::new(Digest::of(unit.as_bytes())),
        asker: asker.to_owned(),
        unit: UnitName { crate_name: unit.to_owned(), ..UnitName::default() },
        run: "r".to_owned(),
        job: asker.to_owned(),
        wait_ms: 20_000,
        known: Vec::new(),
        over_ms: None,
    }
}

fn body(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

pub(crate) fn ask(server: &TestServer, request: &LeaseRequest) -> LeaseResponse {
    let reply = server.send("POST", "/v1/leases", request);
    assert_eq!(reply.status, 200);
    reply.json()
}

/// The same, while the test goes on, until there is something to say.
pub(crate) fn asks(server: &TestServer, request: LeaseRequest) -> JoinHandle<LeaseResponse> {
    let socket = server.socket.clone();
    std::thread::spawn(move || {
        loop {
            let stream = UnixStream::connect(&socket).unwrap();
            let reply = exchange(stream, "POST", "/v1/leases", &[], &body(&request));
            assert_eq!(reply.status, 200);
            match reply.json() {
                LeaseResponse::Held { .. } => {}
                answer => return answer,
            }
        }
    })
}

pub(crate) fn granted(answer: &LeaseResponse) -> String {
    let LeaseResponse::Granted { id } = answer else { panic!("{answer:?}") };
    id.clone()
}

/// A question that is asked and not listened for. Dropped, the connection ends.
pub(crate) fn hold(server: &TestServer, id: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    let body = body(&HoldRequest { cpu_ms: 5 });
    let head = format!("POST /v1/leases/{id}/hold HTTP/1.1\r\nhost: kiln\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    stream
}

pub(crate) fn release(server: &TestServer, id: &str, outcome: ReleaseRequest) -> u16 {
    server.send("POST", &format!("/v1/leases/{id}/release"), &outcome).status
}

pub(crate) fn list(server: &TestServer) -> LeasesResponse {
    server.unix("GET", "/v1/leases", b"").json()
}

/// Waits until the list is as it is to be.
pub(crate) fn until(server: &TestServer, wanted: impl Fn(&LeasesResponse) -> bool) {
    while !wanted(&list(server)) {
        std::thread::yield_now();
    }
}

pub(crate) fn waiting(leases: &LeasesResponse) -> usize {
    leases.leases.iter().map(|lease| lease.waiting.len()).sum()
}

pub(crate) fn is_held(leases: &LeasesResponse) -> bool {
    leases.leases.iter().any(|lease| lease.holder.cpu_ms == 5)
}

#[test]
fn one_is_granted_and_the_others_are_told_of_its_result() {
    let server = TestServer::start();
    let id = granted(&ask(&server, &request("u", "a")));
    let others: Vec<_> = ["b", "c"].map(|name| asks(&server, request("u", name))).into();
    until(&server, |leases| waiting(leases) == 2);
    let shown = list(&server).leases.remove(0);
    assert_eq!((shown.unit.crate_name.as_str(), shown.holder.job.as_str()), ("u", "a"));
    let of_run = |run| server.unix("GET", &format!("/v1/leases?run={run}"), b"");
    assert_eq!(of_run("r").json::<LeasesResponse>().leases.len(), 1);
    assert_eq!(of_run("q").json::<LeasesResponse>().leases.len(), 0);
    let result = ResultKey::new(Digest::of(b"result"));
    assert_eq!(release(&server, &id, ReleaseRequest::Stored { result }), 204);
    for other in others {
        assert_eq!(other.join().unwrap(), LeaseResponse::Stored { result });
    }
    assert_eq!(release(&server, &id, ReleaseRequest::Stored { result }), 404);
    assert_eq!(ask(&server, &request("u", "d")), LeaseResponse::Stored { result });
}

#[test]
fn a_holder_that_hangs_up_is_replaced() {
    let server = TestServer::start();
    let id = granted(&ask(&server, &request("u", "a")));
    let open = hold(&server, &id);
    let other = asks(&server, request("u", "b"));
    until(&server, |leases| waiting(leases) == 1 && is_held(leases));
    drop(open);
    let next = granted(&other.join().unwrap());
    assert_ne!(next, id);
    assert_eq!(release(&server, &id, ReleaseRequest::Failed), 404);
    assert_eq!(release(&server, &next, ReleaseRequest::Abandoned), 204);
}

#[test]
fn who_waits_and_hangs_up_is_passed_over() {
    let server = TestServer::start();
    let id = granted(&ask(&server, &request("u", "a")));
    let mut gone = UnixStream::connect(&server.socket).unwrap();
    let question = body(&request("u", "b"));
    let head = format!("content-length: {}\r\n\r\n", question.len());
    gone.write_all(b"POST /v1/leases HTTP/1.1\r\nhost: kiln\r\n").unwrap();
    gone.write_all(&[head.as_bytes(), &question].concat()).unwrap();
    until(&server, |leases| waiting(leases) == 1);
    let other = asks(&server, request("u", "c"));
    until(&server, |leases| waiting(leases) == 2);
    drop(gone);
    until(&server, |leases| waiting(leases) == 1);
    release(&server, &id, ReleaseRequest::Abandoned);
    granted(&other.join().unwrap());
}

/// More than requests are worked on at once.
#[test]
fn those_who_wait_keep_nobody_from_work() {
    let server = TestServer::start();
    let id = granted(&ask(&server, &request("u", "a")));
    let others: Vec<_> =
        (0..400).map(|n| asks(&server, request("u", &format!("waiter {n}")))).collect();
    while value(&server, "kiln_lease_waiters") != Some(400.0) {
        std::thread::yield_now();
    }
    assert_eq!(waiting(&list(&server)), MAX_SHOWN_WAITERS);
    assert_eq!(server.send("POST", "/v1/lookup", &LookupRequest::default()).status, 200);
    assert_eq!(release(&server, &id, ReleaseRequest::NotStored), 204);
    for other in others {
        assert_eq!(other.join().unwrap(), LeaseResponse::Free);
    }
    assert_eq!(value(&server, "kiln_lease_answers_total{answer=\"free\"}"), Some(400.0));
    assert_eq!(value(&server, "kiln_leases"), Some(0.0));
}

#[test]
fn a_server_that_leaves_lets_nobody_wait() {
    let server = TestServer::start();
    let id = granted(&ask(&server, &request("u", "a")));
    let open = hold(&server, &id);
    let other = asks(&server, request("u", "b"));
    until(&server, |leases| waiting(leases) == 1 && is_held(leases));
    server.stop();
    assert_eq!(other.join().unwrap(), LeaseResponse::Free);
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut &open, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

/// While somebody compiles for others, the server stays, though nobody asks anything.
#[test]
fn a_server_with_a_lease_is_not_idle() {
    let idle = WATCH_INTERVAL / 2;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let mut server = TestServer::start_with(dir, |config| config.idle = Some(idle));
        let socket = server.socket.clone();
        let send = |path: &str, body: Vec<u8>| {
            let stream = UnixStream::connect(&socket).ok()?;
            Some(exchange(stream, "POST", path, &[], &body))
        };
        let asked = send("/v1/leases", body(&request("u", "a")));
        // On a machine that stands still meanwhile it proves nothing.
        if begun.elapsed() >= idle {
            continue;
        }
        let id = granted(&asked.unwrap().json());
        // It looks every two seconds whether it is idle.
        while begun.elapsed() < WATCH_INTERVAL * 2 {
            std::thread::sleep(Duration::from_millis(50));
        }
        let path = format!("/v1/leases/{id}/release");
        let released = send(&path, body(&ReleaseRequest::Abandoned));
        if begun.elapsed() < LEASE_GRACE {
            assert_eq!(released.unwrap().status, 204);
            return server.join().unwrap();
        }
    }
}

#[test]
fn scopes_have_leases_of_their_own() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.tcp_scope = Some(kiln_storage::Scope::new("other", "main"));
    });
    let tcp = |path: &str, body: &[u8]| server.tcp("POST", path, &[], body);
    let id = granted(&ask(&server, &request("u", "a")));
    let other: LeaseResponse = tcp("/v1/leases", &body(&request("u", "b"))).json();
    assert_ne!(granted(&other), id);
    assert_eq!(tcp(&format!("/v1/leases/{id}/hold"), b"{}").status, 404);
    let outcome = body(&ReleaseRequest::Failed);
    assert_eq!(tcp(&format!("/v1/leases/{id}/release"), &outcome).status, 404);
    assert_eq!(list(&server).leases.len(), 1);
    assert_eq!(release(&server, &id, ReleaseRequest::Failed), 204);
}

#[test]
fn what_is_no_question_is_refused() {
    let server = TestServer::start();
    let post = |path: &str, body: &[u8]| -> Reply { server.unix("POST", path, body) };
    assert_eq!(post("/v1/leases", b"{}").problem(), "/problems/bad-request");
    let known = vec![ResultKey::new(Digest::of(b"")); MAX_LOOKUP_KEYS + 1];
    let many = LeaseRequest { known, ..request("u", "a") };
    assert_eq!(post("/v1/leases", &body(&many)).status, 413);
    assert_eq!(post("/v1/leases", &vec![b' '; 200_000]).status, 413);
    for id in ["nobody", &"0".repeat(32), "..%2F.."] {
        assert_eq!(post(&format!("/v1/leases/{id}/hold"), b"{}").status, 404, "{id}");
        let outcome = body(&ReleaseRequest::Failed);
        assert_eq!(post(&format!("/v1/leases/{id}/release"), &outcome).status, 404, "{id}");
    }
    assert_eq!(post(&format!("/v1/leases/{}/hold", "0".repeat(32)), b"x").status, 400);
    assert_eq!(server.unix("GET", "/v1/leases?run=a&run=b", b"").status, 400);
}
