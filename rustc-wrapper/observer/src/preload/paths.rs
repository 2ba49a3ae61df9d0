//! Names of files as absolute paths: what a program names relative to its working directory, or to
//! an open directory, is written out.

use core::ffi::c_char;

use super::state::Context;
use super::sys;
use crate::log::{Kind, Lost};

const MAX_PATH: usize = 4096;

/// Notes a path that a call named, relative to a directory's descriptor.
pub fn note(context: &Context, kind: Kind, flags: u8, dir: i32, path: *const c_char) {
    // SAFETY: the module `preload` says why.
    let Some(path) = (unsafe { sys::text(path.cast(), MAX_PATH) }) else {
        if !path.is_null() {
            // The system refuses it too: nothing was read.
            return;
        }
        return;
    };
    if path.first() == Some(&b'/') {
        context.note(kind, flags, path);
    } else if !path.is_empty() {
        relative(context, (kind, flags), dir, path);
    }
}

/// Notes what an open descriptor is.
pub fn note_descriptor(context: &Context, kind: Kind, flags: u8, fd: i32) {
    let mut buffer = [0; MAX_PATH];
    match descriptor(fd, &mut buffer) {
        Some(path) => context.note(kind, flags, path),
        None => context.log.lose(Lost::PATH),
    }
}

#[inline(never)]
fn relative(context: &Context, (kind, flags): (Kind, u8), dir: i32, path: &[u8]) {
    let mut buffer = [0; MAX_PATH];
    let base = if dir == sys::AT_FDCWD {
        sys::getcwd(&mut buffer).and_then(|len| buffer.get(..len))
    } else {
        descriptor(dir, &mut buffer)
    };
    match base.filter(|base| base.first() == Some(&b'/')) {
        Some(base) => context.log.note(context.number, kind, flags, &[base, b"/", path]),
        None => context.log.lose(Lost::PATH),
    }
}

/// The path behind a descriptor, when it is one of a file.
fn descriptor(fd: i32, buffer: &mut [u8; MAX_PATH]) -> Option<&[u8]> {
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
    (path.first() == Some(&b'/') && !path.ends_with(b" (deleted)")).then_some(path)
}
