//! Prefix maps for C compilers, so that what they make does not name the place it was made at.
//!
//! They stand right behind the program's name: the last map that fits counts, so the user's own go
//! before these. The driver of gcc hands on what it is told, and records it in what it makes; the
//! programs behind it do not, so these are told. clang is one program; its driver is told.

use core::ffi::c_char;

use super::handed::{Copy, List, POINTER, write};
use super::sys;

/// Most arguments of a program that is told anything.
const MAX_ARGUMENTS: usize = 4096;

/// A program that takes prefix maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// A compiler behind the driver of gcc.
    Gcc,
    /// The assembler of binutils.
    Assembler,
    /// The driver of clang.
    Clang,
}

impl Taker {
    fn of(path: &[u8]) -> Option<Self> {
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        if matches!(name, b"cc1" | b"cc1plus" | b"cc1obj" | b"cc1objplus") {
            return Some(Self::Gcc);
        }
        // That of LLVM is another thing by this name.
        if name == b"as" || is_of_target(name, b"-as") {
            return Some(Self::Assembler);
        }
        let version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let digits = name.iter().rev().take_while(|byte| version(byte)).count();
        let stem = name.get(..name.len().saturating_sub(digits))?;
        let stem = if digits > 0 { stem.strip_suffix(b"-")? } else { stem };
        let stem = stem.strip_suffix(b"++").unwrap_or(stem);
        (stem == b"clang" || is_of_target(stem, b"-clang")).then_some(Self::Clang)
    }

    fn option(self) -> &'static [u8] {
        match self {
            Self::Gcc | Self::Clang => b"-fdebug-prefix-map=",
            Self::Assembler => b"--debug-prefix-map=",
        }
    }

    /// Whether a program with these arguments makes something of a source. An assembler without any
    /// does, of its standard input, and is left alone: nobody debugs that.
    unsafe fn works(self, argv: List, count: usize) -> bool {
        // SAFETY: the module `preload` says why.
        let argument = |at: usize| unsafe { sys::text((*argv.add(at)).cast(), 16) };
        let any = |of: &[&[u8]]| (1..count).any(|at| argument(at).is_some_and(|a| of.contains(&a)));
        // Together with others `-v` only makes them talk.
        let asks =
            any(&[b"--version", b"-version", b"--help"]) || count == 2 && any(&[b"-v", b"-V"]);
        match self {
            Self::Gcc => true,
            Self::Assembler => count > 1 && !asks,
            // Started by itself as a compiler or an assembler, it was told before.
            Self::Clang => {
                let inner = argument(1).is_some_and(|a| matches!(a, b"-cc1" | b"-cc1as"));
                count > 1 && !asks && !inner
            }
        }
    }
}

/// Whether a name is a tool's with a target before it, as in `x86_64-linux-gnu-as`; other programs have names
/// that end so, too, such as `spirv-as`.
fn is_of_target(name: &[u8], tool: &[u8]) -> bool {
    name.strip_suffix(tool).is_some_and(|target| target.contains(&b'-'))
}

fn pairs(maps: &[u8]) -> impl Iterator<Item = &[u8]> {
    maps.split(|byte| *byte == b':').filter(|pair| pair.contains(&b'='))
}

/// Copies the arguments of a program that takes prefix maps, with these; none when it gets none.
pub(super) unsafe fn with_maps(maps: &[u8], path: &[u8], argv: List) -> Option<Copy> {
    if maps.is_empty() || argv.is_null() {
        return None;
    }
    let taker = Taker::of(path)?;
    // SAFETY: the module `preload` says why.
    unsafe {
        let count = (0..=MAX_ARGUMENTS).find(|at| (*argv.add(*at)).is_null())?;
        if count == 0 || !taker.works(argv, count) {
            return None;
        }
        let option = taker.option();
        let places = (count + pairs(maps).count() + 1) * POINTER;
        let texts: usize = pairs(maps).map(|pair| option.len() + pair.len() + 1).sum();
        let copy = Copy::new(places + texts)?;
        // Fresh memory is zero: the list ends, and so do the texts.
        let mut to = copy.memory().cast::<*const c_char>();
        let mut text = copy.memory().add(places);
        *to = *argv;
        for pair in pairs(maps) {
            to = to.add(1);
            *to = text.cast();
            text = write(text, &[option, pair]);
        }
        to.add(1).copy_from_nonoverlapping(argv.add(1), count - 1);
        Some(copy)
    }
}
