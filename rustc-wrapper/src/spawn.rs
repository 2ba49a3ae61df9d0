//! Starting processes in ways that the standard library leaves to system calls between fork and
//! exec: the only `unsafe` in this crate.

#![expect(
    unsafe_code,
    reason = "Command::pre_exec runs between fork and exec; each use says why it is sound"
)]

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Descriptors beyond this are never closed one by one.
const MAX_DESCRIPTOR: RawFd = 65_536;

/// Makes a child that is killed when this process dies, so that a killed wrapper leaves no compiler
/// behind.
pub(crate) fn die_with_parent(command: &mut Command) {
    let hook = || {
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
        Ok(())
    };
    // SAFETY: the hook makes one system call (prctl) and touches no memory shared with other
    // threads, so it may run between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// Makes a child a session of its own that inherits nothing: no controlling terminal, no
/// descriptor but 0 to 2. A server must never hold cargo's pipes or the jobserver.
pub(crate) fn detach(command: &mut Command) {
    let hook = || {
        rustix::process::setsid()?;
        for fd in open_descriptors() {
            // SAFETY: the descriptor is only borrowed for one fcntl. If it is not open, or belongs to
            // the standard library's exec pipe (close-on-exec already), setting the flag does no
            // harm: this runs after fork, in the child's own descriptor table.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: the hook makes system calls only (setsid, fcntl): it allocates nothing and takes no
    // lock, so it may run between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// The range of descriptors that may be open: up to the process's limit.
fn open_descriptors() -> std::ops::Range<RawFd> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|n| RawFd::try_from(n).ok()).unwrap_or(MAX_DESCRIPTOR);
    3..limit.min(MAX_DESCRIPTOR)
}
