//! A server of a job that logs in at a shared one by what GitHub signs for the job.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::Command;

use kiln_server::remote::url::RemoteUrl;
use kiln_storage::api::{LeaseResponse, LookupResponse, RemoteStatus};
use kiln_storage::testing::certificates::Authority;
use serde_json::json;

use crate::guarded::Guarded;
use crate::harness::{Fixture, TestServer, exchange, spawn_by};
use crate::leases::{ask, granted, request};
use crate::tls::{FAR, files};

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A shared server under the name by which it is asked for, as GitHub is told it.
fn shared() -> Guarded {
    let address = free_address();
    Guarded::start_for(&format!("http://{address}"), "", |config| {
        config.listen.tcp = Some(address);
    })
}

/// The server of a job of GitHub.
fn edge(shared: &Guarded) -> TestServer {
    let url = format!("http://{}", shared.server.tcp);
    let of_github = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api=1", shared.issuer.url())),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the job's".to_owned()),
    ];
    TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.remote.url =
            Some(("KILN_UPSTREAM", RemoteUrl::parse("KILN_UPSTREAM", &url).unwrap()));
        config.remote.access.variables =
            of_github.map(|(name, value)| (name.to_owned(), value)).into();
    })
}

/// A result of a unit of its own.
fn result(dir: &TestServer, unit: &str) -> Fixture {
    let mut one = Fixture::new(dir.dir.path(), unit, "1", &[unit.as_bytes()]);
    one.record.stdout = unit.to_owned();
    one
}

/// Sends what waits; how much waits still.
fn drain(edge: &TestServer) -> u64 {
    let drained = edge.send("POST", "/v1/drain", &json!({"within_ms": 20_000}));
    assert_eq!(drained.status, 200);
    drained.json::<RemoteStatus>().queued
}

#[test]
fn an_edge_logs_in_again_when_the_server_behind_it_was_started_anew() {
    let shared = shared();
    let edge = edge(&shared);
    let sessions = |shared: &Guarded| shared.log().matches("session for job").count();
    let exchange = |shared: &Guarded, number: usize| {
        let [there, here] = ["there", "here"].map(|name| format!("{name}-{number}"));
        let of_job = result(&edge, &there);
        assert_eq!(shared.job(json!({})).publish(&of_job, there.as_bytes()), 201);
        let before = sessions(shared);
        assert_eq!(edge.lookup(&of_job.record).records, std::slice::from_ref(&of_job.record));
        let own = result(&edge, &here);
        assert_eq!(edge.publish(&own).status, 202);
        assert_eq!(drain(&edge), 0);
        assert!(granted(&ask(&edge, &request(&there, "a"))).starts_with("up-"));
        assert_eq!(sessions(shared), before + 1, "one for all that is asked");
        assert_eq!(shared.job(json!({})).finds(&own), [here]);
    };
    exchange(&shared, 1);
    let shared = shared.restarted();
    exchange(&shared, 2);
}

/// What a job may not store is kept by its own server, and the build goes on.
#[test]
fn an_edge_of_a_job_that_stores_nothing_there_reads() {
    let shared = shared();
    shared.issuer.signs(json!({"event_name": "pull_request_target", "base_ref": "main"}));
    let edge = edge(&shared);
    let (there, own) = (result(&edge, "there"), result(&edge, "own"));
    assert_eq!(shared.job(json!({})).publish(&there, b"there"), 201);
    assert_eq!(edge.lookup(&there.record).records, std::slice::from_ref(&there.record));
    assert_eq!(edge.publish(&own).status, 202);
    drain(&edge);
    assert_eq!(edge.lookup(&own.record).records, std::slice::from_ref(&own.record));
    assert_eq!(shared.job(json!({})).finds(&own), [""; 0]);
    assert!(!matches!(ask(&edge, &request("own", "a")), LeaseResponse::Held { .. }));
}

/// The server of a job is a process here, which is told of the authority as any program is. It asks by HTTP/2.
#[test]
fn an_edge_logs_in_by_tls() {
    let (dir, authority, address) =
        (tempfile::tempdir().unwrap(), Authority::new(), free_address());
    let root = dir.path().join("authority.pem");
    authority.write(&root);
    let shown = authority.signs(&dir.path().join("shown"), &["127.0.0.1"], FAR);
    let url = format!("https://{address}");
    let shared = Guarded::start_for(&url, "", |config| {
        (config.listen.tcp, config.tls) = (Some(address), Some(files(&shown)));
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.env_clear().env("SSL_CERT_FILE", &root).args(["--upstream", &url]);
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/token?api=1", shared.issuer.url()));
    command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the job's");
    let (mut edge, socket) = spawn_by(command, dir.path());
    let own = Fixture::new(dir.path(), "own", "1", &[b"own"]);
    let send = |method, path: &str, body: &[u8]| {
        exchange(UnixStream::connect(&socket).unwrap(), method, path, &[], body)
    };
    let record = serde_json::to_vec(&own.request()).unwrap();
    assert_eq!(send("PUT", &own.path(), &record).status, 202);
    let wait = json!({"within_ms": 20_000}).to_string();
    let drained = send("POST", "/v1/drain", wait.as_bytes());
    assert_eq!(drained.json::<RemoteStatus>().queued, 0);
    edge.kill().unwrap();
    edge.wait().unwrap();
    // It is there, and of the job's repository: the shared server answers its own user by its socket.
    let log = shared.log();
    assert_eq!(log.matches("session for job").count(), 1, "{log}");
    let stats: serde_json::Value = shared.server.unix("GET", "/v1/stats", b"").json();
    assert_eq!(stats["store"]["results"], 1, "{stats:#}");
    let found: LookupResponse = shared.server.lookup(&own.record);
    assert!(found.records.is_empty(), "the scope of its user has none");
}
