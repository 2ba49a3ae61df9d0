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
    // A connection whose answer was late stays until another one holds the lease: its end would end the lease.
    let mut late = None;
    // As long as the server would wait for a sign of life.
    let mut tries = LEASE_GRACE.as_millis() / PAUSE.as_millis();
    while !is_over.load(Ordering::Relaxed) && tries > 0 {
        let connected = client.take().map_or_else(|| Client::connect(address), Ok);
        let body = serde_json::to_vec(&HoldRequest { cpu_ms: compile::running_cpu_ms() });
        let body = body.unwrap_or_default();
        let asked = connected.map_err(|error| (None, error)).and_then(|mut client| {
            match client.request("POST", path, &body, LEASE_HOLD + LEASE_ANSWER) {
                Ok(_) => Ok(client),
                Err(error) => Err((Some(client), error)),
            }
        });
        match asked {
            Ok(same) => (client, late) = (Some(same).filter(Client::is_alive), None),
            Err((_, ClientError::Refused(..))) => return,
            Err((unanswered, _)) => {
                late = unanswered.or(late);
                tries -= 1;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A server that has no time to answer takes the end of a connection for the end of who holds the lease.
    #[test]
    fn a_connection_whose_answer_is_late_stays_until_the_next_question() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = UnixListener::bind(&path).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (address, over) = (Address::Unix(path), is_over.clone());
        std::thread::spawn(move || keep(&address, "/v1/leases/x/hold", &over));
        let (mut first, _) = server.accept().unwrap();
        let (mut second, _) = server.accept().unwrap();
        assert!(second.read(&mut [0; 4096]).unwrap() > 0, "it asks once more");
        is_over.store(true, Ordering::Relaxed);
        first.set_nonblocking(true).unwrap();
        let mut asked = [0; 4096];
        let end = loop {
            match first.read(&mut asked) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        assert_eq!(end, Some(ErrorKind::WouldBlock), "it is open");
    }
}
