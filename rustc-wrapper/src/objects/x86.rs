//! System calls in code for x86-64. Called by [`crate::objects::classify`]; pure.
//!
//! The two bytes of `syscall` also stand inside of constants and displacements, so instructions are
//! told apart by their lengths, from where one is known to begin: the start of the function, as the table for
//! unwinding has it, else of the section. Tables of constants between functions can look like a call; a doubt
//! is "yes".
//!
//! Lengths come from `iced-x86`, its decoder alone: 2 s to compile, one dependency that has none,
//! 250 MB/s. It makes the program 0.5 MB larger and its start some 50 µs longer (5,000 relocations;
//! none, and 20 µs, when linked at a fixed place). `yaxpeax-x86` takes 5 to 7 s to compile and brings
//! four crates. A table of our own would have to follow every extension of the machine, and is wrong
//! without a sign of it where it does not.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use memchr::memmem;

/// `syscall`, `sysenter`, `int 0x80`.
const PAIRS: [[u8; 2]; 3] = [[0x0f, 0x05], [0x0f, 0x34], [0xcd, 0x80]];

/// Behind a byte that cannot be decoded it is not sure where instructions begin: any pair that
/// begins up to so many bytes behind it counts.
const DOUBT_BYTES: usize = 16;

/// How far before a pair a start has to be that is trusted without another. The one that is told for a
/// signal handler's return is a byte before the code.
const MARGIN_BYTES: usize = 64;

/// Whether an instruction of this code is a system call. `starts` are places in it where instructions
/// begin, sorted; there may be none.
pub fn makes_system_call(code: &[u8], starts: &[usize]) -> bool {
    // Most code has few pairs or none.
    let pairs = PAIRS.iter().flat_map(|pair| memmem::find_iter(code, pair));
    let mut pairs: Vec<usize> = pairs.collect();
    pairs.sort_unstable();
    // A start that is none shows itself from the one before it.
    [0, MARGIN_BYTES].iter().any(|margin| is_called(code, &pairs, starts, *margin))
}

/// Whether one of the pairs is an instruction. It is decoded from the last start that is so many bytes before
/// a pair, or from where the pair before ended.
fn is_called(code: &[u8], pairs: &[usize], starts: &[usize], margin: usize) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut passed = 0;
    for pair in pairs {
        let before = starts.partition_point(|start| start + margin <= *pair);
        let start = before.checked_sub(1).map_or(0, |last| starts[last]);
        if start > passed && decoder.set_position(start).is_err() {
            return true;
        }
        while decoder.position() <= *pair {
            let at = decoder.position();
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                let doubtful = &code[at..code.len().min(at + DOUBT_BYTES + 2)];
                if has_pair(doubtful) || decoder.set_position(at + 1).is_err() {
                    return true;
                }
            } else if is_system_call(&instruction) {
                return true;
            }
        }
        passed = *pair;
    }
    false
}

fn has_pair(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|window| PAIRS.iter().any(|pair| window == pair))
}

fn is_system_call(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Syscall | Code::Sysenter => true,
        Code::Int_imm8 => instruction.immediate8() == 0x80,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whole instructions that are no system calls, though some hold the bytes of one.
    const HARMLESS: &[(&str, &[u8])] = &[
        ("ret", &[0xc3]),
        ("int3", &[0xcc]),
        ("int 0x03", &[0xcd, 0x03]),
        ("endbr64", &[0xf3, 0x0f, 0x1e, 0xfa]),
        ("mov eax, imm32", &[0xb8, 0x0f, 0x05, 0x00, 0x00]),
        ("mov rax, imm64", &[0x48, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x00]),
        // libgcc looks for these bytes, which are a signal handler's return.
        ("mov rdx, imm64", &[0x48, 0xba, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05]),
        ("add eax, imm32", &[0x81, 0xc0, 0x00, 0x0f, 0x05, 0x00]),
        ("sub rsp, imm32", &[0x48, 0x81, 0xec, 0xcd, 0x80, 0x00, 0x00]),
        ("imul eax, ebx, imm32", &[0x69, 0xc3, 0x00, 0x0f, 0x34, 0x00]),
        ("mov ax, imm16", &[0x66, 0xb8, 0x0f, 0x05]),
        ("add cx, imm16", &[0x66, 0x81, 0xc1, 0x0f, 0x05]),
        ("push imm32", &[0x68, 0xcd, 0x80, 0x00, 0x00]),
        ("mov eax, [rax + disp32]", &[0x8b, 0x80, 0x0f, 0x05, 0x00, 0x00]),
        ("mov rax, [rip + disp32]", &[0x48, 0x8b, 0x05, 0x0f, 0x05, 0x00, 0x00]),
        ("mov eax, [rsp + disp32]", &[0x8b, 0x84, 0x24, 0x0f, 0x34, 0x00, 0x00]),
        ("mov eax, [disp32]", &[0x8b, 0x04, 0x25, 0x00, 0xcd, 0x80, 0x00]),
        ("mov dword [rip + disp32], imm32", &[0xc7, 0x05, 0, 0, 0x0f, 0x05, 0x0f, 0x05, 0, 0]),
        ("mov word [rip + disp32], imm16", &[0x66, 0xc7, 0x05, 0, 0, 0, 0, 0x0f, 0x05]),
        ("mov eax, [moffs64]", &[0xa1, 0x00, 0x00, 0x0f, 0x05, 0x00, 0x00, 0x00, 0x00]),
        ("mov [moffs64], rax", &[0x48, 0xa3, 0, 0, 0, 0, 0, 0, 0x0f, 0x05]),
        ("mov eax, [moffs32]", &[0x67, 0xa1, 0x00, 0x0f, 0x05, 0x00]),
        ("test al, imm8; add eax, imm32", &[0xf6, 0xc0, 0x0f, 0x05, 0x00, 0x00, 0x00, 0x00]),
        ("test eax, imm32", &[0xf7, 0xc0, 0x0f, 0x05, 0x00, 0x00]),
        ("test byte [rip + disp32], imm8", &[0xf6, 0x05, 0x00, 0x0f, 0x05, 0x00, 0x0f]),
        ("enter imm16, imm8", &[0xc8, 0x0f, 0x05, 0x00]),
        ("enter imm16, imm8", &[0xc8, 0x00, 0xcd, 0x80]),
        ("ret imm16", &[0xc2, 0x0f, 0x05]),
        ("jmp rel8; add eax, imm32", &[0xeb, 0x0f, 0x05, 0x00, 0x00, 0x00, 0x00]),
        ("jmp rel32", &[0xe9, 0x0f, 0x05, 0x00, 0x00]),
        ("call rel32", &[0xe8, 0x00, 0xcd, 0x80, 0x00]),
        ("je rel32", &[0x0f, 0x84, 0x0f, 0x05, 0x00, 0x00]),
        ("shld eax, ecx, imm8; add eax, imm32", &[0x0f, 0xa4, 0xc8, 0x0f, 0x05, 0, 0, 0, 0]),
        ("palignr xmm0, [rip + disp32], imm8", &[0x66, 0x0f, 0x3a, 0x0f, 0x05, 0, 0, 0, 0, 8]),
        ("pavgusb mm0, [rip + disp32]", &[0x0f, 0x0f, 0x05, 0x00, 0x00, 0x00, 0x00, 0xbf]),
        ("vmovsd xmm0, [rip + disp32]", &[0xc5, 0xfb, 0x10, 0x05, 0x0f, 0x05, 0x00, 0x00]),
        ("vpalignr ymm0, ymm1, [rip + disp32], imm8", &[0xc4, 0xe3, 0x75, 0x0f, 5, 0, 0, 0, 0, 1]),
        ("vmovups zmm0, [rip + disp32]", &[0x62, 0xf1, 0x7c, 0x48, 0x10, 5, 0x0f, 5, 0, 0]),
        ("vpalignr zmm, [rip + disp32], imm8", &[0x62, 0xf3, 0x75, 0x48, 0x0f, 5, 0, 0, 0, 0, 1]),
        (
            "vprotd xmm0, xmm0, imm8; add eax, imm32",
            &[0x8f, 0xe8, 0x78, 0xc2, 0xc0, 0x0f, 5, 0, 0, 0, 0],
        ),
        ("data16 nop", &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x0f, 0x05, 0x00, 0x00]),
    ];

    /// System calls, with what stands before them where it matters.
    const CALLS: &[(&str, &[u8])] = &[
        ("syscall", &[0x0f, 0x05]),
        ("sysenter", &[0x0f, 0x34]),
        ("int 0x80", &[0xcd, 0x80]),
        ("rex.w syscall", &[0x48, 0x0f, 0x05]),
        ("data16 syscall", &[0x66, 0x0f, 0x05]),
        ("rep syscall", &[0xf3, 0x0f, 0x05]),
        ("lock syscall, which faults: a doubt", &[0xf0, 0x0f, 0x05]),
        ("mov ax, imm16; syscall", &[0x66, 0xb8, 0x00, 0x00, 0x0f, 0x05]),
        ("mov eax, [moffs32]; syscall", &[0x67, 0xa1, 0, 0, 0, 0, 0x0f, 0x05]),
        ("not al; syscall", &[0xf6, 0xd0, 0x0f, 0x05]),
        ("not eax; syscall", &[0xf7, 0xd0, 0x0f, 0x05]),
        ("test ax, imm16; syscall", &[0x66, 0xf7, 0xc0, 0x00, 0x00, 0x0f, 0x05]),
        ("enter imm16, imm8; syscall", &[0xc8, 0x00, 0x00, 0x00, 0x0f, 0x05]),
        ("jmp rel8; syscall", &[0xeb, 0x00, 0x0f, 0x05]),
        ("mov eax, imm32; syscall", &[0xb8, 0x27, 0x00, 0x00, 0x00, 0x0f, 0x05]),
    ];

    #[test]
    fn bytes_inside_of_an_instruction_do_not_count() {
        for (name, code) in HARMLESS {
            assert!(!makes_system_call(code, &[]), "{name}: {code:02x?}");
        }
        let hold_a_pair = HARMLESS.iter().filter(|(_, code)| has_pair(code)).count();
        assert!(hold_a_pair > 30, "{hold_a_pair}: the rows are about something");
    }

    #[test]
    fn instructions_count() {
        for (name, code) in CALLS {
            assert!(makes_system_call(code, &[]), "{name}: {code:02x?}");
            let followed = [code, &[0x90, 0xc3][..]].concat();
            assert!(makes_system_call(&followed, &[]), "{name}, and more behind it");
        }
    }

    /// 0x06 was an instruction in other modes.
    #[test]
    fn behind_a_byte_that_cannot_be_decoded_pairs_count() {
        let check = |distance: usize, expected: bool| {
            let mut code = vec![0x06];
            code.resize(distance - 1, 0x90);
            code.extend_from_slice(&[0xb8, 0x0f, 0x05, 0x00, 0x00]);
            assert_eq!(makes_system_call(&code, &[]), expected, "{distance} bytes behind it");
        };
        for distance in 2..=DOUBT_BYTES {
            check(distance, true);
        }
        for distance in [DOUBT_BYTES + 1, DOUBT_BYTES + 2, 100] {
            check(distance, false);
        }
    }

    /// From the next byte on these are `mov eax, imm32`; a byte later there would be a `syscall`.
    #[test]
    fn behind_a_byte_that_cannot_be_decoded_the_next_one_is_tried() {
        let mut code = vec![0x06];
        code.extend_from_slice(&[0xb8, 0xb8, 0x00, 0x00, 0x00].repeat(6));
        code.extend_from_slice(&[0xb8, 0x90, 0x0f, 0x05, 0x90]);
        assert!(!makes_system_call(&code, &[]));
        assert!(makes_system_call(&code[2..], &[]));
    }

    #[test]
    fn code_that_ends_within_an_instruction_is_doubtful() {
        assert!(makes_system_call(&[0x90, 0xb8, 0x0f, 0x05], &[]));
        let harmless = [0x90, 0xb8, 0x00, 0x00];
        assert!(!makes_system_call(&harmless, &[]), "without a pair there is no doubt");
    }

    /// A table before a function, of bytes that begin an instruction which swallows the function's first.
    #[test]
    fn a_function_is_looked_at_from_its_start() {
        let table = [&[0x90; 90][..], &[0xb8]].concat();
        let function = [0x31, 0xc0, 0x0f, 0x05, 0xc3];
        let code = [&table[..], &function].concat();
        assert!(!makes_system_call(&code, &[]));
        assert!(makes_system_call(&code, &[table.len()]));
        // Behind others, as they stand in a file.
        let constant = [0xb8, 0x0f, 0x05, 0x00, 0x00, 0xc3];
        let code = [&constant[..], &table, &constant, &table, &function, &constant].concat();
        let second = constant.len() + table.len();
        let third = second + constant.len() + table.len();
        assert!(makes_system_call(&code, &[0, second, third, third + function.len()]));
        let code = [&constant[..], &table, &constant].concat();
        assert!(!makes_system_call(&code, &[0, second]));
    }

    /// The table for unwinding says of a signal handler's return that it starts a byte earlier.
    #[test]
    fn a_start_that_is_none_hides_nothing() {
        let before = [&[0x90; 80][..], &[0xb8, 0x00, 0x00, 0x00, 0xb8]].concat();
        let code = [&before[..], &[0x31, 0xc0, 0x0f, 0x05]].concat();
        assert!(!is_called(&code, &[code.len() - 2], &[0, before.len() - 1], 0));
        assert!(makes_system_call(&code, &[0, before.len() - 1]));
    }

    proptest! {
        #[test]
        fn one_call_in_much_code_is_found(
            before in proptest::collection::vec(0..HARMLESS.len(), 0..60),
            call in 0..CALLS.len(),
            after in proptest::collection::vec(0..HARMLESS.len(), 0..60),
        ) {
            let code = |rows: &[usize]| -> Vec<u8> {
                rows.iter().flat_map(|row| HARMLESS[*row].1.iter().copied()).collect()
            };
            let (before, after) = (code(&before), code(&after));
            prop_assert!(!makes_system_call(&[&before[..], &after].concat(), &[]));
            prop_assert!(makes_system_call(&[&before[..], CALLS[call].1, &after].concat(), &[]));
        }

        /// Where every start is one, they change nothing.
        #[test]
        fn starts_of_instructions_change_no_answer(
            rows in proptest::collection::vec((0..HARMLESS.len(), any::<bool>()), 0..80),
            call in proptest::option::of((0..CALLS.len(), any::<prop::sample::Index>())),
        ) {
            let (mut code, mut starts) = (Vec::new(), Vec::new());
            let place = call.map(|(call, at)| (call, at.index(rows.len() + 1)));
            for (number, (row, is_start)) in rows.iter().enumerate() {
                starts.extend(is_start.then_some(code.len()));
                let call = place.filter(|(_, at)| *at == number).map(|(call, _)| CALLS[call].1);
                code.extend_from_slice(call.unwrap_or_default());
                code.extend_from_slice(HARMLESS[*row].1);
            }
            let want = place.is_some_and(|(_, at)| at < rows.len());
            prop_assert_eq!(makes_system_call(&code, &starts), want);
            prop_assert_eq!(makes_system_call(&code, &[]), want);
        }

        #[test]
        fn code_without_a_pair_makes_no_call(code in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assume!(!has_pair(&code));
            prop_assert!(!makes_system_call(&code, &[]));
        }

        /// Many prefixes and escapes, which random bytes seldom have in a row.
        #[test]
        fn no_bytes_make_it_panic(
            starts in proptest::collection::btree_set(0..500_usize, 0..20),
            code in proptest::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    prop::sample::select(&[0x0f_u8, 0x05, 0xcd, 0x80, 0x66, 0x48, 0x62, 0xc4, 0xc5, 0x8f][..]),
                ],
                0..400,
            ),
        ) {
            let starts: Vec<usize> = starts.into_iter().filter(|at| *at < code.len()).collect();
            // A call is an instruction or a doubt; neither is there without its bytes.
            prop_assert!(!makes_system_call(&code, &starts) || has_pair(&code));
        }
    }
}
