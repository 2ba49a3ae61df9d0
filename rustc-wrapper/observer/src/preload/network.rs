//! The functions that reach others: over the network, or over a socket of this machine.
//!
//! What came back cannot be told; it is noted that somebody was asked, and who.

use core::arch::naked_asm;
use core::ffi::c_int;

use super::handed::decimal;
use super::hooks::{address, outcome, real, real_of_six};
use super::paths::{error, note_socket};
use super::state::{Context, context};
use super::symbols::Real;
use super::sys;
use crate::log::{Kind, Lost, MAX_NAME, flags};

const EBADF: c_int = 9;
const EFAULT: c_int = 14;
const ENOTSOCK: c_int = 88;
const EINPROGRESS: c_int = 115;

/// Families of addresses.
const UNSPECIFIED: u16 = 0;
const UNIX: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;

/// Longest address that the system takes, and the longest path in one.
const MAX_ADDRESS: usize = 128;
/// Most messages that are sent at once.
const MAX_MESSAGES: usize = 1024;

/// Where an address lies, and how long it is.
#[derive(Clone, Copy)]
pub(super) struct Address(pub(super) usize, pub(super) usize);

/// Bits for how a call ended; none when the system did not look at the address, so that nobody was
/// asked and nothing may be there.
pub(super) fn ended(failed: bool, caller: usize) -> Option<u8> {
    let bits = outcome(failed, caller);
    match error() {
        EBADF | EFAULT | ENOTSOCK if failed => None,
        // It goes on by itself.
        EINPROGRESS if failed => Some(bits & !flags::FAILED),
        _ => Some(bits),
    }
}

/// Notes an address.
pub(super) fn note_address(Address(at, len): Address, bits: u8) {
    let Some(context) = context() else { return };
    if !(2..=MAX_ADDRESS).contains(&len) || !sys::is_text(at as *const u8) {
        return;
    }
    // SAFETY: the module `preload` says why. The system read the address before.
    let family = unsafe { (at as *const u16).read_unaligned() };
    match family {
        UNIX => note_unix(context, bits, Address(at + 2, len - 2)),
        INET | INET6 => context.note(Kind::Network, bits, b"network"),
        _ => {
            let mut digits = [0; 5];
            let parts: [&[u8]; 2] = [b"family:", decimal(family, &mut digits)];
            context.log.note(context.number, Kind::Network, bits, &parts);
        }
    }
}

fn note_unix(context: &Context, bits: u8, Address(at, len): Address) {
    // SAFETY: as in `note_address`.
    let name = unsafe { core::slice::from_raw_parts(at as *const u8, len) };
    match name.split_first() {
        Some((0, name)) => {
            let parts: [&[u8]; 2] = [b"unix:@", name];
            context.log.note(context.number, Kind::Network, bits, &parts);
        }
        _ => note_socket(context, bits, name.split(|byte| *byte == 0).next().unwrap_or_default()),
    }
}

/// Notes a connection; one to nowhere ends another.
pub(super) fn connected(at: Address, failed: bool, caller: usize) {
    let Some(bits) = ended(failed, caller) else { return };
    // SAFETY: as in `note_address`.
    let nowhere = at.1 >= 2
        && sys::is_text(at.0 as *const u8)
        && unsafe { (at.0 as *const u16).read_unaligned() } == UNSPECIFIED;
    if !nowhere {
        note_address(at, bits);
    }
}

/// Notes the address of a message; what goes to a connected socket has none.
pub(super) fn sent(at: Address, failed: bool, caller: usize) {
    if let Some(bits) = ended(failed, caller).filter(|_| at.0 != 0) {
        note_address(at, bits);
    }
}

/// Notes the address in the header of a message.
pub(super) unsafe fn sent_message(message: usize, failed: bool, caller: usize) {
    if ended(failed, caller).is_some() && message != 0 {
        // SAFETY: as in `note_address`: the system read the header before.
        let (at, len) = unsafe { (*(message as *const usize), *((message + 8) as *const u32)) };
        sent(Address(at, len as usize), failed, caller);
    }
}

/// Notes the addresses in the headers of messages that were sent, or of the one that was not.
pub(super) unsafe fn sent_messages(messages: usize, count: usize, result: usize, caller: usize) {
    const BYTES: usize = 64;
    let failed = result as c_int == -1;
    let tried = if failed { count.min(1) } else { (result as u32 as usize).min(MAX_MESSAGES) };
    for index in 0..tried {
        // SAFETY: as in `sent_message`.
        unsafe { sent_message(messages + index * BYTES, failed, caller) };
    }
}

/// Notes the address of a socket that others may connect to.
pub(super) fn listens(fd: usize, failed: bool, caller: usize) {
    let mut address = [0_u8; MAX_ADDRESS];
    let mut len = MAX_ADDRESS as u32;
    let place = address.as_mut_ptr() as usize;
    let arguments = [fd, place, (&raw mut len) as usize, 0, 0, 0];
    // SAFETY: the module `preload` says why.
    let told = unsafe { sys::call(sys::number::GETSOCKNAME, arguments) } == 0;
    if let (true, Some(bits)) = (told, ended(failed, caller)) {
        note_address(Address(place, len as usize), bits);
    }
}

fn is_error(result: usize) -> bool {
    result as c_int == -1
}

unsafe fn connects(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    connected(Address(a[1], a[2] as u32 as usize), is_error(result), caller);
    result
}

unsafe fn binds(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    sent(Address(a[1], a[2] as u32 as usize), is_error(result), caller);
    result
}

unsafe fn waits(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real(which, a) };
    listens(a[0], is_error(result), caller);
    result
}

unsafe fn sends(which: Real, a: [usize; 6], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    let result = unsafe { real_of_six(which, a) };
    sent(Address(a[4], a[5] as u32 as usize), result as isize == -1, caller);
    result
}

unsafe fn sends_message(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let result = real(which, a);
        sent_message(a[1], result as isize == -1, caller);
        result
    }
}

unsafe fn sends_messages(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let result = real(which, a);
        sent_messages(a[1], a[2] as u32 as usize, result, caller);
        result
    }
}

export_each! { connects: connect }
export_each! { binds: bind }
export_each! { waits: listen }
export_six! { sends: sendto }
export_each! { sends_message: sendmsg }
export_each! { sends_messages: sendmmsg }

// Names --------------------------------------------------------------------------------------

/// Notes a name that is about to be looked up; the address of the function that does it.
unsafe fn looks_up(which: Real, name: usize, caller: usize) -> usize {
    if let Some(context) = context().filter(|_| name != 0) {
        // SAFETY: the module `preload` says why.
        match unsafe { sys::text(name as *const u8, MAX_NAME - 8) } {
            Some(name) => {
                let parts: [&[u8]; 2] = [b"host:", name];
                let bits = outcome(false, caller);
                context.log.note(context.number, Kind::Network, bits, &parts);
            }
            None => context.log.lose(Lost::PATH),
        }
    }
    match address(which) {
        0 if which.returns_pointer() => finds_nothing as *const () as usize,
        0 => fails as *const () as usize,
        address => address,
    }
}

extern "C" fn finds_nothing() -> usize {
    0
}

extern "C" fn fails() -> c_int {
    super::hooks::NO_SUCH_CALL as c_int
}

/// Exports functions that go on to the real one with all arguments as they came: up to eight.
macro_rules! export_names {
    ($($name:ident)*) => {$(
        #[allow(non_snake_case, reason = "libc's own name")]
        mod $name {
            use super::*;
            pub(super) unsafe extern "C" fn target(name: usize, caller: usize) -> usize {
                // SAFETY: the module `preload` says why.
                unsafe { looks_up(Real::$name, name, caller) }
            }
        }

        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9",
                "sub rsp, 8",
                "mov rsi, [rsp + 56]",
                "call {target}",
                "add rsp, 8",
                "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                "jmp rax",
                target = sym $name::target,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!(
                "stp x0, x1, [sp, #-80]!", "stp x2, x3, [sp, #16]",
                "stp x4, x5, [sp, #32]", "stp x6, x7, [sp, #48]", "str x30, [sp, #64]",
                "mov x1, x30",
                "bl {target}",
                "mov x16, x0",
                "ldp x2, x3, [sp, #16]", "ldp x4, x5, [sp, #32]", "ldp x6, x7, [sp, #48]",
                "ldr x30, [sp, #64]", "ldp x0, x1, [sp], #80",
                "br x16",
                target = sym $name::target,
            );
        }
    )*};
}

export_names! { getaddrinfo gethostbyname gethostbyname2 gethostbyname_r gethostbyname2_r }
