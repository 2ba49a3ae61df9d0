//! Functions of libc that read variables and files by themselves, where nothing stands in front of what
//! they call: the time zone, the locale, users and groups.
//!
//! What they read is noted before they run: it is known, and each process reads it but once.

use core::ffi::c_char;

use super::hooks::{outcome, real};
use super::state::{Context, context, environment, find};
use super::symbols::Real;
use super::sys;
use crate::log::{Kind, flags};

/// Longest name of a time zone.
const MAX_ZONE: usize = 1024;
/// A file may be there or not: its value tells.
const PERHAPS: u8 = flags::FAILED | flags::ABSENT;

fn note_all(context: &Context, bits: u8, variables: &[&[u8]], files: &[&[u8]]) {
    for name in variables {
        context.note(Kind::Variable, bits, name);
    }
    for path in files {
        context.note(Kind::Read, bits | PERHAPS, path);
    }
}

/// The bits of who calls; nothing has failed yet.
fn caller_bits(caller: usize) -> u8 {
    outcome(false, caller)
}

unsafe fn time_zone(which: Real, a: [usize; 5], caller: usize) -> usize {
    if let Some(context) = context() {
        let bits = caller_bits(caller);
        note_all(context, bits, &[b"TZ", b"TZDIR"], &[b"/etc/localtime"]);
        // SAFETY: the module `preload` says why.
        let zone = unsafe { value(b"TZ") }.unwrap_or_default();
        let zone = zone.strip_prefix(b":").unwrap_or(zone);
        let place: &[u8] = if zone.starts_with(b"/") { b"" } else { b"/usr/share/zoneinfo/" };
        if !zone.is_empty() {
            context.log.note(context.number, Kind::Read, bits | PERHAPS, &[place, zone]);
        }
    }
    // SAFETY: as above.
    unsafe { real(which, a) }
}

unsafe fn locale(which: Real, a: [usize; 5], caller: usize) -> usize {
    // SAFETY: the module `preload` says why.
    unsafe {
        // The empty name asks for the locale that the variables tell.
        let asks = sys::text(a[1] as *const u8, 2).is_some_and(<[u8]>::is_empty);
        if let (Some(context), true) = (context(), asks) {
            let variables: [&[u8]; 9] = [
                b"LANG",
                b"LANGUAGE",
                b"LC_ALL",
                b"LC_COLLATE",
                b"LC_CTYPE",
                b"LC_MESSAGES",
                b"LC_MONETARY",
                b"LC_NUMERIC",
                b"LC_TIME",
            ];
            note_all(context, caller_bits(caller), &variables, &[]);
        }
        real(which, a)
    }
}

unsafe fn people(which: Real, a: [usize; 5], caller: usize) -> usize {
    if let Some(context) = context() {
        let files: [&[u8]; 3] = [b"/etc/nsswitch.conf", b"/etc/passwd", b"/etc/group"];
        note_all(context, caller_bits(caller), &[], &files);
    }
    // SAFETY: the module `preload` says why.
    unsafe { real(which, a) }
}

/// The value of a variable, past libc.
unsafe fn value(name: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: the module `preload` says why.
    unsafe {
        let variables: *mut *mut c_char = environment();
        if variables.is_null() {
            return None;
        }
        sys::text((*variables.add(find(variables, name)?)).cast(), MAX_ZONE)?.get(name.len() + 1..)
    }
}

export_each! { time_zone: localtime localtime_r mktime timelocal tzset }
export_each! { time_zone: ctime ctime_r strftime strftime_l }
export_each! { locale: setlocale newlocale }
export_each! { people: getpwnam getpwnam_r getpwuid getpwuid_r }
export_each! { people: getgrnam getgrnam_r getgrgid getgrgid_r }
