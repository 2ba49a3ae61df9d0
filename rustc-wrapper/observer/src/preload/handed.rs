//! What a program is started with: the arguments and the environment that its starter gave, or copies
//! that say more.
//!
//! The environment gets back the variables that this process was relieved of, so that the program is
//! observed too. A C compiler gets prefix maps, see [`super::maps`]. What the starter gave is left as it
//! is. Copies lie in memory of their own: the stack may be small.

use core::ffi::c_char;

use super::maps;
use super::program::{found_takes_library, takes_library};
use super::state::{Context, PRELOAD, environment, find, is_named};
use super::sys;
use crate::log::{How, VARIABLE};

/// Texts, of which the last is null: arguments, or an environment.
pub(super) type List = *const *const c_char;

pub(super) const POINTER: usize = size_of::<*const c_char>();

/// What a starter gave.
#[derive(Clone, Copy)]
pub(super) struct Given {
    /// The program.
    pub(super) program: *const c_char,
    /// Whether it is looked up in `PATH`.
    pub(super) search: bool,
    /// Its arguments.
    pub(super) argv: List,
    /// Its environment.
    pub(super) variables: List,
}

/// A copy of a list, with its texts.
///
/// It is given back when this is dropped. A process that shares its memory with its starter (`vfork`)
/// and becomes another program leaves it behind, a page or two.
pub(super) struct Copy {
    memory: *mut u8,
    bytes: usize,
}

impl Copy {
    /// Fresh memory, all zeros; none when there is none.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        Some(Self { memory: sys::allocate(bytes)?, bytes })
    }

    /// Where it lies.
    pub(super) fn memory(&self) -> *mut u8 {
        self.memory
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: the module `preload` says why; nobody has the copy any more.
        unsafe { sys::free(self.memory, self.bytes) };
    }
}

/// What a program is started with.
pub(super) struct Handed {
    given: Given,
    variables: Option<Copy>,
    argv: Option<Copy>,
}

impl Handed {
    /// What a program gets. Where there is no memory, it gets what its starter gave.
    pub(super) unsafe fn new(context: &Context, how: How, path: &[u8], given: Given) -> Self {
        // SAFETY: the module `preload` says why.
        unsafe {
            if has_own_lead(given.variables) {
                return Self { given, variables: None, argv: None };
            }
            let variables = match takes(context, path, &given) {
                true => with_lead(context, how, given.variables),
                false => None,
            };
            Self { given, variables, argv: maps::with_maps(context.maps(), path, given.argv) }
        }
    }

    pub(super) fn variables(&self) -> List {
        self.variables.as_ref().map_or(self.given.variables, |copy| copy.memory.cast_const().cast())
    }

    pub(super) fn argv(&self) -> List {
        self.argv.as_ref().map_or(self.given.argv, |copy| copy.memory.cast_const().cast())
    }
}

/// Whether a program is to be started with a lead of its starter's own: another wrapper observes its
/// compiler itself, or wants nobody to.
unsafe fn has_own_lead(variables: List) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe {
        !variables.is_null() && find(variables.cast_mut().cast(), VARIABLE.as_bytes()).is_some()
    }
}

/// Whether a program to start takes the library: by path, or by a bare name that is looked up.
unsafe fn takes(context: &Context, path: &[u8], given: &Given) -> bool {
    // SAFETY: the module `preload` says why.
    unsafe {
        if !context.library_is_there() {
            return false;
        }
        if !given.search || path.contains(&b'/') {
            return takes_library(given.program.cast());
        }
        let variables = environment();
        let list = find(variables, b"PATH")
            .and_then(|at| sys::text((*variables.add(at)).cast(), 1 << 16)?.get(5..));
        found_takes_library(path, list.unwrap_or(b"/bin:/usr/bin"))
    }
}

/// Copies an environment, with the two variables. A list of preloaded libraries stays where it stood.
unsafe fn with_lead(context: &Context, how: How, from: List) -> Option<Copy> {
    // SAFETY: the module `preload` says why.
    unsafe {
        let mut count = 0;
        let mut others: Option<&[u8]> = None;
        while !from.is_null() && !(*from.add(count)).is_null() {
            let variable = *from.add(count);
            count += 1;
            if is_named(variable.cast(), PRELOAD) {
                let whole = sys::text(variable.cast(), usize::MAX)?;
                others = whole.get(PRELOAD.len() + 1..);
            }
        }
        let mut digits = [0; 5];
        let digits = decimal(context.number, &mut digits);
        let (how, name, maps) = ([how as u8], VARIABLE.as_bytes(), context.maps());
        let behind: &[u8] = if maps.is_empty() { b"" } else { b":" };
        let between: &[u8] = if others.is_some() { b":" } else { b"" };
        let (library, path) = (context.library(), context.path());
        let lead: [&[u8]; 11] =
            [name, b"=", digits, b":", &how, b":", library, b":", path, behind, maps];
        let list: [&[u8]; 5] = [PRELOAD, b"=", library, between, others.unwrap_or_default()];
        let len = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>() + 1;
        let copy = Copy::new((count + 3) * POINTER + len(&lead) + len(&list))?;
        // Fresh memory is zero: the list ends, and so do the texts.
        let variables = copy.memory.cast::<*const c_char>();
        let first = copy.memory.add((count + 3) * POINTER);
        let second = write(first, &lead);
        write(second, &list);
        *variables = first.cast();
        let mut to = 1;
        if others.is_none() {
            *variables.add(1) = second.cast();
            to = 2;
        }
        for at in 0..count {
            let variable = *from.add(at);
            let is_list = is_named(variable.cast(), PRELOAD);
            *variables.add(to) = if is_list { second.cast() } else { variable };
            to += 1;
        }
        Some(copy)
    }
}

/// Writes parts one after another; where the next text begins, behind a zero.
pub(super) unsafe fn write(mut to: *mut u8, parts: &[&[u8]]) -> *mut u8 {
    for part in parts {
        // SAFETY: the module `preload` says why; the caller counted the bytes.
        unsafe {
            to.copy_from_nonoverlapping(part.as_ptr(), part.len());
            to = to.add(part.len());
        }
    }
    // SAFETY: as above.
    unsafe { to.add(1) }
}

/// A number as text.
pub(super) fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    digits.get(5 - count..).unwrap_or_default()
}
