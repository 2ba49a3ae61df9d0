//! The server's log: lines of `time level text` in a file that is bounded in size.
//!
//! A failure to log is never an error. Nothing is printed unless a shared server asks for it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::limits::{FAULT_PERIOD, MAX_LOG_BYTES};

/// How much is logged; each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// What somebody should look at.
    Error,
    /// What was repaired or refused.
    Warn,
    /// What the server does from start to end.
    #[default]
    Info,
    /// Every request.
    Debug,
}

impl Level {
    /// The word used in settings and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// A handle on the log; clones write to the same place.
#[derive(Debug, Clone)]
pub struct Log {
    level: Level,
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    stderr: bool,
    /// Kinds of faults that were told of late.
    told: Vec<(&'static str, Instant)>,
}

impl Log {
    /// A log that appends to a file, and to standard error if `stderr`.
    pub fn open(path: &Path, level: Level, stderr: bool) -> Self {
        let mut sink =
            Sink { path: path.to_owned(), file: None, size: 0, stderr, told: Vec::new() };
        sink.reopen();
        Self { level, sink: Arc::new(Mutex::new(sink)) }
    }

    /// One line of a level.
    pub fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        if level > self.level {
            return;
        }
        let line = format!(
            "{} {:5} {}\n",
            clock::iso(clock::now_ms()),
            level.word(),
            text.to_string().replace('\n', " | ")
        );
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).write(&line);
    }

    /// A line of [`Level::Error`].
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.line(Level::Error, text);
    }

    /// A line of [`Level::Warn`].
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        self.line(Level::Warn, text);
    }

    /// A line of [`Level::Warn`] about a fault that everything meets while it lasts: the first of its kind in a period
    /// is told, and the others to who looks closely.
    pub fn warn_of(&self, kind: &'static str, text: fmt::Arguments<'_>) {
        let is_new = {
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            sink.told.retain(|(_, at)| at.elapsed() < FAULT_PERIOD);
            let is_new = !sink.told.iter().any(|(told, _)| *told == kind);
            sink.told.extend(is_new.then(|| (kind, Instant::now())));
            is_new
        };
        self.line(if is_new { Level::Warn } else { Level::Debug }, text);
    }

    /// A line of [`Level::Info`].
    pub fn info(&self, text: fmt::Arguments<'_>) {
        self.line(Level::Info, text);
    }

    /// A line of [`Level::Debug`].
    pub fn debug(&self, text: fmt::Arguments<'_>) {
        self.line(Level::Debug, text);
    }
}

impl Sink {
    fn reopen(&mut self) {
        self.file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).ok();
        self.size =
            self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    fn write(&mut self, line: &str) {
        if self.size + line.len() as u64 > MAX_LOG_BYTES {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            self.reopen();
        }
        if let Some(file) = &mut self.file
            && file.write_all(line.as_bytes()).is_ok()
        {
            self.size += line.len() as u64;
        }
        if self.stderr {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_filtered_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.log");
        let log = Log::open(&path, Level::Warn, false);
        log.info(format_args!("not this"));
        log.warn(format_args!("two\nlines"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" warn  two | lines\n") && text.lines().count() == 1, "{text}");

        let long = "x".repeat(1 << 20);
        for _ in 0..10 {
            log.warn(format_args!("{long}"));
        }
        let size = |p: &Path| std::fs::metadata(p).unwrap().len();
        assert!(size(&path) <= MAX_LOG_BYTES);
        assert!(size(&dir.path().join("server.log.1")) <= MAX_LOG_BYTES);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
