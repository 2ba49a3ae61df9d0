//! A moto server of this test process. It ends with the process: the shell before it waits for the end
//! of its standard input.
//!
//! `moto_server` is the program named by `KILN_TEST_MOTO`, or the one in `PATH`, or is installed once
//! below the target directory. Where none can be had, tests say `SKIP:`.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The bucket that is there.
pub const BUCKET: &str = "kiln-tests";
const PACKAGE: &str = "moto[s3,server]==5.2.1";

/// Where the server listens; `None` where there is none.
#[allow(clippy::print_stdout, reason = "what CI looks for")]
pub fn address() -> Option<SocketAddr> {
    static SERVER: OnceLock<Option<SocketAddr>> = OnceLock::new();
    let address = *SERVER.get_or_init(|| program().map(|program| start(&program)));
    if address.is_none() {
        println!("SKIP: there is no moto_server, and pip cannot install it");
    }
    address
}

#[allow(clippy::disallowed_methods, reason = "tests are told where their tools are")]
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KILN_TEST_MOTO") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("moto_server"));
    found.into_iter().find(|program| program.is_file()).or_else(install)
}

/// In a virtual environment below the target directory, by one test process at a time.
fn install() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("tests-tools");
    std::fs::create_dir_all(&tools).ok()?;
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
