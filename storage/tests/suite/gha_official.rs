//! The fake of the GitHub Actions cache against the official client (`@actions/cache`, in node): what the
//! fake says is what that client understands, and what it sends is what the fake takes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use kiln_storage::testing::bodies::noise;
use kiln_storage::testing::gha::{Behaviour, Call, FakeCache, Fault, READ, READ_WRITE, token};
use kiln_storage::testing::npm;
use serde_json::{Value, json};

const MAIN: &str = "refs/heads/main";
const NEXT: &str = "refs/heads/next";
const PULL_1: &str = "refs/pull/1/merge";
const PULL_2: &str = "refs/pull/2/merge";

/// The directory that the client is installed in, or why it cannot be.
fn installed() -> Result<&'static Path, &'static str> {
    static PLACE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PLACE.get_or_init(install).as_deref().map_err(String::as_str)
}

fn install() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/actions-cache");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("actions-cache");
    npm::install(&source, &place)?;
    Ok(place)
}

/// A job: a workspace of its own and a token.
struct Job {
    fake: FakeCache,
    workspace: tempfile::TempDir,
    token: String,
    version_1: bool,
}

impl Job {
    fn new(fake: &FakeCache, scopes: &[(&str, u8)]) -> Self {
        let workspace = tempfile::tempdir().unwrap();
        Self { fake: fake.clone(), workspace, token: token(scopes), version_1: false }
    }

    fn data(&self) -> PathBuf {
        self.workspace.path().join("data")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.data()).unwrap();
        std::fs::write(self.data().join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.data().join(name)).unwrap()
    }

    /// Runs the client. What it printed is shown when the test fails.
    async fn run(&self, arguments: &[&str]) -> (Value, String) {
        let temp = self.workspace.path().join("temp");
        std::fs::create_dir_all(&temp).unwrap();
        let mut command = Command::new("node");
        command.arg(installed().unwrap().join("drive.mjs")).args(arguments);
        command.current_dir(self.workspace.path()).env("RUNNER_TEMP", temp);
        command.env("GITHUB_WORKSPACE", self.workspace.path());
        command.env("ACTIONS_RUNTIME_TOKEN", &self.token);
        for name in ["GITHUB_SERVER_URL", "ACTIONS_CACHE_MODE", "ACTIONS_CACHE_SERVICE_V2"] {
            command.env_remove(name);
        }
        if self.version_1 {
            command.env("ACTIONS_CACHE_URL", self.fake.cache_url());
        } else {
            command.env("ACTIONS_CACHE_SERVICE_V2", "true");
            command.env("ACTIONS_RESULTS_URL", self.fake.results_url());
        }
        let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let printed = String::from_utf8_lossy(&run.stdout).into_owned();
        println!("{arguments:?}: {printed}{}", String::from_utf8_lossy(&run.stderr));
        (serde_json::from_str(printed.lines().last().unwrap()).unwrap(), printed)
    }

    async fn save(&self, key: &str) -> bool {
        self.run(&["save", key]).await.0 == json!({"saved": true})
    }

    async fn restore(&self, keys: &[&str]) -> Value {
        let _ = std::fs::remove_dir_all(self.data());
        self.run(&[&["restore"], keys].concat()).await.0["restored"].clone()
    }
}

/// Whether the client is there; says so when it is not.
fn client_is_there() -> bool {
    let node = Command::new("node").arg("--version").output();
    match (node, installed()) {
        (Ok(_), Ok(_)) => true,
        (Err(error), _) => {
            println!("SKIP: node cannot be started: {error}");
            false
        }
        (_, Err(why)) => {
            println!("SKIP: the official client cannot be installed: {why}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_base_and_default_scopes_are_read_and_no_other() {
    if !client_is_there() {
        return;
    }
    let fake = FakeCache::start(Behaviour::default()).await;
    let main = Job::new(&fake, &[(MAIN, READ_WRITE)]);
    main.write("from", b"main");
    assert!(main.save("deps-1").await);
    assert_eq!(main.restore(&["deps-1"]).await, json!("deps-1"));
    assert_eq!(main.read("from"), b"main");
    main.write("from", b"again");
    assert!(!main.save("deps-1").await, "entries are write-once");

    let next = Job::new(&fake, &[(NEXT, READ_WRITE), (MAIN, READ)]);
    next.write("from", b"next");
    assert!(next.save("base-1").await);

    let pull = Job::new(&fake, &[(PULL_1, READ_WRITE), (NEXT, READ), (MAIN, READ)]);
    assert_eq!(pull.restore(&["deps-1"]).await, json!("deps-1"), "from the default branch");
    assert_eq!(pull.restore(&["base-1"]).await, json!("base-1"), "from its base");
    assert_eq!(pull.read("from"), b"next");
    pull.write("from", b"pull 1");
    assert!(pull.save("deps-1").await, "the same key in another scope");
    assert_eq!(pull.restore(&["deps-1"]).await, json!("deps-1"));
    assert_eq!(pull.read("from"), b"pull 1", "the own scope comes first");
    assert!(pull.save("mine").await);

    let other = Job::new(&fake, &[(PULL_2, READ_WRITE), (MAIN, READ)]);
    assert_eq!(other.restore(&["mine"]).await, Value::Null, "another pull request's");
    assert_eq!(other.restore(&["base-1"]).await, Value::Null, "a branch that is not its base");
    assert_eq!(main.restore(&["deps-1"]).await, json!("deps-1"));
    assert_eq!(main.read("from"), b"main", "a pull request changed nothing here");
    assert_eq!(fake.counted().finalized, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_token_reads_and_prefixes_find_the_newest() {
    if !client_is_there() {
        return;
    }
    let fake = FakeCache::start(Behaviour::default()).await;
    let main = Job::new(&fake, &[(MAIN, READ_WRITE)]);
    for key in ["deps-a", "deps-b"] {
        main.write("from", key.as_bytes());
        assert!(main.save(key).await);
    }
    let reader = Job::new(&fake, &[(MAIN, READ)]);
    assert_eq!(reader.restore(&["deps-x", "deps-"]).await, json!("deps-b"));
    assert_eq!(reader.read("from"), b"deps-b");
    assert_eq!(reader.restore(&["deps-"]).await, json!("deps-b"), "the key itself is a prefix too");
    assert_eq!(reader.restore(&["other-"]).await, Value::Null);
    reader.write("from", b"reader");
    let (outcome, printed) = reader.run(&["save", "deps-c"]).await;
    assert_eq!(outcome, json!({"saved": false}));
    assert!(printed.contains("cache write denied:"), "{printed}");
    assert_eq!(fake.counted().finalized, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_40_mib_travels_both_ways() {
    if !client_is_there() {
        return;
    }
    let fake = FakeCache::start(Behaviour::default()).await;
    let main = Job::new(&fake, &[(MAIN, READ_WRITE)]);
    let large = noise(40, 40 << 20);
    main.write("large", &large);
    assert!(main.save("large").await);
    assert!(fake.counted().bytes_in >= 40 << 20);
    assert_eq!(main.restore(&["large"]).await, json!("large"));
    assert!(main.read("large") == large, "the bytes are others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_those_that_the_client_knows() {
    if !client_is_there() {
        return;
    }
    let fake = FakeCache::start(Behaviour::default()).await;
    let main = Job::new(&fake, &[(MAIN, READ_WRITE)]);
    main.write("from", b"main");
    for (fault, said) in [
        (Fault::WriteDenied, "cache write denied:"),
        (Fault::RetryAfter(7), "rate limited"),
        (Fault::Quota, "insufficient usage"),
    ] {
        fake.fail(Call::Create, &fault, 1);
        let (outcome, printed) = main.run(&["save", "deps"]).await;
        assert_eq!(outcome, json!({"saved": false}), "{fault:?}");
        let known = printed.to_lowercase().contains(said);
        assert!(known, "{fault:?}: {printed}");
    }
    assert_eq!(fake.counted().injected, 3);
    assert_eq!(fake.counted().reserved, 0);
    assert!(main.save("deps").await);
    fake.fail(Call::Lookup, &Fault::ReadDenied, 1);
    let (outcome, printed) = main.run(&["restore", "deps"]).await;
    assert_eq!(outcome["restored"], Value::Null);
    assert!(printed.contains("cache read denied:"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_face_serves_the_older_client() {
    if !client_is_there() {
        return;
    }
    let fake = FakeCache::start(Behaviour::default()).await;
    let mut main = Job::new(&fake, &[(MAIN, READ_WRITE)]);
    main.version_1 = true;
    let large = noise(41, 5 << 20);
    main.write("large", &large);
    assert!(main.save("deps-1").await);
    assert!(!main.save("deps-1").await, "entries are write-once");
    assert_eq!(main.restore(&["deps-1"]).await, json!("deps-1"));
    assert!(main.read("large") == large, "the bytes are others");
    assert_eq!(main.restore(&["deps-2", "deps-"]).await, json!("deps-1"));
    assert_eq!(main.restore(&["none"]).await, Value::Null);
    assert_eq!(fake.counted().finalized, 1);
}
