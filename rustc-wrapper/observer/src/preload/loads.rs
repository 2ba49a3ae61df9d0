//! The functions that load objects, and those that are not followed: they read, list or start
//! something inside of libc, out of sight.

use core::arch::naked_asm;
use core::ffi::c_void;

use super::hooks::{outcome, real};
use super::state::context;
use super::symbols::Real;
use super::sys;
use crate::log::{Kind, Lost};

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

unsafe extern "C" fn dlopen_target(path: usize, how: usize, _: usize, caller: usize) -> usize {
    // Its own functions go before this library's then.
    const DEEPBIND: usize = 8;
    if let Some(context) = context().filter(|_| how & DEEPBIND != 0) {
        context.log.lose(Lost::UNSEEN);
    }
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
