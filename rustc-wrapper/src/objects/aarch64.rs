//! System calls in code for aarch64. Called by [`crate::objects::classify`]; pure.

/// `svc #0`, and the bits of it that are not its number.
const SVC: u32 = 0xd400_0001;
const SVC_MASK: u32 = 0xffe0_001f;

/// Whether a word of this code is a system call. Constants between functions count as well: a doubt
/// is "yes". The code begins at a multiple of four, as all code for this machine does.
pub fn makes_system_call(code: &[u8]) -> bool {
    code.chunks_exact(4).any(|word| {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        word & SVC_MASK == SVC
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_instruction_counts() {
        let check = |words: &[u32], expected: bool| {
            let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(makes_system_call(&code), expected, "{words:x?}");
        };
        const NOP: u32 = 0xd503_201f;
        const RET: u32 = 0xd65f_03c0;
        check(&[], false);
        check(&[NOP, RET], false);
        check(&[NOP, 0xd400_0001, RET], true);
        check(&[0xd400_1001], true); // svc #0x80
        check(&[0xd41f_ffe1], true); // svc #0xffff
        check(&[0xd400_0002], false); // hvc #0
        check(&[0xd400_0003], false); // smc #0
        check(&[0xd420_0000], false); // brk #0
        check(&[0xd440_0000], false); // hlt #0
    }

    #[test]
    fn the_bytes_across_two_words_do_not_count() {
        let code = [0, 0, 0x01, 0, 0, 0xd4, 0, 0];
        assert!(!makes_system_call(&code));
        assert!(makes_system_call(&code[2..]), "the same bytes, as a word");
    }
}
