//! [`Network`]: two machines with a cable between them, which can be pulled. Each is a network namespace; the thread that
//! asks for it is on one of them from then on, with all that it starts.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use kiln_tests::Call;
use kiln_tests::host::host;
use kiln_tests::server::wait_until;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Address of this machine.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the other one.
const THERE: &str = "10.77.0.2/24";
/// Seconds after which the other machine ends by itself, should nobody end it.
const LONGEST: &str = "900";

/// A network namespace, there as long as a process is in it.
struct Place(Child);

impl Place {
    fn new() -> Result<Self, String> {
        let sleeping =
            Command::new("unshare").args(["--net", "sleep", LONGEST]).stdin(Stdio::null()).spawn();
        let place = Self(sleeping.map_err(|error| format!("unshare: {error}"))?);
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        wait_until("the namespace is there", || std::fs::read_link(place.path()).unwrap() != own);
        Ok(place)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn process(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both.
pub(crate) struct Network {
    _near: Place,
    far: Place,
}

impl Network {
    /// Makes both and connects them; the reason when this machine does not allow it.
    pub(crate) fn new() -> Result<Self, String> {
        if !host().is_root {
            return Err("a network of its own needs root".into());
        }
        let (near, far) = (Place::new()?, Place::new()?);
        let there = std::fs::File::open(near.path()).unwrap();
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("another network: {error}"))?;
        let network = Self { _near: near, far };
        let here = format!("{HERE}/24");
        for words in [
            &["link", "set", "lo", "up"][..],
            &[
                "link",
                "add",
                "near",
                "type",
                "veth",
                "peer",
                "name",
                "far",
                "netns",
                &network.far.process(),
            ],
            &["address", "add", &here, "dev", "near"],
            &["link", "set", "near", "up"],
        ] {
            ip(&mut Command::new("ip"), words)?;
        }
        for words in [&["address", "add", THERE, "dev", "far"][..], &["link", "set", "far", "up"]] {
            let mut there = Command::new("nsenter");
            ip(there.args(["--net", "--target", &network.far.process(), "ip"]), words)?;
        }
        Ok(network)
    }

    /// A call as the other machine makes it.
    pub(crate) fn on_other(&self, call: Call) -> Call {
        call.under(&["/usr/bin/nsenter", "--net", "--target", &self.far.process()])
    }

    /// Pulls the cable: nothing arrives any more.
    pub(crate) fn cut(&self) {
        ip(&mut Command::new("ip"), &["link", "set", "near", "down"]).unwrap();
    }
}

fn ip(program: &mut Command, words: &[&str]) -> Result<(), String> {
    let done = program.args(words).output().map_err(|error| format!("ip: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&done.stderr);
            Err(format!("ip {}: {}", words.join(" "), why.trim()))
        }
    }
}
