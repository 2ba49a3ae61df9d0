//! A server from start to end: [`serve`], or [`Server`] for callers that want to know where it
//! listens before it runs.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Role, ServeConfig};
use crate::http::connection::{Activity, Connections};
use crate::index::{self, IndexError};
use crate::limits::{
    BLOCKING_THREADS, CONNECTION_BACKLOG, OPEN_FILES, SHUTDOWN_GRACE, SHUTDOWN_LAST,
    SHUTDOWN_SETTLE, TOKEN_USES_INTERVAL, WATCH_INTERVAL, WORKER_THREADS,
};
use crate::log::Log;
use crate::place::{ADMIN_SOCKET, Place, Socket};
use crate::service::Service;
use crate::store::Store;
use crate::tls::{Tls, TlsError};
use crate::trust::watch;
use crate::{check, evict, history, ingest, quarantine, rebuild, remote, reports, routes, scopes};

mod alone;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another server has the directory; that is no fault.
    #[error("a server of this directory is running already")]
    AlreadyRunning,
    /// The directory cannot be used.
    #[error("the directory {} cannot be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The place of the socket is not the server's.
    #[error("no socket can be at {}: {why}", path.display())]
    SocketPath {
        /// The place.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// It cannot listen.
    #[error("cannot listen on {place}: {source}")]
    Listen {
        /// Path or address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] kiln_storage::StoreError),
    /// Who is to be let in is not said as it should be.
    #[error("{0}")]
    Trust(String),
    /// Its certificate or the key of that cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// What is behind the server cannot be used as it is configured.
    #[error("{0}")]
    NoRemote(String),
    /// Not even an index in memory can be had.
    #[error("{0}")]
    Index(#[from] IndexError),
    /// Threads or signals are not to be had.
    #[error("the runtime cannot start: {0}")]
    Runtime(io::Error),
}

/// Runs a server until it leaves: when it is told to, when it is idle, when its directory is gone.
///
/// # Errors
/// Why it cannot start.
pub fn serve(config: ServeConfig) -> Result<(), ServeError> {
    Server::bind(config)?.run()
}

/// A server that listens and does not answer yet. Dropped, it removes its socket and then gives up
/// its lock.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    service: Service,
    unix: Option<(Socket, StdUnixListener)>,
    tcp: Option<(TcpListener, Option<Tls>)>,
    signals: Signals,
    fill: Fill,
    /// The state of the file of rules when it was read.
    rules: watch::Stamp,
    // Last, so that it is given up last.
    place: Place,
}

/// Listens at an address. Whole matrices begin at the same moment: whom the system turns away comes again a second later.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, CONNECTION_BACKLOG)?;
    Ok(listener)
}

impl Server {
    /// Takes the lock, opens store and index, and listens.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn bind(config: ServeConfig) -> Result<Self, ServeError> {
        let dir = config.kiln_dir.clone();
        let place = Place::take(&dir, config.listen.socket.as_deref())?;
        let stderr = config.role == Role::Shared;
        let log = Log::open(&dir.join("server.log"), config.log, stderr);
        let bound = Self::bind_in(place, config, log.clone());
        if let Err(error) = &bound {
            log.error(format_args!("{error}"));
        }
        bound
    }

    fn bind_in(place: Place, mut config: ServeConfig, log: Log) -> Result<Self, ServeError> {
        raise_open_files();
        let rules = watch::stamp(&config);
        let trust = check::trust(&config).map_err(ServeError::Trust)?;
        let tls = config.tls_files().map(Tls::open).transpose()?;
        let runtime = runtime()?;
        // Before anybody can see that it listens.
        let signals = {
            let _entered = runtime.enter();
            Signals::catch()?
        };
        let uid = rustix::process::geteuid().as_raw();
        let dir = config.kiln_dir.as_path();
        let unix = match &config.listen.socket {
            // Who looks after a server reaches it, wherever else it listens.
            None if config.listen.tcp.is_some() => Socket::bind(&dir.join(ADMIN_SOCKET))
                .inspect_err(|error| {
                    log.warn(format_args!("nothing can be revoked while it runs: {error}"))
                })
                .ok(),
            None => None,
            Some(path) if config.role == Role::Local && path.parent() != Some(dir) => {
                Some(Socket::bind_stand_in(path, uid)?)
            }
            Some(path) => Some(Socket::bind(path)?),
        };
        let tcp = match config.listen.tcp {
            Some(address) => {
                let listener = runtime.block_on(listen(address));
                let failed = |source| ServeError::Listen { place: address.to_string(), source };
                Some((listener.map_err(failed)?, tls))
            }
            None => None,
        };
        let store = Store::open(&config.storage)?;
        let behind = {
            let _entered = runtime.enter();
            remote::open::open(&config.remote)
        };
        if let Some(why) = behind.as_ref().and_then(|opened| opened.absent.as_ref()) {
            if config.role == Role::Shared {
                return Err(ServeError::NoRemote(why.clone()));
            }
            log.warn(format_args!("what is behind the server cannot be reached: {why}"));
        }
        if let Some(scopes) = behind.as_ref().and_then(|opened| opened.scopes.clone()) {
            config.remote.scopes = scopes;
        }
        let behind = behind.map(|opened| opened.remote);
        let store_id = runtime.block_on(store.id());
        let opened = index::open::open(&config.kiln_dir, &store_id)?;
        let fill = match (opened.fresh, opened.unclean) {
            (true, _) => Fill::All,
            (false, true) => Fill::Blobs,
            (false, false) => Fill::Nothing,
        };
        let (history, told) = history::open::open(&config.kiln_dir)?;
        for note in opened.notes.iter().chain(&told) {
            log.warn(format_args!("{note}"));
        }
        let before = behind.as_ref().map(|remote| format!(", before {}", remote.display()));
        log.info(format_args!(
            "kiln server {} ({}) of {} over {}{}",
            env!("CARGO_PKG_VERSION"),
            config.role.word(),
            config.kiln_dir.display(),
            store.display(),
            before.unwrap_or_default()
        ));
        let service = Service::new(config, store, (opened.index, history), log, (behind, trust));
        remote::unsent::tell(&service, opened.unsent);
        Ok(Self { runtime, service, unix, tcp, signals, fill, rules, place })
    }

    /// The address for TCP, with the port that the system chose.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.0.local_addr().ok()
    }

    /// Answers until the server leaves.
    ///
    /// # Errors
    /// [`ServeError::Runtime`]; [`ServeError::Index`] when it left because its index is damaged.
    pub fn run(self) -> Result<(), ServeError> {
        let Self { runtime, service, unix, tcp, mut signals, fill, rules, place } = self;
        let (socket, unix) = unix.unzip();
        let ended: Result<_, ServeError> = runtime.block_on(async {
            let unix = unix.map(UnixListener::from_std).transpose().map_err(ServeError::Runtime)?;
            let connections = Connections::new(service.clone(), routes::router(&service));
            start_background(&service, fill, rules);
            if let Some(listener) = unix {
                tokio::spawn(connections.clone().accept(listener, None));
            }
            if let Some((listener, tls)) = tcp {
                tls.iter()
                    .for_each(|tls| drop(tokio::spawn(tls.clone().watch(service.log.clone()))));
                tokio::spawn(connections.clone().accept(listener, tls));
            }
            let reason = until_leaving(
                &service,
                connections.activity(),
                &mut signals,
                (&place, socket.as_ref()),
            )
            .await;
            // Gone at once: the next wrapper starts a new server instead of asking this one.
            drop(socket);
            service.leave();
            Ok(match reason {
                // Whatever is finished would bring the directory back.
                Reason::Gone => None,
                _ => finish(&service, &connections, reason).await,
            })
        });
        runtime.shutdown_timeout(SHUTDOWN_LAST);
        let damaged = service.index.is_damaged();
        if damaged {
            index::open::condemn(&service.config.kiln_dir);
        }
        service.log.info(format_args!("left"));
        drop(place);
        ended?;
        if damaged {
            let why = "the next start rebuilds it".to_owned();
            return Err(IndexError::Damaged(why).into());
        }
        Ok(())
    }
}

fn runtime() -> Result<Runtime, ServeError> {
    let threads = std::thread::available_parallelism().map_or(*WORKER_THREADS.start(), usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(*WORKER_THREADS.start(), *WORKER_THREADS.end()))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("kiln-server")
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)
}

/// Offers waiting to be taken over are open files; the usual soft limit of 1024 is tight for that.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// What the index has to learn from the store.
#[derive(Debug, Clone, Copy)]
enum Fill {
    /// It is whole.
    Nothing,
    /// The last server was killed: there may be blobs that nobody noted.
    Blobs,
    /// It is empty.
    All,
}

fn start_background(service: &Service, fill: Fill, rules: watch::Stamp) {
    ingest::start(service);
    let policy = service.clone();
    tokio::spawn(async move { scopes::note_own(&policy).await });
    tokio::spawn(keep_uses(service.clone()));
    tokio::spawn(watch::run(service.clone(), rules));
    tokio::spawn(reports::run(service.clone()));
    let leases = service.clone();
    tokio::spawn(async move { leases.leases.run().await });
    tokio::spawn(remote::outbox::run(service.clone()));
    tokio::spawn(remote::events::run(service.clone()));
    let service = service.clone();
    tokio::spawn(async move {
        let filled = match fill {
            Fill::Nothing => Ok(()),
            // The index may have lost its last rows.
            Fill::Blobs => quarantine::fill(&service).await.map(drop),
            Fill::All => rebuild::run(&service)
                .await
                .map(|rebuilt| service.log.info(format_args!("index rebuilt: {rebuilt:?}"))),
        };
        if let Err(error) = filled {
            service.log.error(format_args!("index rebuild: {error}"));
        }
        service.complete.send_replace(true);
        if let Fill::Blobs = fill
            && let Err(error) = rebuild::find_blobs(&service).await
        {
            service.log.error(format_args!("blobs: {error}"));
        }
        evict::run(service).await;
    });
}

/// Writes when tokens were used last, and says what is wrong with their file, until the task is dropped.
async fn keep_uses(service: Service) {
    loop {
        tokio::time::sleep(TOKEN_USES_INTERVAL).await;
        write_uses(&service).await;
    }
}

async fn write_uses(service: &Service) {
    let tokens = service.clone();
    let write = move || tokens.policy.trust().tokens().write_uses();
    let _ = tokio::task::spawn_blocking(write).await;
    if let Some(why) = service.policy.trust().tokens().take_fault() {
        service.log.warn_of("tokens", format_args!("nobody gets in by a token: {why}"));
    }
}

/// The signals that make a server leave.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, ServeError> {
        let catch = |kind| signal(kind).map_err(ServeError::Runtime);
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why a server leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Asked,
    Signal,
    Idle,
    /// Its directory or its socket is no longer its own.
    Gone,
    IndexDamaged,
}

/// Waits for the reason to leave.
async fn until_leaving(
    service: &Service,
    activity: &Activity,
    signals: &mut Signals,
    (place, socket): (&Place, Option<&Socket>),
) -> Reason {
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    let mut sending: Option<JoinHandle<bool>> = None;
    let reason = loop {
        tokio::select! {
            () = service.leaving() => break Reason::Asked,
            () = signals.next() => break Reason::Signal,
            () = service.index.damaged() => break Reason::IndexDamaged,
            _ = watch.tick() => {}
        }
        if service.config.role == Role::Shared {
            continue;
        }
        if !place.is_there() || !socket.is_none_or(Socket::is_there) {
            break Reason::Gone;
        }
        let limit = service.config.idle;
        let over = limit.zip(activity.idle()).is_some_and(|(limit, idle)| idle >= limit);
        if !over || !service.queue.is_idle() || !service.leases.is_idle() {
            sending = None;
            continue;
        }
        // It is still there while it sends: whoever comes finds it.
        let sent = sending.get_or_insert_with(|| {
            let service = service.clone();
            let drain = service.config.remote.drain;
            tokio::spawn(async move { remote::outbox::drain(&service, drain, drain).await })
        });
        if service.edge.is_none() || sent.is_finished() {
            break Reason::Idle;
        }
    };
    service.log.info(format_args!("leaving: {reason:?}"));
    reason
}

/// Ends what was begun: requests first, then the results that are being taken over, what waits to be sent,
/// then an eviction. Nothing is stored or evicted any more while what it returns is held.
async fn finish(
    service: &Service,
    connections: &Connections,
    reason: Reason,
) -> Option<OwnedMutexGuard<()>> {
    let begun = Instant::now();
    // One who never takes his answer keeps nobody from what is to be done yet.
    let ended = timeout(SHUTDOWN_GRACE, connections.ended()).await.is_ok();
    let left = SHUTDOWN_GRACE.saturating_sub(begun.elapsed()).max(SHUTDOWN_LAST);
    let whole = ended & timeout(left, service.queue.drain()).await.is_ok();
    if !whole {
        service.log.warn(format_args!("left before everything was finished"));
    }
    let left = SHUTDOWN_GRACE.saturating_sub(begun.elapsed()).max(SHUTDOWN_LAST);
    if matches!(reason, Reason::Asked | Reason::Signal)
        && service.drains.load(Ordering::Relaxed)
        && service.edge.is_some()
    {
        let drain = service.config.remote.drain;
        remote::outbox::drain(service, drain, drain).await;
    }
    tell_left(service).await;
    write_uses(service).await;
    let finished = timeout(left, async {
        let guard = service.commit.clone().lock_owned().await;
        let written = service.reports.flush(service).await;
        // A busy disk is not waited for: the next start then takes the index for one in use.
        let ended = match timeout(SHUTDOWN_SETTLE, service.index.settle()).await {
            Ok(Ok(())) if whole => service.index.write(index::open::mark_clean).await,
            Ok(failed @ Err(_)) => failed,
            Ok(Ok(())) | Err(_) => Ok(()),
        };
        if let Err(error) = written.and(ended) {
            service.log.warn(format_args!("at the end: {error}"));
        }
        guard
    })
    .await
    .ok();
    if finished.is_none() {
        service.log.warn(format_args!("left before everything was finished"));
    }
    finished
}

/// Says what a server that leaves did not send.
async fn tell_left(service: &Service) {
    let Ok(Some(status)) = remote::status(service).await else { return };
    if status.queued > 0 {
        service.log.warn(format_args!(
            "remote {}: {} results ({} bytes) are not sent yet; they stay queued",
            status.place, status.queued, status.queued_bytes
        ));
    }
    if let (1.., Some(why)) = (status.lost, status.lost_why) {
        service.log.warn(format_args!(
            "remote {}: {} results were not sent and are lost to it; the last: {why}",
            status.place, status.lost
        ));
    }
}
