//! Whether a program would take this library: it has a dynamic loader, of this processor's kind.
//!
//! One that would not is started as it was asked for: a static program would show the variables to
//! whoever prints them, and a loader of another kind would complain on standard error.

use super::sys;

const MAX_PATH: usize = 4096;
/// Bytes of a program that are looked at: its header, and the table of its segments.
const LOOKED_AT: usize = 1024;
const INTERPRETER: u32 = 3;
/// Deepest script that is run by a script.
const MAX_DEPTH: u32 = 4;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Whether a program of this path takes the library; a path ends with a zero.
pub unsafe fn takes_library(path: *const u8) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe { takes(path, MAX_DEPTH) }
}

unsafe fn takes(path: *const u8, depth: u32) -> bool {
    let mut start = [0_u8; LOOKED_AT];
    // SAFETY: the module `preload` says why.
    let Some(fd) = (unsafe { sys::open(path, 0) }) else { return true };
    let read = sys::read(fd, &mut start);
    sys::close(fd);
    let start = start.get(..read).unwrap_or_default();
    if let Some(line) = start.strip_prefix(b"#!") {
        let mut interpreter = [0_u8; 256];
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let words = line.iter().skip_while(|b| blank(b)).take_while(|b| !blank(b) && **b != b'\n');
        for (place, byte) in interpreter.iter_mut().take(255).zip(words) {
            *place = *byte;
        }
        // SAFETY: as above; the last byte is a zero.
        return depth > 0 && unsafe { takes(interpreter.as_ptr(), depth - 1) };
    }
    is_dynamic(start).unwrap_or(false)
}

fn is_dynamic(start: &[u8]) -> Option<bool> {
    const ELF64: &[u8] = b"\x7fELF\x02\x01";
    let half = |at: usize| Some(u16::from_le_bytes(*start.get(at..)?.first_chunk()?));
    if !start.starts_with(ELF64) || half(18)? != MACHINE {
        return Some(false);
    }
    let table = u64::from_le_bytes(*start.get(32..)?.first_chunk()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let table = usize::try_from(table).ok().filter(|table| *table < LOOKED_AT)?;
    for index in 0..count.min(LOOKED_AT / 32) {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let kind = u32::from_le_bytes(*start.get(at..)?.first_chunk()?);
        if kind == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

/// Looks a bare name up in the list of directories that `PATH` holds, as a shell does, and says
/// whether what is found takes the library. Nothing found: nothing will be started.
pub unsafe fn found_takes_library(name: &[u8], list: &[u8]) -> bool {
    const EXECUTABLE: usize = 1;
    for dir in list.split(|byte| *byte == b':') {
        let mut path = [0_u8; MAX_PATH];
        let dir = if dir.is_empty() { b"." } else { dir };
        let len = dir.len() + 1 + name.len();
        if len >= MAX_PATH {
            continue;
        }
        for (place, byte) in path.iter_mut().zip(dir.iter().chain(b"/").chain(name)) {
            *place = *byte;
        }
        let arguments = [sys::AT_FDCWD as usize, path.as_ptr() as usize, EXECUTABLE, 0, 0, 0];
        // SAFETY: the module `preload` says why.
        if unsafe { sys::call(sys::number::FACCESSAT, arguments) } == 0 {
            // SAFETY: as above.
            return unsafe { takes_library(path.as_ptr()) };
        }
    }
    true
}
