//! Who may read and store what, from outside.

use std::path::Path;

use kiln_server::ServeConfig;
use kiln_storage::api::{
    LookupRequest, LookupResponse, MissingRequest, PublishRequest, SessionResponse,
};
use kiln_storage::remote::kiln::{JobIdentity, KilnOptions, KilnRemote};
use kiln_storage::{Digest, Remote as _, Scope};
use serde_json::{Value, json};

use crate::guarded::{AUDIENCE, As, Guarded};
use crate::harness::{Fixture, TestServer};
use crate::issuer::{TestKey, claims, encode, head, now_s, of_pull_request, signed_part};

fn another_repository(config: &mut ServeConfig) {
    config.tcp_scope = Some(Scope::new("another", "refs/heads/main"));
}

/// What the unix socket's user stored is none of the business of who comes by TCP for another repository.
#[test]
fn blobs_of_another_repository_are_not_there_until_they_are_shown() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), another_repository);
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"secret"]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let digest = Digest::of(b"secret");
    let blob = format!("/v1/blobs/{digest}");
    let tcp = |method: &str, path: &str, body: &[u8]| server.tcp(method, path, &[], body);
    let asked = serde_json::to_vec(&MissingRequest { blobs: vec![digest] }).unwrap();
    let publish = PublishRequest { offers: Vec::new(), ..one.request() };
    let publish = serde_json::to_vec(&publish).unwrap();

    assert_eq!(server.unix("GET", &blob, b"").body, b"secret");
    assert_eq!(tcp("GET", &blob, b"").problem(), "/problems/not-found");
    assert_eq!(tcp("HEAD", &blob, b"").status, 404);
    let missing: MissingRequest = tcp("POST", "/v1/blobs/missing", &asked).json();
    assert_eq!(missing.blobs, [digest]);
    let packed = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"secret");
    assert!(!packed(&tcp("POST", "/v1/blobs/pack", &asked).body));
    assert_eq!(tcp("PUT", &one.path(), &publish).problem(), "/problems/missing-blobs");
    for wrong in [b"".as_slice(), b"secre", b"Secret", b"secrets"] {
        assert_eq!(tcp("PUT", &blob, wrong).problem(), "/problems/digest-mismatch");
    }
    assert_eq!(tcp("GET", &blob, b"").status, 404);

    assert_eq!(tcp("PUT", &blob, b"secret").status, 201, "that it is there is not told");
    assert_eq!(tcp("PUT", &blob, b"secret").status, 200);
    assert_eq!(tcp("GET", &blob, b"").body, b"secret");
    assert!(packed(&tcp("POST", "/v1/blobs/pack", &asked).body));
    assert_eq!(tcp("PUT", &one.path(), &publish).status, 201);
}

/// Whose blobs are whose comes from the store, as all facts do.
#[test]
fn a_rebuilt_index_knows_whose_blobs_are_whose() {
    let server = TestServer::start_with(tempfile::tempdir().unwrap(), another_repository);
    let (mine, theirs) = ("mine", "theirs");
    let one = Fixture::new(server.dir.path(), "u", "1", &[theirs.as_bytes()]);
    server.publish(&one);
    assert_eq!(server.lookup(&one.record).records.len(), 1);
    let blob = |text: &str| format!("/v1/blobs/{}", Digest::of(text.as_bytes()));
    let two = Fixture::new(server.dir.path(), "u", "2", &[mine.as_bytes()]);
    assert_eq!(server.tcp("PUT", &blob(mine), &[], mine.as_bytes()).status, 201);
    let publish = PublishRequest { offers: Vec::new(), ..two.request() };
    let publish = serde_json::to_vec(&publish).unwrap();
    assert_eq!(server.tcp("PUT", &two.path(), &[], &publish).status, 201);
    let dir = server.stop();
    std::fs::remove_file(dir.path().join("kiln/index.sqlite")).unwrap();

    // The scope is not configured any more: only the store knows it.
    let server = TestServer::start_with(dir, |config| {
        config.tcp_scope = Some(Scope::new("another", "refs/heads/other"));
    });
    let request = LookupRequest { units: vec![two.record.unit_key], ..LookupRequest::default() };
    let request = serde_json::to_vec(&request).unwrap();
    let found: LookupResponse = server.tcp("POST", "/v1/lookup", &[], &request).json();
    assert_eq!(found.records, [], "scopes of one repository are apart");
    assert_eq!(server.tcp("GET", &blob(mine), &[], b"").body, mine.as_bytes());
    assert_eq!(server.tcp("GET", &blob(theirs), &[], b"").status, 404);
}

#[test]
fn pull_requests_read_main_and_nothing_of_one_another() {
    let guarded = Guarded::start("");
    let main = guarded.job(json!({}));
    let first = guarded.job(of_pull_request(1, "main"));
    let second = guarded.job(of_pull_request(2, "main"));
    let of_main = guarded.result("1", "main", b"main");
    assert_eq!(main.publish(&of_main, b"main"), 201);
    assert_eq!(first.finds(&of_main), ["main"]);
    assert!(first.reads(b"main"));

    let of_first = guarded.result("2", "first", b"first");
    assert_eq!(first.publish(&of_first, b"first"), 201);
    assert_eq!(first.finds(&of_main), ["first", "main"], "the own scope first");
    assert_eq!(second.finds(&of_main), ["main"]);
    assert_eq!(main.finds(&of_main), ["main"], "nothing of a pull request gets to main");

    // Another result under the key of main's: for itself alone.
    let forged = guarded.result("1", "forged", b"forged");
    assert_eq!(first.publish(&forged, b"forged"), 201);
    assert_eq!(main.finds(&of_main), ["main"]);
    assert_eq!(second.finds(&of_main), ["main"]);
    let mine = first.finds(&of_main);
    assert!(mine.contains(&"forged".to_owned()) && !mine.contains(&"main".to_owned()), "{mine:?}");

    // What is quarantined there is quarantined there alone.
    let quarantine = format!("{}/quarantine", of_main.path());
    let request = json!({"unit": {"crate_name": "c", "version": "1", "kind": "lib", "target": "t"}, "reason": "x"});
    assert_eq!(second.json("POST", &quarantine, &request).status, 204);
    assert_eq!(second.finds(&of_main), [""; 0], "not from main either");
    assert_eq!(second.publish(&of_main, b"main"), 423);
    assert_eq!(main.finds(&of_main), ["main"]);
    assert_eq!(main.json("POST", &quarantine, &request).status, 204);
    assert_eq!(first.finds(&of_main), ["first"], "what proved wrong in main is answered to nobody");

    // Another repository has nothing to do with it.
    let other = guarded.job(json!({"repository_id": "99"}));
    assert_eq!(other.finds(&of_main), [""; 0]);
    assert!(!other.reads(b"first") && second.reads(b"first"), "blobs are the repository's");
}

#[test]
fn an_event_that_is_not_listed_stores_nothing() {
    let guarded = Guarded::start("");
    let main = guarded.job(json!({}));
    let one = guarded.result("1", "main", b"main");
    assert_eq!(main.publish(&one, b"main"), 201);
    let target = guarded.job(json!({"event_name": "pull_request_target", "base_ref": "main"}));
    assert_eq!(target.finds(&one), ["main"]);
    let other = guarded.result("2", "other", b"other");
    assert_eq!(target.publish(&other, b"other"), 403);
    let publish = PublishRequest { offers: Vec::new(), ..other.request() };
    assert_eq!(target.json("PUT", &other.path(), &publish).problem(), "/problems/forbidden");
    for (method, path) in [
        ("PUT", "/v1/notes/ahead-1"),
        ("POST", "/v1/events"),
        ("POST", "/v1/stats/zero"),
        ("DELETE", "/v1/quarantine"),
        ("DELETE", &format!("/v1/quarantine/{}", one.record.result_key)),
        ("POST", &format!("{}/quarantine", one.path())),
        ("POST", "/v1/shutdown"),
        ("POST", "/v1/drain"),
    ] {
        assert_eq!(target.ask(method, path, b"{\"events\":[]}").status, 403, "{method} {path}");
    }
    let lease = json!({"key": Digest::of(b"k"), "asker": "a", "unit": one.record.unit, "run": "r",
        "job": "j", "wait_ms": 0, "known": []});
    let answer = target.json("POST", "/v1/leases", &lease);
    assert_eq!((answer.status, answer.body.as_slice()), (200, br#"{"state":"free"}"#.as_slice()));
}

#[test]
fn a_token_that_is_not_believed_gets_nothing() {
    let guarded = Guarded::start("");
    let iss = guarded.issuer.url();
    let key = TestKey::nth(0);
    let claimed = |with: Value| claims(&iss, AUDIENCE, with);
    let good = guarded.issuer.token(AUDIENCE, json!({}));
    let unsigned = signed_part(&json!({"alg": "none", "kid": "test-1"}), &claimed(json!({})));
    let part = signed_part(&json!({"alg": "HS256", "kid": "test-1"}), &claimed(json!({})));
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key.public().0);
    let by_public_key =
        format!("{part}.{}", encode(ring::hmac::sign(&secret, part.as_bytes()).as_ref()));
    let later = now_s() + 3600;
    let bad = [
        ("forged", TestKey::nth(1).sign(&head(), &claimed(json!({})))),
        ("not signed", format!("{unsigned}.")),
        ("signed with the public key", by_public_key),
        ("over", guarded.issuer.token(AUDIENCE, json!({"exp": now_s() - 61}))),
        ("not begun", guarded.issuer.token(AUDIENCE, json!({"nbf": later, "exp": later + 300}))),
        ("for somebody else", guarded.issuer.token("https://github.com/o", json!({}))),
        (
            "of another issuer",
            key.sign(&head(), &claims("https://else.example", AUDIENCE, json!({}))),
        ),
        ("of another key", key.sign(&json!({"alg": "RS256", "kid": "other"}), &claimed(json!({})))),
        ("garbage", "a.b.c".to_owned()),
    ];
    for (what, token) in &bad {
        let reply = guarded.exchange(token);
        assert_eq!(
            (reply.status, reply.header("www-authenticate")),
            (401, Some("Bearer")),
            "{what}"
        );
        assert_eq!(
            As(&guarded.server, Some(token.clone())).ask("GET", "/v1/stats", b"").status,
            401
        );
    }
    let unknown = guarded.issuer.token(AUDIENCE, json!({"repository_id": "5"}));
    assert_eq!(guarded.exchange(&unknown).problem(), "/problems/forbidden");

    // The token itself is none of this server's; it is good for one session.
    assert_eq!(As(&guarded.server, Some(good.clone())).ask("GET", "/v1/stats", b"").status, 401);
    let session: SessionResponse = guarded.exchange(&good).json();
    assert_eq!(guarded.exchange(&good).status, 401, "replayed");
    let mut changed = session.token.clone();
    changed.replace_range(10..11, if &changed[10..11] == "0" { "1" } else { "0" });
    assert_eq!(As(&guarded.server, Some(changed)).ask("GET", "/v1/stats", b"").status, 401);
    assert_eq!(
        As(&guarded.server, Some(session.token.clone())).ask("GET", "/v1/stats", b"").status,
        200
    );
    assert_eq!(guarded.issuer.asked(), 1, "keys are asked for once, whatever tokens come");

    let log = guarded.log();
    let secrets = bad.iter().map(|(_, token)| token).chain([&good, &unknown]);
    for token in secrets {
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!log.contains(part), "{part} is in the log");
        }
    }
    assert!(!log.contains(&session.token[7..]) && log.contains("used before"));
}

#[test]
fn the_default_branch_is_anybodys_where_the_rules_say_so() {
    let guarded = Guarded::start(r#", "public_read": true"#);
    let main = guarded.job(json!({}));
    let (one, two) = (guarded.result("1", "main", b"main"), guarded.result("2", "first", b"first"));
    assert_eq!(main.publish(&one, b"main"), 201);
    assert_eq!(guarded.job(of_pull_request(1, "main")).publish(&two, b"first"), 201);
    let nobody = As(&guarded.server, None);
    assert_eq!(nobody.finds(&one), ["main"]);
    assert!(nobody.reads(b"main"));
    assert_eq!(nobody.publish(&two, b"x"), 403);
    assert_eq!(
        As(&guarded.server, Some("kiln_t_0".into())).ask("GET", "/v1/stats", b"").status,
        401
    );
}

#[test]
fn what_has_a_token_is_kept_from_what_is_behind_the_server() {
    let behind = TestServer::start();
    let upstream = format!("http://{}", behind.tcp);
    let guarded = Guarded::start_with("", |config| {
        let mut settings = kiln_server::Settings::default();
        settings.flag(kiln_server::Key::Upstream, upstream);
        *config = config.clone().with(&settings).unwrap();
    });
    let main = guarded.job(json!({}));
    let (here, there) =
        (guarded.result("1", "here", b"here"), guarded.result("2", "there", b"there"));
    behind.publish(&there);
    assert_eq!(main.publish(&here, b"here"), 201);
    assert_eq!(main.finds(&here), ["here"]);
    assert_eq!(guarded.server.lookup(&here.record).records.len(), 1, "the own user is asked for");
    let drained = guarded.server.send("POST", "/v1/drain", &json!({"within_ms": 20_000}));
    assert_eq!(drained.status, 200);
    assert_eq!(behind.lookup(&here.record).records, [there.record]);
}

fn command(dir: &Path, args: &[&str]) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_kiln-server");
    let dir = dir.join("kiln");
    let mut command = std::process::Command::new(program);
    let output = command.arg("token").args(args).arg("--dir").arg(dir).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn static_tokens_read_and_write_what_they_were_made_for() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, rights: &str, repository: &str| {
        let (done, made) = command(
            dir.path(),
            &[
                "create",
                "--name",
                name,
                "--repository",
                repository,
                "--ref",
                "main",
                "--rights",
                rights,
            ],
        );
        assert!(done);
        made.trim().to_owned()
    };
    let [writer, reader] = ["write", "read"].map(|rights| make(rights, rights, "r"));
    let stranger = make("stranger", "write", "s");
    let server = TestServer::start_with(dir, |_| {});
    let by = |token: &String| As(&server, Some(token.clone()));
    let one = Fixture::new(server.dir.path(), "u", "1", &[b"one"]);
    assert_eq!(by(&reader).publish(&one, b"one"), 403);
    assert_eq!(by(&writer).publish(&one, b"one"), 201);
    assert_eq!(by(&reader).finds(&one), ["out"]);
    assert!(by(&reader).reads(b"one") && !by(&stranger).reads(b"one"));
    assert_eq!(by(&stranger).finds(&one), [""; 0]);
    assert_eq!(As(&server, None).ask("GET", "/v1/stats", b"").status, 401);
    let password = format!("anybody:{reader}");
    let basic =
        format!("Basic {}", encode(password.as_bytes()).replace('-', "+").replace('_', "/"));
    assert_eq!(server.tcp("GET", "/", &[("authorization", &basic)], b"").status, 200);

    let log = std::fs::read_to_string(server.kiln_dir().join("server.log")).unwrap();
    let dir = server.stop();
    let tokens = std::fs::read_to_string(dir.path().join("kiln/tokens.json")).unwrap();
    for token in [&writer, &reader, &stranger] {
        assert!(!log.contains(&token[7..]) && !tokens.contains(&token[7..]));
    }
    let (_, listed) = command(dir.path(), &["list"]);
    assert!(!listed.contains("last used never"), "{listed}");
    assert!(command(dir.path(), &["revoke", "write"]).0);
    let server = TestServer::start_with(dir, |_| {});
    assert_eq!(As(&server, Some(writer)).ask("GET", "/v1/stats", b"").status, 401);
    assert_eq!(As(&server, Some(reader)).finds(&one), ["out"]);
}

/// What an edge does for a job: it asks GitHub once, and again when the server does not know its session any more.
#[test]
fn a_job_gets_a_session_by_itself() {
    let guarded = Guarded::start("");
    let one = guarded.result("1", "main", b"main");
    assert_eq!(guarded.job(json!({})).publish(&one, b"main"), 201);
    let remote = |request_token: &str, audience: &str| {
        let job = JobIdentity {
            request_url: format!("{}/token?api=1", guarded.issuer.url()),
            request_token: request_token.to_owned(),
            audience: audience.to_owned(),
        };
        let url = format!("http://{}", guarded.server.tcp);
        KilnRemote::new(KilnOptions { url, token: None, job: Some(job) }).unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |remote: &KilnRemote| runtime.block_on(remote.lookup(&[], &[one.record.unit_key]));
    let job = remote("the job's", AUDIENCE);
    assert_eq!(ask(&job).unwrap().len(), 1);
    assert_eq!(ask(&job).unwrap().len(), 1);
    assert_eq!(guarded.log().matches("session for job").count(), 2, "one for each client");

    let foreign = remote("the job's", "https://else.example");
    let refused = ask(&foreign).unwrap_err().to_string();
    assert!(refused.contains("no session: it answers 401"), "{refused}");
    assert_eq!(ask(&foreign).unwrap_err().to_string(), refused);
    assert_eq!(guarded.log().matches("no session").count(), 1, "it is not asked for at once again");
}
