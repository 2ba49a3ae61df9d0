//! [`Sample`]: small ELF files for the tests of [`crate::objects`].

use std::collections::BTreeMap;

pub(crate) const X86_64: u16 = 62;
pub(crate) const AARCH64: u16 = 183;
pub(crate) const ET_EXEC: u16 = 2;
pub(crate) const ET_DYN: u16 = 3;
/// `DT_FLAGS_1` with the mark of a program.
pub(crate) const PIE: (u64, u64) = (0x6fff_fffb, 0x0800_0000);

/// Where the first byte of the file is loaded.
const BASE: u64 = 0x10_0000;

/// How the file names a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// Taken from elsewhere.
    Import,
    /// Taken from elsewhere into a place of its own.
    Copy,
    /// Its own.
    Defined,
    /// In the table of symbols alone.
    Unused,
}

/// What a file is made of.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) interpreter: Option<&'static str>,
    /// Whether there is a dynamic section.
    pub(crate) is_dynamic: bool,
    pub(crate) needed: Vec<&'static str>,
    pub(crate) symbols: Vec<(&'static str, Symbol)>,
    /// More entries of the dynamic section.
    pub(crate) tags: Vec<(u64, u64)>,
    /// The executable segment.
    pub(crate) code: Vec<u8>,
    /// The sections in it, as offset and length.
    pub(crate) sections: Vec<(u64, u64)>,
    /// Where functions begin in it, for a table for unwinding.
    pub(crate) functions: Option<Vec<u64>>,
}

impl Sample {
    /// A library without code.
    pub(crate) fn library() -> Self {
        Self {
            kind: ET_DYN,
            machine: X86_64,
            interpreter: None,
            is_dynamic: true,
            needed: vec!["libc.so.6"],
            symbols: Vec::new(),
            tags: Vec::new(),
            code: Vec::new(),
            sections: Vec::new(),
            functions: None,
        }
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = File::default();
        file.bytes.resize(64 + 5 * 56, 0);
        let interpreter = self.interpreter.map(|name| file.push(&[name.as_bytes(), &[0]].concat()));
        let dynamic = self.is_dynamic.then(|| self.dynamic(&mut file));
        let code = file.push(&self.code);
        let unwinding = self.functions.as_ref().map(|starts| unwinding(&mut file, code.0, starts));
        let end = file.bytes.len() as u64;
        let segments = [
            Some((1, 4, (0, end))),
            Some((1, 5, code)),
            interpreter.map(|part| (3, 4, part)),
            dynamic.map(|part| (2, 6, part)),
            unwinding.map(|part| (0x6474_e550, 4, part)),
        ];
        for (number, (kind, flags, (offset, len))) in segments.into_iter().flatten().enumerate() {
            let header = &mut file.bytes[64 + number * 56..];
            put(header, 0, &u32::to_le_bytes(kind));
            put(header, 4, &u32::to_le_bytes(flags));
            for (at, value) in [(8, offset), (16, BASE + offset), (32, len), (40, len)] {
                put(header, at, &u64::to_le_bytes(value));
            }
        }
        let table = file.bytes.len() as u64;
        for (offset, len) in &self.sections {
            let mut header = [0; 64];
            put(&mut header, 4, &u32::to_le_bytes(1));
            for (at, value) in [(8, 2 | 4), (24, code.0.wrapping_add(*offset)), (32, *len)] {
                put(&mut header, at, &u64::to_le_bytes(value));
            }
            file.bytes.extend_from_slice(&header);
        }
        let header = &mut file.bytes;
        put(header, 0, b"\x7fELF\x02\x01\x01");
        let words = [(16, self.kind), (18, self.machine), (54, 56), (56, 5), (58, 64)];
        for (at, value) in words.into_iter().chain([(60, self.sections.len() as u16)]) {
            put(header, at, &u16::to_le_bytes(value));
        }
        put(header, 32, &u64::to_le_bytes(64));
        put(header, 40, &u64::to_le_bytes(table));
        file.bytes
    }

    /// Writes the dynamic section and its tables; its offset and length.
    fn dynamic(&self, file: &mut File) -> (u64, u64) {
        let names = self.needed.iter().copied().chain(self.symbols.iter().map(|symbol| symbol.0));
        let mut strings = vec![0];
        let mut places = BTreeMap::new();
        for name in names {
            places.insert(name, strings.len() as u32);
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        let (mut symbols, mut relocations) = (vec![0; 24], Vec::new());
        let (slot, copy) = if self.machine == X86_64 { (6, 5) } else { (1025, 1024) };
        for (number, (name, symbol)) in (1_u32..).zip(&self.symbols) {
            let mut entry = [0; 24];
            put(&mut entry, 0, &places[name].to_le_bytes());
            if matches!(symbol, Symbol::Copy | Symbol::Defined) {
                put(&mut entry, 6, &u16::to_le_bytes(7));
            }
            symbols.extend_from_slice(&entry);
            if *symbol != Symbol::Unused {
                let mut entry = [0; 24];
                let kind: u32 = if *symbol == Symbol::Copy { copy } else { slot };
                put(&mut entry, 8, &kind.to_le_bytes());
                put(&mut entry, 12, &number.to_le_bytes());
                relocations.extend_from_slice(&entry);
            }
        }
        // One that names no symbol, in front of all.
        relocations.splice(..0, [0; 24]);
        let (strings, symbols) = (file.push(&strings), file.push(&symbols));
        // Half of the relocations are those of functions, as linkers sort them.
        let half = relocations.len() / 48 * 24;
        let (data, functions) = (file.push(&relocations[..half]), file.push(&relocations[half..]));
        let needed = self.needed.iter().map(|name| (1, u64::from(places[name])));
        let tables = [
            (5, BASE + strings.0),
            (10, strings.1),
            (6, BASE + symbols.0),
            (7, BASE + data.0),
            (8, data.1),
            (23, BASE + functions.0),
            (2, functions.1),
        ];
        let entries = needed.chain(tables).chain(self.tags.iter().copied());
        // What stands behind the end does not count.
        let entries = entries.chain([(0, 0), (1, 0xffff_ffff)]);
        let bytes: Vec<u8> = entries
            .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()])
            .flatten()
            .collect();
        file.push(&bytes)
    }
}

/// Writes the table for unwinding of functions that begin at these places of code; its offset and length.
fn unwinding(file: &mut File, code: u64, starts: &[u64]) -> (u64, u64) {
    let table = file.bytes.len() as u64;
    let mut bytes = [&[1, 0x1b, 0x03, 0x3b][..], &[0; 4]].concat();
    bytes.extend((starts.len() as u32).to_le_bytes());
    for start in starts {
        bytes.extend(((code + start).wrapping_sub(table) as u32).to_le_bytes());
        bytes.extend([0; 4]);
    }
    file.push(&bytes)
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
}

impl File {
    /// Appends bytes; their offset and length.
    fn push(&mut self, bytes: &[u8]) -> (u64, u64) {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        (offset, bytes.len() as u64)
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
