//! [`Environment`]: which variables an object may read besides those that it asks libc for by name.
//! Called by [`crate::objects::classify`]; pure.
//!
//! The standard library of Rust reads `environ` for two things: to hand it to programs that are
//! started, and to go through it. A program that starts others is known by its table of symbols: who
//! refers to `environ`, and who calls what does, all has to be the part that starts programs.
//!
//! References are looked for at every byte of the code, as a displacement from there behind what can take
//! one: that finds all of them, whatever the instruction, and a chance hit is but a doubt. Code that is
//! loaded anywhere has no other way to name an address than such a displacement, or a relocation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::objects::elf::{Dynamic, Elf, Function, Machine, Unreadable};

/// Which variables an object may read besides those that it asks libc for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Environment {
    /// None.
    One,
    /// None; but it hands all of them to programs that it starts.
    Passed,
    /// It keeps a copy of all of them, in which it looks single ones up.
    Kept,
    /// It goes through all of them.
    Whole,
    /// Perhaps all of them.
    Unknown,
}

impl Environment {
    /// Whether all variables may be read.
    pub fn may_be_whole(self) -> bool {
        matches!(self, Self::Kept | Self::Whole | Self::Unknown)
    }
}

/// Names of the variable through which libc shows the whole environment.
const ENVIRONMENT: &[&[u8]] = &[b"environ", b"__environ", b"_environ"];

/// Functions that find a variable of libc by its name.
const LOOKUPS: &[&[u8]] = &[b"dlsym", b"dlvsym"];

/// Parts of the standard library that start programs, by the begin of what stands behind the
/// crate in an encoded name: the present place and earlier ones.
const PASSING: &[&[u8]] = &[
    b"7process",
    b"3sys7process",
    b"3sys3pal4unix7process",
    b"3sys4unix7process",
    b"10sys_common7process",
    b"2os4unix7process",
];

/// Functions of the standard library that take the whole environment for whoever calls them.
const TAKING: &[&[u8]] =
    &[b"3env7vars_os", b"3sys3env4unix3env", b"3sys3pal4unix2os3env", b"3sys4unix2os3env"];

/// Relocations of x86-64: the address of a symbol in a table of addresses; an address in the file.
const GLOB_DAT: u32 = 6;
const RELATIVE: u32 = 8;

/// Which variables an object may read, from its imports and functions.
pub(super) fn of(
    elf: &Elf<'_>,
    dynamic: &Dynamic<'_>,
    imports: &[&[u8]],
    functions: &[Function<'_>],
) -> Environment {
    let has = |name: &[u8]| imports.binary_search(&name).is_ok();
    // A standard library of its own, as a shared object.
    if imports.iter().any(|name| in_std(name).is_some_and(goes_through)) {
        return Environment::Whole;
    }
    if LOOKUPS.iter().any(|name| has(name)) && names_environment(elf) {
        return Environment::Unknown;
    }
    if !ENVIRONMENT.iter().any(|name| has(name)) {
        return Environment::One;
    }
    let is_stepped = functions.iter().any(|f| in_std(f.name).is_some_and(iterates));
    match (ways(elf, dynamic, functions), is_stepped) {
        (Ok(Ways::Kept), _) => Environment::Kept,
        (Ok(Ways::Passed), false) => Environment::Passed,
        (_, true) => Environment::Whole,
        _ => Environment::Unknown,
    }
}

/// Whether the functions of an object are made by rustc: those of a program begin with its runtime.
pub(super) fn is_rust(is_program: bool, imports: &[&[u8]], functions: &[Function<'_>]) -> bool {
    let names =
        || functions.iter().map(|f| f.name).chain(imports.iter().copied()).filter_map(in_std);
    match is_program {
        true => names().any(|name| name.starts_with(b"2rt10lang_start")),
        false => names().next().is_some(),
    }
}

/// Whether the name of libc's variable is in a file, but for what linkers and debuggers read: the
/// word, and not the begin of a longer one.
fn names_environment(elf: &Elf<'_>) -> bool {
    let (word, bytes) = (b"environ", elf.bytes());
    let beside = elf.beside_the_program();
    memchr::memmem::find_iter(bytes, word).any(|at| {
        let goes_on = bytes.get(at + word.len()).is_some_and(u8::is_ascii_lowercase);
        !goes_on && !beside.iter().any(|part| part.contains(&(at as u64)))
    })
}

/// What stands behind the crate in the encoded name of a function that is defined in the standard
/// library, in the present form of rustc's names or the former one.
fn in_std(name: &[u8]) -> Option<&[u8]> {
    if let Some(legacy) = name.strip_prefix(b"_ZN") {
        // An implementation of a trait begins with it, in words.
        let words = legacy.iter().position(|byte| !byte.is_ascii_digit())?;
        let word = legacy.get(words..)?;
        return word.strip_prefix(b"_$LT$std..").or_else(|| legacy.strip_prefix(b"3std"));
    }
    let mut rest = name.strip_prefix(b"_R")?;
    loop {
        rest = match rest.split_first()? {
            (b'C', rest) => return without_disambiguator(rest)?.strip_prefix(b"3std"),
            (b'N', rest) => rest.get(1..)?,
            (b'M' | b'X', rest) => without_disambiguator(rest)?,
            (b'I', rest) => rest,
            _ => return None,
        };
    }
}

fn without_disambiguator(rest: &[u8]) -> Option<&[u8]> {
    match rest.strip_prefix(b"s") {
        Some(number) => number.get(memchr::memchr(b'_', number)? + 1..),
        None => Some(rest),
    }
}

fn begins(name: &[u8], with: &[&[u8]]) -> bool {
    with.iter().any(|start| name.starts_with(start))
}

/// Whether a function of the standard library hands out all variables.
fn goes_through(name: &[u8]) -> bool {
    begins(name, TAKING) || name.starts_with(b"3env4vars") || iterates(name)
}

/// Whether it is the step of an iteration over all variables: there only where somebody goes through
/// them.
fn iterates(name: &[u8]) -> bool {
    let of_variables = name.starts_with(b"env..Vars")
        || name.starts_with(b"3env")
            && [&b"_6VarsOs"[..], b"_4Vars"]
                .iter()
                .any(|kind| memchr::memmem::find(name, kind).is_some());
    of_variables && memchr::memmem::find(name, b"4next").is_some()
}

/// Code that copies all variables to look single ones up, as its functions are called: the crate `cc`, which
/// every build script uses that compiles C, from 1.6 on. Which ones cannot be told: names are put together at run
/// time, and the copy is handed to whoever asks for it.
const KEEPERS: &[&[u8]] = &[b"cc..build_env..EnvSnapshot", b"2cc9build_env"];

/// Who is on the ways to `environ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ways {
    /// The standard library alone, for the programs it starts.
    Passed,
    /// A [`KEEPERS`], too.
    Kept,
    /// Somebody else, perhaps.
    Other,
}

/// Who is on the ways to `environ`: who refers to it, who calls what does, and so on.
fn ways(
    elf: &Elf<'_>,
    dynamic: &Dynamic<'_>,
    functions: &[Function<'_>],
) -> Result<Ways, Unreadable> {
    if elf.machine != Machine::X86_64 || !elf.is_movable() || dynamic.has_packed_relocations() {
        return Ok(Ways::Other);
    }
    let (relocations, tables) = (dynamic.relocations()?, elf.address_tables()?);
    let in_table = |place: u64| tables.iter().any(|table| table.contains(&place));
    let mut targets = Targets::default();
    for relocation in relocations.iter().filter(|relocation| relocation.symbol != 0) {
        let named = dynamic.symbol_name(relocation.symbol);
        if named.is_ok_and(|name| ENVIRONMENT.contains(&name)) {
            if relocation.kind != GLOB_DAT || !in_table(relocation.place) {
                return Ok(Ways::Other);
            }
            targets.data.insert(relocation.place);
        }
    }
    let (code, exports) = (elf.code()?, elf.exports()?);
    let (mut taking, mut ways) = (BTreeSet::new(), Ways::Passed);
    while !targets.is_empty() {
        let mut next = BTreeSet::new();
        for place in code.iter().flat_map(|code| targets.references(code.address, code.bytes)) {
            let Some(takers) = takers_at(functions, place, &mut ways) else {
                return Ok(Ways::Other);
            };
            next.extend(takers.into_iter().filter(|taker| taking.insert(*taker)));
        }
        targets = Targets::default();
        for function in next {
            if exports.iter().any(|export| export.address == function) {
                return Ok(Ways::Other);
            }
            targets.functions.insert(function);
            for address in relocations.iter().filter(|r| r.addend == function) {
                if address.kind != RELATIVE || !in_table(address.place) {
                    return Ok(Ways::Other);
                }
                targets.data.insert(address.place);
            }
        }
    }
    Ok(ways)
}

/// The functions at a place that take the environment for who calls them; none when one there is
/// neither that, nor one that starts programs, nor one that keeps a copy.
fn takers_at(functions: &[Function<'_>], place: u64, ways: &mut Ways) -> Option<Vec<u64>> {
    let there = functions.iter().filter(|f| f.address <= place && place < f.end);
    let mut takers = Vec::new();
    let mut any = false;
    for function in there {
        any = true;
        if KEEPERS.iter().any(|keeper| memchr::memmem::find(function.name, keeper).is_some()) {
            *ways = Ways::Kept;
            continue;
        }
        let name = in_std(function.name)?;
        if begins(name, TAKING) {
            takers.push(function.address);
        } else if !begins(name, PASSING) {
            return None;
        }
    }
    any.then_some(takers)
}

/// Addresses whose references are looked for.
#[derive(Debug, Default)]
struct Targets {
    /// Where addresses are kept.
    data: BTreeSet<u64>,
    /// Where functions begin.
    functions: BTreeSet<u64>,
}

impl Targets {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.functions.is_empty()
    }

    /// The places in code that may name one of the addresses.
    fn references(&self, address: u64, code: &[u8]) -> Vec<u64> {
        // Behind the displacement of a datum may stand a constant.
        let mut places = references(address, code, &self.data, &[0, 1, 2, 4]);
        places.extend(references(address, code, &self.functions, &[0]));
        places
    }
}

/// Places in code that are looked at together, before one by one.
const BLOCK: usize = 256;

/// The places in code that may hold the displacement of one of these addresses, at the end of an
/// instruction or with a constant of so many bytes behind it.
fn references(address: u64, code: &[u8], targets: &BTreeSet<u64>, constants: &[u64]) -> Vec<u64> {
    let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return Vec::new() };
    let (mut places, mut start) = (Vec::new(), 0);
    while let Some(block) = code.get(start..).filter(|block| block.len() >= WINDOW) {
        let block = &block[..block.len().min(BLOCK + WINDOW - 1)];
        let place = address.wrapping_add(start as u64);
        start += BLOCK;
        if !may_refer(place, block, (*first, *last)) {
            continue;
        }
        for (at, bytes) in block.windows(WINDOW).enumerate() {
            let &[before, operation, b0, b1, b2, b3] = bytes else { continue };
            let place = place.wrapping_add(at as u64 + 2);
            let displacement = i64::from(i32::from_le_bytes([b0, b1, b2, b3]));
            let target = place.wrapping_add(4).wrapping_add_signed(displacement);
            let is_one = |behind: &u64| targets.contains(&target.wrapping_add(*behind));
            if constants.iter().any(is_one) && takes_displacement(before, operation) {
                places.push(place);
            }
        }
    }
    places
}

/// A displacement, and what stands before it.
const WINDOW: usize = 6;
/// The longest constant behind a displacement, bytes.
const LONGEST_CONSTANT: u64 = 4;

/// Whether some displacement in a block of code leads to an address between two, or up to a constant's length
/// before them. By the low halves of addresses, without a branch: nearly always none does.
fn may_refer(address: u64, block: &[u8], (first, last): (u64, u64)) -> bool {
    let Ok(width) = u32::try_from(last - first + LONGEST_CONSTANT) else { return true };
    // What a displacement has to be at least, were it at the begin.
    let least =
        (first - LONGEST_CONSTANT.min(first)).wrapping_sub(address.wrapping_add(WINDOW as u64));
    (0..4).any(|phase| {
        let (words, _) = block[2 + phase..].as_chunks::<4>();
        let mut moved = (phase as u32).wrapping_sub(least as u32);
        let mut is_near = false;
        for word in words {
            is_near |= u32::from_le_bytes(*word).wrapping_add(moved) <= width;
            moved = moved.wrapping_add(4);
        }
        is_near
    })
}

/// Whether what stands before it can make four bytes a displacement: a call, a jump, or the byte that
/// says so of an operand in memory.
fn takes_displacement(before: u8, operation: u8) -> bool {
    let operand = operation & 0xc7 == 0x05;
    let jump = before == 0x0f && operation & 0xf0 == 0x80;
    operand || jump || matches!(operation, 0xe8 | 0xe9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_standard_library() {
        let check = |name: &str, want: Option<&str>| {
            let found = in_std(name.as_bytes()).map(|rest| std::str::from_utf8(rest).unwrap());
            assert_eq!(found, want, "{name}");
        };
        check("_RNvNtCsjrHSEGnQ3l9_3std3env7vars_os", Some("3env7vars_os"));
        check(
            "_RNvMs0_NtNtNtNtCsjr_3std3sys7process4unix6commonNtB5_7Command5spawn",
            Some("3sys7process4unix6commonNtB5_7Command5spawn"),
        );
        check("_RNvMNtCsjr_3std7processNtB2_7Command6status", Some("7processNtB2_7Command6status"));
        check("_RINvNtCsjr_3std2rt10lang_startuECs1_3cmd", Some("2rt10lang_startuECs1_3cmd"));
        check("_ZN3std3env7vars_os17h0123456789abcdefE", Some("3env7vars_os17h0123456789abcdefE"));
        check(
            "_ZN73_$LT$std..env..VarsOs$u20$as$u20$core..iter..traits..iterator..Iterator$GT$4next17h0E",
            Some("env..VarsOs$u20$as$u20$core..iter..traits..iterator..Iterator$GT$4next17h0E"),
        );
        check("_RNvCs1_3cmd4main", None);
        check("_RNvXs_Cs1_3cmdNtB4_1ANtNtCsjr_3std2io4Read4read", None);
        check("_RNvCsx_4std2f", None);
        check("_ZN3cmd4main17h0E", None);
        check("_ZN40_$LT$cmd..A$u20$as$u20$std..io..Read$GT$4read17h0E", None);
        for odd in ["", "_R", "_RC", "_RCs", "_RCsabc", "_RN", "_RM", "_RI", "_ZN", "_ZN3", "main"]
        {
            check(odd, None);
        }
    }

    #[test]
    fn iterations() {
        let check = |name: &str, want: bool| {
            assert_eq!(in_std(name.as_bytes()).is_some_and(iterates), want, "{name}");
        };
        let next = "NtNtNtNtCsa_4core4iter6traits8iterator8Iterator4next";
        check(&format!("_RNvXs3_NtCsjr_3std3envNtB5_6VarsOs{next}"), true);
        check(&format!("_RNvXs1_NtCsjr_3std3envNtB5_4Vars{next}"), true);
        check(&format!("_RNvXs1_NtCsjr_3std3envNtB5_4Args{next}"), false);
        check("_ZN71_$LT$std..env..Vars$u20$as$u20$core..Iterator$GT$4next17h0E", true);
        check("_ZN71_$LT$std..env..Args$u20$as$u20$core..Iterator$GT$4next17h0E", false);
        check("_RNvNtCsjr_3std3env7vars_os", false);
    }

    #[test]
    fn displacements_are_found_wherever_they_stand() {
        let data = BTreeSet::from([0x2000, 0x3008]);
        let targets = Targets { data: data.clone(), functions: BTreeSet::new() };
        let calls = Targets { data: BTreeSet::new(), functions: data };
        let operations: [&[u8]; 5] =
            [&[0x8b, 0x05], &[0xff, 0x15], &[0x48, 0x83, 0x3d], &[0x90, 0xe8], &[0x0f, 0x84]];
        for (before, operation) in (0..9).flat_map(|n| operations.map(|o| (n, o))) {
            for behind in [0, 1, 2, 4] {
                let mut code = [&vec![0x90; before], operation].concat();
                let place = 0x1000 + code.len() as u64;
                code.extend((0x3008 - place - 4 - behind).to_le_bytes()[..4].iter());
                code.extend([0x90; 8]);
                assert_eq!(targets.references(0x1000, &code), [place], "{before} {behind}");
                // A jump to the end of the function before it is none.
                let want: &[u64] = if behind == 0 { &[place] } else { &[] };
                assert_eq!(calls.references(0x1000, &code), want, "{before} {behind}");
                // The same bytes as a constant.
                code[place as usize - 0x1001] = 0xb8;
                assert_eq!(targets.references(0x1000, &code), [0; 0], "{before} {behind}");
            }
        }
        assert_eq!(targets.references(0x1000, &[0x90; 64]), [0; 0]);
        assert_eq!(targets.references(0x1000, &[1, 2, 3]), [0; 0]);
        assert_eq!(targets.references(u64::MAX, &[0; 64]), [0; 0]);
    }

    /// One place after another, without blocks.
    fn plainly(address: u64, code: &[u8], targets: &BTreeSet<u64>, constants: &[u64]) -> Vec<u64> {
        let is_one = |(at, bytes): (usize, &[u8])| {
            let displacement = i32::from_le_bytes(bytes[2..].try_into().unwrap());
            let place = address + at as u64 + 2;
            let target = place.wrapping_add(4).wrapping_add_signed(displacement.into());
            let found =
                constants.iter().any(|behind| targets.contains(&target.wrapping_add(*behind)));
            (found && takes_displacement(bytes[0], bytes[1])).then_some(place)
        };
        code.windows(WINDOW).enumerate().filter_map(is_one).collect()
    }

    proptest! {
        /// Bytes of which many are displacements to near places.
        #[test]
        fn blocks_hide_no_reference(
            code in prop::collection::vec(
                prop::sample::select(&[0_u8, 0, 0, 1, 2, 5, 0x0f, 0x84, 0xe8, 0xff, 0xff][..]),
                0..1200,
            ),
            targets in prop::collection::btree_set(0..0x900_u64, 0..6),
            address in prop::sample::select(&[0_u64, 0x300, 0xffff_ff00, 0x7fff_ffff_ff00][..]),
        ) {
            let targets: BTreeSet<u64> = targets.into_iter().map(|at| address + at).collect();
            for constants in [&[0][..], &[0, 1, 2, 4]] {
                let found = references(address, &code, &targets, constants);
                prop_assert_eq!(found, plainly(address, &code, &targets, constants));
            }
        }
    }
}
