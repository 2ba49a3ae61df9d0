//! The preloaded library: functions that stand in front of libc's.
//!
//! [`state`] says whether this process is observed and where its log is; [`hooks`], [`makes`], [`loads`],
//! [`start`], [`network`], [`aside`] and [`raw`] are the functions, `export` is how they get their caller's
//! address; [`symbols`] finds the real ones; [`handed`] and [`maps`] make what a program is started with;
//! [`writer`] adds entries; [`paths`] makes names absolute; [`program`] tells whether a program would take
//! this library; [`sys`] makes system calls.
//!
//! Every `unsafe` here is of one of these sorts, which are not argued for one by one: a call of libc's
//! function with the caller's own arguments; a system call; a read of what the caller passed, as
//! libc's function would read it; memory of the log, which is mapped as long as the process lives
//! and is only touched within its bounds; objects of the dynamic loader, which keeps them while
//! its own list is walked.

#![allow(
    unsafe_code,
    reason = "the library is called by foreign code, with foreign pointers; see above"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "nothing in Rust calls these functions: the dynamic loader puts them in front of libc's"
)]

#[macro_use]
mod export;

pub mod aside;
pub mod handed;
pub mod hooks;
pub mod loads;
pub mod makes;
pub mod maps;
pub mod network;
pub mod paths;
pub mod program;
pub mod raw;
pub mod start;
pub mod state;
pub mod symbols;
pub mod sys;
pub mod writer;

/// Runs before the program's own code.
#[cfg(preload)]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = {
    extern "C" fn begin() {
        state::begin();
    }
    begin
};

/// No path leads here: the build of the library fails when a call of it is left.
#[cfg(preload)]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn kiln_observer_can_panic() -> !;
    }
    // SAFETY: there is no such function; this only has to be refused when it is linked.
    unsafe { kiln_observer_can_panic() }
}
