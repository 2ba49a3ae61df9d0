//! The server of this machine: found by its socket, started on first use, left alone for a while
//! after faults.
//!
//! Many wrappers start at once; one of them starts the server while the others wait for its lock.
//! Faults are counted in one file per `KILN_DIR`, so that all wrappers of a build stop asking
//! together and the delay of a build is bounded.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_storage::limits;
use rustix::fs::{FlockOperation, flock};

use crate::client::{Address, Bearer, Client, ClientError};
use crate::config::{Config, ServerPlace};
use crate::env::Env;
use crate::spawn;

/// So many faults within [`FAULT_MEMORY`] and nobody asks any more.
const MAX_FAULTS: usize = 3;
/// How long faults are remembered.
const FAULT_MEMORY: Duration = Duration::from_secs(300);
/// Marks a directory whose content can be made again (bford.info/cachedir).
const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# Kiln's cache directory.\n";
/// Between two looks at a starting server.
const POLL: Duration = Duration::from_millis(3);

/// Counts faults of the server, for all wrappers of a `KILN_DIR`.
#[derive(Debug, Clone)]
pub struct Faults {
    path: PathBuf,
}

impl Faults {
    /// The counter of a state directory.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("faults") }
    }

    /// Whether the server has failed so often of late that it is not asked.
    pub fn are_too_many(&self) -> bool {
        let Ok(meta) = std::fs::metadata(&self.path) else {
            return false;
        };
        let recent = meta
            .modified()
            .ok()
            .and_then(|t| t.elapsed().ok())
            .is_none_or(|age| age < FAULT_MEMORY);
        recent && meta.len() >= MAX_FAULTS as u64
    }

    /// Counts a fault. Old faults are forgotten.
    pub fn count(&self) {
        let old = std::fs::metadata(&self.path).is_ok_and(|m| {
            m.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age >= FAULT_MEMORY)
        });
        // A fault that cannot be counted costs the next unit its own time-out.
        let file =
            OpenOptions::new().create(true).append(!old).write(true).truncate(old).open(&self.path);
        if let Ok(mut file) = file {
            let _ = file.write_all(b"x");
        }
    }

    /// Forgets all faults.
    pub fn clear(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates the state directory, for its owner only.
///
/// # Errors
/// What creating it fails with.
pub fn create_dir(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // For backups, and for Kiln itself: a package is not searched below such a directory. Without it
    // nothing breaks.
    let _ = std::fs::write(dir.join("CACHEDIR.TAG"), CACHEDIR_TAG);
    Ok(())
}

/// Removes what runs that were killed left in `KILN_DIR/tmp`.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("tmp")).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > crate::limits::TEMPORARY_AGE) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The socket of the local server of a state directory.
pub fn socket(env: &Env, dir: &Path) -> PathBuf {
    let runtime = env.absolute("XDG_RUNTIME_DIR");
    kiln_server::socket_path::socket_path(
        dir,
        runtime.as_deref(),
        rustix::process::getuid().as_raw(),
    )
}

/// The address of the server that the settings name; none without a place for local state.
pub fn address(env: &Env, config: &Config) -> Option<Address> {
    let token = || config.serve.access.token.as_deref().and_then(Bearer::new);
    Some(match &config.server {
        ServerPlace::Local => Address::Unix(socket(env, config.dir.as_ref()?)),
        ServerPlace::Unix(path) => Address::Unix(path.clone()),
        ServerPlace::Tcp(host) => match token() {
            Some(token) => Address::Known(host.clone(), token),
            None => Address::Tcp(host.clone()),
        },
        ServerPlace::Tls(host) => Address::Tls(host.clone(), token()),
    })
}

/// Connects to the server, starting a local one if there is none.
///
/// # Errors
/// When nobody listens in time.
pub fn connect(env: &Env, config: &Config) -> Result<Client, ClientError> {
    let none = || ClientError::Absent(std::io::Error::other("no directory for local state"));
    let address = address(env, config).ok_or_else(none)?;
    match Client::connect(&address) {
        Err(ClientError::Absent(_)) if config.server == ServerPlace::Local => {
            start(env, config)?;
            Client::connect(&address)
        }
        other => other,
    }
}

/// Starts the local server and waits until it listens.
///
/// # Errors
/// When it does not listen within [`limits::SERVER_START_TIMEOUT`], or ended.
pub fn start(env: &Env, config: &Config) -> Result<(), ClientError> {
    let absent = |why: &str| ClientError::Absent(std::io::Error::other(why.to_owned()));
    let dir = config.dir.as_ref().ok_or_else(|| absent("no directory for local state"))?;
    let program = env.program.as_ref().ok_or_else(|| absent("own program unknown"))?;
    let address = Address::Unix(socket(env, dir));
    create_dir(dir).map_err(ClientError::Absent)?;
    let deadline = Instant::now() + limits::SERVER_START_TIMEOUT;
    let _turn = turn(dir, deadline);
    if Client::connect(&address).is_ok() {
        return Ok(());
    }
    sweep(dir);
    let mut command = Command::new(program);
    command.args(["serve", "--local"]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn::detach(&mut command);
    let mut child = command.spawn().map_err(ClientError::Absent)?;
    while Instant::now() < deadline {
        if Client::connect(&address).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            // Another server holds the directory, or this one cannot start: one more look.
            return match Client::connect(&address) {
                Ok(_) => Ok(()),
                Err(_) => Err(absent(&format!("the server ended with {status}"))),
            };
        }
        std::thread::sleep(POLL);
    }
    Err(absent("the server does not listen in time"))
}

/// The turn to start the server: a lock that ends with this process. None when it was not to be
/// had in time; then two may start one, and one of those leaves again.
fn turn(dir: &Path, deadline: Instant) -> Option<File> {
    let path = dir.join("start.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    while Instant::now() < deadline {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(file);
        }
        std::thread::sleep(POLL);
    }
    None
}
