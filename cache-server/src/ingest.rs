//! Taking over offered files: the wrapper has its answer already, the bytes follow in a bounded
//! queue. A record becomes visible only when every blob of it is in.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_storage::backend::{Body, StoreError};
use kiln_storage::{Digest, limits as shared_limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::ApiError;
use crate::limits::{INGEST_QUEUE_FILES, INGEST_QUEUE_RECORDS, INGEST_WORKERS};
use crate::pending::PendingGuard;
use crate::publish::{self, Candidate};
use crate::service::Service;

/// A file that holds the bytes of a blob, open.
#[derive(Debug)]
pub(crate) struct OpenOffer {
    /// The blob.
    pub digest: Digest,
    /// The file, at its start.
    pub file: File,
    /// Its length in bytes.
    pub len: u64,
}

/// A record with the files of the blobs that the store does not have.
#[derive(Debug)]
pub(crate) struct Job {
    /// The record.
    pub candidate: Candidate,
    /// The files.
    pub files: Vec<OpenOffer>,
    /// Keeps its keys pending.
    pub guard: PendingGuard,
}

#[derive(Debug)]
struct Queued {
    job: Job,
    _record: OwnedSemaphorePermit,
    _files: OwnedSemaphorePermit,
}

/// The queue of jobs.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Queued>>>,
    records: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        // Bounded by the permits.
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            records: Arc::new(Semaphore::new(INGEST_QUEUE_RECORDS)),
            files: Arc::new(Semaphore::new(INGEST_QUEUE_FILES)),
        }
    }
}

impl Queue {
    /// Adds a job.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when the queue is full.
    pub(crate) fn push(&self, job: Job) -> Result<(), ApiError> {
        let busy = |_| ApiError::Busy("too many results are being taken over");
        let count = u32::try_from(job.files.len()).unwrap_or(u32::MAX);
        let queued = Queued {
            _record: self.records.clone().try_acquire_owned().map_err(busy)?,
            _files: self.files.clone().try_acquire_many_owned(count).map_err(busy)?,
            job,
        };
        self.sender.send(queued).map_err(|_| ApiError::Busy("the server is leaving"))
    }

    /// Whether no job is queued or worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.records.available_permits() == INGEST_QUEUE_RECORDS
    }

    /// Waits until no job is left.
    pub(crate) async fn drain(&self) {
        let all = u32::try_from(INGEST_QUEUE_RECORDS).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.records.acquire_many(all).await;
    }
}

/// Starts the workers of a service; once.
pub(crate) fn start(service: &Service) {
    let receiver = service.queue.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(receiver) = receiver else { return };
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    for _ in 0..INGEST_WORKERS {
        let (service, receiver) = (service.clone(), receiver.clone());
        tokio::spawn(async move {
            loop {
                let queued = receiver.lock().await.recv().await;
                let Some(queued) = queued else { return };
                work(&service, queued.job).await;
            }
        });
    }
}

async fn work(service: &Service, job: Job) {
    let key = job.candidate.record.result_key;
    let outcome = take_over(service, job.candidate, job.files).await;
    match outcome {
        Ok(published) => service.log.debug(format_args!("result {key}: taken over, {published:?}")),
        Err(error) => error.tell(&service.log, format_args!("result {key}")),
    }
    drop(job.guard);
}

/// Stores the blobs, then the record. When one blob fails, those already stored stay: they are
/// what their digests say, and are evicted when nothing names them.
async fn take_over(
    service: &Service,
    candidate: Candidate,
    files: Vec<OpenOffer>,
) -> Result<publish::Published, ApiError> {
    let mut stored = Vec::with_capacity(files.len());
    let blobs = store_blobs(service, files, &mut stored).await;
    let noted = publish::note_blobs(service, stored).await;
    blobs?;
    noted?;
    publish::commit(service, &candidate).await
}

async fn store_blobs(
    service: &Service,
    files: Vec<OpenOffer>,
    stored: &mut Vec<(Digest, u64)>,
) -> Result<(), ApiError> {
    for OpenOffer { digest, file, len } in files {
        let body = Body::File { file, len };
        match service.store.put_blob(&digest, body).await {
            Ok(_) => {
                service.metrics.received(len);
                stored.push((digest, len));
            }
            Err(StoreError::Damaged { .. }) => return Err(ApiError::DigestMismatch),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens an offered file: a regular one, by an absolute path, of the size that the record says.
///
/// # Errors
/// [`ApiError::Unprocessable`] for what is no such file, [`ApiError::MissingBlobs`] for one that
/// is gone.
pub(crate) fn open_offer(digest: Digest, path: &str, size: u64) -> Result<OpenOffer, ApiError> {
    let unfit = |why: &str| ApiError::Unprocessable(format!("the offer of {digest} {why}"));
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(unfit("is no absolute path"));
    }
    if size > shared_limits::MAX_BLOB_BYTES {
        return Err(ApiError::TooLarge("a blob"));
    }
    // Without NONBLOCK a FIFO would hold the request up.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path).map_err(
        |error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                unfit("is a symbolic link")
            }
            _ => ApiError::MissingBlobs(format!("the offer of {digest} cannot be opened")),
        },
    )?;
    let meta = file.metadata().map_err(|error| ApiError::Internal(error.to_string()))?;
    if !meta.is_file() {
        return Err(unfit("is no regular file"));
    }
    if meta.len() != size {
        return Err(unfit("has another size than the record says"));
    }
    Ok(OpenOffer { digest, file, len: size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_right_size_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"bytes");
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), b"bytes").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert_eq!(open_offer(digest, &path("file"), 5).unwrap().len, 5);
        for (bad, size) in [
            (path("file"), 6),
            (path("link"), 5),
            (path("fifo"), 0),
            (dir.path().to_str().unwrap().to_owned(), 5),
            ("file".to_owned(), 5),
        ] {
            let error = open_offer(digest, &bad, size).unwrap_err();
            assert!(matches!(error, ApiError::Unprocessable(_)), "{bad}: {error}");
        }
        let gone = open_offer(digest, &path("gone"), 5).unwrap_err();
        assert!(matches!(gone, ApiError::MissingBlobs(_)), "{gone}");
    }
}
