//! The functions that make, move and remove files by their names.
//!
//! What such a call made is no input; that it succeeded or failed tells what was there before, and that
//! is one: [`flags::FRESH`] for what can only be made where there is nothing, a look for the rest.

use core::arch::naked_asm;

use super::hooks::{export, export_each, is_error, look_bits, outcome, real};
use super::paths::note;
use super::state::context;
use super::symbols::Real;
use super::sys::AT_FDCWD;
use crate::log::{Kind, flags};

/// Notes what was made, or that it could not be: the path relative to the descriptor before it.
pub(super) fn made((dir, path): (i32, usize), more: u8, failed: bool, caller: usize) {
    match failed {
        true => touched((dir, path), true, caller),
        false => {
            if let Some(context) = context() {
                let bits = outcome(false, caller) | more;
                note(context, Kind::Write, bits, dir, path as *const _);
            }
        }
    }
}

/// Notes a call whose end tells whether there was something.
pub(super) fn touched((dir, path): (i32, usize), failed: bool, caller: usize) {
    look_bits((dir, path), outcome(failed, caller) | flags::KEPT);
}

/// Notes what is given another name: whoever reads it there reads what was here.
pub(super) fn moved((dir, path): (i32, usize), failed: bool, caller: usize) {
    touched((dir, path), failed, caller);
}

/// What is to be said of something that such a call made.
fn kind_of_made(which: Real) -> u8 {
    match which {
        Real::symlink | Real::symlinkat => flags::FRESH | flags::KEPT,
        Real::mkdir | Real::mkdirat | Real::link | Real::linkat => flags::FRESH,
        // A directory brings along what was in it before.
        Real::rename | Real::renameat | Real::renameat2 => flags::KEPT,
        _ => 0,
    }
}

/// Makes something of a name that libc chooses.
unsafe fn make_temporary(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = if which == Real::mkdtemp { result == 0 } else { is_error(result) };
    if !failed {
        made((AT_FDCWD, a[0]), 0, false, caller);
    }
    result
}

unsafe fn make_first(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    made((AT_FDCWD, a[0]), kind_of_made(which), is_error(result), caller);
    result
}

unsafe fn make_second(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = is_error(result);
    if which != Real::symlink {
        moved((AT_FDCWD, a[0]), failed, caller);
    }
    made((AT_FDCWD, a[1]), kind_of_made(which), failed, caller);
    result
}

unsafe fn make_at(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let failed = is_error(result);
    let (dir, path) = match which {
        Real::mkdirat => (a[0], a[1]),
        Real::symlinkat => (a[1], a[2]),
        _ => (a[2], a[3]),
    };
    if !matches!(which, Real::mkdirat | Real::symlinkat) {
        moved((a[0] as i32, a[1]), failed, caller);
    }
    made((dir as i32, path), kind_of_made(which), failed, caller);
    result
}

unsafe fn touch_path(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    touched((AT_FDCWD, a[0]), is_error(result), caller);
    result
}

unsafe fn touch_at(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    touched((a[0] as i32, a[1]), is_error(result), caller);
    result
}

export_each! { make_temporary: mkdtemp mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 }
export_each! { make_first: mkdir }
export_each! { make_second: rename link symlink }
export_each! { make_at: renameat renameat2 linkat symlinkat mkdirat }
export_each! { touch_path: unlink rmdir remove truncate truncate64 chmod chdir }
export_each! { touch_at: unlinkat fchmodat }
