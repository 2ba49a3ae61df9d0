//! Whether a program would take this library: it has a dynamic loader, of this processor's kind.
//!
//! One that would not is started as it was asked for: a static program would show the variables to
//! whoever prints them, and a loader of another kind would complain on standard error. Called
//! before a program starts, on whatever stack its starter has.

use super::paths::MAX_PATH;
use super::sys;

/// Bytes of a program that are looked at: its header, and the table of its segments.
const LOOKED_AT: usize = 1024;
const INTERPRETER: u32 = 3;
/// Deepest script that is run by a script.
const MAX_DEPTH: u32 = 4;
/// Longest name of a script's interpreter, with a zero.
const MAX_INTERPRETER: usize = 256;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Whether a program of this path takes the library; a path ends with a zero.
pub unsafe fn takes_library(path: *const u8) -> bool {
    let mut start = [0_u8; LOOKED_AT];
    let mut interpreter = [0_u8; MAX_INTERPRETER];
    let mut path = path;
    for _ in 0..=MAX_DEPTH {
        // SAFETY: the module `preload` says why. What is no program may be a pipe that nobody writes to.
        let Some(fd) = (unsafe { sys::open(path, NOT_WAITING) }) else { return true };
        let read = sys::read(fd, &mut start);
        let start = start.get(..read).unwrap_or_default();
        let takes = is_dynamic(start).unwrap_or(false) && !wants_to_be_first(fd, start);
        sys::close(fd);
        let Some(line) = start.strip_prefix(b"#!") else { return takes };
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let words = line.iter().skip_while(|b| blank(b)).take_while(|b| !blank(b) && **b != b'\n');
        interpreter.fill(0);
        for (place, byte) in interpreter.iter_mut().take(MAX_INTERPRETER - 1).zip(words) {
            *place = *byte;
        }
        path = interpreter.as_ptr();
    }
    false
}

const NOT_WAITING: i32 = 0o4000;

/// What a header of a segment tells.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

fn segment(start: &[u8], index: usize) -> Option<Segment> {
    let half = |at: usize| Some(u16::from_le_bytes(*start.get(at..)?.first_chunk()?));
    let table = u64::from_le_bytes(*start.get(32..)?.first_chunk()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let at = usize::try_from(table).ok()?.checked_add(index.checked_mul(size)?)?;
    let header = start.get(at..).filter(|_| index < count)?;
    let long = |at: usize| Some(u64::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let kind = u32::from_le_bytes(*header.first_chunk()?);
    Some(Segment { kind, offset: long(8)?, address: long(16)?, bytes: long(32)? })
}

fn segments(start: &[u8]) -> impl Iterator<Item = Segment> {
    (0..LOOKED_AT / 32).map_while(move |index| segment(start, index))
}

/// Runtimes that end a program where another library was loaded before them.
const WANT_TO_BE_FIRST: [&[u8]; 3] = [b"libasan.so", b"libhwasan.so", b"libclang_rt.asan"];

/// Whether a dynamic program asks for a runtime that has to be loaded first.
fn wants_to_be_first(fd: i32, start: &[u8]) -> bool {
    const DYNAMIC: u32 = 2;
    const NEEDED: u64 = 1;
    const STRINGS: u64 = 5;
    let Some(dynamic) = segments(start).find(|segment| segment.kind == DYNAMIC) else {
        return false;
    };
    let entries = || {
        (0..dynamic.bytes / 16).map_while(|index| {
            let mut entry = [0_u8; 16];
            let read = sys::read_at(fd, &mut entry, dynamic.offset + index * 16);
            let (tag, value) = entry.split_first_chunk::<8>().filter(|_| read == 16)?;
            let tag = u64::from_le_bytes(*tag);
            (tag != 0).then_some((tag, u64::from_le_bytes(*value.first_chunk()?)))
        })
    };
    let Some((_, strings)) = entries().find(|(tag, _)| *tag == STRINGS) else { return false };
    let holds = |s: &Segment| s.kind == 1 && strings >= s.address && strings - s.address < s.bytes;
    let Some(load) = segments(start).find(holds) else { return false };
    let place = (strings - load.address).wrapping_add(load.offset);
    entries().filter(|(tag, _)| *tag == NEEDED).any(|(_, name)| {
        let mut text = [0_u8; 24];
        sys::read_at(fd, &mut text, place.wrapping_add(name));
        WANT_TO_BE_FIRST.iter().any(|first| text.starts_with(first))
    })
}

fn is_dynamic(start: &[u8]) -> Option<bool> {
    const ELF64: &[u8] = b"\x7fELF\x02\x01";
    let half = |at: usize| Some(u16::from_le_bytes(*start.get(at..)?.first_chunk()?));
    if !start.starts_with(ELF64) || half(18)? != MACHINE {
        return Some(false);
    }
    Some(segments(start).any(|segment| segment.kind == INTERPRETER))
}

/// Looks a bare name up in the list of directories that `PATH` holds, as a shell does, and says
/// whether what is found takes the library. Nothing found: nothing will be started.
pub unsafe fn found_takes_library(name: &[u8], list: &[u8]) -> bool {
    let Some(memory) = sys::allocate(MAX_PATH) else { return true };
    // SAFETY: the module `preload` says why; the memory is fresh and given back below.
    let path = unsafe { core::slice::from_raw_parts_mut(memory, MAX_PATH) };
    let takes = list.split(|byte| *byte == b':').find_map(|dir| {
        let dir = if dir.is_empty() { b"." } else { dir };
        if dir.len() + 1 + name.len() >= MAX_PATH {
            return None;
        }
        let text = dir.iter().chain(b"/").chain(name).chain(b"\0");
        for (place, byte) in path.iter_mut().zip(text) {
            *place = *byte;
        }
        // SAFETY: as above; the text ends with a zero.
        unsafe { is_program(path.as_ptr()).then(|| takes_library(path.as_ptr())) }
    });
    // SAFETY: as above.
    unsafe { sys::free(memory, MAX_PATH) };
    takes.unwrap_or(true)
}

/// Whether a search ends here: something that may be run, and no directory.
unsafe fn is_program(path: *const u8) -> bool {
    const EXECUTABLE: usize = 1;
    let arguments = [sys::AT_FDCWD as usize, path as usize, EXECUTABLE, 0, 0, 0];
    // SAFETY: the module `preload` says why.
    unsafe { sys::call(sys::number::FACCESSAT, arguments) == 0 && !sys::is_directory(path) }
}
