//! What a compiler really reads.
//!
//! Two things in one crate, so that both sides share one format: [`log`] is the log as the wrapper
//! reads it, without `unsafe` and on every system. The rest is the preloaded library that writes it:
//! it stands in front of the functions of libc that open, look at, list and start things, notes
//! their arguments, and calls the real ones. The build script of `kiln` compiles this crate a second
//! time, with `--cfg preload`, as a shared library; only then are the functions exported.
//!
//! The library has neither the standard library nor an allocator, takes no lock, and needs four
//! symbols that every libc has, so that it works under glibc and musl alike. It cannot panic: the
//! build fails when a path to a panic is left in it.

#![cfg_attr(not(test), no_std)]

pub mod log;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod preload;
