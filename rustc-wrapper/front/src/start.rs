//! The program: from the first instruction to the `execve` of Kiln or of the real program.

#![expect(unsafe_code, reason = "the kernel hands over pointers; each use says why it is sound")]

use core::ptr::null;

use crate::block::{BLOCK_BYTES, EMPTY, Told};
use crate::choice::{is_wanted, real_path};
use crate::sys::{self, Text, Texts};

/// Longest path of the real program, with the zero at its end; the system takes none that is longer.
pub const MAX_PATH: usize = 4096;
/// Most arguments that are handed to Kiln, the program's name among them. Cargo gives a build script
/// none but that.
pub const MAX_ARGUMENTS: usize = 64;

/// The variable that programs do not see: `kiln` hides it from those that it runs.
const HIDDEN: &[u8] = b"KILN_TOKEN";
/// What stands before the arguments of the run: Kiln's own name, its command, the real program.
const LEAD: usize = 3;
/// Longest complaint, bytes.
const MAX_COMPLAINT: usize = MAX_PATH + 512;
/// How often a program is tried that somebody has open for writing, and how long in between.
const TRIES: usize = 25;
const PAUSE_NANOSECONDS: u32 = 20_000_000;
/// A program that cannot be run, and one that is not there: as shells tell it.
const CANNOT_RUN: u8 = 126;
const NOT_THERE: u8 = 127;

/// What `kiln` fills in, in the file of the program.
#[cfg_attr(front, used)]
#[cfg_attr(front, unsafe(link_section = ".kiln_front"))]
static BLOCK: [u8; BLOCK_BYTES] = EMPTY;

/// How this process was started. All of it lies on its stack, as long as the process lives.
#[derive(Debug, Clone, Copy)]
struct Started {
    arguments: Texts,
    count: usize,
    variables: Texts,
}

/// The first instructions: the kernel has left everything at the stack pointer.
#[cfg(all(front, target_arch = "x86_64"))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {begin}",
        "ud2",
        begin = sym begin,
    )
}

/// The first instructions: the kernel has left everything at the stack pointer.
#[cfg(all(front, target_arch = "aarch64"))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "mov x29, #0",
        "mov x30, #0",
        "mov x0, sp",
        "bl {begin}",
        "brk #1",
        begin = sym begin,
    )
}

/// Reads what the kernel left: a number, so many arguments, a null pointer, the variables.
///
/// # Safety
/// `stack` is the stack pointer that the process began with.
pub unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel's promise of what lies there.
    let started = unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<Text>();
        Started { arguments, count, variables: arguments.add(count + 1) }
    };
    run(started)
}

fn run(started: Started) -> ! {
    let mut block = [0; BLOCK_BYTES];
    for (to, from) in block.iter_mut().zip(&BLOCK) {
        // SAFETY: it is a reference. Volatile, since the file says something else than the source.
        *to = unsafe { core::ptr::read_volatile(from) };
    }
    let (mut link, mut path) = ([0; MAX_PATH], [0; MAX_PATH]);
    let (told, real) = match Told::of_block(&block) {
        Some(told) => (told, find_real(&told, started, (&mut link, &mut path))),
        None => give_up(b"nothing is known of it", sys::ENOENT, started),
    };
    let Some(real) = real else { give_up(told.real, sys::ENOENT, started) };
    if is_wanted(&told, |name| started.variable(name)) {
        hand_over(&told, real, started);
    }
    started.hide(HIDDEN);
    // SAFETY: the path ends with a zero; arguments and variables are this process's own.
    let error = become_program(|| unsafe {
        sys::execve(real.as_ptr(), started.arguments, started.variables)
    });
    give_up(real.split_last().map_or(real, |(_, path)| path), error, started)
}

/// Path of the real program, with a zero at its end: beside this one, by what the kernel says of it,
/// else by its own first argument.
fn find_real<'a>(
    told: &Told<'_>,
    started: Started,
    (link, path): (&mut [u8], &'a mut [u8]),
) -> Option<&'a [u8]> {
    let own = sys::readlink(c"/proc/self/exe", link).or_else(|| started.own_name())?;
    real_path(own, told.real, path)
}

/// Becomes Kiln; comes back when that is not possible.
fn hand_over(told: &Told<'_>, real: &[u8], started: Started) {
    if started.count == 0 || started.count > MAX_ARGUMENTS {
        return;
    }
    let mut arguments: [Text; LEAD + MAX_ARGUMENTS + 1] = [null(); _];
    let lead = [told.kiln.as_ptr(), c"run-build-script".as_ptr().cast(), real.as_ptr()];
    for (to, from) in arguments.iter_mut().zip(lead.into_iter().chain(started.arguments())) {
        *to = from;
    }
    // SAFETY: in its block Kiln's path is followed by a zero, and so is `real`; the list is longer
    // than what was written into it, so that a null pointer ends it.
    become_program(|| unsafe {
        sys::execve(told.kiln.as_ptr(), arguments.as_ptr(), started.variables)
    });
}

/// Tries to become a program, again when somebody is about to have written it; the error number.
fn become_program(execve: impl Fn() -> isize) -> isize {
    let mut error = execve();
    for _ in 1..TRIES {
        if error != sys::ETXTBSY {
            break;
        }
        sys::pause(PAUSE_NANOSECONDS);
        error = execve();
    }
    error
}

impl Started {
    /// The arguments, the program's name first.
    fn arguments(self) -> impl Iterator<Item = Text> {
        // SAFETY: there are `count` of them.
        (0..self.count).map(move |at| unsafe { *self.arguments.add(at) })
    }

    /// What this program was called.
    fn own_name(self) -> Option<&'static [u8]> {
        // SAFETY: arguments end with a zero, and stay.
        self.arguments().next().map(|name| unsafe { bytes(name) })
    }

    /// Takes a variable out of those that a program is started with.
    fn hide(self, name: &[u8]) {
        let (mut from, mut to) = (self.variables, self.variables.cast_mut());
        loop {
            // SAFETY: a null pointer ends the list, which was not passed yet; it is on this process's stack, and `to`
            // is never behind `from`.
            unsafe {
                let text = *from;
                if text.is_null() {
                    *to = text;
                    return;
                }
                let rest = bytes(text).strip_prefix(name);
                if rest.is_none_or(|rest| rest.first() != Some(&b'=')) {
                    *to = text;
                    to = to.add(1);
                }
                from = from.add(1);
            }
        }
    }

    /// The value of a variable, the first of that name.
    fn variable(self, name: &[u8]) -> Option<&'static [u8]> {
        let mut at = self.variables;
        loop {
            // SAFETY: a null pointer ends the list, which was not reached yet; variables end with a
            // zero, and stay.
            let variable = unsafe {
                if (*at).is_null() {
                    return None;
                }
                bytes(*at)
            };
            let value = variable.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"="));
            if value.is_some() {
                return value;
            }
            // SAFETY: this was not the last one.
            at = unsafe { at.add(1) };
        }
    }
}

/// The bytes of a text.
///
/// # Safety
/// It ends with a zero, and is there as long as this process.
unsafe fn bytes(text: Text) -> &'static [u8] {
    let mut len = 0;
    // SAFETY: up to the zero it can be read.
    unsafe {
        while *text.add(len) != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(text, len)
    }
}

/// Says which program cannot be run, with the system's number for the reason, and ends.
fn give_up(program: &[u8], error: isize, started: Started) -> ! {
    let package = started.variable(b"CARGO_PKG_NAME").unwrap_or(b"PACKAGE");
    let (tens, ones) = (b'0' + (error / 10 % 10) as u8, b'0' + (error % 10) as u8);
    let parts: [&[u8]; 7] = [
        b"kiln: error: the program of this build script cannot be run: ",
        program,
        b": error ",
        if error < 10 { &[ones] } else { &[tens, ones] },
        b"\n  hint: `cargo clean -p ",
        package,
        b"` makes cargo compile it again\n",
    ];
    let mut message = [0; MAX_COMPLAINT];
    let mut len = 0;
    for (to, from) in message.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
        len += 1;
    }
    sys::complain(message.get(..len).unwrap_or_default());
    sys::exit(if error == sys::ENOENT { NOT_THERE } else { CANNOT_RUN })
}

/// What the compiler takes for granted that every program has.
#[cfg(front)]
mod memory {
    use core::ptr::{read_volatile, write_volatile};

    // Volatile, so that no loop is taken for the very function that it is the body of.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        for at in 0..len {
            // SAFETY: the caller vouches for `len` bytes at both places.
            unsafe { write_volatile(to.add(at), read_volatile(from.add(at))) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        for step in 0..len {
            let at = if to.cast_const() < from { step } else { len - 1 - step };
            // SAFETY: the caller vouches for `len` bytes at both places.
            unsafe { write_volatile(to.add(at), read_volatile(from.add(at))) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
        for at in 0..len {
            // SAFETY: the caller vouches for `len` bytes.
            unsafe { write_volatile(to.add(at), byte as u8) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for at in 0..len {
            // SAFETY: the caller vouches for `len` bytes at both places.
            let (a, b) = unsafe { (read_volatile(a.add(at)), read_volatile(b.add(at))) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        // SAFETY: as for the one that says more.
        unsafe { memcmp(a, b, len) }
    }
}

/// No path leads here: the build of the program fails when a call of it is left.
#[cfg(front)]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn kiln_front_can_panic() -> !;
    }
    // SAFETY: there is no such function; this only has to be refused when it is linked.
    unsafe { kiln_front_can_panic() }
}
