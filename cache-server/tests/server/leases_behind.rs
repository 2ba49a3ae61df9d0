//! Leases shared by jobs that have a server of their own each: these pass questions on to the one behind them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_server::remote::url::RemoteUrl;
use kiln_storage::api::{
    LeaseRequest, LeaseResponse, LookupRequest, LookupResponse, ReleaseRequest,
};
use kiln_storage::limits::MAX_HOPS;
use kiln_storage::remote::via;

use crate::chain::before;
use crate::harness::{Fixture, TestServer, exchange, spawn_by};
use crate::leases::{ask, asks, granted, hold, is_held, list, release, request, until, waiting};
use crate::metrics::value;
use crate::tls::Secured;

fn is_far(id: &str) -> bool {
    id.starts_with("up-")
}

fn of_result(server: &TestServer, fixture: &Fixture) -> LookupResponse {
    let results = vec![fixture.record.result_key];
    let request = LookupRequest { results, ..LookupRequest::default() };
    server.send("POST", "/v1/lookup", &request).json()
}

/// Bytes that take their time.
fn large() -> Vec<u8> {
    let mut number = 1_u32;
    let next = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    };
    std::iter::repeat_with(next).take(6_000_000).collect()
}

/// Whoever is told of a result through its server has it by the next lookup there, though that was answered a moment
/// ago that there is nothing.
#[test]
fn what_one_compiles_the_other_finds() {
    let shared = TestServer::start();
    let (one, two) = (before(&shared), before(&shared));
    let fixture = Fixture::new(one.dir.path(), "u", "1", &[b"small", &large()]);
    let result = fixture.record.result_key;
    let outcome = ReleaseRequest::Stored { result };

    let id = granted(&ask(&one, &request("u", "a")));
    assert!(is_far(&id));
    let open = hold(&one, &id);
    let other = asks(&two, request("u", "b"));
    until(&two, |leases| waiting(leases) == 1 && is_held(leases));
    assert_eq!(two.lookup(&fixture.record).records, []);
    assert_eq!(one.publish(&fixture).status, 202);
    assert_eq!(release(&one, &id, outcome), 204);
    // The wrapper has gone before the result is sent.
    drop(open);
    assert_eq!(other.join().unwrap(), LeaseResponse::Stored { result });
    assert_eq!(shared.lookup(&fixture.record).records, std::slice::from_ref(&fixture.record));
    assert_eq!(two.lookup(&fixture.record).records, std::slice::from_ref(&fixture.record));
    assert_eq!(of_result(&two, &fixture).records, std::slice::from_ref(&fixture.record));
    assert_eq!(value(&shared, "kiln_leases_lost_total"), Some(0.0));
    // It is told to those who come later, too.
    let third = before(&shared);
    assert_eq!(ask(&third, &request("u", "c")), LeaseResponse::Stored { result });
    assert_eq!(of_result(&third, &fixture).records, std::slice::from_ref(&fixture.record));
}

#[test]
fn a_holder_that_hangs_up_at_its_server_is_replaced_at_another() {
    let shared = TestServer::start();
    let (one, two) = (before(&shared), before(&shared));
    let id = granted(&ask(&one, &request("u", "a")));
    let open = hold(&one, &id);
    let other = asks(&two, request("u", "b"));
    until(&shared, |leases| waiting(leases) == 1 && is_held(leases));
    for server in [&one, &two] {
        assert_eq!((list(server).leases.len(), waiting(&list(server))), (1, 1));
    }
    drop(open);
    let next = granted(&other.join().unwrap());
    assert!(is_far(&next) && next != id);
    assert_eq!(release(&one, &id, ReleaseRequest::Failed), 404);
    // By its id it can be released anywhere in its scope.
    assert_eq!(release(&one, &next, ReleaseRequest::Abandoned), 204);
    assert_eq!(list(&shared).leases, []);
}

#[test]
fn leases_go_through_a_server_in_the_middle() {
    let last = TestServer::start();
    let middle = before(&last);
    let (one, two) = (before(&middle), before(&middle));
    let fixture = Fixture::new(one.dir.path(), "u", "1", &[b"one"]);
    let result = fixture.record.result_key;
    let id = granted(&ask(&one, &request("u", "a")));
    assert!(id.starts_with("up-up-"));
    let open = hold(&one, &id);
    let other = asks(&two, request("u", "b"));
    until(&last, |leases| waiting(leases) == 1 && is_held(leases));
    assert_eq!(one.publish(&fixture).status, 202);
    assert_eq!(release(&one, &id, ReleaseRequest::Stored { result }), 204);
    drop(open);
    assert_eq!(other.join().unwrap(), LeaseResponse::Stored { result });
    for server in [&last, &two] {
        assert_eq!(server.lookup(&fixture.record).records, std::slice::from_ref(&fixture.record));
    }
    assert_eq!(value(&last, "kiln_leases_lost_total"), Some(0.0));
}

#[test]
fn a_result_that_is_nowhere_is_not_told_of() {
    let shared = TestServer::start();
    let one = before(&shared);
    let fixture = Fixture::new(one.dir.path(), "u", "1", &[b"one"]);
    let id = granted(&ask(&one, &request("u", "a")));
    let other = asks(&one, request("u", "b"));
    until(&shared, |leases| waiting(leases) == 1);
    // It was never published.
    let outcome = ReleaseRequest::Stored { result: fixture.record.result_key };
    assert_eq!(release(&one, &id, outcome), 204);
    assert!(is_far(&granted(&other.join().unwrap())));
}

#[test]
fn without_the_server_behind_it_a_server_has_leases_of_its_own() {
    let shared = TestServer::start();
    let one = before(&shared);
    let far = granted(&ask(&one, &request("u", "a")));
    shared.stop();
    let own = granted(&ask(&one, &request("u", "b")));
    assert!(is_far(&far) && !is_far(&own));
    let other = asks(&one, request("u", "c"));
    until(&one, |leases| waiting(leases) == 1);
    // What was given there is nobody's, and nothing waits for it.
    assert_eq!(release(&one, &far, ReleaseRequest::Abandoned), 404);
    assert_eq!(release(&one, &own, ReleaseRequest::Abandoned), 204);
    granted(&other.join().unwrap());
}

/// A server of before there were leases: it is asked once.
#[test]
fn a_server_that_knows_no_leases_is_not_asked_for_them_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes);
            count.fetch_add(usize::from(bytes.starts_with(b"POST /v1/leases ")), Ordering::SeqCst);
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
    });
    let one = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        let url = RemoteUrl::parse("KILN_UPSTREAM", &url).unwrap();
        config.remote.url = Some(("KILN_UPSTREAM", url));
    });
    for unit in ["u", "v", "w"] {
        assert!(!is_far(&granted(&ask(&one, &request(unit, "a")))));
    }
    assert_eq!(list(&one).leases.len(), 3);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Others would wait for what it never sends.
#[test]
fn a_server_that_sends_nothing_takes_no_lease_of_others() {
    let shared = TestServer::start();
    let url = format!("http://{}", shared.tcp);
    let reads = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        let url = RemoteUrl::parse("KILN_UPSTREAM", &url).unwrap();
        config.remote.url = Some(("KILN_UPSTREAM", url));
        config.remote.sends = false;
    });
    assert!(!is_far(&granted(&ask(&reads, &request("u", "a")))));
    until(&shared, |leases| leases.leases.is_empty());
    // It waits for others all the same.
    let two = before(&shared);
    let id = granted(&ask(&two, &request("v", "b")));
    let other = asks(&reads, request("v", "c"));
    until(&shared, |leases| waiting(leases) == 1);
    assert_eq!(release(&two, &id, ReleaseRequest::NotStored), 204);
    assert_eq!(other.join().unwrap(), LeaseResponse::Free);
}

#[test]
fn a_question_for_a_lease_goes_through_so_many_servers_and_no_more() {
    let shared = TestServer::start();
    let one = before(&shared);
    let ask = |hops, asker| -> String {
        let through = (0..hops).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let body = serde_json::to_vec(&request("u", asker)).unwrap();
        let reply = one.tcp("POST", "/v1/leases", &[(via::HEADER, &through)], &body);
        granted(&reply.json())
    };
    assert!(is_far(&ask(MAX_HOPS - 1, "a")));
    assert!(!is_far(&ask(MAX_HOPS, "b")));
}

/// A large machine before a server that speaks TLS: all that it asks there shares one connection, and more wait than once
/// had room on it.
#[test]
fn hundreds_that_wait_share_a_connection_of_http_2() {
    let (secured, dir) = (Secured::start(), tempfile::tempdir().unwrap());
    let url = format!("https://{}", secured.server.tcp);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.env_clear().env("SSL_CERT_FILE", &secured.root).args(["--upstream", &url]);
    let (mut edge, socket) = spawn_by(command, dir.path());
    let asks = |request: &LeaseRequest| -> LeaseResponse {
        let body = serde_json::to_vec(request).unwrap();
        let stream = UnixStream::connect(&socket).unwrap();
        exchange(stream, "POST", "/v1/leases", &[], &body).json()
    };
    let id = granted(&ask(&secured.server, &request("u", "a")));
    let open = hold(&secured.server, &id);
    let waiting = || value(&secured.server, "kiln_lease_waiters").unwrap_or_default();
    let most = std::thread::scope(|scope| {
        let began = Instant::now();
        for n in 0..300 {
            let (asks, asker) = (&asks, n.to_string());
            scope.spawn(move || asks(&request("u", &asker)));
            // One after another: none is to be late for want of a processor.
            while waiting() < f64::from(n + 1) && began.elapsed() < Duration::from_secs(9) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        let most = waiting();
        release(&secured.server, &id, ReleaseRequest::NotStored);
        most
    });
    assert_eq!(most, 300.0);
    drop(open);
    edge.kill().unwrap();
    edge.wait().unwrap();
}
