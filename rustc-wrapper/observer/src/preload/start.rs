//! The functions that start programs.
//!
//! A child gets the variables back that this process was relieved of, so that it is observed too; see
//! [`super::handed`].

use core::arch::naked_asm;
use core::ffi::{c_char, c_int};

use super::handed::{Given, Handed, List};
use super::hooks::{NO_SUCH_CALL, real};
use super::paths::{note, note_descriptor};
use super::state::{Context, context, environment};
use super::symbols::{Real, is_later};
use super::sys;
use crate::log::{How, Kind, Lost, flags};

fn note_program(context: &Context, kind: Kind, later: bool, pid: u32, path: &[u8]) {
    let bits = if later { flags::LATER } else { 0 };
    context.log.note(context.number, kind, bits, &[&pid.to_le_bytes(), path]);
}

/// How a process that replaces this one is born: in place, or as a child that was forked.
fn how_of_exec(context: &Context, later: bool) -> How {
    match (sys::getpid() == context.pid, later) {
        (true, _) => How::Became,
        (false, true) => How::ChildOfLater,
        (false, false) => How::Child,
    }
}

/// The name of a program that a caller gave, when it is one that the system can read.
unsafe fn program_name<'a>(context: &Context, text: *const c_char) -> Option<&'a [u8]> {
    if !sys::is_text(text.cast()) {
        return None;
    }
    // SAFETY: the module `preload` says why.
    let name = unsafe { sys::text(text.cast(), crate::log::MAX_NAME - 4) };
    if name.is_none() {
        context.log.lose(Lost::CHILD);
    }
    name
}

/// Replaces this process: `run` gets the arguments and the environment to use, and returns only when it
/// failed.
pub(super) unsafe fn become_program(
    given: Given,
    caller: usize,
    run: impl Fn(List, List) -> usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let as_given = || run(given.argv, given.variables);
        let Some(context) = context() else { return as_given() };
        let Some(path) = program_name(context, given.program) else { return as_given() };
        let (later, pid) = (is_later(caller), sys::getpid());
        note_program(context, Kind::Program, later, pid, path);
        let handed = Handed::new(context, how_of_exec(context, later), path, given);
        let result = run(handed.argv(), handed.variables());
        note_program(context, Kind::ProgramFailed, later, pid, path);
        result
    }
}

// exec ---------------------------------------------------------------------------------------

unsafe extern "C" fn execve_hook(
    program: *const c_char,
    argv: List,
    variables: List,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    let given = Given { program, search: false, argv, variables };
    // SAFETY: the module `preload` says why.
    unsafe {
        become_program(given, caller, |argv, variables| {
            real(Real::execve, [program as usize, argv as usize, variables as usize, 0, 0])
        })
    }
}

unsafe extern "C" fn execv_hook(
    program: *const c_char,
    argv: List,
    _: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { execve_hook(program, argv, environment().cast_const().cast(), 0, 0, caller) }
}

unsafe extern "C" fn execvpe_hook(
    program: *const c_char,
    argv: List,
    variables: List,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    let given = Given { program, search: true, argv, variables };
    // SAFETY: the module `preload` says why.
    unsafe {
        become_program(given, caller, |argv, variables| {
            real(Real::execvpe, [program as usize, argv as usize, variables as usize, 0, 0])
        })
    }
}

unsafe extern "C" fn execvp_hook(
    program: *const c_char,
    argv: List,
    _: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { execvpe_hook(program, argv, environment().cast_const().cast(), 0, 0, caller) }
}

/// A program behind a descriptor: its path is told, and the descriptor is what is run.
unsafe extern "C" fn fexecve_hook(
    fd: usize,
    argv: usize,
    variables: usize,
    _: usize,
    _: usize,
    _: usize,
) -> usize {
    if let Some(context) = context() {
        context.log.lose(Lost::CHILD);
        note_descriptor(context, Kind::Read, 0, fd as i32);
    }
    // SAFETY: the module `preload` says why.
    unsafe { real(Real::fexecve, [fd, argv, variables, 0, 0]) }
}

unsafe extern "C" fn execveat_hook(
    dir: usize,
    path: usize,
    argv: usize,
    variables: usize,
    bits: usize,
    _: usize,
) -> usize {
    if let Some(context) = context() {
        context.log.lose(Lost::CHILD);
        note(context, Kind::Read, 0, dir as i32, path as *const c_char);
    }
    // SAFETY: the module `preload` says why.
    unsafe { real(Real::execveat, [dir, path, argv, variables, bits]) }
}

export! {
    execve => execve_hook;
    execv => execv_hook;
    execvp => execvp_hook;
    execvpe => execvpe_hook;
    fexecve => fexecve_hook;
    execveat => execveat_hook;
}

// execl and its kin: the arguments are made a list, as they lie in registers and on the stack.

/// Runs a program with arguments in a list; for `execle` the environment follows the list's end.
unsafe extern "C" fn execl_hook(
    program: *const c_char,
    argv: List,
    kind: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let mut end = argv;
        while !(*end).is_null() {
            end = end.add(1);
        }
        let own: List = environment().cast_const().cast();
        match kind {
            0 => execve_hook(program, argv, own, 0, 0, caller),
            1 => execvpe_hook(program, argv, own, 0, 0, caller),
            _ => execve_hook(program, argv, (*end.add(1)).cast(), 0, 0, caller),
        }
    }
}

macro_rules! export_lists {
    ($($name:ident $kind:literal;)*) => {$(
        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            // The return address moves below the arguments that came in registers, so that these
            // lie right before those on the stack.
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                "pop rax",
                "push r9", "push r8", "push rcx", "push rdx", "push rsi",
                "mov rsi, rsp",
                "push rax",
                concat!("mov edx, ", $kind),
                "mov rcx, rax",
                "call {to}",
                "pop rcx",
                "add rsp, 40",
                "jmp rcx",
                to = sym execl_hook,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!(
                "sub sp, sp, #80",
                "stp x29, x30, [sp]",
                "mov x29, sp",
                "stp x1, x2, [sp, #24]", "stp x3, x4, [sp, #40]",
                "stp x5, x6, [sp, #56]", "str x7, [sp, #72]",
                "add x1, sp, #24",
                concat!("mov x2, ", $kind),
                "mov x3, x30",
                "bl {to}",
                "ldp x29, x30, [sp]",
                "add sp, sp, #80",
                "ret",
                to = sym execl_hook,
            );
        }
    )*};
}

export_lists! {
    execl "0";
    execlp "1";
    execle "2";
}

// posix_spawn --------------------------------------------------------------------------------

type Spawn = unsafe extern "C" fn(*mut c_int, usize, usize, usize, usize, usize) -> c_int;

unsafe fn spawn(which: Real, a: [usize; 6], caller: usize) -> usize {
    // Finds the real functions, when nothing did before.
    let context = context();
    let address = which.address();
    if address == 0 {
        return NO_SUCH_CALL as usize;
    }
    // SAFETY: the module `preload` says why.
    unsafe {
        let real = core::mem::transmute::<usize, Spawn>(address);
        let given = Given {
            program: a[1] as *const c_char,
            search: which == Real::posix_spawnp,
            argv: a[4] as List,
            variables: a[5] as List,
        };
        let run = |pid: *mut c_int, argv: List, variables: List| {
            real(pid, a[1], a[2], a[3], argv as usize, variables as usize) as usize
        };
        let as_given = || run(a[0] as *mut c_int, given.argv, given.variables);
        let Some(context) = context else { return as_given() };
        let Some(path) = program_name(context, given.program) else { return as_given() };
        let later = is_later(caller);
        let how = if later { How::ChildOfLater } else { How::Child };
        let handed = Handed::new(context, how, path, given);
        let mut pid: c_int = 0;
        let result = run(&raw mut pid, handed.argv(), handed.variables());
        let place = a[0] as *mut c_int;
        if !place.is_null() && result == 0 {
            *place = pid;
        }
        note_program(context, Kind::Program, later, pid as u32, path);
        if result != 0 {
            note_program(context, Kind::ProgramFailed, later, pid as u32, path);
        }
        result
    }
}

export_six! { spawn: posix_spawn posix_spawnp }
