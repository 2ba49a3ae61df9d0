//! The functions that open, look at and list files, ask for links and places, and read variables.
//!
//! Each exported function is a few instructions that pass the caller's address on as one more
//! argument and go to a plain function, which calls the real one, notes what was asked and how it
//! ended, and returns what the real one returned. `errno` is left as the real one set it.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};

use super::paths::{note, note_descriptor};
use super::state::context;
use super::symbols::{Real, is_later};
use super::sys::{self, AT_FDCWD};
use crate::log::{Kind, Lost, flags};

const ENOENT: c_int = 2;
const ENOTDIR: c_int = 20;
const ENOSYS: isize = 38;

/// Exports functions that pass the caller's address on as the sixth argument.
macro_rules! export {
    ($($name:ident => $to:path;)*) => {$(
        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            naked_asm!("mov r9, [rsp]", "jmp {to}", to = sym $to);
            #[cfg(target_arch = "aarch64")]
            naked_asm!("mov x5, x30", "b {to}", to = sym $to);
        }
    )*};
}

/// Exports functions by a generic one that is told which real function stands behind.
macro_rules! export_each {
    ($generic:ident: $($name:ident)*) => {$(
        #[allow(non_snake_case, reason = "libc's own name")]
        mod $name {
            use super::*;
            pub(super) unsafe extern "C" fn hook(
                a: usize, b: usize, c: usize, d: usize, e: usize, caller: usize,
            ) -> usize {
                // SAFETY: the module `preload` says why.
                unsafe { $generic(Real::$name, [a, b, c, d, e], caller) }
            }
        }
        export! { $name => $name::hook; }
    )*};
}

pub(super) use {export, export_each};

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

/// Calls a real function with up to five arguments.
pub(super) unsafe fn real(which: Real, a: [usize; 5]) -> usize {
    type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> usize;
    let mut address = which.address();
    if address == 0 {
        // Another object's start calls this before the library's own has run.
        context();
        address = which.address();
    }
    if address == 0 {
        let failed = answer(-ENOSYS);
        return if which.returns_pointer() { 0 } else { failed };
    }
    // SAFETY: the module `preload` says why. Integers and pointers are passed alike, functions with
    // a variable number of them take them in the same registers, and further registers are not
    // looked at.
    unsafe { core::mem::transmute::<usize, Function>(address)(a[0], a[1], a[2], a[3], a[4]) }
}

/// Bits for how a call ended, and who made it.
pub(super) fn outcome(failed: bool, caller: usize) -> u8 {
    let later = if is_later(caller) { flags::LATER } else { 0 };
    if !failed {
        return later;
    }
    // SAFETY: the module `preload` says why.
    match unsafe { *__errno_location() } {
        ENOENT | ENOTDIR => later | flags::FAILED | flags::ABSENT,
        _ => later | flags::FAILED,
    }
}

pub(super) fn is_error(result: usize) -> bool {
    result as c_int == -1
}

// Opening ------------------------------------------------------------------------------------

const WRITE_ONLY: usize = 1;
const ACCESS_MODE: usize = 3;
const CREATE: usize = 0o100;
const EXCLUSIVE: usize = 0o200;
const TRUNCATE: usize = 0o1000;

pub(super) fn note_open(dir: i32, path: usize, how: usize, bits: u8) {
    let Some(context) = context() else { return };
    let path = path as *const c_char;
    let mode = how & ACCESS_MODE;
    if mode != WRITE_ONLY && how & TRUNCATE == 0 {
        note(context, Kind::Read, bits, dir, path);
    }
    let unread = mode == WRITE_ONLY || how & TRUNCATE != 0;
    if unread && (bits & flags::FAILED != 0 || how & CREATE == 0) {
        // How it ended tells whether there was something.
        note(context, Kind::Look, bits | flags::KEPT, dir, path);
    }
    if (mode != 0 || how & (CREATE | TRUNCATE) != 0) && bits & flags::FAILED == 0 {
        let more = match (how & (CREATE | EXCLUSIVE) == CREATE | EXCLUSIVE, how & TRUNCATE) {
            (true, _) => flags::FRESH,
            (false, 0) => flags::KEPT,
            _ => 0,
        };
        note(context, Kind::Write, bits | more, dir, path);
    }
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
    let both = mode.contains(&b'+');
    match mode.first() {
        Some(b'w') => {
            let fresh = if mode.contains(&b'x') { EXCLUSIVE } else { 0 };
            CREATE | TRUNCATE | fresh | if both { 2 } else { WRITE_ONLY }
        }
        Some(b'a') => CREATE | if both { 2 } else { WRITE_ONLY },
        _ => {
            if both {
                2
            } else {
                0
            }
        }
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
export_each! { open_stream: fopen fopen64 freopen freopen64 }

// What programs call that were built with checks of their buffers.
unsafe extern "C" fn open_2(
    a: usize,
    b: usize,
    _: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { open_path(Real::open64, [a, b, 0, 0, 0], caller) }
}

unsafe extern "C" fn openat_2(
    a: usize,
    b: usize,
    c: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { open_at(Real::openat64, [a, b, c, 0, 0], caller) }
}

export! {
    __open_2 => open_2;
    __open64_2 => open_2;
    __openat_2 => openat_2;
    __openat64_2 => openat_2;
}

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
export_each! { list_descriptor: fdopendir getdents64 }

// Looking ------------------------------------------------------------------------------------

const SYMLINK_NOFOLLOW: usize = 0x100;

/// Notes a look at a path relative to a descriptor.
pub(super) fn look_bits((dir, path): (i32, usize), bits: u8) {
    look(dir, path, false, bits);
}

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
export_each! { look_versioned: __xstat __xstat64 __lxstat __lxstat64 }
export_each! { look_at: fstatat fstatat64 statx faccessat }
export_each! { look_at_versioned: __fxstatat __fxstatat64 }

// Links and places ---------------------------------------------------------------------------

unsafe fn resolve(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    let (failed, link) = match which {
        Real::readlink => (result as isize == -1, flags::LINK),
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

export_each! { resolve: readlink realpath canonicalize_file_name }
export_each! { resolve_at: readlinkat }
export_each! { place: getcwd get_current_dir_name }
export! {
    __readlink_chk => readlink::hook;
    __readlinkat_chk => readlinkat::hook;
    __realpath_chk => realpath::hook;
    __getcwd_chk => getcwd::hook;
}

// Variables ----------------------------------------------------------------------------------

unsafe fn variable(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let value = real(which, a);
        if let (Some(context), Some(name)) =
            (context(), sys::text(a[0] as *const u8, crate::log::MAX_NAME))
        {
            context.note(Kind::Variable, outcome(false, caller), name);
        }
        value
    }
}

export_each! { variable: getenv secure_getenv }
export! { __secure_getenv => secure_getenv::hook; }

// What is not followed ------------------------------------------------------------------------

/// Calls a function that opens, lists or starts things inside libc, out of sight.
unsafe fn unseen(which: Real, a: [usize; 5], _caller: usize) -> usize {
    if let Some(context) = context() {
        context.log.lose(Lost::UNSEEN);
    }
    // SAFETY: the module `preload` says why.
    unsafe { real(which, a) }
}

export_each! { unseen: ftw ftw64 nftw nftw64 fts_open fts64_open glob glob64 }
export_each! { unseen: scandirat scandirat64 wordexp popen system }
export_each! { unseen: name_to_handle_at open_by_handle_at }
// After these a path means another file.
export_each! { unseen: chroot unshare setns mount pivot_root }

// Objects ------------------------------------------------------------------------------------

/// Notes an object that is about to be loaded; the address of the function that does it.
unsafe fn loads(which: Real, path: usize, caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let name = unsafe { sys::text(path as *const u8, crate::log::MAX_NAME) };
    if let (Some(context), Some(name)) = (context(), name) {
        context.note(Kind::Object, outcome(false, caller), name);
    }
    match which.address() {
        0 => no_loader as *const () as usize,
        address => address,
    }
}

extern "C" fn no_loader() -> *mut c_void {
    core::ptr::null_mut()
}

unsafe extern "C" fn dlopen_target(path: usize, _: usize, _: usize, caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { loads(Real::dlopen, path, caller) }
}

/// Loads into a name space of its own, without this library.
unsafe extern "C" fn dlmopen_target(_: usize, path: usize, _: usize, caller: usize) -> usize {
    if let Some(context) = context() {
        context.log.lose(Lost::UNSEEN);
    }
    // SAFETY: the module `preload` says why.
    unsafe { loads(Real::dlmopen, path, caller) }
}

/// Exports functions that go on to the real one as if called from where they were called: whose
/// search path counts depends on that.
macro_rules! export_loader {
    ($($name:ident => $target:path;)*) => {$(
        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                "push rdi", "push rsi", "push rdx",
                "mov rcx, [rsp + 24]",
                "call {target}",
                "pop rdx", "pop rsi", "pop rdi",
                "jmp rax",
                target = sym $target,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!(
                "stp x0, x1, [sp, #-32]!", "stp x2, x30, [sp, #16]",
                "mov x3, x30",
                "bl {target}",
                "mov x16, x0",
                "ldp x2, x30, [sp, #16]", "ldp x0, x1, [sp], #32",
                "br x16",
                target = sym $target,
            );
        }
    )*};
}

export_loader! {
    dlopen => dlopen_target;
    dlmopen => dlmopen_target;
}
