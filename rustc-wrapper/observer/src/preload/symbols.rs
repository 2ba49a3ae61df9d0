//! The real functions: found once, in the objects behind this one.
//!
//! By the loader's own list of objects and their symbol tables, and not by `dlsym`, which older
//! glibc keeps in a library of its own that a linker or an assembler need not have loaded.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

macro_rules! real_functions {
    ($($name:ident)*) => {
        /// A function that stands behind one of this library's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(non_camel_case_types, missing_docs, reason = "libc's own names")]
        pub enum Real { $($name),* }

        const NAMES: &[&[u8]] = &[$(stringify!($name).as_bytes()),*];
    };
}

real_functions! {
    open open64 openat openat64 creat creat64 fopen fopen64 freopen freopen64
    opendir fdopendir scandir scandir64 getdents64 getdents
    stat stat64 lstat lstat64 fstatat fstatat64 statx
    __xstat __xstat64 __lxstat __lxstat64 __fxstatat __fxstatat64
    access eaccess euidaccess chdir faccessat readlink readlinkat
    realpath canonicalize_file_name getcwd get_current_dir_name
    getenv secure_getenv __secure_getenv
    __open_2 __open64_2 __openat_2 __openat64_2
    __readlink_chk __readlinkat_chk __realpath_chk __getcwd_chk
    rename renameat renameat2 link linkat symlink symlinkat
    mkdir mkdirat mkdtemp mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 mkostemps mkostemps64
    dlopen dlmopen
    execve execvpe fexecve execveat posix_spawn posix_spawnp posix_spawn_file_actions_addopen
    ftw ftw64 nftw nftw64 fts_open fts64_open glob glob64 scandirat scandirat64 wordexp
    unlink unlinkat rmdir remove truncate truncate64 chmod fchmodat
    utime utimes lutimes utimensat futimesat chown lchown fchownat setxattr lsetxattr
    fchmod fchown futimens futimes ftruncate ftruncate64
    mknod mknodat __xmknod __xmknodat mkfifo mkfifoat
    connect bind listen sendto sendmsg sendmmsg
    getaddrinfo gethostbyname gethostbyname2 gethostbyname_r gethostbyname2_r
    localtime localtime_r mktime timelocal tzset ctime ctime_r strftime strftime_l
    setlocale newlocale
    getpwnam getpwnam_r getpwuid getpwuid_r getgrnam getgrnam_r getgrgid getgrgid_r
    popen system name_to_handle_at open_by_handle_at chroot unshare setns mount pivot_root
}

const COUNT: usize = NAMES.len();
/// Objects whose place is remembered; what lies elsewhere counts as loaded later.
const MAX_OBJECTS: usize = 64;

static FOUND: [AtomicUsize; COUNT] = [const { AtomicUsize::new(0) }; COUNT];
/// Begin and end of each object that was there at the start.
static PLACES: [[AtomicUsize; 2]; MAX_OBJECTS] =
    [const { [AtomicUsize::new(0), AtomicUsize::new(0)] }; MAX_OBJECTS];

impl Real {
    /// The address of the function; 0 when there is none.
    pub fn address(self) -> usize {
        FOUND.get(self as usize).map_or(0, |found| found.load(Ordering::Relaxed))
    }

    /// Whether the function returns a pointer, so that a failure is null.
    pub fn returns_pointer(self) -> bool {
        matches!(
            self,
            Self::fopen
                | Self::fopen64
                | Self::freopen
                | Self::freopen64
                | Self::opendir
                | Self::fdopendir
                | Self::realpath
                | Self::canonicalize_file_name
                | Self::getcwd
                | Self::get_current_dir_name
                | Self::getenv
                | Self::secure_getenv
                | Self::__secure_getenv
                | Self::__realpath_chk
                | Self::__getcwd_chk
                | Self::mkdtemp
                | Self::popen
                | Self::fts_open
                | Self::fts64_open
                | Self::localtime
                | Self::localtime_r
                | Self::ctime
                | Self::ctime_r
                | Self::setlocale
                | Self::newlocale
                | Self::getpwnam
                | Self::getpwuid
                | Self::getgrnam
                | Self::getgrgid
                | Self::gethostbyname
                | Self::gethostbyname2
        )
    }
}

/// Whether code at an address was loaded after the start.
pub fn is_later(address: usize) -> bool {
    let holds = |place: &[AtomicUsize; 2]| {
        let [begin, end] = place;
        address >= begin.load(Ordering::Relaxed) && address < end.load(Ordering::Relaxed)
    };
    !PLACES.iter().any(holds)
}

/// What `dl_iterate_phdr` tells of an object.
#[repr(C)]
struct Info {
    base: usize,
    name: *const c_char,
    headers: *const ProgramHeader,
    count: u16,
}

#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;

unsafe extern "C" {
    fn dl_iterate_phdr(
        each: unsafe extern "C" fn(*mut Info, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
}

/// A walk over all objects.
struct Walk {
    own: usize,
    behind: bool,
    objects: usize,
    tell: fn(&[u8]),
    /// Whether this is not the first walk: what was loaded meanwhile is no part of the start, and what
    /// was not found may be there in an old version alone.
    again: bool,
}

/// Finds all functions; tells the names of the objects, as the loader has them.
pub fn resolve(tell: fn(&[u8])) {
    walk(tell, false);
}

/// Finds what was not found, for a call that needs it.
#[cold]
pub fn resolve_again() {
    walk(|_| {}, true);
}

/// The path of this library, as the loader has it.
pub fn own_path() -> Option<&'static [u8]> {
    struct Search {
        own: usize,
        name: *const c_char,
    }
    unsafe extern "C" fn visit(info: *mut Info, _size: usize, search: *mut c_void) -> c_int {
        // SAFETY: the module `preload` says why.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
        // SAFETY: as above.
        let headers = unsafe { core::slice::from_raw_parts(info.headers, info.count.into()) };
        if place(info.base, headers).contains(&search.own) {
            search.name = info.name;
        }
        0
    }
    let mut search = Search { own: resolve as *const () as usize, name: core::ptr::null() };
    // SAFETY: as above. The loader keeps the name of an object as long as it is loaded.
    unsafe {
        dl_iterate_phdr(visit, (&raw mut search).cast());
        super::sys::text(search.name.cast(), 4096)
    }
}

/// Where an object lies.
fn place(base: usize, headers: &[ProgramHeader]) -> core::ops::Range<usize> {
    let at = |header: &ProgramHeader| base.wrapping_add(header.address as usize);
    let loads = || headers.iter().filter(|h| h.kind == LOAD);
    let end = loads().map(|h| at(h).wrapping_add(h.in_memory as usize)).max();
    loads().map(at).min().unwrap_or(0)..end.unwrap_or(0)
}

fn walk(tell: fn(&[u8]), again: bool) {
    let own = resolve as *const () as usize;
    let mut walk = Walk { own, behind: false, objects: 0, tell, again };
    // SAFETY: the module `preload` says why.
    unsafe { dl_iterate_phdr(visit, (&raw mut walk).cast()) };
    for (name, found) in NAMES.iter().zip(&FOUND) {
        if found.load(Ordering::Relaxed) == 0 {
            found.store(without_64(name).unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// The function whose name lacks the `64`. Newer versions of musl have but these, and let older
/// programs use both names.
fn without_64(name: &[u8]) -> Option<usize> {
    let at = name.windows(2).position(|part| part == b"64")?;
    let (before, behind) = (name.get(..at)?, name.get(at + 2..)?);
    let same = |plain: &&[u8]| plain.strip_prefix(before).is_some_and(|rest| rest == behind);
    let place = NAMES.iter().position(same)?;
    FOUND.get(place).map(|found| found.load(Ordering::Relaxed)).filter(|address| *address != 0)
}

unsafe extern "C" fn visit(info: *mut Info, _size: usize, walk: *mut c_void) -> c_int {
    // SAFETY: the module `preload` says why.
    let (info, walk) = unsafe { (&*info, &mut *walk.cast::<Walk>()) };
    // SAFETY: as above.
    let headers = unsafe { core::slice::from_raw_parts(info.headers, info.count.into()) };
    let at = |header: &ProgramHeader| info.base.wrapping_add(header.address as usize);
    let place = place(info.base, headers);
    if let (false, Some([first, last])) = (walk.again, PLACES.get(walk.objects)) {
        first.store(place.start, Ordering::Relaxed);
        last.store(place.end, Ordering::Relaxed);
    }
    walk.objects += 1;
    if place.contains(&walk.own) {
        walk.behind = true;
        return 0;
    }
    // SAFETY: as above.
    if let Some(name) = unsafe { super::sys::text(info.name.cast(), 4096) } {
        (walk.tell)(name);
    }
    if walk.behind
        && let Some(dynamic) = headers.iter().find(|h| h.kind == DYNAMIC)
        // SAFETY: as above.
        && let Some(tables) = unsafe { Tables::new(info.base, at(dynamic), walk.again) }
    {
        for (name, found) in NAMES.iter().zip(&FOUND) {
            if found.load(Ordering::Relaxed) == 0 {
                // SAFETY: as above.
                found.store(unsafe { tables.find(name) }.unwrap_or(0), Ordering::Relaxed);
            }
        }
    }
    0
}

/// The tables of an object that a search needs; addresses.
struct Tables {
    base: usize,
    symbols: usize,
    strings: usize,
    versions: usize,
    gnu: usize,
    sysv: usize,
    /// Whether functions of old versions are taken.
    old: bool,
}

impl Tables {
    unsafe fn new(base: usize, dynamic: usize, old: bool) -> Option<Self> {
        let mut tables = Self { base, symbols: 0, strings: 0, versions: 0, gnu: 0, sysv: 0, old };
        let mut entry = dynamic as *const [usize; 2];
        loop {
            // SAFETY: the module `preload` says why.
            let [tag, value] = unsafe { *entry };
            // glibc writes addresses into the table, musl leaves offsets there.
            let value = if value < base { value.wrapping_add(base) } else { value };
            match tag {
                0 => break,
                4 => tables.sysv = value,
                5 => tables.strings = value,
                6 => tables.symbols = value,
                0x6fff_fef5 => tables.gnu = value,
                0x6fff_fff0 => tables.versions = value,
                _ => {}
            }
            // SAFETY: as above; the table ends with a zero.
            entry = unsafe { entry.add(1) };
        }
        let usable = tables.symbols != 0 && tables.strings != 0;
        (usable && (tables.gnu != 0 || tables.sysv != 0)).then_some(tables)
    }

    unsafe fn find(&self, name: &[u8]) -> Option<usize> {
        // SAFETY: the module `preload` says why.
        unsafe { if self.gnu != 0 { self.find_gnu(name) } else { self.find_sysv(name) } }
    }

    /// The address of a symbol, when it is a function of this name that is not of an old version.
    unsafe fn matches(&self, index: u32, name: &[u8]) -> Option<usize> {
        const FUNCTION: u8 = 2;
        // SAFETY: the module `preload` says why.
        unsafe {
            let symbol = &*(self.symbols as *const Symbol).add(index as usize);
            let text = (self.strings as *const u8).add(symbol.name as usize);
            let here = symbol.section != 0 && symbol.value != 0 && symbol.info & 15 == FUNCTION;
            let same =
                here && super::sys::text(text, name.len() + 1).is_some_and(|text| text == name);
            let hidden = same
                && !self.old
                && self.versions != 0
                && *(self.versions as *const u16).add(index as usize) & 0x8000 != 0;
            (same && !hidden).then(|| self.base.wrapping_add(symbol.value as usize))
        }
    }

    unsafe fn find_gnu(&self, name: &[u8]) -> Option<usize> {
        let hash = name
            .iter()
            .fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        // SAFETY: the module `preload` says why.
        unsafe {
            let [buckets, first, words, shift] = *(self.gnu as *const [u32; 4]);
            let filter = (self.gnu + 16) as *const u64;
            let table = filter.add(words as usize).cast::<u32>();
            let word = *filter.add((hash / 64).checked_rem(words)? as usize);
            let bit = |hash: u32| word >> (hash % 64) & 1;
            if bit(hash) & bit(hash.wrapping_shr(shift)) == 0 {
                return None;
            }
            let mut index = *table.add(hash.checked_rem(buckets)? as usize);
            if index < first {
                return None;
            }
            let chain = table.add(buckets as usize);
            loop {
                let there = *chain.add((index - first) as usize);
                if there | 1 == hash | 1
                    && let Some(address) = self.matches(index, name)
                {
                    return Some(address);
                }
                if there & 1 != 0 {
                    return None;
                }
                index = index.wrapping_add(1);
            }
        }
    }

    unsafe fn find_sysv(&self, name: &[u8]) -> Option<usize> {
        let hash = name.iter().fold(0_u32, |hash, byte| {
            let hash = hash.wrapping_shl(4).wrapping_add(u32::from(*byte));
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        // SAFETY: the module `preload` says why.
        unsafe {
            let table = self.sysv as *const u32;
            let buckets = *table;
            let mut index = *table.add(2 + hash.checked_rem(buckets)? as usize);
            while index != 0 {
                if let Some(address) = self.matches(index, name) {
                    return Some(address);
                }
                index = *table.add(2 + buckets as usize + index as usize);
            }
            None
        }
    }
}
