//! [`Place`]: a machine's network of its own, a namespace; and [`Lan`], machines on one switch. Only root may make them.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::call::Call;
use crate::host::host;
use crate::server::wait_until;

/// Seconds after which a place ends by itself, should nobody end it.
const LONGEST: &str = "900";

/// A network namespace, there as long as a process is in it.
#[derive(Debug)]
pub struct Place(Child);

impl Place {
    /// An empty one; the reason when this machine does not allow it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new() -> Result<Self, String> {
        if !host().is_root {
            return Err("a network of its own needs root".into());
        }
        let sleeping =
            Command::new("unshare").args(["--net", "sleep", LONGEST]).stdin(Stdio::null()).spawn();
        let mut place = Self(sleeping.map_err(|error| format!("unshare: {error}"))?);
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        let mut ended = false;
        wait_until("the namespace is there", || {
            ended = place.0.try_wait().is_ok_and(|status| status.is_some());
            ended || std::fs::read_link(place.path()).is_ok_and(|its| its != own)
        });
        match ended {
            true => Err("unshare: this machine gives no network namespace".into()),
            false => Ok(place),
        }
    }

    /// Its file.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// A process in it.
    pub fn process(&self) -> String {
        self.0.id().to_string()
    }

    /// Puts the calling thread into it.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn enter(&self) -> Result<(), String> {
        let place = File::open(self.path()).map_err(|error| error.to_string())?;
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("another network: {error}"))
    }

    /// Does something in it, in a thread of its own. A socket stays there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                self.enter().expect("a network namespace");
                work()
            });
            done.join().expect("it ends well")
        })
    }

    /// Listens there.
    pub fn listen(&self, address: SocketAddr) -> TcpListener {
        self.inside(|| TcpListener::bind(address).expect("an address"))
    }

    /// A call as it is made there.
    pub fn call(&self, call: Call) -> Call {
        call.under(&["/usr/bin/nsenter", "--net", "--target", &self.process()])
    }

    /// `ip WORDS…` there.
    ///
    /// # Errors
    /// What it says.
    pub fn ip(&self, words: &[&str]) -> Result<(), String> {
        let mut program = Command::new("nsenter");
        program.args(["--net", "--target", &self.process(), "ip"]).args(words);
        let done = program.output().map_err(|error| format!("nsenter: {error}"))?;
        match done.status.success() {
            true => Ok(()),
            false => {
                let why = String::from_utf8_lossy(&done.stderr);
                Err(format!("ip {}: {}", words.join(" "), why.trim()))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Machines that reach one another, and nothing else.
#[derive(Debug)]
pub struct Lan {
    machines: Vec<Place>,
    _switch: Place,
}

impl Lan {
    /// So many machines on one switch.
    ///
    /// # Errors
    /// Why they cannot be.
    pub fn new(machines: usize) -> Result<Self, String> {
        let switch = Place::new()?;
        switch.ip(&["link", "add", "lan", "type", "bridge"])?;
        switch.ip(&["link", "set", "lan", "up"])?;
        let mut all = Vec::new();
        for n in 0..machines {
            let (machine, port) = (Place::new()?, format!("port{n}"));
            let there = machine.process();
            let cable = ["link", "add", &port, "type", "veth", "peer", "name", "eth0"];
            switch.ip(&[&cable[..], &["netns", &there]].concat())?;
            switch.ip(&["link", "set", &port, "master", "lan", "up"])?;
            let address = format!("{}/24", Self::address(n));
            machine.ip(&["address", "add", &address, "dev", "eth0"])?;
            for device in ["lo", "eth0"] {
                machine.ip(&["link", "set", device, "up"])?;
            }
            all.push(machine);
        }
        Ok(Self { machines: all, _switch: switch })
    }

    /// A machine by its number.
    pub fn machine(&self, n: usize) -> &Place {
        &self.machines[n]
    }

    /// Its address.
    pub fn address(n: usize) -> Ipv4Addr {
        let last = u8::try_from(n + 1).expect("few machines");
        Ipv4Addr::new(10, 78, 0, last)
    }
}
