//! `syscall`: system calls by number.

use core::arch::naked_asm;
use core::ffi::c_char;

use super::handed::{Given, List};
use super::hooks::{answer, enter, look, note_open, outcome};
use super::makes::{At, HERE, made, moved, touched, touched_open};
use super::network::{Address, connected, listens, sent, sent_message, sent_messages};
use super::paths::{note, note_descriptor};
use super::start::become_program;
use super::state::context;
use super::sys::{self, AT_FDCWD, number};
use crate::log::{Kind, Lost, flags};

/// A system call by number. Those that are not of interest, which are nearly all, go straight on.
#[allow(clippy::too_many_arguments, reason = "as many as libc's function has, and one")]
unsafe extern "C" fn syscall_hook(
    n: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
    caller: usize,
) -> usize {
    let a = [a, b, c, d, e, f];
    // SAFETY: the module `preload` says why.
    unsafe {
        match n {
            number::EXECVE => {
                let (argv, variables) = (a[1] as List, a[2] as List);
                let program = a[0] as *const c_char;
                let run = |argv: List, variables: List| {
                    answer(sys::call(n, [a[0], argv as usize, variables as usize, 0, 0, 0]))
                };
                become_program(Given { program, search: false, argv, variables }, caller, run)
            }
            number::CHDIR => enter(a[0], caller, || answer(sys::call(n, a))),
            _ => {
                note_before(n);
                let result = answer(sys::call(n, a));
                note_call(n, a, result, caller);
                result
            }
        }
    }
}

/// Notes calls that are not followed; some of them do not come back.
fn note_before(n: usize) {
    let what = match n {
        number::EXECVEAT => Lost::CHILD,
        number::IO_URING_SETUP | number::OPEN_BY_HANDLE_AT => Lost::PATH,
        // After these a path means another file.
        number::CHROOT | number::PIVOT_ROOT | number::MOUNT | number::UNSHARE | number::SETNS => {
            Lost::UNSEEN
        }
        _ => return,
    };
    if let Some(context) = context() {
        context.log.lose(what);
    }
}

unsafe fn note_call(n: usize, a: [usize; 6], result: usize, caller: usize) {
    let failed = result as isize == -1;
    let bits = || outcome(failed, caller);
    let link = |how: usize| how & 0x100 != 0;
    match n {
        number::OPEN => note_open(AT_FDCWD, a[0], a[1], bits()),
        number::OPENAT => note_open(a[0] as i32, a[1], a[2], bits()),
        number::OPENAT2 => {
            // SAFETY: the module `preload` says why. The call succeeded, so the structure is there.
            let how = if failed { 0 } else { unsafe { *(a[2] as *const u64) } };
            note_open(a[0] as i32, a[1], how as usize, bits());
        }
        number::CREAT => note_open(AT_FDCWD, a[0], 0o1101, bits()),
        number::STAT | number::ACCESS => look(AT_FDCWD, a[0], false, bits()),
        number::LSTAT => look(AT_FDCWD, a[0], true, bits()),
        number::NEWFSTATAT | number::FACCESSAT2 => look(a[0] as i32, a[1], link(a[3]), bits()),
        number::STATX => look(a[0] as i32, a[1], link(a[2]), bits()),
        number::FACCESSAT => look(a[0] as i32, a[1], false, bits()),
        number::READLINK => leads(At(HERE, a[0]), bits()),
        number::READLINKAT => leads(At(a[0], a[1]), bits()),
        number::MKDIR => made(failed, At(HERE, a[0]), bits() | flags::FRESH),
        number::MKDIRAT => made(failed, At(a[0], a[1]), bits() | flags::FRESH),
        number::RENAME | number::LINK => {
            moved(failed, (At(HERE, a[0]), At(HERE, a[1])), n == number::RENAME, bits());
        }
        number::RENAMEAT | number::RENAMEAT2 | number::LINKAT => {
            moved(failed, (At(a[0], a[1]), At(a[2], a[3])), n != number::LINKAT, bits());
        }
        number::SYMLINK => made(failed, At(HERE, a[1]), bits() | flags::KEPT | flags::FRESH),
        number::SYMLINKAT => made(failed, At(a[1], a[2]), bits() | flags::KEPT | flags::FRESH),
        number::GETDENTS | number::GETDENTS64 if !failed => lists(a[0], bits()),
        // SAFETY: the module `preload` says why. The call succeeded, so the text is there.
        number::GETCWD if !failed => unsafe { told(a[0], bits()) },
        _ => {
            note_change(n, a, failed, bits);
            // SAFETY: as above.
            unsafe { note_network(n, a, result, caller) };
        }
    }
}

/// Notes calls that change what they name.
fn note_change(n: usize, a: [usize; 6], failed: bool, bits: impl Fn() -> u8) {
    match n {
        number::UNLINK | number::RMDIR | number::TRUNCATE | number::CHMOD | number::CHOWN => {
            touched(At(HERE, a[0]), bits());
        }
        number::UTIME | number::UTIMES | number::SETXATTR => touched(At(HERE, a[0]), bits()),
        number::LCHOWN | number::LSETXATTR => touched(At(HERE, a[0]), bits() | flags::LINK),
        number::UNLINKAT | number::FCHMODAT | number::FCHOWNAT => touched(At(a[0], a[1]), bits()),
        number::UTIMENSAT | number::FUTIMESAT => touched(At(a[0], a[1]), bits()),
        number::FTRUNCATE | number::FCHMOD | number::FCHOWN => touched_open(failed, a[0], bits()),
        number::MKNOD => made(failed, At(HERE, a[0]), bits() | flags::FRESH),
        number::MKNODAT => made(failed, At(a[0], a[1]), bits() | flags::FRESH),
        _ => {}
    }
}

/// Notes calls that reach others.
unsafe fn note_network(n: usize, a: [usize; 6], result: usize, caller: usize) {
    let failed = result as isize == -1;
    // SAFETY: the module `preload` says why; see the functions.
    unsafe {
        match n {
            number::CONNECT => connected(Address(a[1], a[2]), failed, caller),
            number::BIND => sent(Address(a[1], a[2]), failed, caller),
            number::SENDTO => sent(Address(a[4], a[5]), failed, caller),
            number::LISTEN => listens(a[0], failed, caller),
            number::SENDMSG => sent_message(a[1], failed, caller),
            number::SENDMMSG => sent_messages(a[1], a[2], result, caller),
            _ => {}
        }
    }
}

fn leads(At(dir, path): At, bits: u8) {
    if let Some(context) = context() {
        note(context, Kind::Resolve, bits | flags::LINK, dir as i32, path as *const c_char);
    }
}

fn lists(fd: usize, bits: u8) {
    if let Some(context) = context() {
        note_descriptor(context, Kind::List, bits, fd as i32);
    }
}

unsafe fn told(place: usize, bits: u8) {
    // SAFETY: the caller's.
    let place = unsafe { sys::text(place as *const u8, crate::log::MAX_NAME) };
    if let (Some(context), Some(place)) = (context(), place) {
        context.note(Kind::Cwd, bits, place);
    }
}

/// Sets `errno` from the result of a system call.
extern "C" fn answer_of(result: isize) -> usize {
    answer(result)
}

/// Stands in front of libc's function of this name.
///
/// A call that makes a process or a thread goes on with nothing on the stack, as libc's function
/// does: the child may have another stack, or the same one as its parent.
#[cfg_attr(preload, unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall() {
    // The seventh argument is read even where the caller passed fewer: there is always a stack.
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "cmp rdi, {clone3}", "je 2f",
        "lea rax, [rdi - {clone}]", "cmp rax, 2", "jbe 2f",
        "mov rax, [rsp]", "mov r10, [rsp + 8]",
        "sub rsp, 24",
        "mov [rsp], r10", "mov [rsp + 8], rax",
        "call {to}",
        "add rsp, 24", "ret",
        "2:",
        "mov rax, rdi", "mov rdi, rsi", "mov rsi, rdx", "mov rdx, rcx",
        "mov r10, r8", "mov r8, r9", "mov r9, [rsp + 8]",
        "syscall",
        "mov rdi, rax", "jmp {answer}",
        // Behind it come `fork` and `vfork`.
        clone = const number::CLONE,
        clone3 = const number::CLONE3,
        to = sym syscall_hook,
        answer = sym answer_of,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "cmp x0, {clone}", "b.eq 2f",
        "cmp x0, {clone3}", "b.eq 2f",
        "mov x7, x30", "b {to}",
        "2:",
        "mov x8, x0", "mov x0, x1", "mov x1, x2", "mov x2, x3",
        "mov x3, x4", "mov x4, x5", "mov x5, x6",
        "svc #0",
        "b {answer}",
        clone = const number::CLONE,
        clone3 = const number::CLONE3,
        to = sym syscall_hook,
        answer = sym answer_of,
    );
}
