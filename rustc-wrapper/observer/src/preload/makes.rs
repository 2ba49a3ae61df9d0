//! The functions that make files, directories and links, or rename them.
//!
//! That one fails may tell whether something is there, and what is given another name is read.

use super::hooks::{failed_look, look, outcome, real};
use super::paths::{note, note_named_descriptor};
use super::state::context;
use super::symbols::Real;
use super::sys::{self, AT_FDCWD};
use crate::log::{Kind, flags};

fn is_error(result: usize) -> bool {
    result as i32 == -1
}

/// A path, relative to a descriptor.
#[derive(Clone, Copy)]
pub(super) struct At(pub(super) usize, pub(super) usize);

/// The working directory.
pub(super) const HERE: usize = AT_FDCWD as usize;

/// Notes that a path was made, or that it was not.
pub(super) fn made(failed: bool, At(dir, path): At, bits: u8) {
    if failed {
        failed_look(dir as i32, path, bits);
    } else if let Some(context) = context() {
        note(context, Kind::Write, bits, dir as i32, path as *const _);
    }
}

/// Notes that what had one path has, or got, another one: it is read, but for what this run made.
///
/// What is renamed may be a directory, which brings along what was in it before; a link made to
/// a file only can be where there was nothing.
pub(super) fn moved(failed: bool, (from, to): (At, At), renamed: bool, bits: u8) {
    if failed {
        failed_look(from.0 as i32, from.1, bits);
    } else if let Some(context) = context() {
        note(context, Kind::Read, bits, from.0 as i32, from.1 as *const _);
    }
    if renamed && !failed {
        // It is gone from there.
        look(from.0 as i32, from.1, true, bits | flags::KEPT);
    }
    let more = if renamed { flags::KEPT } else { flags::FRESH };
    made(failed, to, bits | if failed { 0 } else { more });
}

/// Notes a call that changes or removes what it names: how it ends tells whether there was something.
pub(super) fn touched(At(dir, path): At, bits: u8) {
    // Without a path the descriptor itself is meant.
    let text = path as *const u8;
    // SAFETY: the module `preload` says why.
    let no_path = || path == 0 || sys::is_text(text) && unsafe { *text } == 0;
    if dir as i32 >= 0 && no_path() {
        return touched_open(bits & flags::FAILED != 0, dir, bits);
    }
    look(dir as i32, path, bits & flags::LINK != 0, bits | flags::KEPT);
}

/// Notes a change of what is open; what has no name is nobody else's.
pub(super) fn touched_open(failed: bool, fd: usize, bits: u8) {
    if let Some(context) = context()
        && !failed
    {
        note_named_descriptor(context, Kind::Look, bits | flags::KEPT, fd as i32);
    }
}

unsafe fn make_directory(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let at = if which == Real::mkdirat { At(a[0], a[1]) } else { At(HERE, a[0]) };
    made(is_error(result), at, outcome(is_error(result), caller) | flags::FRESH);
    result
}

/// The name of what is made is filled in by the call.
unsafe fn make_temporary(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = if which == Real::mkdtemp { result == 0 } else { is_error(result) };
    if !failed {
        made(false, At(HERE, a[0]), outcome(false, caller));
    }
    result
}

unsafe fn give_name(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let (from, to) = match which {
        Real::rename | Real::link => (At(HERE, a[0]), At(HERE, a[1])),
        _ => (At(a[0], a[1]), At(a[2], a[3])),
    };
    let renamed = !matches!(which, Real::link | Real::linkat);
    moved(is_error(result), (from, to), renamed, outcome(is_error(result), caller));
    result
}

unsafe fn make_link(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let at = if which == Real::symlinkat { At(a[1], a[2]) } else { At(HERE, a[1]) };
    made(is_error(result), at, outcome(is_error(result), caller) | flags::KEPT | flags::FRESH);
    result
}

unsafe fn change(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let at = match which {
        Real::unlinkat | Real::fchmodat | Real::fchownat | Real::utimensat | Real::futimesat => {
            At(a[0], a[1])
        }
        _ => At(HERE, a[0]),
    };
    touched(at, outcome(is_error(result), caller));
    result
}

/// A change of a link itself.
unsafe fn change_link(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    touched(At(HERE, a[0]), outcome(is_error(result), caller) | flags::LINK);
    result
}

unsafe fn change_open(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    touched_open(is_error(result), a[0], outcome(is_error(result), caller));
    result
}

/// Makes a pipe, a socket or a device.
unsafe fn make_special(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let at = match which {
        Real::mknodat | Real::mkfifoat => At(a[0], a[1]),
        Real::__xmknod => At(HERE, a[1]),
        Real::__xmknodat => At(a[1], a[2]),
        _ => At(HERE, a[0]),
    };
    made(is_error(result), at, outcome(is_error(result), caller) | flags::FRESH);
    result
}

export_each! { make_directory: mkdir mkdirat }
export_each! { make_temporary: mkdtemp mkstemp mkstemp64 mkostemp mkostemp64 }
export_each! { make_temporary: mkstemps mkstemps64 mkostemps mkostemps64 }
export_each! { give_name: rename renameat renameat2 link linkat }
export_each! { make_link: symlink symlinkat }
export_each! { change: unlink unlinkat rmdir remove truncate truncate64 chmod fchmodat }
export_each! { change: chown fchownat utime utimes utimensat futimesat setxattr }
export_each! { change_link: lchown lutimes lsetxattr }
export_each! { change_open: fchmod fchown futimens futimes ftruncate ftruncate64 }
export_each! { make_special: mknod mknodat __xmknod __xmknodat mkfifo mkfifoat }
