//! System calls, made without libc: they leave `errno` alone and cannot be observed themselves.

use core::arch::asm;

/// A descriptor that stands for the working directory.
pub const AT_FDCWD: i32 = -100;

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
#[allow(missing_docs, reason = "the system's own names")]
pub mod number {
    pub const READ: usize = 0;
    pub const PREAD: usize = 17;
    pub const OPEN: usize = 2;
    pub const CLOSE: usize = 3;
    pub const STAT: usize = 4;
    pub const LSTAT: usize = 6;
    pub const LSEEK: usize = 8;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const ACCESS: usize = 21;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const GETDENTS: usize = 78;
    pub const GETCWD: usize = 79;
    pub const CHDIR: usize = 80;
    pub const RENAME: usize = 82;
    pub const MKDIR: usize = 83;
    pub const CREAT: usize = 85;
    pub const LINK: usize = 86;
    pub const SYMLINK: usize = 88;
    pub const READLINK: usize = 89;
    pub const GETDENTS64: usize = 217;
    pub const OPENAT: usize = 257;
    pub const NEWFSTATAT: usize = 262;
    pub const RENAMEAT: usize = 264;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
    pub const RENAMEAT2: usize = 316;
    pub const EXECVEAT: usize = 322;
    pub const STATX: usize = 332;
    pub const OPENAT2: usize = 437;
    pub const FACCESSAT2: usize = 439;
    pub const LINKAT: usize = 265;
    pub const SYMLINKAT: usize = 266;
    pub const IO_URING_SETUP: usize = 425;
    pub const OPEN_BY_HANDLE_AT: usize = 304;
    pub const MKDIRAT: usize = 258;
    pub const PIVOT_ROOT: usize = 155;
    pub const CHROOT: usize = 161;
    pub const MOUNT: usize = 165;
    pub const UNSHARE: usize = 272;
    pub const SETNS: usize = 308;
    pub const CLONE3: usize = 435;
    pub const GETSOCKNAME: usize = 51;
    pub const CONNECT: usize = 42;
    pub const SENDTO: usize = 44;
    pub const SENDMSG: usize = 46;
    pub const BIND: usize = 49;
    pub const LISTEN: usize = 50;
    pub const SENDMMSG: usize = 307;
    pub const TRUNCATE: usize = 76;
    pub const FTRUNCATE: usize = 77;
    pub const RMDIR: usize = 84;
    pub const UNLINK: usize = 87;
    pub const CHMOD: usize = 90;
    pub const FCHMOD: usize = 91;
    pub const CHOWN: usize = 92;
    pub const FCHOWN: usize = 93;
    pub const LCHOWN: usize = 94;
    pub const UTIME: usize = 132;
    pub const MKNOD: usize = 133;
    pub const SETXATTR: usize = 188;
    pub const LSETXATTR: usize = 189;
    pub const UTIMES: usize = 235;
    pub const MKNODAT: usize = 259;
    pub const FCHOWNAT: usize = 260;
    pub const FUTIMESAT: usize = 261;
    pub const UNLINKAT: usize = 263;
    pub const FCHMODAT: usize = 268;
    pub const UTIMENSAT: usize = 280;
}

/// Numbers of system calls. Those that this processor does not have are out of range.
#[cfg(target_arch = "aarch64")]
#[allow(missing_docs, reason = "the system's own names")]
pub mod number {
    const NONE: usize = usize::MAX;
    pub const READ: usize = 63;
    pub const PREAD: usize = 67;
    pub const OPEN: usize = NONE;
    pub const CLOSE: usize = 57;
    pub const LSEEK: usize = 62;
    pub const STAT: usize = NONE - 1;
    pub const LSTAT: usize = NONE - 2;
    pub const MMAP: usize = 222;
    pub const MUNMAP: usize = 215;
    pub const ACCESS: usize = NONE - 3;
    pub const GETPID: usize = 172;
    pub const EXECVE: usize = 221;
    pub const GETDENTS: usize = NONE - 4;
    pub const GETCWD: usize = 17;
    pub const RENAME: usize = NONE - 5;
    pub const CREAT: usize = NONE - 6;
    pub const LINK: usize = NONE - 7;
    pub const SYMLINK: usize = NONE - 8;
    pub const READLINK: usize = NONE - 9;
    pub const GETDENTS64: usize = 61;
    pub const OPENAT: usize = 56;
    pub const NEWFSTATAT: usize = 79;
    pub const RENAMEAT: usize = 38;
    pub const READLINKAT: usize = 78;
    pub const FACCESSAT: usize = 48;
    pub const RENAMEAT2: usize = 276;
    pub const EXECVEAT: usize = 281;
    pub const STATX: usize = 291;
    pub const OPENAT2: usize = 437;
    pub const FACCESSAT2: usize = 439;
    pub const LINKAT: usize = 37;
    pub const SYMLINKAT: usize = 36;
    pub const IO_URING_SETUP: usize = 425;
    pub const OPEN_BY_HANDLE_AT: usize = 265;
    pub const CHDIR: usize = 49;
    pub const MKDIR: usize = NONE - 10;
    pub const MKDIRAT: usize = 34;
    pub const PIVOT_ROOT: usize = 41;
    pub const CHROOT: usize = 51;
    pub const MOUNT: usize = 40;
    pub const UNSHARE: usize = 97;
    pub const SETNS: usize = 268;
    pub const CLONE: usize = 220;
    pub const CLONE3: usize = 435;
    pub const GETSOCKNAME: usize = 204;
    pub const CONNECT: usize = 203;
    pub const SENDTO: usize = 206;
    pub const SENDMSG: usize = 211;
    pub const BIND: usize = 200;
    pub const LISTEN: usize = 201;
    pub const SENDMMSG: usize = 269;
    pub const TRUNCATE: usize = 45;
    pub const FTRUNCATE: usize = 46;
    pub const RMDIR: usize = NONE - 11;
    pub const UNLINK: usize = NONE - 12;
    pub const CHMOD: usize = NONE - 13;
    pub const FCHMOD: usize = 52;
    pub const CHOWN: usize = NONE - 14;
    pub const FCHOWN: usize = 55;
    pub const LCHOWN: usize = NONE - 15;
    pub const UTIME: usize = NONE - 16;
    pub const MKNOD: usize = NONE - 17;
    pub const SETXATTR: usize = 5;
    pub const LSETXATTR: usize = 6;
    pub const UTIMES: usize = NONE - 18;
    pub const MKNODAT: usize = 33;
    pub const FCHOWNAT: usize = 54;
    pub const FUTIMESAT: usize = NONE - 19;
    pub const UNLINKAT: usize = 35;
    pub const FCHMODAT: usize = 53;
    pub const UTIMENSAT: usize = 88;
}

/// The bit of `open` that wants a directory.
#[cfg(target_arch = "x86_64")]
const DIRECTORY: i32 = 0o200_000;
/// The bit of `open` that wants a directory.
#[cfg(target_arch = "aarch64")]
const DIRECTORY: i32 = 0o40_000;

/// A system call: its result, or minus an error number.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(n: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the module `preload` says why.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") n => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call: its result, or minus an error number.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(n: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the module `preload` says why.
    unsafe {
        asm!(
            "svc #0",
            in("x8") n,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// Opens a file; `path` ends with a zero.
pub unsafe fn open(path: *const u8, flags: i32) -> Option<i32> {
    const CLOEXEC: i32 = 0o2_000_000;
    let arguments = [AT_FDCWD as usize, path as usize, (flags | CLOEXEC) as usize, 0, 0, 0];
    // SAFETY: the module `preload` says why.
    let fd = unsafe { call(number::OPENAT, arguments) };
    i32::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// Reads from a descriptor, once; how much.
pub fn read(fd: i32, into: &mut [u8]) -> usize {
    let arguments = [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the module `preload` says why.
    let read = unsafe { call(number::READ, arguments) };
    usize::try_from(read).unwrap_or(0).min(into.len())
}

/// Size of an open file.
pub fn size(fd: i32) -> u64 {
    const FROM_ITS_END: usize = 2;
    // SAFETY: the module `preload` says why.
    let end = unsafe { call(number::LSEEK, [fd as usize, 0, FROM_ITS_END, 0, 0, 0]) };
    u64::try_from(end).unwrap_or(0)
}

/// Whether the system can read a text at this address. A caller may pass any address and gets an
/// error for it; what is read here must not end the program instead.
pub fn is_text(path: *const u8) -> bool {
    const EFAULT: isize = -14;
    let arguments = [AT_FDCWD as usize, path as usize, 0, 0, 0, 0];
    // SAFETY: the module `preload` says why.
    unsafe { call(number::FACCESSAT, arguments) != EFAULT }
}

/// Whether a path is that of a directory.
pub unsafe fn is_directory(path: *const u8) -> bool {
    const NAME_ALONE: i32 = 0o10_000_000;
    // SAFETY: the module `preload` says why.
    unsafe { open(path, NAME_ALONE | DIRECTORY) }.map(close).is_some()
}

/// Reads from a place in a file; how much.
pub fn read_at(fd: i32, into: &mut [u8], offset: u64) -> usize {
    let arguments = [fd as usize, into.as_mut_ptr() as usize, into.len(), offset as usize, 0, 0];
    // SAFETY: the module `preload` says why.
    let read = unsafe { call(number::PREAD, arguments) };
    usize::try_from(read).unwrap_or(0).min(into.len())
}

/// Closes a descriptor.
pub fn close(fd: i32) {
    // SAFETY: the module `preload` says why.
    unsafe { call(number::CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// Maps a file, shared and writable.
pub fn map(fd: i32, bytes: usize) -> Option<*mut u8> {
    const READ_AND_WRITE: usize = 3;
    const SHARED: usize = 1;
    // SAFETY: the module `preload` says why.
    let at = unsafe { call(number::MMAP, [0, bytes, READ_AND_WRITE, SHARED, fd as usize, 0]) };
    (at > 0).then_some(at as *mut u8)
}

/// Fresh memory of this process, all zeros.
pub fn allocate(bytes: usize) -> Option<*mut u8> {
    const READ_AND_WRITE: usize = 3;
    const PRIVATE_AND_ANONYMOUS: usize = 0x22;
    let arguments = [0, bytes, READ_AND_WRITE, PRIVATE_AND_ANONYMOUS, usize::MAX, 0];
    // SAFETY: the module `preload` says why.
    let at = unsafe { call(number::MMAP, arguments) };
    (at > 0).then_some(at as *mut u8)
}

/// Gives memory back.
pub unsafe fn free(memory: *mut u8, bytes: usize) {
    // SAFETY: the module `preload` says why.
    unsafe { call(number::MUNMAP, [memory as usize, bytes, 0, 0, 0, 0]) };
}

/// The system's number of this process.
pub fn getpid() -> u32 {
    // SAFETY: the module `preload` says why.
    unsafe { call(number::GETPID, [0; 6]) as u32 }
}

/// The working directory: how many bytes of `into` it takes.
pub fn getcwd(into: &mut [u8]) -> Option<usize> {
    let arguments = [into.as_mut_ptr() as usize, into.len(), 0, 0, 0, 0];
    // SAFETY: the module `preload` says why.
    let len = unsafe { call(number::GETCWD, arguments) };
    // The zero at its end counts.
    usize::try_from(len).ok()?.checked_sub(1).filter(|len| *len > 0 && *len < into.len())
}

/// Where a link leads; `path` ends with a zero.
pub unsafe fn readlink(path: *const u8, into: &mut [u8]) -> Option<usize> {
    let arguments =
        [AT_FDCWD as usize, path as usize, into.as_mut_ptr() as usize, into.len(), 0, 0];
    // SAFETY: the module `preload` says why.
    let len = unsafe { call(number::READLINKAT, arguments) };
    usize::try_from(len).ok().filter(|len| *len > 0 && *len < into.len())
}

/// Length of a text that ends with a zero, up to a bound.
pub unsafe fn length(text: *const u8, bound: usize) -> usize {
    let mut len = 0;
    // SAFETY: the module `preload` says why.
    while len < bound && unsafe { *text.add(len) } != 0 {
        len += 1;
    }
    len
}

/// A text that ends with a zero; none when it is null or over a bound.
pub unsafe fn text<'a>(text: *const u8, bound: usize) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the module `preload` says why.
    unsafe {
        let len = length(text, bound);
        (len < bound).then(|| core::slice::from_raw_parts(text, len))
    }
}
