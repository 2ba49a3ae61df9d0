//! Collections of a bucket by the program itself: a real S3 server (moto), filled and read through real servers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

use kiln_server::{Access, RemoteUrl};
use kiln_storage::api::{BringRequest, RemoteStatus};
use kiln_storage::testing::bodies::{list, noise};
use kiln_storage::{Digest, ObjectBackend, ObjectOptions};
use serde_json::Value;

use crate::harness::{Fixture, TestServer, blob_file};
use crate::moto;

/// A blob that is an object of its own.
const BLOB: usize = 300_000;

/// A prefix of the bucket.
struct Bucket {
    server: SocketAddr,
    url: String,
    variables: Vec<(String, String)>,
}

impl Bucket {
    fn new(server: SocketAddr, prefix: &str) -> Self {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = vec![
            set("AWS_ACCESS_KEY_ID", "key"),
            set("AWS_SECRET_ACCESS_KEY", "not-to-be-seen"),
            set("AWS_ENDPOINT_URL", &format!("http://{server}")),
        ];
        Self { server, url: format!("s3://{}/{prefix}", moto::BUCKET), variables }
    }

    /// A server on a machine that has nothing.
    fn server(&self) -> TestServer {
        let variables = self.variables.iter().cloned().collect();
        TestServer::start_with(tempfile::tempdir().unwrap(), |config| {
            let url = RemoteUrl::parse("KILN_STORAGE", &self.url).unwrap();
            config.remote.url = Some(("KILN_STORAGE", url));
            config.remote.access = Access { variables, token: None };
        })
    }

    fn names(&self, prefix: &str) -> BTreeSet<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = ObjectOptions::new(self.url.clone(), self.variables.clone());
        let listed = runtime.block_on(async {
            list(&ObjectBackend::open(&options).unwrap(), prefix).await.unwrap()
        });
        listed.iter().map(ToString::to_string).collect()
    }

    /// Results and their blobs.
    fn counts(&self) -> (usize, usize) {
        (self.names("results/").len(), self.names("packed/").len())
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-server"));
        command.arg("gc").args(flags).env_clear().envs(self.variables.clone());
        command.env("KILN_STORAGE", &self.url);
        command
    }

    fn gc(&self, flags: &[&str]) -> Output {
        let output = self.command(flags).output().unwrap();
        let said = [output.stdout.clone(), output.stderr.clone()].concat();
        assert!(!String::from_utf8_lossy(&said).contains("not-to-be-seen"));
        output
    }

    fn text(&self, flags: &[&str]) -> String {
        let output = self.gc(flags);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The plan, and the end where there is one.
    fn json(&self, flags: &[&str]) -> Vec<Value> {
        let text = self.text(&[flags, &["--format", "json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Fills the bucket with results that cost 1, 2, 3, … seconds, and each have one blob of the same size.
fn fill(bucket: &Bucket, count: u64) -> Vec<(Fixture, Vec<u8>)> {
    let server = bucket.server();
    let mut all = Vec::new();
    for i in 1..=count {
        let blob = noise(i, BLOB).to_vec();
        let name = format!("crate{i}");
        let mut fixture = Fixture::new(server.dir.path(), &name, "1", &[&blob]);
        fixture.record.cost.wall_ms = i * 1000;
        fixture.record.unit.crate_name = name;
        assert_eq!(server.publish(&fixture).status, 202);
        assert_eq!(server.lookup(&fixture.record).records.len(), 1);
        all.push((fixture, blob));
    }
    let drained = server.send("POST", "/v1/drain", &serde_json::json!({ "within_ms": 60_000 }));
    let status: RemoteStatus = drained.json();
    assert_eq!((status.queued, status.sent, status.lost), (0, count, 0), "{status:?}");
    server.stop();
    all
}

fn names_of(plan: &Value) -> BTreeSet<&str> {
    let results = plan["plan"]["results"].as_array().unwrap();
    results.iter().map(|result| result["name"].as_str().unwrap().trim()).collect()
}

#[test]
fn what_is_worth_least_goes_and_the_rest_is_still_had() {
    let Some(address) = moto::address() else { return };
    let bucket = Bucket::new(address, "gc-quota");
    let all = fill(&bucket, 5);
    assert_eq!(bucket.counts(), (5, 5));

    // All is young.
    let young = bucket.json(&["--dry-run", "--unused", "0s", "--quota", "1B"]);
    assert_eq!(young.len(), 1, "a preview has no end");
    assert_eq!((names_of(&young[0]).len(), &young[0]["plan"]["dry_run"]), (0, &Value::from(true)));
    let scopes = young[0]["plan"]["scopes"].as_object().unwrap();
    let account = scopes.values().next().unwrap();
    assert_eq!((&account["name"], &account["results"]), (&"shared@all".into(), &5.into()));

    // The cheapest is pinned: the quota has place for it and for the dearest.
    let pinned = all[0].0.record.result_key.to_string();
    let flags = ["--grace", "0s", "--quota", "shared@all=1MB", "--pin", &pinned];
    let before = bucket.names("");
    let text = bucket.text(&[&["--dry-run"], &flags[..]].concat());
    for part in [
        "3 results and 3 blobs go",
        "making them anew would take 9.0 s",
        "scope shared@all: 3 of 5 results",
        "over quota: 3",
        "crate4: 4.0 s",
        "dry run: nothing was deleted; without --dry-run it goes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(bucket.names(""), before, "a preview changes nothing, not even a pin");

    // Who cannot be told what goes loses nothing but gets the pin.
    let mut unheard = bucket.command(&flags);
    let output = unheard.stdout(File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!((output.status.code(), bucket.counts()), (Some(1), (5, 5)), "{output:?}");

    let lines = bucket.json(&flags);
    assert_eq!(names_of(&lines[0]), ["crate2", "crate3", "crate4"].into());
    assert_eq!(lines[0]["plan"]["rebuild_ms"], 9000);
    let done = serde_json::json!({ "results": 3, "blobs": 3, "spared": 0, "left": 0 });
    assert_eq!(lines[1]["done"], done);
    assert_eq!(bucket.counts(), (2, 2));

    let second = bucket.server();
    for (i, (fixture, blob)) in all.iter().enumerate() {
        let found = second.lookup(&fixture.record).records;
        if i != 0 && i != 4 {
            assert!(found.is_empty(), "crate{}", i + 1);
            continue;
        }
        assert_eq!(found, std::slice::from_ref(&fixture.record));
        let bring = format!("/v1/results/{}/bring", fixture.record.result_key);
        assert_eq!(second.send("POST", &bring, &BringRequest { within_ms: 60_000 }).status, 204);
        let file = fs::read(blob_file(&second.store_dir(), blob)).unwrap();
        assert_eq!(Digest::of(&file), Digest::of(blob));
    }
    second.stop();
}

#[test]
fn what_is_unused_goes_unless_it_is_pinned() {
    let Some(address) = moto::address() else { return };
    let bucket = Bucket::new(address, "gc-unused");
    let all = fill(&bucket, 2);
    let pinned = all[1].0.record.result_key.to_string();
    let absent = Digest::of(b"absent").to_string();
    let old = ["--grace", "0s", "--unused", "0s"];
    let pins = ["--pin", &pinned, "--pin", &absent];
    let text = bucket.text(&[&old[..], &pins].concat());
    assert!(text.contains(&format!("result {absent} is not there")), "{text}");
    assert!(text.contains("not used: 1") && text.contains("deleted: 1 results and 1 blobs"));
    assert_eq!(bucket.counts(), (1, 1));
    // It stays pinned until somebody says otherwise.
    assert!(bucket.text(&old).contains("deleted: 0 results and 0 blobs"));
    assert_eq!(bucket.counts(), (1, 1));
    let unpinned = bucket.json(&[&old[..], &["--unpin", &pinned]].concat());
    assert_eq!(names_of(&unpinned[0]), ["crate2"].into());
    assert_eq!(bucket.counts(), (0, 0));
}

/// With a wrong clock all would be old, or announcements would count for nobody.
#[test]
fn a_collection_by_a_wrong_clock_is_refused() {
    for (date, said) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", "minutes ahead of"),
        ("Sun, 06 Nov 2094 08:49:37 GMT", "minutes behind"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bucket = Bucket::new(listener.local_addr().unwrap(), "gc-clock");
        let server = std::thread::spawn(move || {
            let body = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            let head = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\nconnection: close\r\n");
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            while let Ok((mut client, _)) = listener.accept() {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if client.read(&mut byte).unwrap() == 0 {
                        return;
                    }
                    request.push(byte[0]);
                }
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        for flags in [&["--dry-run"][..], &[]] {
            let output = bucket.gc(flags);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(said) && output.stdout.is_empty(), "{error}");
        }
        // A connection without a request ends it.
        drop(TcpStream::connect(bucket.server).unwrap());
        server.join().unwrap();
    }
}

#[test]
fn a_collection_that_cannot_be_done_says_why() {
    let Some(address) = moto::address() else { return };
    let bucket = Bucket::new(address, "gc-wrong");
    for (flags, code, said) in [
        (&["--storage", "gha://"][..], 2, "s3://bucket"),
        (&["--unused", "soon"], 2, "30d"),
        (&["--unused"], 2, "no value"),
        (&["--delete"], 2, "usage"),
        (&["--storage", "s3://no-such-bucket"], 1, "s3://no-such-bucket"),
    ] {
        let output = bucket.gc(flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
        assert!(text.contains(said), "{flags:?}: {text}");
    }
}
