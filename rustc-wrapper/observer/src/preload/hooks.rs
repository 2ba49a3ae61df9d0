//! The functions that open, look at and list files, ask for links and places, and read variables.
//!
//! Each exported function is a few instructions that pass the caller's address on as one more
//! argument and go to a plain function, which calls the real one, notes what was asked and how it
//! ended, and returns what the real one returned. `errno` is left as the real one set it.

use core::ffi::{c_char, c_int};

use super::paths::{error, note, note_descriptor};
use super::state::context;
use super::symbols::{self, Real, is_later};
use super::sys::{self, AT_FDCWD};
use crate::log::{Kind, Lost, flags};

const ENOENT: c_int = 2;
const EEXIST: c_int = 17;
const ENOTDIR: c_int = 20;
/// The error number of what the system does not have.
pub(super) const NO_SUCH_CALL: isize = 38;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// Sets `errno` from the result of a system call; what libc's function returns.
pub(super) fn answer(result: isize) -> usize {
    if (-4095..0).contains(&result) {
        // SAFETY: the module `preload` says why.
        unsafe { *__errno_location() = -result as c_int };
        return usize::MAX;
    }
    result as usize
}

/// The address of a real function; 0 when there is none.
pub(super) fn address(which: Real) -> usize {
    let mut address = which.address();
    if address == 0 {
        // Another object's start calls this before the library's own has run.
        context();
        address = which.address();
    }
    if address == 0 {
        // Or while it runs in another thread; or there is but an old version.
        symbols::resolve_again();
        address = which.address();
    }
    address
}

/// Calls a real function with up to five arguments.
pub(super) unsafe fn real(which: Real, a: [usize; 5]) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { real_of_six(which, [a[0], a[1], a[2], a[3], a[4], 0]) }
}

/// Calls a real function with up to six arguments.
pub(super) unsafe fn real_of_six(which: Real, a: [usize; 6]) -> usize {
    type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize) -> usize;
    let address = address(which);
    if address == 0 {
        let failed = answer(-NO_SUCH_CALL);
        return if which.returns_pointer() { 0 } else { failed };
    }
    // SAFETY: the module `preload` says why. Integers and pointers are passed alike, functions with
    // a variable number of them take them in the same registers, and further registers are not
    // looked at.
    unsafe { core::mem::transmute::<usize, Function>(address)(a[0], a[1], a[2], a[3], a[4], a[5]) }
}

/// Bits for how a call ended, and who made it.
pub(super) fn outcome(failed: bool, caller: usize) -> u8 {
    let later = if is_later(caller) { flags::LATER } else { 0 };
    if !failed {
        return later;
    }
    match error() {
        ENOENT | ENOTDIR => later | flags::FAILED | flags::ABSENT,
        _ => later | flags::FAILED,
    }
}

fn is_error(result: usize) -> bool {
    result as c_int == -1
}

// Opening ------------------------------------------------------------------------------------

const WRITE_ONLY: usize = 1;
const ACCESS_MODE: usize = 3;
const CREATE: usize = 0o100;
const EXCLUSIVE: usize = 0o200;
const TRUNCATE: usize = 0o1000;
const APPEND: usize = 0o2000;
/// Beside the bit for directories, which differs between processors: a file without a name.
const UNNAMED: usize = 0o20_000_000;

pub(super) fn note_open(dir: i32, path: usize, how: usize, bits: u8) {
    let Some(context) = context() else { return };
    let (path, failed) = (path as *const c_char, bits & flags::FAILED != 0);
    if how & UNNAMED != 0 {
        return note(context, Kind::Look, bits, dir, path);
    }
    let fresh = how & TRUNCATE != 0 || how & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE;
    let mode = how & ACCESS_MODE;
    if mode != WRITE_ONLY && !fresh {
        note(context, Kind::Read, bits, dir, path);
    } else if failed {
        failed_look(dir, path as usize, bits);
    }
    if (mode != 0 || how & (CREATE | TRUNCATE) != 0) && !failed {
        let more = match how & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE {
            true => flags::FRESH,
            false if how & TRUNCATE != 0 => 0,
            false => flags::KEPT,
        };
        let appends = mode != 0 && how & APPEND != 0;
        let more = if appends { more | flags::APPEND } else { more };
        if mode == WRITE_ONLY && how & CREATE == 0 {
            // It ends well only where there is something.
            look(dir, path as usize, false, bits | flags::KEPT);
        }
        note(context, Kind::Write, bits | more, dir, path);
    }
}

/// Notes a path where nothing could be made: perhaps since something is there.
pub(super) fn failed_look(dir: i32, path: usize, bits: u8) {
    let bits = if error() == EEXIST { bits & !flags::FAILED } else { bits };
    look(dir, path, false, bits & !(flags::KEPT | flags::FRESH));
}

unsafe fn open_path(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let fd = unsafe { real(which, a) };
    note_open(AT_FDCWD, a[0], a[1], outcome(is_error(fd), caller));
    fd
}

unsafe fn open_at(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let fd = unsafe { real(which, a) };
    note_open(a[0] as i32, a[1], a[2], outcome(is_error(fd), caller));
    fd
}

unsafe fn create(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let fd = unsafe { real(which, a) };
    note_open(AT_FDCWD, a[0], WRITE_ONLY | CREATE | TRUNCATE, outcome(is_error(fd), caller));
    fd
}

/// The flags of `open` that a mode of `fopen` means.
unsafe fn mode_flags(mode: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let mode = unsafe { sys::text(mode as *const u8, 64) }.unwrap_or_default();
    // Behind a comma stands a character set.
    let letters = || mode.iter().take_while(|letter| **letter != b',');
    let both = letters().any(|letter| *letter == b'+');
    let exclusive = if letters().any(|letter| *letter == b'x') { EXCLUSIVE } else { 0 };
    let written = if both { 2 } else { WRITE_ONLY };
    match mode.first() {
        Some(b'w') => CREATE | TRUNCATE | exclusive | written,
        Some(b'a') => CREATE | APPEND | exclusive | written,
        _ if both => 2,
        _ => 0,
    }
}

unsafe fn open_stream(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let stream = real(which, a);
        note_open(AT_FDCWD, a[0], mode_flags(a[1]), outcome(stream == 0, caller));
        stream
    }
}

export_each! { open_path: open open64 }
export_each! { open_at: openat openat64 }
export_each! { create: creat creat64 }
/// A file that a program to be started will open.
unsafe fn open_for_child(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    note_open(AT_FDCWD, a[2], a[3], outcome(false, caller));
    result
}

export_each! { open_stream: fopen fopen64 freopen freopen64 }
export_each! { open_for_child: posix_spawn_file_actions_addopen }

// What programs call that were built with checks of their buffers.
export_each! { open_path: __open_2 __open64_2 }
export_each! { open_at: __openat_2 __openat64_2 }

// Listing ------------------------------------------------------------------------------------

unsafe fn list(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = match which {
        Real::opendir => result == 0,
        _ => is_error(result),
    };
    let bits = outcome(failed, caller);
    if let Some(context) = context() {
        note(context, Kind::List, bits, AT_FDCWD, a[0] as *const c_char);
    }
    result
}

unsafe fn list_descriptor(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = if which == Real::fdopendir { result == 0 } else { is_error(result) };
    let bits = outcome(failed, caller);
    if let Some(context) = context()
        && !failed
    {
        note_descriptor(context, Kind::List, bits, a[0] as i32);
    }
    result
}

export_each! { list: opendir scandir scandir64 }
export_each! { list_descriptor: fdopendir getdents64 getdents }

// Looking ------------------------------------------------------------------------------------

const SYMLINK_NOFOLLOW: usize = 0x100;

pub(super) fn look(dir: i32, path: usize, link: bool, bits: u8) {
    if let Some(context) = context() {
        let bits = if link { bits | flags::LINK } else { bits };
        note(context, Kind::Look, bits, dir, path as *const c_char);
    }
}

unsafe fn look_path(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let link = matches!(which, Real::lstat | Real::lstat64);
    look(AT_FDCWD, a[0], link, outcome(is_error(result), caller));
    result
}

/// A change of the working directory: that it is there, and where a link to it leads. Noted before,
/// since afterwards the path is relative to another directory.
unsafe fn change_directory(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { enter(a[0], caller, || real(which, a)) }
}

pub(super) unsafe fn enter(path: usize, caller: usize, run: impl FnOnce() -> usize) -> usize {
    // SAFETY: the module `preload` says why.
    let there = unsafe { sys::is_directory(path as *const u8) };
    if there {
        look(AT_FDCWD, path, true, outcome(false, caller));
    }
    let result = run();
    if !there {
        look(AT_FDCWD, path, true, outcome(is_error(result), caller));
    }
    result
}

unsafe fn look_versioned(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let link = matches!(which, Real::__lxstat | Real::__lxstat64);
    look(AT_FDCWD, a[1], link, outcome(is_error(result), caller));
    result
}

unsafe fn look_at(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let at = if which == Real::statx { a[2] } else { a[3] };
    look(a[0] as i32, a[1], at & SYMLINK_NOFOLLOW != 0, outcome(is_error(result), caller));
    result
}

unsafe fn look_at_versioned(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    look(a[1] as i32, a[2], a[4] & SYMLINK_NOFOLLOW != 0, outcome(is_error(result), caller));
    result
}

export_each! { look_path: stat stat64 lstat lstat64 access eaccess euidaccess }
export_each! { change_directory: chdir }
export_each! { look_versioned: __xstat __xstat64 __lxstat __lxstat64 }
export_each! { look_at: fstatat fstatat64 statx faccessat }
export_each! { look_at_versioned: __fxstatat __fxstatat64 }

// Links and places ---------------------------------------------------------------------------

unsafe fn resolve(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let (failed, link) = match which {
        Real::readlink | Real::__readlink_chk => (result as isize == -1, flags::LINK),
        _ => (result == 0, 0),
    };
    let bits = outcome(failed, caller) | link;
    if let Some(context) = context() {
        note(context, Kind::Resolve, bits, AT_FDCWD, a[0] as *const c_char);
    }
    result
}

unsafe fn resolve_at(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let bits = outcome(result as isize == -1, caller) | flags::LINK;
    if let Some(context) = context() {
        note(context, Kind::Resolve, bits, a[0] as i32, a[1] as *const c_char);
    }
    result
}

unsafe fn place(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let result = real(which, a);
        if let (Some(context), Some(cwd)) =
            (context(), sys::text(result as *const u8, crate::log::MAX_NAME))
        {
            context.note(Kind::Cwd, outcome(false, caller), cwd);
        }
        result
    }
}

export_each! { resolve: readlink realpath canonicalize_file_name __readlink_chk __realpath_chk }
export_each! { resolve_at: readlinkat __readlinkat_chk }
export_each! { place: getcwd get_current_dir_name __getcwd_chk }

// Variables ----------------------------------------------------------------------------------

unsafe fn variable(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let value = real(which, a);
        if let Some(context) = context() {
            match sys::text(a[0] as *const u8, crate::log::MAX_NAME + 1) {
                Some(name) => context.note(Kind::Variable, outcome(false, caller), name),
                None => context.log.lose(Lost::PATH),
            }
        }
        value
    }
}

export_each! { variable: getenv secure_getenv __secure_getenv }
