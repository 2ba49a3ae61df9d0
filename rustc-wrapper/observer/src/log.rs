//! The log that the preloaded library writes and the wrapper reads.
//!
//! A file of fixed size, mapped by every observed process: a header, a table of offsets by hash
//! that finds repetitions, then entries one after another. Whoever adds an entry reserves its bytes
//! by moving [`TAIL_AT`] on, writes them, and writes the length last; so a reader knows which entries
//! are whole. What does not fit is counted in [`LOST_AT`], never waited for.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | bytes for entries |
//! | 12 | 4 | bytes reserved so far |
//! | 16 | 4 | what was lost, bits of [`Lost`] |
//! | 20 | 4 | slots in the table, a power of two |
//! | 24 | 4 | processes so far |
//! | 64 | 4 × slots | the table: where an entry is, and a tag from its hash |
//! | then | | entries, each at a multiple of 8 |
//!
//! An entry is its length (4 bytes, of all of it), the number of the process (2), the [`Kind`] (1),
//! [`flags`] (1), and the name. All numbers are little endian.

/// First bytes of a log: format and version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KILNOBS1");
/// Offset of the bytes for entries.
pub const CAPACITY_AT: usize = 8;
/// Offset of the bytes reserved.
pub const TAIL_AT: usize = 12;
/// Offset of what was lost.
pub const LOST_AT: usize = 16;
/// Offset of the number of slots.
pub const SLOTS_AT: usize = 20;
/// Offset of the number of processes.
pub const PROCESSES_AT: usize = 24;
/// Bytes before the table.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an entry before its name.
pub const ENTRY_BYTES: usize = 8;
/// Longest name: two paths of the system's limit.
pub const MAX_NAME: usize = 8192;
/// Largest log, bytes for entries.
pub const MAX_CAPACITY: usize = 256 * 1024 * 1024;
/// Most slots.
pub const MAX_SLOTS: usize = 1024 * 1024;

/// Most bytes of prefix maps in a lead.
pub const MAX_MAPS: usize = 3 * 1024;

/// The variable that leads a process to its log: `PARENT:HOW:LIBRARY:LOG[:MAPS]`, where PARENT is the
/// number of the process that started this one and HOW a letter of [`How`]. Nobody but the library
/// sees it. MAPS, for C compilers, are pairs `OLD=NEW` with colons between them, up to [`MAX_MAPS`]
/// bytes.
///
/// Empty, it means that a process is not observed. A program that is started with the variable in its
/// environment keeps what its starter put there: a wrapper within an observed run observes on its own.
pub const VARIABLE: &str = "KILN_OBSERVER";

/// Bits beside the kind of an entry.
pub mod flags {
    /// By code that was loaded after the program had started: a plugin, as procedural macros are.
    pub const LATER: u8 = 1;
    /// The call failed.
    pub const FAILED: u8 = 2;
    /// It failed since there is nothing of that name.
    pub const ABSENT: u8 = 4;
    /// What was asked for is what the link itself is, not where it leads.
    pub const LINK: u8 = 8;
    /// An object that came with its program, and was not loaded by it later.
    pub const START: u8 = 16;
    /// Of [`super::Kind::Write`]: what can be read there afterwards was not all written by this run.
    /// A symbolic link was made, something renamed, or a file opened that may have been there. Of
    /// [`super::Kind::Look`]: by a call that changes or removes what it names.
    pub const KEPT: u8 = 32;
    /// Of [`super::Kind::Write`]: there was nothing of that name before; it could not have been made
    /// otherwise.
    pub const FRESH: u8 = 64;
    /// Of [`super::Kind::Write`]: what is written goes behind what is there.
    pub const APPEND: u8 = 128;
}

/// Why something could not be noted: bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost(pub u32);

impl Lost {
    /// The log is full.
    pub const FULL: u32 = 1;
    /// A path could not be told, or is over its bound.
    pub const PATH: u32 = 2;
    /// A child was started that is not observed.
    pub const CHILD: u32 = 4;
    /// An entry is not whole.
    pub const TORN: u32 = 8;
    /// A function was called that reads out of sight.
    pub const UNSEEN: u32 = 16;
}

/// What an entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A file was opened for reading.
    Read = 1,
    /// A file was opened for writing, made, or something renamed to it.
    Write = 2,
    /// A file was looked at: whether it is there, and of what kind and size.
    Look = 3,
    /// A directory was listed.
    List = 4,
    /// Where a link leads, or a path in the end, was asked for.
    Resolve = 5,
    /// A variable was read.
    Variable = 6,
    /// A program is started: the name is its process number (4 bytes) and path.
    Program = 7,
    /// The start of that program failed.
    ProgramFailed = 8,
    /// A process began: the name is [`Process`], then its program.
    Process = 9,
    /// A shared object was loaded: by `dlopen`, or with a program.
    Object = 10,
    /// The working directory was asked for; the name is what it is.
    Cwd = 11,
    /// Somebody else was asked or told, or may ask: `network`, `host:NAME` whose address was looked up,
    /// `unix:PATH` or `unix:@NAME` for a socket of this machine, `family:NUMBER` for any other.
    Network = 12,
}

impl Kind {
    /// The kind of a number.
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Read,
            2 => Self::Write,
            3 => Self::Look,
            4 => Self::List,
            5 => Self::Resolve,
            6 => Self::Variable,
            7 => Self::Program,
            8 => Self::ProgramFailed,
            9 => Self::Process,
            10 => Self::Object,
            11 => Self::Cwd,
            12 => Self::Network,
            _ => return None,
        })
    }
}

/// How a process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum How {
    /// The wrapper started it.
    Root = b'r',
    /// An observed process became it, without a new process number.
    Became = b'b',
    /// Code of a program's own start started it.
    Child = b'c',
    /// Code loaded later started it.
    ChildOfLater = b'l',
}

impl How {
    /// The way of a letter.
    pub fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b'r' => Self::Root,
            b'b' => Self::Became,
            b'c' => Self::Child,
            b'l' => Self::ChildOfLater,
            _ => return None,
        })
    }
}

/// Head of the name of a [`Kind::Process`] entry; the path of its program follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Number of the process that started it, 0 for the first.
    pub parent: u16,
    /// How it was started.
    pub how: How,
    /// The system's number of it.
    pub pid: u32,
}

/// Bytes of a [`Process`] in a name.
pub const PROCESS_BYTES: usize = 8;

impl Process {
    /// As bytes.
    pub fn encode(self) -> [u8; PROCESS_BYTES] {
        let ([p0, p1], [d0, d1, d2, d3]) = (self.parent.to_le_bytes(), self.pid.to_le_bytes());
        [p0, p1, self.how as u8, 0, d0, d1, d2, d3]
    }

    /// From a name: the process, and the path of its program.
    pub fn decode(name: &[u8]) -> Option<(Self, &[u8])> {
        let (head, path) = name.split_first_chunk::<PROCESS_BYTES>()?;
        let [p0, p1, how, _, d0, d1, d2, d3] = *head;
        let (parent, pid) = (u16::from_le_bytes([p0, p1]), u32::from_le_bytes([d0, d1, d2, d3]));
        Some((Self { parent, how: How::of(how)?, pid }, path))
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Number of the process, from 1.
    pub process: u16,
    /// What it tells.
    pub kind: Kind,
    /// Bits of [`flags`].
    pub flags: u8,
    /// A path (absolute, as the program named it), or the name of a variable.
    pub name: &'a [u8],
}

impl Entry<'_> {
    /// Whether a bit is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why bytes are no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotALog;

/// The header of a log that takes so many bytes of entries and has so many slots.
pub fn header(capacity: u32, slots: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    put(0, &MAGIC.to_le_bytes());
    put(CAPACITY_AT, &capacity.to_le_bytes());
    put(SLOTS_AT, &slots.to_le_bytes());
    header
}

/// Bytes of a whole log.
pub fn file_bytes(capacity: u32, slots: u32) -> u64 {
    HEADER_BYTES as u64 + 4 * u64::from(slots) + u64::from(capacity)
}

/// The next multiple of 8.
pub fn padded(len: usize) -> usize {
    len.saturating_add(7) & !7
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*word))
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Offset of the first entry.
    pub entries_at: usize,
    /// Bytes of entries, as far as they fitted.
    pub entries: usize,
    /// What was lost.
    pub lost: Lost,
}

/// Reads a header.
///
/// # Errors
/// When it is none.
pub fn head(bytes: &[u8]) -> Result<Head, NotALog> {
    let field = |at| word(bytes, at).ok_or(NotALog);
    let magic = bytes.first_chunk::<8>().map(|magic| u64::from_le_bytes(*magic));
    let (capacity, slots) = (field(CAPACITY_AT)? as usize, field(SLOTS_AT)? as usize);
    let sane = capacity <= MAX_CAPACITY && slots <= MAX_SLOTS && bytes.len() >= HEADER_BYTES;
    if magic != Some(MAGIC) || !sane {
        return Err(NotALog);
    }
    let tail = field(TAIL_AT)? as usize;
    let full = if tail > capacity { Lost::FULL } else { 0 };
    Ok(Head {
        entries_at: HEADER_BYTES + 4 * slots,
        entries: tail.min(capacity),
        lost: Lost(field(LOST_AT)? | full),
    })
}

/// The entries in the bytes behind a header, in their order.
///
/// An entry that is not whole ends the walk; the second value of the item says so.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    /// A walk over the bytes of entries.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take(&mut self) -> Option<Entry<'a>> {
        let len = word(self.bytes, 0)? as usize;
        let entry = self.bytes.get(..len)?;
        let ([_, _, _, _, p0, p1, kind, flags], name) = entry.split_first_chunk::<ENTRY_BYTES>()?;
        let process = u16::from_le_bytes([*p0, *p1]);
        self.bytes = self.bytes.get(padded(len)..).unwrap_or_default();
        Some(Entry { process, kind: Kind::of(*kind)?, flags: *flags, name })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_none() {
            self.bytes = &[];
        }
        Some(entry.ok_or(Lost(Lost::TORN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(process: u16, kind: Kind, name: &[u8]) -> Vec<u8> {
        let mut bytes = ((ENTRY_BYTES + name.len()) as u32).to_le_bytes().to_vec();
        bytes.extend(process.to_le_bytes());
        bytes.extend([kind as u8, flags::LATER]);
        bytes.extend(name);
        bytes.resize(padded(bytes.len()), 0);
        bytes
    }

    #[test]
    fn entries_come_back_in_order() {
        let names: [&[u8]; 3] = [b"/a", b"", b"/with\nnew line\xff"];
        let bytes: Vec<u8> = names.iter().flat_map(|n| entry(7, Kind::Read, n)).collect();
        let read: Vec<_> = Entries::new(&bytes).map(|e| e.unwrap().name).collect();
        assert_eq!(read, names);
    }

    #[test]
    fn what_is_not_whole_is_told() {
        let mut bytes = entry(1, Kind::Read, b"/a");
        let whole = bytes.len();
        bytes.extend(entry(1, Kind::Read, b"/b"));
        bytes[whole..whole + 4].fill(0);
        let read: Vec<_> = Entries::new(&bytes).collect();
        assert!(read[0].is_ok());
        assert_eq!(read[1], Err(Lost(Lost::TORN)));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn headers_say_what_they_were_made_with() {
        let head = head(&header(4096, 64)).unwrap();
        assert_eq!(head, Head { entries_at: 64 + 256, entries: 0, lost: Lost(0) });
        assert_eq!(super::head(&[0; 64]), Err(NotALog));
        assert_eq!(super::head(&header(4096, 64)[..60]), Err(NotALog));
    }

    #[test]
    fn processes_come_back() {
        let process = Process { parent: 513, how: How::ChildOfLater, pid: 70_000 };
        let mut name = process.encode().to_vec();
        name.extend(b"/bin/sh");
        assert_eq!(Process::decode(&name), Some((process, &b"/bin/sh"[..])));
        assert_eq!(Process::decode(&name[..7]), None);
    }

    /// Bytes that are nearly a log: headers and entries with fields of all sorts.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![any::<u32>(), 0..80_u32, Just(u32::MAX), Just(1 << 28)];
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            word.prop_map(|word| word.to_le_bytes().to_vec()),
            (any::<u16>(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(process, name)| entry(process, Kind::Read, &name)),
        ];
        let head = prop_oneof![Just(header(4096, 64).to_vec()), Just(Vec::new())];
        (head, prop::collection::vec(piece, 0..30))
            .prop_map(|(head, pieces)| [head, pieces.concat()].concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in nearly()) {
            if let Ok(head) = head(&bytes) {
                prop_assert!(head.entries <= MAX_CAPACITY);
                prop_assert!(head.entries_at <= HEADER_BYTES + 4 * MAX_SLOTS);
            }
        }

        /// Each entry takes its bytes from what is left; the first that is not whole is the last.
        #[test]
        fn a_walk_ends(bytes in nearly()) {
            let (mut left, mut torn) = (bytes.len(), false);
            for entry in Entries::new(&bytes) {
                prop_assert!(!torn);
                match entry {
                    Ok(entry) => {
                        let len = ENTRY_BYTES + entry.name.len();
                        prop_assert!(len <= left);
                        left -= padded(len).min(left);
                    }
                    Err(lost) => {
                        prop_assert_eq!(lost, Lost(Lost::TORN));
                        torn = true;
                    }
                }
            }
            prop_assert!(torn || left == 0);
        }

        #[test]
        fn any_process_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some((process, path)) = Process::decode(&bytes) {
                prop_assert_eq!(path.len() + PROCESS_BYTES, bytes.len());
                let again = process.encode();
                prop_assert_eq!(Process::decode(&again).map(|(process, _)| process), Some(process));
            }
        }
    }
}
