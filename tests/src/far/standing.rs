//! [`Standing`]: a shared server that is a process of its own, so that it can be killed.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::call::{Call, Running};
use crate::server::{Server, kill, wait_until};

/// A shared server on a port of this machine.
#[derive(Debug)]
pub struct Standing {
    running: Option<Running>,
    pid: u32,
    address: SocketAddr,
}

impl Standing {
    /// Starts one by a call of `kiln serve --listen ADDRESS`, with an address of this machine.
    pub fn start(serve: Call) -> Self {
        let running = serve.spawn();
        let pid = running.pid();
        let mut address = None;
        wait_until("the server listens", || {
            address = listens(pid);
            address.is_some_and(|address| TcpStream::connect(address).is_ok())
        });
        Self { running: Some(running), pid, address: address.expect("an address") }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it, by a signal; what it said.
    pub fn end(mut self, signal: Signal) -> String {
        kill(self.pid, signal);
        self.running.take().map(|running| running.wait().stderr).unwrap_or_default()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            kill(self.pid, Signal::KILL);
            running.wait();
        }
    }
}

/// The address that a process listens on, as `/proc` tells.
fn listens(pid: u32) -> Option<SocketAddr> {
    if !std::path::Path::new(&format!("/proc/{pid}/fd")).exists() {
        return None;
    }
    let sockets: Vec<String> = Server { pid }
        .descriptors()
        .into_iter()
        .filter_map(|(_, to)| {
            Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.into())
        })
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The own address, the state (0A: listening), the number of the socket.
        let (own, state, socket) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let (host, port) = own.rsplit_once(':')?;
        let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
        let port = u16::from_str_radix(port, 16).ok()?;
        (*state == "0A" && sockets.iter().any(|one| one == socket))
            .then(|| SocketAddr::from((host, port)))
    })
}
