//! [`Elf`]: an ELF file of 64 bits taken apart as far as [`crate::objects`] needs it.
//!
//! Every offset is checked: damaged or hostile bytes are [`Unreadable`], never a panic, and cause no
//! more work than a few passes over the file. Pure.

mod sections;
mod unwind;

pub use sections::Function;

/// Most names of needed objects.
const MAX_NEEDED: usize = 1024;
/// Longest name of a needed object or a loader, bytes.
const MAX_NAME_BYTES: usize = 4096;

/// Longest name of a symbol that is looked at, bytes. Those that are asked for are short.
const MAX_SYMBOL_BYTES: usize = 64;

/// ELF, 64 bits, little endian.
const IDENT: &[u8] = b"\x7fELF\x02\x01";
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PF_X: u32 = 1;
const SEGMENT_BYTES: usize = 56;
/// Most segments; the kernel takes no more of a program.
const MAX_SEGMENTS: u16 = 1024;
const SECTION_BYTES: usize = 64;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const DYNAMIC_BYTES: usize = 16;
const DF_1_PIE: u64 = 0x0800_0000;
const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: u64 = 24;
const SHN_UNDEF: u16 = 0;

/// Tags of the dynamic section.
mod tag {
    pub(super) const NULL: u64 = 0;
    pub(super) const NEEDED: u64 = 1;
    pub(super) const PLTRELSZ: u64 = 2;
    pub(super) const STRTAB: u64 = 5;
    pub(super) const SYMTAB: u64 = 6;
    pub(super) const RELA: u64 = 7;
    pub(super) const RELASZ: u64 = 8;
    pub(super) const STRSZ: u64 = 10;
    pub(super) const REL: u64 = 17;
    pub(super) const JMPREL: u64 = 23;
    pub(super) const RELR: u64 = 36;
    pub(super) const CREL: u64 = 0x4000_0026;
    pub(super) const DEPAUDIT: u64 = 0x6fff_fefb;
    pub(super) const AUDIT: u64 = 0x6fff_fefc;
    pub(super) const FLAGS_1: u64 = 0x6fff_fffb;
    pub(super) const AUXILIARY: u64 = 0x7fff_fffd;
    pub(super) const FILTER: u64 = 0x7fff_ffff;
}

/// What is asked for is not there, or damaged, or of a form that is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an object file, or a damaged one")]
pub struct Unreadable;

type Result<T> = std::result::Result<T, Unreadable>;

/// The machine that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// aarch64, little endian.
    Aarch64,
}

impl Machine {
    fn of(number: u16) -> Result<Self> {
        match number {
            62 => Ok(Self::X86_64),
            183 => Ok(Self::Aarch64),
            _ => Err(Unreadable),
        }
    }

    /// The relocation that copies a variable of a library into the program: the symbol is the
    /// program's from then on, and still an import.
    fn copy_relocation(self) -> u32 {
        match self {
            Self::X86_64 => 5,
            Self::Aarch64 => 1024,
        }
    }
}

/// A stretch of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code<'a> {
    /// Where it is in the file.
    pub offset: u64,
    /// Where it is loaded.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What the loader writes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// The address that it writes to.
    pub place: u64,
    /// How, as the machine numbers it.
    pub kind: u32,
    /// Number of the symbol; 0 for none.
    pub symbol: u32,
    /// What is added.
    pub addend: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// A program or a shared object.
#[derive(Debug)]
pub struct Elf<'a> {
    /// The machine that it is for.
    pub machine: Machine,
    file: &'a [u8],
    kind: u16,
    segments: Vec<Segment>,
}

/// The dynamic section of an [`Elf`].
#[derive(Debug)]
pub struct Dynamic<'a> {
    elf: &'a Elf<'a>,
    entries: Vec<(u64, u64)>,
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u16::from_le_bytes).ok_or(Unreadable)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u32::from_le_bytes).ok_or(Unreadable)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map(u64::from_le_bytes).ok_or(Unreadable)
}

/// The bytes from an offset on.
fn from(bytes: &[u8], offset: u64) -> Result<&[u8]> {
    usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).ok_or(Unreadable)
}

/// So many bytes from an offset on, all of them.
fn part(bytes: &[u8], offset: u64, len: u64) -> Result<&[u8]> {
    let len = usize::try_from(len).map_err(|_| Unreadable)?;
    from(bytes, offset)?.get(..len).ok_or(Unreadable)
}

/// The bytes before the first zero, which has to be among the first `limit` and one.
fn until_zero(bytes: &[u8], limit: usize) -> Result<&[u8]> {
    let bytes = &bytes[..bytes.len().min(limit + 1)];
    memchr::memchr(0, bytes).map(|len| &bytes[..len]).ok_or(Unreadable)
}

/// A name that the loader opens. One that is no text would not be the same name as text.
fn file_name(bytes: &[u8]) -> Result<String> {
    let name = until_zero(bytes, MAX_NAME_BYTES)?;
    std::str::from_utf8(name).map(str::to_owned).map_err(|_| Unreadable)
}

impl<'a> Elf<'a> {
    /// The whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.file
    }

    /// The headers of a program or a shared object.
    ///
    /// # Errors
    /// For any other file.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        let kind = u16_at(file, 16)?;
        let machine = Machine::of(u16_at(file, 18)?)?;
        let (entry_bytes, count) = (u16_at(file, 54)?, u16_at(file, 56)?);
        let is_object = file.starts_with(IDENT) && matches!(kind, ET_EXEC | ET_DYN);
        if !is_object || usize::from(entry_bytes) != SEGMENT_BYTES || count > MAX_SEGMENTS {
            return Err(Unreadable);
        }
        let table = part(file, u64_at(file, 32)?, u64::from(count) * SEGMENT_BYTES as u64)?;
        let segments = table.chunks_exact(SEGMENT_BYTES).map(segment).collect::<Result<_>>()?;
        Ok(Self { machine, file, kind, segments })
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    fn bytes_of(&self, segment: &Segment) -> Result<&'a [u8]> {
        part(self.file, segment.offset, segment.file_bytes)
    }

    /// The loader that the file names, if it names one.
    ///
    /// # Errors
    /// When the name is damaged.
    pub fn interpreter(&self) -> Result<Option<String>> {
        let segment = self.segments(PT_INTERP).next();
        segment.map(|segment| file_name(self.bytes_of(segment)?)).transpose()
    }

    /// The dynamic section, if there is one.
    ///
    /// # Errors
    /// When it is damaged, or says what is not understood.
    pub fn dynamic(&'a self) -> Result<Option<Dynamic<'a>>> {
        let Some(segment) = self.segments(PT_DYNAMIC).next() else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for entry in self.bytes_of(segment)?.chunks_exact(DYNAMIC_BYTES) {
            match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
                (tag::NULL, _) => break,
                // Imports in another form, and objects that are loaded beside the needed ones.
                (tag::REL | tag::CREL | tag::AUDIT | tag::DEPAUDIT, _) => return Err(Unreadable),
                entry => entries.push(entry),
            }
        }
        Ok(Some(Dynamic { elf: self, entries }))
    }

    /// Whether this is a program that starts without a loader, though it has a dynamic section.
    pub fn is_static_program(&self, dynamic: &Dynamic<'_>) -> bool {
        let is_program = self.kind == ET_EXEC
            || dynamic.value(tag::FLAGS_1).is_some_and(|flags| flags & DF_1_PIE != 0);
        is_program && self.segments(PT_INTERP).next().is_none()
    }

    /// All code of the file: the executable sections in each executable segment, or the whole
    /// segment where there are none.
    ///
    /// # Errors
    /// When a segment is not all there, or the same bytes are code many times over.
    pub fn code(&self) -> Result<Vec<Code<'a>>> {
        let sections = self.executable_sections().unwrap_or_default();
        let mut code = Vec::new();
        for segment in self.segments(PT_LOAD).filter(|segment| segment.flags & PF_X != 0) {
            let (offset, address) = (segment.offset, segment.address);
            let whole = Code { offset, address, bytes: self.bytes_of(segment)? };
            let before = code.len();
            code.extend(sections.iter().filter(|section| section.is_inside(&whole)).copied());
            if code.len() == before {
                code.push(whole);
            }
        }
        let total: usize = code.iter().map(|code| code.bytes.len()).sum();
        if total > self.file.len() { Err(Unreadable) } else { Ok(code) }
    }

    /// The sections that hold code.
    fn executable_sections(&self) -> Result<Vec<Code<'a>>> {
        let (entry_bytes, count) = (u16_at(self.file, 58)?, u16_at(self.file, 60)?);
        if usize::from(entry_bytes) != SECTION_BYTES {
            return Err(Unreadable);
        }
        let bytes = u64::from(count) * SECTION_BYTES as u64;
        let table = part(self.file, u64_at(self.file, 40)?, bytes)?;
        let mut sections = Vec::new();
        for header in table.chunks_exact(SECTION_BYTES) {
            let (kind, flags) = (u32_at(header, 4)?, u64_at(header, 8)?);
            let is_code = flags & SHF_ALLOC != 0 && flags & SHF_EXECINSTR != 0;
            if is_code && !matches!(kind, SHT_NULL | SHT_NOBITS) {
                let offset = u64_at(header, 24)?;
                let bytes = part(self.file, offset, u64_at(header, 32)?)?;
                sections.push(Code { offset, address: u64_at(header, 16)?, bytes });
            }
        }
        Ok(sections)
    }

    /// Whether the file can be loaded anywhere, so that every address in it is relocated.
    pub fn is_movable(&self) -> bool {
        self.kind == ET_DYN
    }

    /// The bytes from the one on that is loaded at this address, up to the end of its segment.
    fn at_address(&self, address: u64) -> Result<&'a [u8]> {
        let inside = |segment: &&Segment| {
            address.checked_sub(segment.address).is_some_and(|at| at < segment.file_bytes)
        };
        let segment = self.segments(PT_LOAD).find(inside).ok_or(Unreadable)?;
        from(self.bytes_of(segment)?, address - segment.address)
    }
}

impl Code<'_> {
    /// Where in it addresses are; those elsewhere are left out.
    pub fn places(&self, addresses: &[u64]) -> Vec<usize> {
        let place = |address: &u64| usize::try_from(address.checked_sub(self.address)?).ok();
        addresses.iter().filter_map(place).filter(|at| *at < self.bytes.len()).collect()
    }

    /// Whether it is a part of another one, and not nothing.
    fn is_inside(&self, whole: &Code<'_>) -> bool {
        let end = |code: &Code<'_>| code.offset + code.bytes.len() as u64;
        !self.bytes.is_empty() && self.offset >= whole.offset && end(self) <= end(whole)
    }
}

fn segment(header: &[u8]) -> Result<Segment> {
    Ok(Segment {
        kind: u32_at(header, 0)?,
        flags: u32_at(header, 4)?,
        offset: u64_at(header, 8)?,
        address: u64_at(header, 16)?,
        file_bytes: u64_at(header, 32)?,
    })
}

impl<'a> Dynamic<'a> {
    /// The last value of a tag, which is the one that the loader goes by.
    fn value(&self, tag: u64) -> Option<u64> {
        self.entries.iter().rev().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// The bytes from the address on that is the value of a tag.
    fn table(&self, tag: u64) -> Result<&'a [u8]> {
        self.elf.at_address(self.value(tag).ok_or(Unreadable)?)
    }

    fn strings(&self) -> Result<&'a [u8]> {
        part(self.table(tag::STRTAB)?, 0, self.value(tag::STRSZ).ok_or(Unreadable)?)
    }

    /// The objects that the loader is asked for.
    ///
    /// # Errors
    /// When a name is damaged, or there are too many.
    pub fn needed(&self) -> Result<Vec<String>> {
        let wanted = |tag| matches!(tag, tag::NEEDED | tag::AUXILIARY | tag::FILTER);
        let offsets = self.entries.iter().filter(|entry| wanted(entry.0)).map(|entry| entry.1);
        let offsets: Vec<u64> = offsets.collect();
        if offsets.is_empty() {
            return Ok(Vec::new());
        }
        if offsets.len() > MAX_NEEDED {
            return Err(Unreadable);
        }
        let strings = self.strings()?;
        offsets.iter().map(|offset| file_name(from(strings, *offset)?)).collect()
    }

    /// The names of the symbols that are taken from other objects, sorted, without very long ones.
    ///
    /// They are found through the relocations: a symbol that none of them names is not reached, and
    /// nothing says how long the symbol table is. (The hash table of a program that exports nothing
    /// does not either.)
    ///
    /// # Errors
    /// When a table is damaged.
    pub fn imports(&self) -> Result<Vec<&'a [u8]>> {
        let copy = self.elf.machine.copy_relocation();
        let relocations = self.relocations()?;
        let named = relocations.iter().filter(|relocation| relocation.symbol != 0);
        let mut symbols: Vec<_> = named.map(|r| (r.symbol, r.kind == copy)).collect();
        if symbols.is_empty() {
            return Ok(Vec::new());
        }
        symbols.sort_unstable();
        symbols.dedup();
        let (table, strings) = (self.table(tag::SYMTAB)?, self.strings()?);
        let mut names = Vec::new();
        for (symbol, is_copied) in symbols {
            let entry = part(table, u64::from(symbol) * SYMBOL_BYTES, SYMBOL_BYTES)?;
            if u16_at(entry, 6)? == SHN_UNDEF || is_copied {
                let name = from(strings, u64::from(u32_at(entry, 0)?))?;
                names.extend(until_zero(name, MAX_SYMBOL_BYTES).ok());
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The name of a symbol that a relocation names.
    ///
    /// # Errors
    /// When a table is damaged, or the name is very long.
    pub fn symbol_name(&self, symbol: u32) -> Result<&'a [u8]> {
        let table = self.table(tag::SYMTAB)?;
        let entry = part(table, u64::from(symbol) * SYMBOL_BYTES, SYMBOL_BYTES)?;
        until_zero(from(self.strings()?, u64::from(u32_at(entry, 0)?))?, MAX_SYMBOL_BYTES)
    }

    /// Whether there are relocations of the packed form, which [`Dynamic::relocations`] lacks.
    pub fn has_packed_relocations(&self) -> bool {
        self.value(tag::RELR).is_some()
    }

    /// All relocations, but for packed ones, which name no symbol.
    ///
    /// # Errors
    /// When a table is damaged.
    pub fn relocations(&self) -> Result<Vec<Relocation>> {
        let mut relocations = Vec::new();
        for (table, size) in [(tag::RELA, tag::RELASZ), (tag::JMPREL, tag::PLTRELSZ)] {
            let Some(size) = self.value(size).filter(|size| *size != 0) else { continue };
            for entry in part(self.table(table)?, 0, size)?.chunks_exact(RELOCATION_BYTES) {
                relocations.push(Relocation {
                    place: u64_at(entry, 0)?,
                    kind: u32_at(entry, 8)?,
                    symbol: u32_at(entry, 12)?,
                    addend: u64_at(entry, 16)?,
                });
            }
        }
        Ok(relocations)
    }
}
