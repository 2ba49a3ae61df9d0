//! The functions that start programs.
//!
//! A child gets the variables back that this process was relieved of, so that it is observed too;
//! in a copy of the environment that its starter gave, which is left as it is.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int};

use super::hooks::{NO_SUCH_CALL, real};
use super::paths::{note, note_descriptor};
use super::program::{found_takes_library, takes_library};
use super::state::{Context, PRELOAD, context, environment, find, is_named};
use super::symbols::{Real, is_later};
use super::sys;
use crate::log::{How, Kind, Lost, VARIABLE, flags};

pub(super) type Variables = *const *const c_char;

/// An environment with the two variables, in memory of its own: the stack may be small. A list of
/// preloaded libraries stays where it stood.
struct Handed {
    memory: *mut u8,
    bytes: usize,
}

impl Handed {
    /// Copies an environment; none when there is no memory for it.
    ///
    /// The copy is given back when this is dropped. A process that shares its memory with its starter
    /// (`vfork`) and becomes another program leaves it behind, a page or two.
    unsafe fn new(context: &Context, how: How, from: Variables) -> Option<Self> {
        const POINTER: usize = size_of::<*const c_char>();
        // SAFETY: the module `preload` says why.
        unsafe {
            let mut count = 0;
            let mut others: Option<&[u8]> = None;
            while !from.is_null() && !(*from.add(count)).is_null() {
                let variable = *from.add(count);
                count += 1;
                if is_named(variable.cast(), PRELOAD) {
                    let whole = sys::text(variable.cast(), usize::MAX)?;
                    others = whole.get(PRELOAD.len() + 1..);
                }
            }
            let mut digits = [0; 5];
            let digits = decimal(context.number, &mut digits);
            let (how, name) = ([how as u8], VARIABLE.as_bytes());
            let between: &[u8] = if others.is_some() { b":" } else { b"" };
            let (library, path) = (context.library(), context.path());
            let lead: [&[u8]; 9] = [name, b"=", digits, b":", &how, b":", library, b":", path];
            let list: [&[u8]; 5] = [PRELOAD, b"=", library, between, others.unwrap_or_default()];
            let len = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>() + 1;
            let texts = len(&lead) + len(&list);
            let bytes = (count + 3) * POINTER + texts;
            let memory = sys::allocate(bytes)?;
            // Fresh memory is zero: the list ends, and so do the texts.
            let variables = memory.cast::<*const c_char>();
            let first = memory.add((count + 3) * POINTER);
            let second = write(first, &lead);
            write(second, &list);
            *variables = first.cast();
            let mut to = 1;
            if others.is_none() {
                *variables.add(1) = second.cast();
                to = 2;
            }
            for at in 0..count {
                let variable = *from.add(at);
                if is_named(variable.cast(), PRELOAD) {
                    *variables.add(to) = second.cast();
                } else {
                    *variables.add(to) = variable;
                }
                to += 1;
            }
            Some(Self { memory, bytes })
        }
    }

    fn variables(&self) -> Variables {
        self.memory.cast_const().cast()
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // SAFETY: the module `preload` says why; nobody has the copy any more.
        unsafe { sys::free(self.memory, self.bytes) };
    }
}

/// Writes parts one after another; where the next text begins, behind a zero.
unsafe fn write(mut to: *mut u8, parts: &[&[u8]]) -> *mut u8 {
    for part in parts {
        // SAFETY: the module `preload` says why; the caller counted the bytes.
        unsafe {
            to.copy_from_nonoverlapping(part.as_ptr(), part.len());
            to = to.add(part.len());
        }
    }
    // SAFETY: as above.
    unsafe { to.add(1) }
}

pub(super) fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    digits.get(5 - count..).unwrap_or_default()
}

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

/// Whether a program is to be started with a lead of its starter's own: another wrapper observes its
/// compiler itself, or wants nobody to.
unsafe fn has_own_lead(variables: Variables) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe {
        !variables.is_null() && find(variables.cast_mut().cast(), VARIABLE.as_bytes()).is_some()
    }
}

/// Whether a program to start takes the library: by path, or by a bare name that is looked up.
unsafe fn takes(context: &Context, path: &[u8], text: *const c_char, search: bool) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe {
        if !context.library_is_there() {
            return false;
        }
        if !search || path.contains(&b'/') {
            return takes_library(text.cast());
        }
        let variables = environment();
        let list = find(variables, b"PATH")
            .and_then(|at| sys::text((*variables.add(at)).cast(), 1 << 16)?.get(5..));
        found_takes_library(path, list.unwrap_or(b"/bin:/usr/bin"))
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

/// Replaces this process: `run` gets the environment to use, and returns only when it failed.
pub(super) unsafe fn become_program(
    (text, search): (*const c_char, bool),
    variables: Variables,
    caller: usize,
    run: impl Fn(Variables) -> usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let Some(context) = context() else { return run(variables) };
        let Some(path) = program_name(context, text) else { return run(variables) };
        let (later, pid) = (is_later(caller), sys::getpid());
        note_program(context, Kind::Program, later, pid, path);
        let how = how_of_exec(context, later);
        let handed = match !has_own_lead(variables) && takes(context, path, text, search) {
            true => Handed::new(context, how, variables),
            false => None,
        };
        let result = run(handed.as_ref().map_or(variables, Handed::variables));
        note_program(context, Kind::ProgramFailed, later, pid, path);
        result
    }
}

// exec ---------------------------------------------------------------------------------------

unsafe extern "C" fn execve_hook(
    path: *const c_char,
    argv: usize,
    variables: Variables,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        become_program((path, false), variables, caller, |variables| {
            real(Real::execve, [path as usize, argv, variables as usize, 0, 0])
        })
    }
}

unsafe extern "C" fn execv_hook(
    path: *const c_char,
    argv: usize,
    _: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { execve_hook(path, argv, environment().cast_const().cast(), 0, 0, caller) }
}

unsafe extern "C" fn execvpe_hook(
    file: *const c_char,
    argv: usize,
    variables: Variables,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        become_program((file, true), variables, caller, |variables| {
            real(Real::execvpe, [file as usize, argv, variables as usize, 0, 0])
        })
    }
}

unsafe extern "C" fn execvp_hook(
    file: *const c_char,
    argv: usize,
    _: usize,
    _: usize,
    _: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe { execvpe_hook(file, argv, environment().cast_const().cast(), 0, 0, caller) }
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
    path: *const c_char,
    argv: usize,
    kind: usize,
    caller: usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let mut end = argv as *const usize;
        while *end != 0 {
            end = end.add(1);
        }
        let own = environment() as usize;
        match kind {
            0 => execve_hook(path, argv, own as Variables, 0, 0, caller),
            1 => execvpe_hook(path, argv, own as Variables, 0, 0, caller),
            _ => execve_hook(path, argv, *end.add(1) as Variables, 0, 0, caller),
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
    // SAFETY: the module `preload` says why.
    unsafe {
        if address == 0 {
            return NO_SUCH_CALL as usize;
        }
        let real = core::mem::transmute::<usize, Spawn>(address);
        let run = |pid: *mut c_int, variables: usize| {
            real(pid, a[1], a[2], a[3], a[4], variables) as usize
        };
        let Some(context) = context else { return run(a[0] as *mut c_int, a[5]) };
        let text = a[1] as *const c_char;
        let Some(path) = program_name(context, text) else {
            return run(a[0] as *mut c_int, a[5]);
        };
        let later = is_later(caller);
        let how = if later { How::ChildOfLater } else { How::Child };
        let (given, search) = (a[5] as Variables, which == Real::posix_spawnp);
        let handed = match !has_own_lead(given) && takes(context, path, text, search) {
            true => Handed::new(context, how, given),
            false => None,
        };
        let mut pid: c_int = 0;
        let result = run(&raw mut pid, handed.as_ref().map_or(a[5], |h| h.variables() as usize));
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
