//! Observation: the compiler runs with a library preloaded that notes what it and its children ask
//! for; from the log come the inputs that nobody declared.
//!
//! [`Library::open`] puts the library in place, once; [`Watch`] is one run; [`seen`] reads the log.
//! For a compile [`rules`] decides what counts, and [`found`] is what did. What a preloaded library
//! cannot see is known by the content of what was loaded ([`crate::objects`]), and of some programs by
//! name ([`programs`]): then [`Found::doubts`] says why, and the unit's inputs are found the
//! conservative way. For a build script [`crate::script::inputs`] takes all that was seen; [`made`] tells
//! what the run made itself, [`unseen`] what code may have done out of sight.
//!
//! Called by [`crate::wrapper`] and [`crate::script`] around a run, by [`crate::inputs`] after a compile.

pub mod found;
pub mod made;
pub mod programs;
pub mod rules;
pub mod seen;
pub mod unseen;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_observer::log;
use kiln_storage::Digest;

use crate::config::{Config, Observe};
use crate::env::Env;
use crate::limits::OBSERVER_LOG_SLOTS;
use crate::memo::Memo;
use crate::objects::{Class, Classes};
use crate::silent::is_system_dir;
use crate::tool::write_whole;

pub use found::Found;
pub use rules::Around;

/// The library, as the build script of this crate made it. Empty where there is no observation.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/observer.so"));
/// The dynamic loader's variable.
const PRELOAD: &str = "LD_PRELOAD";
/// Longest path of library and log that the library takes.
const MAX_PATH: usize = 1000;

/// The library, ready to be preloaded.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
}

/// Whether a path can stand in the loader's list and in the library's own variable.
fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|path| {
        path.len() < MAX_PATH && !path.contains([':', '$']) && !path.contains(char::is_whitespace)
    })
}

/// A file that is nowhere but in memory.
#[cfg(target_os = "linux")]
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("kiln-observed", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// Other systems have no library that would write to it.
#[cfg(not(target_os = "linux"))]
fn memory() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether programs and libraries in a directory may be run.
#[cfg(target_os = "linux")]
fn may_be_run(dir: &Path) -> io::Result<bool> {
    let flags = rustix::fs::statvfs(dir)?.f_flag;
    Ok(!flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

#[cfg(not(target_os = "linux"))]
fn may_be_run(_: &Path) -> io::Result<bool> {
    Ok(true)
}

impl Library {
    /// Puts the library into the state directory, where it is not there yet, and verifies it.
    ///
    /// # Errors
    /// Why there is no observation, for people.
    pub fn open(config: &Config, dir: &Path, memo: &Memo) -> Result<Self, String> {
        if config.observe == Observe::Off {
            return Err("KILN_OBSERVE=off".into());
        }
        if LIBRARY.is_empty() {
            return Err("there is none on this system".into());
        }
        let digest = Digest::of(LIBRARY);
        let place = dir.join("observer");
        let path = place.join(format!("{}.so", digest.short()));
        if !is_plain(&path) {
            return Err(format!(
                "{}: has a blank, a colon or a dollar sign, or is too long",
                path.display()
            ));
        }
        let intact = || memo.digest(&path).is_ok_and(|(found, _)| found == digest);
        if !intact() {
            write_whole(&path, LIBRARY);
            let mode = std::fs::Permissions::from_mode(0o755);
            let _ = std::fs::set_permissions(&path, mode);
            if !intact() {
                return Err(format!("{}: cannot be written", path.display()));
            }
        }
        match may_be_run(&place) {
            Ok(true) => Ok(Self { path }),
            Ok(false) => Err(format!("{}: nothing may be run from there", place.display())),
            Err(error) => Err(format!("{}: {error}", place.display())),
        }
    }

    /// Prepares the observation of one run. Its log lies in memory: a file of its size on a disk costs
    /// every process milliseconds. It takes so many bytes of entries.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn watch(&self, capacity: u32) -> Result<Watch, String> {
        let fail = |error: io::Error| format!("the log of an observed run: {error}");
        let file = memory().map_err(fail)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        // Children open it by this name; where that is not possible, there is no observation.
        OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        let slots = OBSERVER_LOG_SLOTS;
        // Beyond that bound the system ends the process.
        let bound = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        if bound.is_some_and(|bound| bound < log::file_bytes(capacity, slots)) {
            return Err("files may not be as large as the log of an observed run".into());
        }
        file.write_all_at(&log::header(capacity, slots), 0).map_err(fail)?;
        file.set_len(log::file_bytes(capacity, slots)).map_err(fail)?;
        Ok(Watch { library: self.path.clone(), log: file, path })
    }
}

/// One observed run.
#[derive(Debug)]
pub struct Watch {
    library: PathBuf,
    log: File,
    path: String,
}

impl Watch {
    /// The variables that the tool is started with. C compilers that run below it get the prefix maps,
    /// from general to specific; one that cannot be handed on is left out.
    pub fn variables(&self, env: &Env, maps: &[(String, String)]) -> [(&'static str, OsString); 2] {
        let mut preload = self.library.clone().into_os_string();
        if let Some(others) = env.get(PRELOAD) {
            preload.push(":");
            preload.push(others);
        }
        let mut lead = OsString::from("0:r:");
        lead.push(self.library.as_os_str());
        lead.push(":");
        lead.push(&self.path);
        lead.push(lead_of_maps(maps));
        [(PRELOAD, preload), (log::VARIABLE, lead)]
    }

    /// Reads the log of a run that ended.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn read(&self, subject: seen::Subject<'_>) -> io::Result<seen::Seen> {
        let mut header = [0; log::HEADER_BYTES];
        self.log.read_exact_at(&mut header, 0)?;
        let head = log::head(&header).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut entries = vec![0; head.entries];
        self.log.read_exact_at(&mut entries, head.entries_at as u64)?;
        Ok(seen::read(&entries, head.lost, subject))
    }
}

/// Prefix maps as they stand behind the rest of a lead.
fn lead_of_maps(maps: &[(String, String)]) -> String {
    let plain = |text: &str| !text.contains([':', '=', '\0']);
    let mut lead = String::new();
    for (old, new) in maps {
        let fits = lead.len() + old.len() + new.len() + 2 <= log::MAX_MAPS;
        if fits && !old.is_empty() && plain(old) && plain(new) {
            lead.push_str(&format!(":{old}={new}"));
        }
    }
    lead
}

/// What observation found out about a run.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The inputs.
    pub found: Found,
}

impl Observed {
    /// Applies the rules to what was seen, and asks what the code that ran may have done unseen.
    pub fn new(seen: &seen::Seen, around: &Around<'_>, classes: &Classes, memo: &Memo) -> Self {
        let mut found = found::apply(seen, around);
        found.environment |= found.helpers.iter().any(|path| reads_all(path, classes, memo));
        for path in found.code.clone() {
            let path = Path::new(&path);
            if is_system_library(path) {
                continue;
            }
            match classes.of(path, memo) {
                Ok(class) => judge(&mut found, path, &class),
                Err(error) => found.doubts.push(format!("{}: {error}", path.display())),
            }
        }
        Self { found }
    }
}

/// Whether a program that a plugin started may have read any of the variables it got.
fn reads_all(program: &str, classes: &Classes, memo: &Memo) -> bool {
    let path = Path::new(program);
    let class = path.is_absolute().then(|| classes.of(path, memo));
    let Some(Ok(class)) = class else { return true };
    programs::may_read_all(path, &class, memo)
}

/// Notes what code may have done that a preloaded library does not see.
fn judge(found: &mut Found, path: &Path, class: &Class) {
    let mut doubt = |why: &str| found.doubts.push(format!("{} {why}", path.display()));
    if class.inline_syscalls {
        doubt("makes system calls past libc");
    }
    let known = |name: &str| {
        is_system_library(Path::new(name))
            || name.starts_with("librustc_driver-")
            || name.starts_with("libstd-")
            || name.starts_with("libtest-")
            || name.starts_with("libLLVM")
            || found.code.iter().any(|code| Path::new(code).ends_with(name))
    };
    let needed = class.needed.iter().find(|name| !known(name)).cloned();
    // For a program that was started this has been decided.
    let is_helper = path.to_str().is_some_and(|path| found.helpers.contains(path));
    found.environment |= !is_helper && programs::library_may_read_all(path, class);
    if let Some(name) = needed {
        found.doubts.push(format!("{} loads {name}", path.display()));
    }
}

/// Whether an object is a part of libc or of the compiler's runtime, whose system calls are what the
/// preloaded library stands in front of.
fn is_system_library(path: &Path) -> bool {
    let foreign = path.is_absolute() && !path.to_str().is_some_and(is_system_dir);
    if foreign {
        return false;
    }
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    let stem = name.split(".so").next().unwrap_or(name);
    matches!(
        stem,
        "libc" | "libm" | "libdl" | "libpthread" | "librt" | "libutil" | "libresolv" | "libgcc_s"
    ) || ["ld-linux", "ld-musl", "libc.musl", "ld64"].iter().any(|start| stem.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_maps_that_cannot_be_handed_on_are_left_out() {
        let check = |maps: &[(&str, &str)], want: &str| {
            let maps: Vec<(String, String)> =
                maps.iter().map(|(old, new)| ((*old).into(), (*new).into())).collect();
            assert_eq!(lead_of_maps(&maps), want);
        };
        check(&[], "");
        check(&[("/ws", "/kiln/ws"), ("/ws/a b", "/kiln/out")], ":/ws=/kiln/ws:/ws/a b=/kiln/out");
        check(&[("/a:b", "/c"), ("/a", "/b=c"), ("", "/x"), ("/d", "/e")], ":/d=/e");
        let long = "/".repeat(log::MAX_MAPS - 4);
        check(&[(&long, "/c")], &format!(":{long}=/c"));
        check(&[(&long, "/cd"), ("/d", "/e")], ":/d=/e");
        check(&[("/d", "/e"), (&long, "/c"), ("/f", "/g")], ":/d=/e:/f=/g");
    }
}
