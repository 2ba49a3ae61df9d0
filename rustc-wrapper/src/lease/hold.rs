//! A lease that this process has: a thread keeps a question open that says so, as long as the compile takes.
//! When the process ends or is killed, the connection ends with it, and the server knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_storage::api::{HoldRequest, ReleaseRequest};
use kiln_storage::limits::{LEASE_GRACE, LEASE_HOLD};

use crate::client::{Address, Client, ClientError};
use crate::engine::Engine;
use crate::limits::LEASE_ANSWER;
use crate::{compile, local};

/// Between two tries to reach the server again.
const PAUSE: Duration = Duration::from_millis(500);

/// A lease.
#[derive(Debug)]
pub(super) struct Hold {
    id: String,
    is_over: Arc<AtomicBool>,
}

impl Hold {
    /// Begins to say that this process lives; none when the server cannot be named.
    pub(super) fn begin(engine: &Engine<'_>, id: String) -> Option<Self> {
        let address = local::address(engine.env, engine.config)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (path, over) = (format!("/v1/leases/{id}/hold"), is_over.clone());
        std::thread::Builder::new().spawn(move || keep(&address, &path, &over)).ok()?;
        Some(Self { id, is_over })
    }

    /// Tells how it ended. Nobody hears when the server is gone: then nobody waits there either.
    pub(super) fn release(self, engine: &mut Engine<'_>, how: &ReleaseRequest) {
        self.is_over.store(true, Ordering::Relaxed);
        let path = format!("/v1/leases/{}/release", self.id);
        let body = serde_json::to_vec(how).unwrap_or_default();
        if let Ok(client) = engine.connect()
            && let Err(error) = client.request("POST", &path, &body, LEASE_ANSWER)
            && !matches!(error, ClientError::Refused(..))
        {
            engine.client = None;
        }
    }
}

/// Asks again and again, until it is over or the lease is another's.
fn keep(address: &Address, path: &str, is_over: &AtomicBool) {
    let mut client = None;
    // As long as the server would wait for a sign of life.
    let mut tries = LEASE_GRACE.as_millis() / PAUSE.as_millis();
    while !is_over.load(Ordering::Relaxed) && tries > 0 {
        let connected = client.take().map_or_else(|| Client::connect(address), Ok);
        let body = serde_json::to_vec(&HoldRequest { cpu_ms: compile::running_cpu_ms() });
        let asked = connected.and_then(|mut client| {
            client.request("POST", path, &body.unwrap_or_default(), LEASE_HOLD + LEASE_ANSWER)?;
            Ok(client)
        });
        match asked {
            Ok(same) => client = Some(same).filter(Client::is_alive),
            Err(ClientError::Refused(..)) => return,
            Err(_) => {
                tries -= 1;
                std::thread::sleep(PAUSE);
            }
        }
    }
}
