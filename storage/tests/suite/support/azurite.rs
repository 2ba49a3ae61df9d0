//! An Azurite server of this test process, as [`super::moto`] is one for S3: `azurite-blob` named by
//! `KILN_TEST_AZURITE`, or in `PATH`, or installed once by npm below the target directory.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The container that is there.
pub const CONTAINER: &str = "kiln-tests";
/// The account and its key, which is the word `not-to-be-seen`.
pub const ACCOUNT: &str = "kiln";
pub const KEY: &str = "bm90LXRvLWJlLXNlZW4=";
const PACKAGE: &str = "azurite@3.35.0";

/// Signs one request, which creates the container: `object_store` has no way to.
const CREATE: &str = r#"
const [host, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-08-06";
const text = ["PUT", "", "", "", "", "", "", "", "", "", "", "", `x-ms-date:${date}`,
  `x-ms-version:${version}`, `/${account}/${account}/${container}`, "restype:container"].join("\n");
const hmac = require("crypto").createHmac("sha256", Buffer.from(key, "base64"));
const signature = hmac.update(text, "utf8").digest("base64");
const headers = {"x-ms-date": date, "x-ms-version": version, "content-length": 0,
  authorization: `SharedKey ${account}:${signature}`};
const [name, port] = host.split(":");
require("http").request({method: "PUT", host: name, port, headers,
  path: `/${account}/${container}?restype=container`}, (answer) => {
  answer.resume(); process.exitCode = answer.statusCode === 201 ? 0 : 1;
}).end();
"#;

/// Where the server listens; `None` where there is none.
#[allow(clippy::print_stdout, reason = "what CI looks for")]
pub fn address() -> Option<SocketAddr> {
    static SERVER: OnceLock<Option<SocketAddr>> = OnceLock::new();
    let address = *SERVER.get_or_init(|| program().map(|program| start(&program)));
    if address.is_none() {
        println!("SKIP: there is no azurite-blob, and npm cannot install it");
    }
    address
}

#[allow(clippy::disallowed_methods, reason = "tests are told where their tools are")]
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KILN_TEST_AZURITE") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("azurite-blob"));
    found.into_iter().find(|program| program.is_file()).or_else(install)
}

fn install() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("tests-tools");
    std::fs::create_dir_all(&tools).ok()?;
    let lock = File::create(tools.join("azurite.lock")).ok()?;
    lock.lock().ok()?;
    let (place, done) = (tools.join("azurite"), tools.join("azurite.done"));
    if !done.is_file() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
        if !npm.arg(&place).arg(PACKAGE).status().is_ok_and(|status| status.success()) {
            return None;
        }
        File::create(done).ok()?;
    }
    Some(place.join("node_modules/.bin/azurite-blob"))
}

fn start(program: &Path) -> SocketAddr {
    let script = r#""$0" --blobPort 0 --inMemoryPersistence --skipApiVersionCheck \
        --disableTelemetry 2>&1 & read -r _; kill $!"#;
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("successfully listens on http://")?;
            address.trim().parse::<SocketAddr>().ok()
        })
        .unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    // Its standard input stays open as long as this process lives.
    std::mem::forget(shell);
    let mut node = Command::new("node");
    node.args(["-e", CREATE, &address.to_string(), ACCOUNT, KEY, CONTAINER]);
    assert!(node.status().unwrap().success(), "the container cannot be created");
    address
}
