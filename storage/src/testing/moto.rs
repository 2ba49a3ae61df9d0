//! A moto server of this test process: S3's API on a free port. It ends with the process: the shell before
//! it waits for the end of its standard input. Called by the tests of everything that keeps results in a
//! bucket. Reads no environment: [`Place`] says where the program may be.
//!
//! `moto_server` is the program that is named, or the one in `PATH`, or is installed once below a directory
//! for tools. Where none can be had, tests say `SKIP:`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The bucket that is there.
pub const BUCKET: &str = "kiln-tests";
const PACKAGE: &str = "moto[s3,server]==5.2.1";

/// Where `moto_server` may be.
#[derive(Debug, Clone)]
pub struct Place {
    /// The program, where somebody named it.
    pub named: Option<PathBuf>,
    /// `PATH`.
    pub path: OsString,
    /// A directory for what is installed.
    pub tools: PathBuf,
}

/// Where the server listens, started on the first call; `None` where there is none.
pub fn address(place: &Place) -> Option<SocketAddr> {
    static SERVER: OnceLock<Option<SocketAddr>> = OnceLock::new();
    *SERVER.get_or_init(|| program(place).map(|program| start(&program)))
}

fn program(place: &Place) -> Option<PathBuf> {
    if place.named.is_some() {
        return place.named.clone();
    }
    let mut found = std::env::split_paths(&place.path).map(|dir| dir.join("moto_server"));
    found.find(|program| program.is_file()).or_else(|| install(&place.tools))
}

/// In a virtual environment, by one test process at a time.
fn install(tools: &Path) -> Option<PathBuf> {
    std::fs::create_dir_all(tools).ok()?;
    let lock = File::create(tools.join("moto.lock")).ok()?;
    lock.lock().ok()?;
    let (place, done) = (tools.join("moto"), tools.join("moto.done"));
    if !done.is_file() {
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&place));
        let pip = place.join("bin/pip");
        if !made || !run(Command::new(pip).args(["install", "--quiet", PACKAGE])) {
            return None;
        }
        File::create(done).ok()?;
    }
    Some(place.join("bin/moto_server"))
}

/// Starts it on a free port, reads from what it says which one, and makes the bucket.
fn start(program: &Path) -> SocketAddr {
    let script = r#""$0" -H 127.0.0.1 -p 0 2>&1 & read -r _; kill $!"#;
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("Running on http://")?;
            address.trim().parse::<SocketAddr>().ok()
        })
        .unwrap();
    // What it goes on to say has to go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    // Its standard input stays open as long as this process lives.
    std::mem::forget(shell);
    make_bucket(address);
    address
}

fn make_bucket(address: SocketAddr) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "PUT /{BUCKET} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}
