//! The functions that start programs, and `syscall`.
//!
//! A child gets the variables back that this process was relieved of, so that it is observed too;
//! in a copy of the environment that its starter gave, which is left as it is.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int};

use super::hooks::{answer, look, note_open, outcome, real};
use super::made::moved;
use super::paths::{note, note_descriptor};
use super::program::{found_takes_library, takes_library};
use super::state::{Context, PRELOAD, context, environment, is_named};
use super::symbols::{Real, is_later};
use super::sys::{self, AT_FDCWD, number};
use crate::log::{How, Kind, Lost, VARIABLE, flags};

type Variables = *const *const c_char;

/// An environment with the two variables in front, in memory of its own: the stack may be small.
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
            let mut others: &[u8] = b"";
            while !from.is_null() && !(*from.add(count)).is_null() {
                let variable = *from.add(count);
                count += 1;
                if is_named(variable.cast(), PRELOAD) {
                    let whole = sys::text(variable.cast(), usize::MAX)?;
                    others = whole.get(PRELOAD.len() + 1..)?;
                }
            }
            let mut digits = [0; 5];
            let digits = decimal(context.number, &mut digits);
            let (how, name) = ([how as u8], VARIABLE.as_bytes());
            let between: &[u8] = if others.is_empty() { b"" } else { b":" };
            let (library, path) = (context.library(), context.path());
            let lead: [&[u8]; 9] = [name, b"=", digits, b":", &how, b":", library, b":", path];
            let list: [&[u8]; 5] = [PRELOAD, b"=", library, between, others];
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
            *variables.add(1) = second.cast();
            let mut to = 2;
            for at in 0..count {
                let variable = *from.add(at);
                let own = is_named(variable.cast(), name) || is_named(variable.cast(), PRELOAD);
                if !own {
                    *variables.add(to) = variable;
                    to += 1;
                }
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

fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
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

/// A program to start: by path, or by a bare name that is looked up.
unsafe fn takes(path: &[u8], text: *const c_char, search: bool) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe {
        if !search || path.contains(&b'/') {
            return takes_library(text.cast());
        }
        let variables = environment();
        let list = super::state::find(variables, b"PATH")
            .and_then(|at| sys::text((*variables.add(at)).cast(), 1 << 16)?.get(5..));
        found_takes_library(path, list.unwrap_or(b"/bin:/usr/bin"))
    }
}

/// Replaces this process: `run` gets the environment to use, and returns only when it failed.
unsafe fn become_program(
    (text, search): (*const c_char, bool),
    variables: Variables,
    caller: usize,
    run: impl Fn(Variables) -> usize,
) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        let Some(context) = context() else { return run(variables) };
        let Some(path) = sys::text(text.cast(), crate::log::MAX_NAME - 4) else {
            context.log.lose(Lost::CHILD);
            return run(variables);
        };
        let (later, pid) = (is_later(caller), sys::getpid());
        note_program(context, Kind::Program, later, pid, path);
        let how = how_of_exec(context, later);
        let handed = match takes(path, text, search) {
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

unsafe fn spawn(which: Real, a: [usize; 6], caller: usize) -> c_int {
    // Finds the real functions, when nothing did before.
    let context = context();
    let address = which.address();
    // SAFETY: the module `preload` says why.
    unsafe {
        if address == 0 {
            return 38;
        }
        let real = core::mem::transmute::<usize, Spawn>(address);
        let run = |pid: *mut c_int, variables: usize| real(pid, a[1], a[2], a[3], a[4], variables);
        let Some(context) = context else { return run(a[0] as *mut c_int, a[5]) };
        let text = a[1] as *const c_char;
        let Some(path) = sys::text(text.cast(), crate::log::MAX_NAME - 4) else {
            context.log.lose(Lost::CHILD);
            return run(a[0] as *mut c_int, a[5]);
        };
        let later = is_later(caller);
        let how = if later { How::ChildOfLater } else { How::Child };
        let handed = match takes(path, text, which == Real::posix_spawnp) {
            true => Handed::new(context, how, a[5] as Variables),
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

macro_rules! export_spawns {
    ($($name:ident)*) => {$(
        #[allow(non_snake_case, reason = "libc's own name")]
        mod $name {
            use super::*;
            #[allow(clippy::too_many_arguments, reason = "as many as libc's function has, and one")]
            pub(super) unsafe extern "C" fn hook(
                a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, caller: usize,
            ) -> c_int {
                // SAFETY: the module `preload` says why.
                unsafe { spawn(Real::$name, [a, b, c, d, e, f], caller) }
            }
        }

        /// Stands in front of libc's function of this name.
        #[cfg_attr(preload, unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            // The seventh argument: on the stack, or in the seventh register.
            #[cfg(target_arch = "x86_64")]
            naked_asm!(
                "mov rax, [rsp]", "sub rsp, 8", "mov [rsp], rax",
                "call {to}",
                "add rsp, 8", "ret",
                to = sym $name::hook,
            );
            #[cfg(target_arch = "aarch64")]
            naked_asm!("mov x6, x30", "b {to}", to = sym $name::hook);
        }
    )*};
}

export_spawns! { posix_spawn posix_spawnp }

// syscall ------------------------------------------------------------------------------------

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
                let run = |variables: Variables| {
                    answer(sys::call(n, [a[0], a[1], variables as usize, 0, 0, 0]))
                };
                become_program((a[0] as *const c_char, false), a[2] as Variables, caller, run)
            }
            _ => {
                let result = answer(sys::call(n, a));
                note_call(n, a, result, caller);
                result
            }
        }
    }
}

unsafe fn note_call(n: usize, a: [usize; 6], result: usize, caller: usize) {
    let bits = || outcome(result as isize == -1, caller);
    let tell = |kind, dir: usize, path: usize, more: u8| {
        if let Some(context) = context() {
            note(context, kind, bits() | more, dir as i32, path as *const c_char);
        }
    };
    let here = AT_FDCWD as usize;
    let link = |how: usize| how & 0x100 != 0;
    match n {
        number::OPEN => note_open(AT_FDCWD, a[0], a[1], bits()),
        number::OPENAT => note_open(a[0] as i32, a[1], a[2], bits()),
        // SAFETY: the module `preload` says why. The call succeeded, so the structure is there.
        number::OPENAT2 if result as isize != -1 => unsafe {
            note_open(a[0] as i32, a[1], *(a[2] as *const u64) as usize, bits());
        },
        number::OPENAT2 => tell(Kind::Read, a[0], a[1], 0),
        number::CREAT => note_open(AT_FDCWD, a[0], 0o1101, bits()),
        number::STAT | number::ACCESS => look(AT_FDCWD, a[0], false, bits()),
        number::LSTAT => look(AT_FDCWD, a[0], true, bits()),
        number::NEWFSTATAT => look(a[0] as i32, a[1], link(a[3]), bits()),
        number::STATX => look(a[0] as i32, a[1], link(a[2]), bits()),
        number::FACCESSAT | number::FACCESSAT2 => look(a[0] as i32, a[1], false, bits()),
        number::READLINK => tell(Kind::Resolve, here, a[0], flags::LINK),
        number::READLINKAT => tell(Kind::Resolve, a[0], a[1], flags::LINK),
        number::RENAME | number::LINK => {
            moved((AT_FDCWD, a[0]), result as isize == -1, caller);
            tell(Kind::Write, here, a[1], flags::KEPT);
        }
        number::RENAMEAT | number::RENAMEAT2 | number::LINKAT => {
            moved((a[0] as i32, a[1]), result as isize == -1, caller);
            tell(Kind::Write, a[2], a[3], flags::KEPT);
        }
        number::SYMLINK => tell(Kind::Write, here, a[1], flags::KEPT),
        number::SYMLINKAT => tell(Kind::Write, a[1], a[2], flags::KEPT),
        number::GETDENTS | number::GETDENTS64 => {
            if let Some(context) = context() {
                note_descriptor(context, Kind::List, bits(), a[0] as i32);
            }
        }
        number::GETCWD => {
            // SAFETY: the module `preload` says why.
            let cwd = unsafe { sys::text(a[0] as *const u8, crate::log::MAX_NAME) };
            if let (Some(context), Some(cwd), true) = (context(), cwd, result as isize > 0) {
                context.note(Kind::Cwd, bits(), cwd);
            }
        }
        number::EXECVEAT => {
            if let Some(context) = context() {
                context.log.lose(Lost::CHILD);
            }
        }
        number::IO_URING_SETUP | number::OPEN_BY_HANDLE_AT => {
            if let Some(context) = context() {
                context.log.lose(Lost::PATH);
            }
        }
        _ => {}
    }
}

/// Stands in front of libc's function of this name.
#[cfg_attr(preload, unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall() {
    // The seventh argument is read even where the caller passed fewer: there is always a stack.
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov rax, [rsp]", "mov r10, [rsp + 8]",
        "sub rsp, 24",
        "mov [rsp], r10", "mov [rsp + 8], rax",
        "call {to}",
        "add rsp, 24", "ret",
        to = sym syscall_hook,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x7, x30", "b {to}", to = sym syscall_hook);
}
