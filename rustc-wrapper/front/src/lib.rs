//! The front of a build script: what cargo runs in its place.
//!
//! A tiny program that stands under the name of a build script, with the real program beside it. It
//! becomes `kiln run-build-script REAL ARGV0 ARGS…`; or the real program, when Kiln is gone, switched
//! off or not what cargo builds with now. Either way it is one `execve` in place: process, signals,
//! descriptors, directory and environment are what cargo gave.
//!
//! Two things in one crate, so that both sides share one format: [`block`] is the place in the
//! program's file where `kiln` writes what the program has to know, and the rest is the program. The
//! build script of `kiln` compiles this crate a second time, with `--cfg front`, as a program of its
//! own without any libc; only then are [`start`]'s symbols exported.
//!
//! It outlives the Kiln that put it there, so it needs nothing but the kernel: no loader, no
//! library, no allocator. It cannot panic: the build fails when a path to a panic is left in it.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(front, no_main, no_builtins)]

pub mod block;
pub mod choice;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod start;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod sys;
