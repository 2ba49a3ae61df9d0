//! Having the server bring the blobs of a result that holds here and whose blobs are still afar. Decides
//! how long that is worth waiting for; asks, and says why it was in vain. Called by [`crate::lookup`].

use std::time::Duration;

use kiln_storage::api::BringRequest;
use kiln_storage::record::Record;

use crate::client::ClientError;
use crate::engine::Engine;
use crate::limits::{BRING_GRACE, BRING_LONGEST, BRING_SHORTEST};

/// The status of a server that did not have everything in time.
const NOT_IN_TIME: u16 = 408;

/// Has all blobs of a record on the server.
///
/// # Errors
/// A word from docs/reasons.md, and more for people.
pub(crate) fn bring(
    engine: &mut Engine<'_>,
    record: &Record,
) -> Result<(), (&'static str, String)> {
    let within = worth(Duration::from_millis(record.cost.wall_ms));
    let failed = |error: String| ("remote-failed", error);
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let body = serde_json::to_vec(&BringRequest { within_ms }).unwrap_or_default();
    let path = format!("/v1/results/{}/bring", record.result_key);
    let client = engine.connect().map_err(|error| failed(error.to_string()))?;
    match client.request("POST", &path, &body, within + BRING_GRACE) {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(NOT_IN_TIME, _)) => {
            Err(("remote-slow", format!("not here within {within_ms} ms")))
        }
        Err(error @ ClientError::Refused(..)) => Err(failed(error.to_string())),
        Err(error) => {
            engine.client = None;
            engine.faults.count();
            Err(failed(error.to_string()))
        }
    }
}

/// How long a result is worth waiting for that took so long to make.
fn worth(cost: Duration) -> Duration {
    cost.clamp(BRING_SHORTEST, BRING_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_much_longer_than_a_compile_takes() {
        assert_eq!(worth(Duration::ZERO), BRING_SHORTEST);
        let cost = BRING_SHORTEST + Duration::from_secs(1);
        assert_eq!(worth(cost), cost);
        assert_eq!(worth(Duration::from_secs(3600)), BRING_LONGEST);
    }
}
