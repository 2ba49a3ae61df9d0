//! The system calls that a front needs, made without libc.

#![expect(unsafe_code, reason = "system calls; each use says why it is sound")]

use core::arch::asm;

/// A text that ends with a zero.
pub type Text = *const u8;
/// Texts, the last one followed by a null pointer.
pub type Texts = *const Text;

/// There is no such file.
pub const ENOENT: isize = 2;
/// Somebody has the program open for writing.
pub const ETXTBSY: isize = 26;

const AT_FDCWD: usize = -100_isize as usize;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const WRITE: usize = 1;
    pub(super) const NANOSLEEP: usize = 35;
    pub(super) const EXECVE: usize = 59;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const READLINKAT: usize = 267;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const WRITE: usize = 64;
    pub(super) const NANOSLEEP: usize = 101;
    pub(super) const EXECVE: usize = 221;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const READLINKAT: usize = 78;
}

/// A system call: its result, or minus an error number.
///
/// # Safety
/// The arguments are what the call of that number may be given.
#[cfg(target_arch = "x86_64")]
unsafe fn call(n: usize, a: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the instruction changes what is named here; memory as the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") n => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call: its result, or minus an error number.
///
/// # Safety
/// The arguments are what the call of that number may be given.
#[cfg(target_arch = "aarch64")]
unsafe fn call(n: usize, a: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the instruction changes what is named here; memory as the caller vouches for.
    unsafe {
        asm!(
            "svc #0",
            in("x8") n,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3],
            options(nostack),
        );
    }
    result
}

/// Becomes another program. Comes back only with an error number.
///
/// # Safety
/// All three are what their types say, to their ends.
pub unsafe fn execve(path: Text, arguments: Texts, variables: Texts) -> isize {
    // SAFETY: the system reads the texts; the caller vouches for them.
    let result =
        unsafe { call(number::EXECVE, [path as usize, arguments as usize, variables as usize, 0]) };
    result.wrapping_neg()
}

/// Where a link leads; none when there is none, or no room for the answer.
pub fn readlink<'a>(path: &core::ffi::CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    let arguments = [AT_FDCWD, path.as_ptr() as usize, into.as_mut_ptr() as usize, into.len()];
    // SAFETY: the path ends with a zero; the system writes into `into` within its length.
    let len = unsafe { call(number::READLINKAT, arguments) };
    // An answer as long as its room may be cut off.
    let len = usize::try_from(len).ok().filter(|len| *len > 0 && *len < into.len())?;
    into.get(..len)
}

/// Writes a message to standard error; what cannot be written is lost.
pub fn complain(message: &[u8]) {
    const STANDARD_ERROR: usize = 2;
    let mut rest = message;
    while !rest.is_empty() {
        let arguments = [STANDARD_ERROR, rest.as_ptr() as usize, rest.len(), 0];
        // SAFETY: the system reads `rest` within its length.
        let written = unsafe { call(number::WRITE, arguments) };
        let Some(left) =
            usize::try_from(written).ok().filter(|n| *n > 0).and_then(|n| rest.get(n..))
        else {
            return;
        };
        rest = left;
    }
}

/// Waits.
pub fn pause(nanoseconds: u32) {
    let time: [i64; 2] = [0, i64::from(nanoseconds)];
    // SAFETY: seconds and nanoseconds, as both processors' systems lay them out; nothing is written.
    unsafe { call(number::NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0]) };
}

/// Ends this process.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: it takes a number, and does not come back.
        unsafe { call(number::EXIT_GROUP, [usize::from(status), 0, 0, 0]) };
    }
}
