//! Start, end, and what survives both.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use kiln_server::{ServeError, Server};
use kiln_storage::api::LookupResponse;

use crate::harness::{Fixture, TestServer, config, exchange, spawn};

#[test]
fn what_is_stored_survives_a_restart() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    // Answered at once, taken over before the server has left.
    assert_eq!(server.publish(&one).status, 202);
    let dir = server.stop();
    assert!(!dir.path().join("kiln/kiln.sock").exists());
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records, std::slice::from_ref(&one.record));
}

#[test]
fn what_is_stored_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let one = Fixture::new(dir.path(), "u", "1", &[b"a"]);
    let body = serde_json::to_vec(&one.request()).unwrap();
    let (mut child, socket) = spawn(dir.path());
    let send = |method, path: &str, body: &[u8]| {
        exchange(UnixStream::connect(&socket).unwrap(), method, path, &[], body)
    };
    assert_eq!(send("PUT", &one.path(), &body).status, 202);
    let lookup = serde_json::json!({ "units": [one.record.unit_key] }).to_string();
    let found: LookupResponse = send("POST", "/v1/lookup", lookup.as_bytes()).json();
    assert_eq!(found.records.len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(socket.exists(), "nobody removed it");

    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records, std::slice::from_ref(&one.record));
    let kiln_dir = server.kiln_dir();
    let dir = server.stop();
    drop(kiln_dir);
    drop(dir);
}

#[test]
fn a_terminated_process_removes_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, socket) = spawn(dir.path());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn an_index_that_is_no_good_is_rebuilt() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    let two = Fixture::new(server.dir.path(), "u", "2", &[b"b"]);
    server.publish(&one);
    server.publish(&two);
    assert_eq!(server.lookup(&one.record).records.len(), 2);
    let mut dir = server.stop();
    let index = dir.path().join("kiln/index.sqlite");
    let gone = || std::fs::remove_file(&index).unwrap();
    let garbage = || std::fs::write(&index, vec![b'x'; 20_000]).unwrap();
    let cut = || std::fs::write(&index, b"SQLite format 3\0").unwrap();
    let other = || {
        let connection = rusqlite::Connection::open(&index).unwrap();
        connection.execute("UPDATE meta SET value = '0' WHERE key = 'schema'", []).unwrap();
    };
    let breakages: [&dyn Fn(); 4] = [&gone, &garbage, &cut, &other];
    for (i, breakage) in breakages.into_iter().enumerate() {
        breakage();
        let server = TestServer::start_with(dir, |_| {});
        let found = server.lookup(&one.record).records;
        assert_eq!(found.len(), 2, "breakage {i}");
        dir = server.stop();
    }
}

#[test]
fn damaged_records_and_records_without_blobs_are_not_found() {
    let server = TestServer::start();
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"a"]);
    let two = Fixture::new(server.dir.path(), "v", "1", &[b"b"]);
    let three = Fixture::new(server.dir.path(), "w", "1", &[b"c"]);
    for fixture in [&one, &two, &three] {
        server.publish(fixture);
        assert_eq!(server.lookup(&fixture.record).records.len(), 1);
    }
    let store = server.store_dir();
    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    std::fs::remove_file(crate::harness::blob_file(&store, b"a")).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let scope = kiln_storage::Scope::local_user(uid);
    let (unit, result) = (&two.record.unit_key, &two.record.result_key);
    let name = kiln_storage::ObjectName::record(&scope, unit, result, 0);
    std::fs::write(store.join(name.as_str()), b"garbage").unwrap();

    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records, []);
    assert_eq!(server.lookup(&two.record).records, []);
    assert_eq!(server.lookup(&three.record).records.len(), 1);
    assert!(!store.join(name.as_str()).exists());
    for fixture in [&one, &two] {
        let status = server.publish(fixture).status;
        assert!([201, 202].contains(&status), "{status}");
        assert_eq!(server.lookup(&fixture.record).records.len(), 1);
    }
}

#[test]
fn a_second_server_leaves_the_first_alone() {
    let server = TestServer::start();
    let second = Server::bind(config(server.dir.path()));
    assert!(matches!(second, Err(ServeError::AlreadyRunning)));
    assert_eq!(server.unix("GET", "/healthz", b"").status, 200);
}

#[test]
fn a_file_at_the_place_of_the_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kiln/kiln.sock");
    std::fs::create_dir(dir.path().join("kiln")).unwrap();
    std::fs::write(&path, b"mine").unwrap();
    let refused = Server::bind(config(dir.path()));
    assert!(matches!(refused, Err(ServeError::SocketPath { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_long_directory_has_a_short_socket() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("d".repeat(120));
    let run = dir.path().join("r");
    let uid = rustix::process::geteuid().as_raw();
    let server = TestServer::start_with(dir, |config| {
        config.kiln_dir = long.clone();
        config.storage = kiln_server::StorageUrl::Memory;
        config.listen.socket = Some(kiln_server::socket_path(&long, Some(&run), uid));
    });
    assert!(server.socket.starts_with(&run) || server.socket.starts_with("/tmp"));
    assert_eq!(server.unix("GET", "/healthz", b"").status, 200);
    let socket = server.socket.clone();
    drop(server.stop());
    assert!(!socket.exists());
}

#[test]
fn an_idle_server_leaves() {
    let mut server = TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
        config.idle = Some(Duration::from_millis(1));
    });
    server.join().unwrap();
    assert!(!server.socket.exists());
}

#[test]
fn a_server_without_its_directory_leaves() {
    let mut server = TestServer::start();
    std::fs::rename(server.kiln_dir(), server.dir.path().join("moved")).unwrap();
    server.join().unwrap();
}

#[test]
fn a_server_without_its_socket_leaves_and_spares_the_new_file() {
    let mut server = TestServer::start();
    std::fs::remove_file(&server.socket).unwrap();
    std::fs::write(&server.socket, b"new").unwrap();
    server.join().unwrap();
    assert_eq!(std::fs::read(&server.socket).unwrap(), b"new");
}

#[test]
fn the_program_names_what_it_does_not_accept() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_kiln-server"))
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, word) in [
        (["--dir", "/x", "--cache-size", "much"], "10GiB"),
        (["--dir", "/x", "--storage", "ftp://b"], "s3://bucket"),
        (["--dir", "/x", "--role", "edge"], "local or shared"),
        (["--dir", "x", "--log", "info"], "absolute"),
        (["--dir", "/x", "--unknown", "1"], "--unknown"),
    ] {
        let (code, text) = run(&args);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(run(&["openapi"]).0, Some(0));
}
