//! A server that answers nobody: its directory is locked, and something is done in it.

use crate::error::ApiError;
use crate::index;
use crate::limits::SHUTDOWN_LAST;
use crate::service::Service;
use crate::{quarantine, rebuild};

use super::{Fill, Server};

impl Server {
    /// Does something in the directory, once the index knows all that is there.
    ///
    /// # Errors
    /// What store and index fail with.
    pub(crate) fn alone<T, F>(self, work: impl FnOnce(Service) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let Self { runtime, service, fill, place, .. } = self;
        let done = runtime.block_on(async {
            match fill {
                Fill::All => drop(rebuild::run(&service).await?),
                Fill::Blobs => drop(quarantine::fill(&service).await?),
                Fill::Nothing => {}
            }
            let done = work(service.clone()).await?;
            service.index.settle().await?;
            // Of an index that was in use the next server looks for blobs that it does not know.
            if !matches!(fill, Fill::Blobs) {
                service.index.write(index::open::mark_clean).await?;
            }
            Ok(done)
        });
        runtime.shutdown_timeout(SHUTDOWN_LAST);
        drop(place);
        done
    }
}
