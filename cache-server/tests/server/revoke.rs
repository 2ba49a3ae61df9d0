//! Who made results, as the server knows it, and their removal by that: by the command, against servers that run and
//! against their directories.

use std::path::Path;
use std::process::{Child, Command};

use kiln_storage::Digest;
use kiln_storage::api::{LookupRequest, LookupResponse};
use kiln_storage::record::Producer;
use serde_json::{Value, json};

use crate::guarded::{As, Guarded};
use crate::harness::{Fixture, Reply, TestServer, exchange};

fn of_pull_request(number: u32) -> Value {
    json!({"event_name": "pull_request", "ref": format!("refs/pull/{number}/merge"), "base_ref": "main",
        "run_id": "770", "run_attempt": "2", "actor_id": "9", "sha": "abc"})
}

/// `kiln-server revoke`, for a server in a directory: exit status, standard output, standard error.
fn command(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    command.env_clear().arg("revoke").args(args).arg("--dir").arg(dir);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The same for a server of a test that runs.
fn on(server: &TestServer, args: &[&str]) -> (i32, String, String) {
    let listen = format!("unix://{}", server.socket.display());
    command(&server.kiln_dir(), &[args, &["--listen", &listen]].concat())
}

fn says(mut one: Fixture, run: &str, toolchain: &str) -> Fixture {
    let (run, toolchain) = (run.to_owned(), toolchain.to_owned());
    one.record.producer = Producer { run, job: "test".into(), toolchain, created_at_ms: 5 };
    one
}

fn maker(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

fn maker_path(one: &Fixture) -> String {
    format!("{}/maker", one.path())
}

#[test]
fn every_result_says_who_made_it_and_what_they_say_is_apart() {
    let guarded = Guarded::start(r#", "public_read": true"#);
    let (main, pull) = (guarded.job(json!({})), guarded.job(of_pull_request(5)));
    let one = says(guarded.result("1", "pull", b"pull"), "1.1", "0123");
    // What pretends to be what the server knows is left out.
    assert_eq!(pull.ask("PUT", &format!("/v1/blobs/{}", Digest::of(b"pull")), b"pull").status, 201);
    let mut request = json!(one.request());
    request["offers"] = json!([]);
    request["record"]["made"] = json!({"by": {"kind": "user", "uid": 0}, "at_ms": 1});
    assert_eq!(pull.json("PUT", &one.path(), &request).status, 201);
    let known = maker(&pull.ask("GET", &maker_path(&one), b""));
    let by = &known["by"];
    assert_eq!(
        (&by["kind"], &by["run_id"], &by["run_attempt"]),
        (&json!("job"), &json!("770"), &json!("2"))
    );
    assert_eq!((&by["ref"], &by["actor_id"]), (&json!("refs/pull/5/merge"), &json!("9")));
    assert_eq!(known["said"], json!({"run": "1.1", "job": "test", "toolchain": "0123"}));
    assert!(known["at_ms"].as_u64().unwrap() > 1_600_000_000_000, "not what the record says");
    assert_eq!(main.ask("GET", &maker_path(&one), b"").status, 404);
    let nobody = As(&guarded.server, None);
    assert_eq!(nobody.ask("GET", &maker_path(&one), b"").status, 403);

    // The same again, of another run: the first made it, and the other one is told of.
    let mut later = of_pull_request(5);
    later["run_id"] = json!("78");
    assert_eq!(guarded.job(later).publish(&one, b"pull"), 200);
    assert_eq!(pull.publish(&one, b"pull"), 200);
    let known = maker(&pull.ask("GET", &maker_path(&one), b""));
    assert_eq!(
        (&known["by"]["run_id"], &known["also_by"]["run_id"]),
        (&json!("770"), &json!("78"))
    );

    // All of it is in the store.
    let Guarded { server, issuer, .. } = guarded;
    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    let (status, text, _) =
        command(&dir.path().join("kiln"), &["--run", "770", "--format", "json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &found["results"], &found["also_by_others"]), (0, &json!(1), &json!(1)));
    assert_eq!(found["makers"][0]["by"], known["by"]);
    drop(issuer);
}

#[test]
fn a_pull_request_is_revoked_and_main_is_not() {
    let guarded = Guarded::start("");
    let (main, pull) = (guarded.job(json!({})), guarded.job(of_pull_request(5)));
    let (one, two) = (guarded.result("1", "main", b"same"), guarded.result("2", "pull", b"pull"));
    let shared = guarded.result("3", "shares", b"same");
    assert_eq!(main.publish(&one, b"same"), 201);
    assert_eq!(pull.publish(&two, b"pull"), 201);
    assert_eq!(pull.publish(&shared, b"same"), 201);
    for args in [
        ["--scope", "github:1234@refs/pull/6/merge"],
        ["--principal", "ref:refs/heads/main2"],
        ["--since", "2999-01-01T00:00:00Z"],
        ["--run", "7"],
        ["--principal", "token ci"],
    ] {
        let (status, text, error) = on(&guarded.server, &args);
        assert_eq!((status, error.as_str()), (0, ""), "{args:?}");
        assert!(text.starts_with("0 results would go"), "{args:?}: {text}");
    }
    let wanted = ["--run", "770", "--principal", "repository:1234", "--since", "1h"];
    let (status, text, _) = on(&guarded.server, &wanted);
    assert_eq!(status, 0);
    assert!(text.starts_with("2 results would go"), "{text}");
    assert!(text.contains("job o/r pull_request refs/pull/5/merge run 770.2: 2 results"), "{text}");
    let line = text.lines().last().unwrap().trim();
    assert!(line.starts_with("kiln-server revoke --run 770") && line.ends_with(" --yes"), "{text}");
    assert_eq!(pull.finds(&one), ["shares", "pull", "main"], "nothing went");

    // The line does what it says.
    let words: Vec<&str> = line.split(' ').skip(2).collect();
    let mut does = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    let output = does.env_clear().arg("revoke").args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("2 results are removed"), "{text}");
    assert!(text.contains("have copies") && text.contains("revoke the token"), "{text}");
    assert_eq!(pull.finds(&one), ["main"]);
    assert_eq!(main.finds(&one), ["main"]);
    assert!(main.reads(b"same") && !pull.reads(b"pull"), "a blob goes with the last that names it");
    let audit = guarded.log();
    assert!(audit.contains("audit: revoke by user") && audit.contains("2 results"), "{audit}");

    // It is about who made it: the same is stored again when it is made again, also by a new index.
    assert_eq!(pull.publish(&two, b"pull"), 201);
    assert_eq!(pull.finds(&one), ["pull", "main"]);
    assert_eq!(on(&guarded.server, &["--principal", "actor:9", "--yes"]).0, 0);
    let dir = guarded.server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();
    let (_, text, _) = command(&dir.path().join("kiln"), &["--since", "1h"]);
    assert!(text.starts_with("1 results would go"), "{text}");
}

#[test]
fn nobody_revokes_over_tcp() {
    let server = TestServer::start();
    let one = says(Fixture::new(server.dir.path(), "u", "1", &[b"a"]), "r", "0123456789");
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let request = json!({"run": "r", "remove": true});
    let body = serde_json::to_vec(&request).unwrap();
    assert_eq!(server.tcp("POST", "/v1/revoke", &[], &body).problem(), "/problems/forbidden");
    // What a newer command asks for, and this server does not know, is no smaller question.
    let newer = json!({"run": "r", "remove": true, "only": "x"});
    assert_eq!(server.send("POST", "/v1/revoke", &newer).status, 400);
    assert_eq!(server.send("POST", "/v1/revoke", &json!({"remove": true})).status, 422);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let (status, _, error) = on(&server, &["--yes"]);
    assert!(status == 2 && error.contains("not said which"), "{error}");

    let (status, text, _) = on(&server, &["--job", "test", "--toolchain", "01234567", "--yes"]);
    assert!(status == 0 && text.starts_with("1 results are removed"), "{text}");
    assert_eq!(server.lookup(&one.record).records, []);
    assert_eq!(server.publish(&one).status, 202);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    // Without a server, by what the record of the store says.
    let dir = server.stop();
    let (status, text, _) = command(&dir.path().join("kiln"), &["--principal", "user", "--yes"]);
    assert!(status == 0 && text.starts_with("1 results are removed"), "{text}");
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(server.lookup(&one.record).records, []);
    assert_eq!(server.stats().store.blobs, 0);
    let (status, _, error) = command(&server.dir.path().join("none"), &["--run", "r"]);
    assert!(status == 1 && error.contains("--dir"), "{error}");
}

struct Shared(Child);

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that listens on TCP alone is reached in its directory, by its own user.
#[test]
fn a_shared_server_is_asked_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (kiln_dir, socket) = (dir.path().join("kiln"), dir.path().join("kiln/admin.sock"));
    let mut command_line = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
    let started =
        command_line.env_clear().args(["--listen", "127.0.0.1:0", "--dir"]).arg(&kiln_dir);
    let mut child = Shared(started.spawn().unwrap());
    let connect = |child: &mut Child| loop {
        if let Ok(stream) = std::os::unix::net::UnixStream::connect(&socket) {
            break stream;
        }
        assert!(child.try_wait().unwrap().is_none(), "the server has left");
        std::thread::yield_now();
    };
    let one = says(Fixture::new(dir.path(), "u", "1", &[b"a"]), "r", "0123");
    let mut send = |method: &str, path: &str, body: &Value| {
        exchange(connect(&mut child.0), method, path, &[], &serde_json::to_vec(body).unwrap())
    };
    assert_eq!(send("PUT", &one.path(), &json!(one.request())).status, 202);
    let ask = LookupRequest { units: vec![one.record.unit_key], ..LookupRequest::default() };
    let found: LookupResponse = send("POST", "/v1/lookup", &json!(ask)).json();
    assert_eq!(found.records.len(), 1);
    let (status, text, error) = command(&kiln_dir, &["--run", "r", "--yes"]);
    assert!(status == 0 && text.starts_with("1 results are removed"), "{text}{error}");
    let found: LookupResponse = send("POST", "/v1/lookup", &json!(ask)).json();
    assert_eq!(found.records, []);
}

#[test]
fn what_is_behind_a_server_gives_it_up_too() {
    let behind = TestServer::start();
    let upstream = format!("http://{}", behind.tcp);
    let edge = |dir| {
        TestServer::start_with(dir, |config| {
            let mut settings = kiln_server::Settings::default();
            settings.flag(kiln_server::Key::Upstream, &upstream);
            *config = config.clone().with(&settings).unwrap();
        })
    };
    let first = edge(tempfile::tempdir().unwrap());
    let one = says(Fixture::new(first.dir.path(), "u", "1", &[b"a"]), "r", "0123");
    let other = says(Fixture::new(first.dir.path(), "v", "1", &[b"b"]), "s", "0123");
    for made in [&one, &other] {
        first.publish(made);
        assert_eq!(first.lookup(&made.record).records.len(), 1);
    }
    let drain = json!({"within_ms": 20_000});
    assert_eq!(first.send("POST", "/v1/drain", &drain).status, 200);
    let second = edge(tempfile::tempdir().unwrap());
    assert_eq!(second.lookup(&one.record).records.len(), 1, "it came from behind");
    let (status, text, _) = on(&first, &["--run", "r", "--yes"]);
    assert!(status == 0 && text.contains("1 results are taken back there"), "{text}");
    assert_eq!(behind.lookup(&one.record).records, []);
    assert_eq!(behind.lookup(&other.record).records.len(), 1);
    assert_eq!(first.lookup(&one.record).records, []);

    // What a machine has fetched is removed there, by the run that the record names or by where it came from.
    assert_eq!(second.lookup(&other.record).records.len(), 1);
    let (_, text, _) = on(&second, &["--principal", "behind", "--run", "r", "--here", "--yes"]);
    assert!(text.starts_with("1 results are removed"), "{text}");
    assert_eq!(second.lookup(&one.record).records, []);

    // Where it is away that is said.
    let _ = behind.stop();
    let (status, text, _) = on(&first, &["--run", "s", "--yes"]);
    assert!(status == 3 && text.contains("1 results may be there still"), "{text}");
    assert_eq!(first.lookup(&other.record).records, []);
}
