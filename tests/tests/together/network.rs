//! [`Network`]: two machines with a cable between them, which can be pulled. Each is a network namespace; the thread that
//! asks for it is on one of them from then on, with all that it starts.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use kiln_tests::Call;
use kiln_tests::net::Place;

/// Address of this machine.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of the other one.
const THERE: &str = "10.77.0.2/24";

/// Both.
pub(crate) struct Network {
    near: Place,
    far: Place,
}

impl Network {
    /// Makes both and connects them; the reason when this machine does not allow it.
    pub(crate) fn new() -> Result<Self, String> {
        let (near, far) = (Place::new()?, Place::new()?);
        near.enter()?;
        let (here, there) = (format!("{HERE}/24"), far.process());
        near.ip(&["link", "set", "lo", "up"])?;
        let cable = ["link", "add", "near", "type", "veth", "peer", "name", "far"];
        near.ip(&[&cable[..], &["netns", &there]].concat())?;
        for (place, address, device) in [(&near, here.as_str(), "near"), (&far, THERE, "far")] {
            place.ip(&["address", "add", address, "dev", device])?;
            place.ip(&["link", "set", device, "up"])?;
        }
        Ok(Self { near, far })
    }

    /// A call as the other machine makes it.
    pub(crate) fn on_other(&self, call: Call) -> Call {
        self.far.call(call)
    }

    /// Pulls the cable: nothing arrives any more.
    pub(crate) fn cut(&self) {
        self.near.ip(&["link", "set", "near", "down"]).unwrap();
    }
}
