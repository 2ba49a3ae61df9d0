//! The table of sections of an [`Elf`], which a program does not need to run: names of functions, and
//! what is beside the program. Called by [`crate::objects::environment`].

use super::{
    Elf, Result, SECTION_BYTES, SHF_ALLOC, SHN_UNDEF, SHT_NOBITS, SHT_NULL, SYMBOL_BYTES,
    Unreadable, from, part, u16_at, u32_at, u64_at, until_zero,
};

/// Longest name of a function that is looked at, bytes. Longer ones have none.
const MAX_FUNCTION_BYTES: usize = 4096;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_DYNSYM: u32 = 11;
const STT_FUNC: u8 = 2;

/// A function of the table of symbols, which is there to debug with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// Where it begins.
    pub address: u64,
    /// Where it ends.
    pub end: u64,
    /// Its name, as it is encoded.
    pub name: &'a [u8],
}

/// An entry of the table of sections.
#[derive(Debug, Clone, Copy)]
struct Section<'a> {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    link: u32,
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    /// The table.
    fn sections(&self) -> Result<Vec<Section<'a>>> {
        let (entry_bytes, count) = (u16_at(self.file, 58)?, u16_at(self.file, 60)?);
        if usize::from(entry_bytes) != SECTION_BYTES {
            return Err(Unreadable);
        }
        let bytes = u64::from(count) * SECTION_BYTES as u64;
        let table = part(self.file, u64_at(self.file, 40)?, bytes)?;
        table.chunks_exact(SECTION_BYTES).map(|header| self.section(header)).collect()
    }

    fn section(&self, header: &[u8]) -> Result<Section<'a>> {
        let (kind, offset) = (u32_at(header, 4)?, u64_at(header, 24)?);
        let bytes = match kind {
            SHT_NULL | SHT_NOBITS => &[],
            _ => part(self.file, offset, u64_at(header, 32)?)?,
        };
        Ok(Section {
            name: u32_at(header, 0)?,
            kind,
            flags: u64_at(header, 8)?,
            address: u64_at(header, 16)?,
            offset,
            link: u32_at(header, 40)?,
            bytes,
        })
    }

    /// All functions that have a name to debug with; none in a file that was stripped.
    ///
    /// # Errors
    /// When a table is damaged.
    pub fn functions(&self) -> Result<Vec<Function<'a>>> {
        self.symbols(SHT_SYMTAB)
    }

    /// The functions that other objects can reach.
    ///
    /// # Errors
    /// When a table is damaged, or there is none.
    pub fn exports(&self) -> Result<Vec<Function<'a>>> {
        let sections = self.sections()?;
        sections.iter().find(|section| section.kind == SHT_DYNSYM).ok_or(Unreadable)?;
        self.symbols(SHT_DYNSYM)
    }

    fn symbols(&self, kind: u32) -> Result<Vec<Function<'a>>> {
        let sections = self.sections()?;
        let mut functions = Vec::new();
        for table in sections.iter().filter(|section| section.kind == kind) {
            let strings = sections.get(table.link as usize).ok_or(Unreadable)?.bytes;
            for entry in table.bytes.chunks_exact(SYMBOL_BYTES as usize) {
                let (info, section) = (entry[4], u16_at(entry, 6)?);
                if info & 15 == STT_FUNC && section != SHN_UNDEF {
                    let (address, bytes) = (u64_at(entry, 8)?, u64_at(entry, 16)?);
                    let name = from(strings, u64::from(u32_at(entry, 0)?))?;
                    let name = until_zero(name, MAX_FUNCTION_BYTES).unwrap_or_default();
                    functions.push(Function { address, end: address.saturating_add(bytes), name });
                }
            }
        }
        Ok(functions)
    }

    /// Where the addresses of what code asks for by address are kept: the sections `.got` and the
    /// like.
    ///
    /// # Errors
    /// When the table of sections is damaged or not there.
    pub fn address_tables(&self) -> Result<Vec<std::ops::Range<u64>>> {
        let sections = self.sections()?;
        let names = sections.get(usize::from(u16_at(self.file, 62)?)).ok_or(Unreadable)?.bytes;
        let named = |section: &&Section<'_>| {
            let name = from(names, section.name.into()).and_then(|name| until_zero(name, 16));
            matches!(name, Ok(b".got" | b".got.plt"))
        };
        let range = |s: &Section<'_>| s.address..s.address.saturating_add(s.bytes.len() as u64);
        Ok(sections.iter().filter(named).map(range).collect())
    }

    /// The parts of the file that are text for a linker or a debugger: nothing that a program reads
    /// when it runs. In order.
    pub fn beside_the_program(&self) -> Vec<std::ops::Range<u64>> {
        let beside = |s: &&Section<'_>| s.kind == SHT_STRTAB || s.flags & SHF_ALLOC == 0;
        let range = |s: &Section<'_>| s.offset..s.offset.saturating_add(s.bytes.len() as u64);
        let sections = self.sections().unwrap_or_default();
        let mut parts: Vec<_> = sections.iter().filter(beside).map(range).collect();
        parts.sort_unstable_by_key(|part| part.start);
        parts
    }
}
