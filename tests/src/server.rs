//! The local server of a world, as seen from outside: by its socket and by `/proc`.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest a test waits for something that has to happen.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// A running server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its process number.
    pub pid: u32,
}

impl Server {
    /// The server of a state directory, if one answers.
    pub fn of(dir: &Path) -> Option<Self> {
        let info = ask(&dir.join("kiln.sock"), "/v1/server")?;
        Some(Self { pid: info["pid"].as_u64()?.try_into().ok()? })
    }

    /// What the server of a state directory says of itself.
    #[track_caller]
    pub fn info(dir: &Path) -> Value {
        ask(&dir.join("kiln.sock"), "/v1/server").expect("a running server")
    }

    /// What the server of a state directory answers to a GET, heads included; empty: nothing.
    pub fn answer(dir: &Path, path: &str) -> String {
        get(&dir.join("kiln.sock"), path).unwrap_or_default()
    }

    /// Whether its process is there.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid)
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&self) {
        kill(self.pid, Signal::KILL);
        wait_until("the server is gone", || !self.is_alive());
    }

    /// Ends it if it is still there.
    pub fn kill_if_alive(&self) {
        if self.is_alive() {
            self.kill();
        }
    }

    /// Where its descriptors lead, as `/proc` tells.
    pub fn descriptors(&self) -> Vec<(u32, PathBuf)> {
        let entries =
            std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("a running server");
        let number = |name: std::ffi::OsString| name.to_str().and_then(|n| n.parse().ok());
        let one = |entry: std::fs::DirEntry| {
            Some((number(entry.file_name())?, entry.path().read_link().ok()?))
        };
        entries.flatten().filter_map(one).collect()
    }
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal to a process that this test started.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}

/// Waits for something that no event tells of; bounded.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONGEST, "never: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A GET by HTTP over a unix socket; the JSON of a good answer.
fn ask(socket: &Path, path: &str) -> Option<Value> {
    serde_json::from_str(get(socket, path)?.split_once("\r\n\r\n")?.1).ok()
}

fn get(socket: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // Whoever listens there may have no end.
    stream.take(MAX_ANSWER).read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Holds the compile of one crate: the stand-in waits here until it is let go.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    arrivals: Receiver<UnixStream>,
}

impl Gate {
    /// A gate for a crate, in the directory of the stand-ins.
    pub fn new(bin: &Path, crate_name: &str) -> Self {
        let path = bin.join(format!("{crate_name}.gate"));
        let listener = UnixListener::bind(&path).expect("a gate");
        let (send, arrivals) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if send.send(stream).is_err() {
                    break;
                }
            }
        });
        Self { path, arrivals }
    }

    /// Waits until the compile has come; it goes on when the answer is dropped.
    #[track_caller]
    pub fn wait(&self) -> UnixStream {
        self.arrivals.recv_timeout(LONGEST).expect("the compile begins")
    }

    /// Takes the gate away.
    pub fn open(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Processes whose environment has this assignment, e.g. `KILN_DIR=/tmp/x`.
pub fn processes_with(assignment: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|one| one == assignment.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_alive(*pid) && has(pid)).collect()
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
}
