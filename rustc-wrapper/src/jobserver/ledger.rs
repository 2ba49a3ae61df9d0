//! The tokens that were given back to a jobserver and not taken again: a directory for each jobserver, with a
//! file for each such token.
//!
//! While its giver waits, a file is locked: the token is cargo's to use, and the giver uses none. A giver that
//! leaves, or is killed, leaves its file without a lock, since the system ends the lock with the process: that
//! token is owed, for cargo gives it back a second time when it sees the giver end. Whoever would give a token
//! back while one is owed takes over that file instead, and nothing is written; whoever is about to compile
//! reads a token that is idle and removes a file. So as many are at work as cargo counts, and more only by what
//! is owed: these would share its processors. So whoever is about to compile takes one of as many places first, and
//! waits for one while a token is owed ([`Ledger::place`]).
//!
//! One lock on the directory orders all of this among the processes of a machine. It is held for a few system
//! calls.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::limits::{LEDGER_WAIT, PLACE_PAUSE};
use crate::places::{MAX_PLACES, Place, lock_file};

/// The directory of all ledgers.
const LEDGERS: &str = "jobserver";
/// The lock of one of them.
const LOCK: &str = "lock";
/// Between two tries to get it.
const PAUSE: Duration = Duration::from_millis(1);
/// The places of those who compile.
const PLACES: &str = "places";
/// Most ledgers that are looked at when one is made, to remove those of jobservers that are gone.
const MAX_SWEPT: usize = 64;

/// What was given back to one jobserver.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    jobs: usize,
}

/// A token that this process gave back.
#[derive(Debug)]
pub(super) struct Booked {
    path: PathBuf,
    /// Locked as long as it is there.
    _file: File,
}

impl Ledger {
    /// The ledger of a jobserver with a name that ends in the number and the start of the process that made it.
    /// Nothing is written before something is given.
    pub(super) fn new(dir: &Path, name: &str, jobs: usize) -> Self {
        Self { path: dir.join(LEDGERS).join(name), jobs }
    }

    /// How many processes cargo runs at once.
    pub(super) const fn jobs(&self) -> usize {
        self.jobs
    }

    /// Most tokens that are given and not taken again, those that are owed with those of who waits.
    pub(super) fn most(&self) -> usize {
        (2 * self.jobs).max(4)
    }

    /// A place among those who compile, of which there are as many as cargo has jobs; waited for while there is none and
    /// a token is owed, until it is over for another reason. None then, and where cargo starts that many by itself.
    pub(super) fn place(
        &self,
        is_over: impl Fn() -> bool,
        read: impl Fn() -> io::Result<bool>,
    ) -> Option<Place> {
        let places = self.path.join(PLACES);
        if !places.is_dir() {
            self.make().ok()?;
        }
        let most = self.jobs.min(MAX_PLACES);
        loop {
            let free = (0..most).find_map(|number| Place::take(&places.join(number.to_string())));
            if free.is_some() {
                return free;
            }
            self.repay(&read);
            if is_over() || !self.is_owed() {
                return None;
            }
            sleep(PLACE_PAUSE);
        }
    }

    /// Whether a token is owed; not where that cannot be told.
    fn is_owed(&self) -> bool {
        let Some(_lock) = self.lock() else { return false };
        self.entries().iter().any(|path| take_over(path).is_some())
    }

    /// Books a token, and writes it to the jobserver unless one is owed already. None when it is not given.
    pub(super) fn give(&self, write: impl FnOnce() -> io::Result<()>) -> Option<Booked> {
        if !self.path.is_dir() {
            self.make().ok()?;
        }
        let _lock = self.lock()?;
        let entries = self.entries();
        if let Some(owed) = entries.iter().find_map(|path| take_over(path)) {
            return Some(owed);
        }
        if entries.len() >= self.most() {
            return None;
        }
        let number =
            (0..=entries.len()).find(|n| !entries.contains(&self.path.join(n.to_string())));
        let path = self.path.join(number?.to_string());
        let file = OpenOptions::new().write(true).create_new(true).open(&path).ok()?;
        file.try_lock().ok()?;
        match write() {
            Ok(()) => Some(Booked { path, _file: file }),
            Err(_) => {
                let _ = std::fs::remove_file(&path);
                None
            }
        }
    }

    /// Removes a booked token when one could be read in its place; else it is still booked.
    pub(super) fn settle(
        &self,
        booked: Booked,
        read: impl FnOnce() -> io::Result<bool>,
    ) -> Option<Booked> {
        let Some(_lock) = self.lock() else { return Some(booked) };
        match read() {
            Ok(true) => {
                let _ = std::fs::remove_file(&booked.path);
                None
            }
            Ok(false) | Err(_) => Some(booked),
        }
    }

    /// Removes tokens that are owed, as long as some can be read.
    pub(super) fn repay(&self, read: impl Fn() -> io::Result<bool>) {
        if !self.path.is_dir() {
            return;
        }
        let Some(_lock) = self.lock() else { return };
        for owed in self.entries().iter().filter_map(|path| take_over(path)) {
            if !read().is_ok_and(|was_read| was_read) {
                return;
            }
            let _ = std::fs::remove_file(&owed.path);
        }
    }

    /// The lock, waited for a moment: whoever has it does nothing that takes long, unless it was stopped.
    fn lock(&self) -> Option<File> {
        let file = lock_file(&self.path.join(LOCK)).ok()?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) if began.elapsed() < LEDGER_WAIT => sleep(PAUSE),
                Err(_) => return None,
            }
        }
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let own = |name: &OsStr| name == LOCK || name == PLACES;
        let booked = entries.filter(|entry| !own(&entry.file_name()));
        booked.take(self.most() + 1).map(|entry| entry.path()).collect()
    }

    /// Makes the directory, and removes those of jobservers whose cargo is gone.
    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.path.join(PLACES))?;
        let all = self.path.parent().map(std::fs::read_dir).transpose()?;
        for entry in all.into_iter().flatten().flatten().take(MAX_SWEPT) {
            if entry.file_name().to_str().is_some_and(is_gone) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

/// A file that nobody has locked, locked.
fn take_over(path: &Path) -> Option<Booked> {
    let file = OpenOptions::new().write(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(Booked { path: path.to_owned(), _file: file }),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

/// Whether the process is gone that a ledger's name ends in.
fn is_gone(name: &str) -> bool {
    let mut parts = name.rsplitn(3, '-');
    let (Some(started), Some(process)) = (parts.next(), parts.next()) else { return false };
    let now = super::started(&PathBuf::from(format!("/proc/{process}")));
    now.map(|now| now.to_string()).as_deref() != Some(started)
}
