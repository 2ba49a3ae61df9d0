//! Names of files as absolute paths: what a program names relative to its working directory, or to
//! an open directory, is written out.
//!
//! Called on whatever stack the program has, a thread's smallest or a signal's: the usual path fits
//! into a small buffer, and a long one into memory of its own.

use core::ffi::{c_char, c_int};

use super::state::Context;
use super::sys;
use crate::log::{Kind, Lost, flags};

/// Longest path that the system takes, with its zero.
pub const MAX_PATH: usize = 4096;
/// Directories up to this length need no memory of their own.
const USUAL_PATH: usize = 512;
const EFAULT: c_int = 14;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// The error of the last call of libc.
pub fn error() -> c_int {
    // SAFETY: the module `preload` says why.
    unsafe { *__errno_location() }
}

/// Notes a path that a call named, relative to a directory's descriptor.
pub fn note(context: &Context, kind: Kind, bits: u8, dir: i32, path: *const c_char) {
    if bits & flags::FAILED != 0 && error() == EFAULT {
        // There is no text at that address.
        return;
    }
    // SAFETY: the module `preload` says why. A path over its bound is refused by the system too, so
    // that nothing was read.
    let Some(path) = (unsafe { sys::text(path.cast(), MAX_PATH) }) else { return };
    if path.first() == Some(&b'/') {
        context.note(kind, bits, path);
    } else if !path.is_empty() {
        relative(context, (kind, bits), dir, path);
    }
}

/// Notes what an open descriptor is.
pub fn note_descriptor(context: &Context, kind: Kind, bits: u8, fd: i32) {
    let noted = with_place(fd, |path| context.note(kind, bits, path));
    if noted.is_none() {
        context.log.lose(Lost::PATH);
    }
}

/// Notes what an open descriptor is, when that has a name.
pub fn note_named_descriptor(context: &Context, kind: Kind, bits: u8, fd: i32) {
    let _ = with_place(fd, |path| context.note(kind, bits, path));
}

/// Notes a socket by its path.
pub fn note_socket(context: &Context, bits: u8, path: &[u8]) {
    let note = |parts: &[&[u8]]| context.log.note(context.number, Kind::Network, bits, parts);
    if path.is_empty() || path.first() == Some(&b'/') {
        note(&[b"unix:", path]);
    } else if with_place(sys::AT_FDCWD, |base| note(&[b"unix:", base, b"/", path])).is_none() {
        context.log.lose(Lost::PATH);
    }
}

#[inline(never)]
fn relative(context: &Context, (kind, bits): (Kind, u8), dir: i32, path: &[u8]) {
    let note = |base: &[u8]| context.log.note(context.number, kind, bits, &[base, b"/", path]);
    if with_place(dir, note).is_none() {
        context.log.lose(Lost::PATH);
    }
}

/// Hands on the absolute path of a descriptor, or of the working directory; none when there is none.
fn with_place(dir: i32, mut take: impl FnMut(&[u8])) -> Option<()> {
    let mut usual = [0; USUAL_PATH];
    if let Some(path) = place(dir, &mut usual) {
        take(path);
        return Some(());
    }
    let memory = sys::allocate(MAX_PATH)?;
    // SAFETY: the module `preload` says why; the memory is fresh and given back below.
    let whole = unsafe { core::slice::from_raw_parts_mut(memory, MAX_PATH) };
    let found = place(dir, whole).map(take);
    // SAFETY: as above.
    unsafe { sys::free(memory, MAX_PATH) };
    found
}

fn place(dir: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    let path = if dir == sys::AT_FDCWD {
        let len = sys::getcwd(buffer)?;
        buffer.get(..len)?
    } else {
        descriptor(dir, buffer)?
    };
    (path.first() == Some(&b'/')).then_some(path)
}

/// The path behind a descriptor, when it is one of a file.
fn descriptor(fd: i32, buffer: &mut [u8]) -> Option<&[u8]> {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    let mut link = [0_u8; 32];
    let mut digits = [0_u8; 10];
    let (mut rest, mut count) = (u32::try_from(fd).ok()?, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.iter().skip(10 - count);
    for (place, byte) in link.iter_mut().zip(PREFIX.iter().chain(digits)) {
        *place = *byte;
    }
    // SAFETY: the module `preload` says why; the text is shorter than its buffer of zeros.
    let len = unsafe { sys::readlink(link.as_ptr(), buffer) }?;
    let path = buffer.get(..len)?;
    (!path.ends_with(b" (deleted)")).then_some(path)
}
