//! Whether this process is observed, and what it needs for that.

use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{symbols, sys, writer::Log};
use crate::log::{How, Kind, Lost, MAX_MAPS, Process, VARIABLE, flags};

/// Longest path of the library, and of the log.
pub const MAX_OWN_PATH: usize = 1024;
/// Bytes for both and for the prefix maps, with zeros between them.
const OWN_BYTES: usize = 2 * MAX_OWN_PATH + 2 + MAX_MAPS;
/// Most variables that are looked through.
const MAX_VARIABLES: usize = 1 << 20;

const UNKNOWN: u32 = 0;
const BUSY: u32 = 1;
const ON: u32 = 2;
const OFF: u32 = 3;

static STATE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// What an observed process needs.
#[derive(Debug)]
pub struct Context {
    /// The log.
    pub log: Log,
    /// Number of this process in it.
    pub number: u16,
    /// The system's number of it, when it began.
    pub pid: u32,
    own: [u8; OWN_BYTES],
    library: usize,
    path: usize,
    maps: usize,
}

impl Context {
    /// Path of this library.
    pub fn library(&self) -> &[u8] {
        self.own.get(..self.library).unwrap_or_default()
    }

    /// Path of the log.
    pub fn path(&self) -> &[u8] {
        self.own.get(self.library + 1..self.library + 1 + self.path).unwrap_or_default()
    }

    /// Prefix maps for C compilers, as the lead has them.
    pub fn maps(&self) -> &[u8] {
        let from = self.library + self.path + 2;
        self.own.get(from..from + self.maps).unwrap_or_default()
    }

    /// Whether a loader could open the library here and now: there may be no descriptor left, or this
    /// process may have gone where the library is not. A loader that cannot says so on standard error.
    pub fn library_is_there(&self) -> bool {
        // SAFETY: the module `preload` says why; a zero follows the path.
        unsafe { sys::open(self.own.as_ptr(), 0) }.map(sys::close).is_some()
    }

    /// Adds an entry.
    pub fn note(&self, kind: Kind, flags: u8, name: &[u8]) {
        self.log.note(self.number, kind, flags, &[name]);
    }
}

struct Shared(UnsafeCell<Option<Context>>);

// SAFETY: written once, while STATE is BUSY, and only read when it is ON.
unsafe impl Sync for Shared {}

static CONTEXT: Shared = Shared(UnsafeCell::new(None));

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// The environment of this process, as libc has it.
pub fn environment() -> *mut *mut c_char {
    // SAFETY: the module `preload` says why.
    unsafe { environ }
}

/// The context of an observed process.
pub fn context() -> Option<&'static Context> {
    match STATE.load(Ordering::Acquire) {
        // SAFETY: the module `preload` says why; see `Shared`.
        ON => unsafe { &*CONTEXT.0.get() }.as_ref(),
        UNKNOWN => {
            begin();
            // SAFETY: as above.
            (STATE.load(Ordering::Acquire) == ON).then(|| unsafe { &*CONTEXT.0.get() }.as_ref())?
        }
        BUSY => {
            missed();
            None
        }
        _ => None,
    }
}

/// Whether another thread called one of the functions while this was being found out.
static MISSED: AtomicU32 = AtomicU32::new(0);

#[cold]
fn missed() {
    MISSED.store(1, Ordering::SeqCst);
    if STATE.load(Ordering::SeqCst) == ON {
        tell_missed();
    }
}

fn tell_missed() {
    // SAFETY: the module `preload` says why; see `Shared`.
    if let (1, Some(context)) = (MISSED.load(Ordering::SeqCst), unsafe { &*CONTEXT.0.get() }) {
        context.log.lose(Lost::UNSEEN);
    }
}

/// Finds out whether this process is observed, once: at its start, or when another object's start
/// calls one of the functions before.
pub fn begin() {
    let variables = environment();
    let taken = STATE.compare_exchange(UNKNOWN, BUSY, Ordering::Acquire, Ordering::Relaxed);
    if taken.is_err() {
        return;
    }
    if variables.is_null() {
        // libc has not begun itself.
        symbols::resolve(|_| {});
        STATE.store(UNKNOWN, Ordering::Release);
        return;
    }
    // SAFETY: the module `preload` says why.
    let context = unsafe { take_over(variables) };
    // SAFETY: as above; BUSY keeps everybody else out.
    unsafe { *CONTEXT.0.get() = context };
    STATE.store(ON, Ordering::SeqCst);
    tell_missed();
    // SAFETY: as above.
    match unsafe { &*CONTEXT.0.get() } {
        Some(context) => {
            introduce(context);
            symbols::resolve(|name| {
                // SAFETY: as above.
                if let Some(context) = unsafe { &*CONTEXT.0.get() }
                    && name.starts_with(b"/")
                {
                    context.note(Kind::Object, flags::START, name);
                }
            });
        }
        None => {
            STATE.store(OFF, Ordering::Release);
            symbols::resolve(|_| {});
        }
    }
}

fn introduce(context: &Context) {
    let mut program = [0; 4096];
    // SAFETY: the module `preload` says why.
    let len = unsafe { sys::readlink(c"/proc/self/exe".as_ptr().cast(), &mut program) };
    let Some(name) = len.and_then(|len| program.get(..len)) else {
        return context.log.lose(Lost::PATH);
    };
    let Some((parent, how)) = BORN.get() else { return };
    let head = Process { parent, how, pid: context.pid }.encode();
    context.log.note(context.number, Kind::Process, 0, &[&head, name]);
}

/// How this process was started: parent and letter, in one word.
struct Born(AtomicU32);

impl Born {
    fn get(&self) -> Option<(u16, How)> {
        let [p0, p1, how, _] = self.0.load(Ordering::Relaxed).to_le_bytes();
        Some((u16::from_le_bytes([p0, p1]), How::of(how)?))
    }

    fn set(&self, parent: u16, how: How) {
        let [p0, p1] = parent.to_le_bytes();
        self.0.store(u32::from_le_bytes([p0, p1, how as u8, 0]), Ordering::Relaxed);
    }
}

static BORN: Born = Born(AtomicU32::new(0));

/// Reads the variable that leads to the log, takes it and this library out of the environment, and
/// maps the log.
unsafe fn take_over(variables: *mut *mut c_char) -> Option<Context> {
    // SAFETY: the module `preload` says why.
    unsafe {
        let lead = find(variables, VARIABLE.as_bytes())?;
        let value = value(*variables.add(lead), VARIABLE.len())?;
        if value.is_empty() {
            // Whoever started this wants it unobserved, and nothing left to see of that.
            remove(variables, lead);
            let library = symbols::own_path()?;
            forget_library(variables, find(variables, PRELOAD)?, library);
            return None;
        }
        let mut parts = value.splitn(5, |byte| *byte == b':');
        let (parent, how) = (number(parts.next()?)?, How::of(*parts.next()?.first()?)?);
        let (library, path) = (parts.next()?, parts.next()?);
        let maps = parts.next().unwrap_or_default();
        let long = library.len() >= MAX_OWN_PATH || path.len() >= MAX_OWN_PATH;
        if long || maps.len() > MAX_MAPS {
            return None;
        }
        let mut own = [0; OWN_BYTES];
        let texts = library.iter().chain(b"\0").chain(path).chain(b"\0").chain(maps);
        for (place, byte) in own.iter_mut().zip(texts) {
            *place = *byte;
        }
        let (library, path, maps) = (library.len(), path.len(), maps.len());
        BORN.set(parent, how);
        remove(variables, lead);
        if let Some(preload) = find(variables, PRELOAD) {
            forget_library(variables, preload, own.get(..library)?);
        }
        let log = map(own.get(library + 1..library + 1 + path)?)?;
        let mut context = Context { log, number: 0, pid: sys::getpid(), own, library, path, maps };
        context.number = match context.log.next_process() {
            Some(number) => number,
            None => {
                context.log.lose(Lost::CHILD);
                return None;
            }
        };
        Some(context)
    }
}

/// The dynamic loader's variable.
pub const PRELOAD: &[u8] = b"LD_PRELOAD";

unsafe fn map(path: &[u8]) -> Option<Log> {
    let mut text = [0_u8; MAX_OWN_PATH];
    text.get_mut(..path.len())?.copy_from_slice(path);
    // SAFETY: the module `preload` says why; the text ends with a zero, since it is longer.
    unsafe {
        const READ_AND_WRITE: i32 = 2;
        let fd = sys::open(text.as_ptr(), READ_AND_WRITE)?;
        let mut header = [0; crate::log::HEADER_BYTES];
        let read = sys::read(fd, &mut header);
        // What lies behind the end of a file can be mapped, and not be touched.
        let bytes = header.get(..read).and_then(whole_bytes);
        let bytes = bytes.filter(|bytes| *bytes as u64 <= sys::size(fd));
        let base = bytes.and_then(|bytes| sys::map(fd, bytes));
        sys::close(fd);
        Log::new(base?, bytes?)
    }
}

fn whole_bytes(header: &[u8]) -> Option<usize> {
    let head = crate::log::head(header).ok()?;
    let capacity = header.get(crate::log::CAPACITY_AT..)?.first_chunk::<4>()?;
    Some(head.entries_at + u32::from_le_bytes(*capacity) as usize)
}

fn number(text: &[u8]) -> Option<u16> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// The value in `NAME=value`, the text of a variable of the environment.
unsafe fn value<'a>(text: *const c_char, name: usize) -> Option<&'a [u8]> {
    // SAFETY: the module `preload` says why.
    unsafe { sys::text(text.cast::<u8>(), 2 * OWN_BYTES) }?.get(name + 1..)
}

/// Where a variable is in an environment.
pub unsafe fn find(variables: *mut *mut c_char, name: &[u8]) -> Option<usize> {
    // SAFETY: the module `preload` says why. What is read of a text never lies behind its end, since
    // a byte that differs ends the comparison.
    unsafe {
        (0..MAX_VARIABLES)
            .map_while(|at| {
                let text = *variables.add(at);
                (!text.is_null()).then_some((at, text.cast::<u8>()))
            })
            .find(|(_, text)| is_named(*text, name))
            .map(|(at, _)| at)
    }
}

/// Whether the text of a variable is that of a name.
pub unsafe fn is_named(text: *const u8, name: &[u8]) -> bool {
    // SAFETY: as in `find`.
    unsafe {
        name.iter().enumerate().all(|(i, byte)| *text.add(i) == *byte)
            && *text.add(name.len()) == b'='
    }
}

/// Takes a variable out of the environment, and its text out of memory, where `/proc` shows it.
unsafe fn remove(variables: *mut *mut c_char, at: usize) {
    // SAFETY: the module `preload` says why.
    unsafe {
        let text = (*variables.add(at)).cast::<u8>();
        text.write_bytes(0, sys::length(text, MAX_VARIABLES));
        let mut at = at;
        while !(*variables.add(at)).is_null() {
            *variables.add(at) = *variables.add(at + 1);
            at += 1;
        }
    }
}

/// Takes this library out of the list of preloaded ones, where it is the first; and the variable,
/// when there is no other.
unsafe fn forget_library(variables: *mut *mut c_char, at: usize, library: &[u8]) {
    // SAFETY: the module `preload` says why.
    unsafe {
        let text = (*variables.add(at)).cast::<u8>();
        let Some(list) = sys::text(text, MAX_VARIABLES).and_then(|t| t.get(PRELOAD.len() + 1..))
        else {
            return;
        };
        let Some(rest) = list.strip_prefix(library) else { return };
        match rest.split_first() {
            None => remove(variables, at),
            Some((_, others)) => {
                let (to, cut) = (text.add(PRELOAD.len() + 1), list.len() - others.len());
                to.copy_from(others.as_ptr(), others.len());
                to.add(others.len()).write_bytes(0, cut);
            }
        }
    }
}
