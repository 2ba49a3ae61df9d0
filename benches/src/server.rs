//! A server on its own: lookups with a small and a large index, blobs over TCP, memory. All on this
//! machine, over a unix socket and the loopback interface.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kiln::client::{Address, Client};

use crate::cargo::bare;
use crate::failure::{Failure, Outcome, at, while_doing};
use crate::report::{Table, Unit};
use crate::{lookups, transfers};

/// Longest that a server takes to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether it listens.
const POLL: Duration = Duration::from_millis(5);

/// Of the clock in `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A server under measurement; killed when this goes.
#[derive(Debug)]
pub struct RunningServer {
    child: Child,
    address: Address,
    dir: PathBuf,
}

impl RunningServer {
    /// Starts one that listens on a unix socket in its directory.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn on_socket(program: &Path, dir: &Path) -> Outcome<Self> {
        let socket = dir.join("bench.sock");
        Self::start(program, dir, &format!("unix://{}", socket.display()), Address::Unix(socket))
    }

    /// Starts one that listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn on_tcp(program: &Path, dir: &Path) -> Outcome<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let place = free.map_err(while_doing("finding a free port"))?.to_string();
        Self::start(program, dir, &place, Address::Tcp(place.clone()))
    }

    fn start(program: &Path, dir: &Path, listen: &str, address: Address) -> Outcome<Self> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let mut command = bare(program);
        command.args(["serve", "--listen", listen]).env("KILN_DIR", dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(while_doing("starting a server"))?;
        let server = Self { child, address, dir: dir.to_owned() };
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT {
            if Client::connect(&server.address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(POLL);
        }
        Err(Failure::NotMeasured("the server does not listen".into()))
    }

    /// A new connection.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(&self) -> Outcome<Client> {
        Client::connect(&self.address)
            .map_err(|error| Failure::NotMeasured(format!("connecting: {error}")))
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it listens, as `KILN_SERVER` names it.
    pub fn url(&self) -> String {
        match &self.address {
            Address::Tcp(place) | Address::Known(place, _) => format!("http://{place}"),
            Address::Tls(place, _) => format!("https://{place}"),
            Address::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Processor time that it has taken, seconds; none where the system does not say.
    pub fn cpu_s(&self) -> Option<f64> {
        cpu_s(&format!("/proc/{}/stat", self.child.id()), OWN_TIMES)
    }

    /// Its resident memory, MiB; none where the system does not say.
    pub fn memory_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        resident_kib(&status).map(|kib| kib / 1024.0)
    }

    /// Processor time that it took so far; none where the system does not say.
    pub fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let ticks = processor_ticks(&stat)?;
        Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
    }

    /// Adds a row with its memory.
    pub fn memory_row(&self, table: &mut Table, when: &str) {
        if let Some(mib) = self.memory_mib() {
            table.value(&format!("server's memory, {when}"), Unit::Mebibytes, mib);
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fields of `/proc/PID/stat` after the name: user and system time of a process.
const OWN_TIMES: [usize; 2] = [11, 12];
/// The same of its children that ended.
const CHILDREN_TIMES: [usize; 2] = [13, 14];
/// Ticks of the kernel's clock for user space in a second, on every architecture that Kiln runs on.
const TICKS: f64 = 100.0;

/// Processor time that children of this process took that ended, and their own, seconds.
pub fn children_cpu_s() -> Option<f64> {
    cpu_s("/proc/self/stat", CHILDREN_TIMES)
}

fn cpu_s(path: &str, fields: [usize; 2]) -> Option<f64> {
    let stat = fs::read_to_string(path).ok()?;
    let all: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let times = fields.map(|field| all.get(field)?.parse::<f64>().ok());
    Some(times.into_iter().sum::<Option<f64>>()? / TICKS)
}

/// The figure of `VmRSS` in `/proc/PID/status`.
fn resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time in `/proc/PID/stat`, behind the name in parentheses.
fn processor_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

/// Measures lookups, then blobs, with so many rounds each.
///
/// # Errors
/// When a server fails.
pub fn run(program: &Path, dir: &Path, rounds: usize) -> Outcome<()> {
    lookups::run(program, dir, rounds)?;
    transfers::run(program, dir, rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found() {
        let stat = "12 (kiln (se)rver) S 1 12 12 0 -1 4194560 9 0 0 0 415 83 0 0 20 0";
        assert_eq!((processor_ticks(stat), processor_ticks("")), (Some(498), None));
    }

    #[test]
    fn resident_memory_is_found() {
        assert_eq!(resident_kib("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\n"), Some(1234.0));
        assert_eq!(resident_kib(""), None);
    }
}
