//! OUT_DIR as a whole: what a script left in it, and putting that back.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::{Builder, ScopedJoinHandle};

use kiln_storage::api::Offer;
use kiln_storage::limits::MAX_OUTPUTS;
use kiln_storage::output::is_output_name;
use kiln_storage::record::{Content, Output, Record};

use super::inputs::Inputs;
use super::{Places, Run, unknown};
use crate::inputs::Unknown;
use crate::needles::Needles;
use crate::outputs::{self, EXECUTABLE_MODE, FILE_MODE, RestoreError, Restored, Scanned, Source};
use crate::publish;
use crate::roots::Roots;

/// The bits of a mode that count.
const PERMISSIONS: u32 = 0o777;

/// How files begin that hold other bytes than they show: gzip, xz, zstd, bzip2, zip. A place that is
/// in them is not found.
const PACKED: &[&[u8]] =
    &[b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh", b"PK\x03\x04", b"\x04\x22\x4d\x18"];

/// What a script left.
#[derive(Debug, Default)]
pub struct Made {
    /// The outputs.
    pub outputs: Vec<Output>,
    /// Where their bytes are.
    pub offers: Vec<Offer>,
}

/// What is in OUT_DIR, hashed, and scanned for places of roots: one that is found pins the result.
///
/// # Errors
/// When something in it cannot be put back.
pub fn collect(run: &Run<'_>, places: &Places<'_>, inputs: &mut Inputs) -> Result<Made, Unknown> {
    if run.out.canonicalize().ok().as_ref() != Some(&run.real_out) {
        return Err(unknown("odd-output", "OUT_DIR is another directory than before"));
    }
    let needles = needles(places);
    let mut collector = Collector {
        run,
        places,
        inputs,
        umask: umask(),
        needles: Needles::new(needles.iter().map(|(_, needle)| needle.as_slice())),
        found: vec![run.engine.config.paths == crate::config::Paths::Exact; needles.len()],
        made: Made::default(),
    };
    collector.directory(&run.out, "")?;
    let Collector { found, made, inputs, .. } = collector;
    for ((name, _), _) in needles.iter().zip(found).filter(|(_, found)| *found) {
        inputs.pin(name);
    }
    Ok(made)
}

/// Places of roots as they may be written: as they are, and as strings of C, Rust and JSON have them.
fn needles<'a>(roots: &Places<'a>) -> Vec<(&'a str, Vec<u8>)> {
    let mut needles = Vec::new();
    for (name, place) in roots {
        let debug = format!("{place:?}");
        let json = serde_json::Value::from(place.as_str()).to_string();
        let blanks = place.replace(' ', "\\ ");
        let plain = |quoted: &str| quoted[1..quoted.len() - 1].to_owned();
        let mut forms = vec![place.clone(), plain(&debug), plain(&json), blanks];
        forms.sort_unstable();
        forms.dedup();
        needles.extend(forms.into_iter().map(|form| (*name, form.into_bytes())));
    }
    needles
}

/// The bits that new files do not get.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let octal = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    octal.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
}

/// From so many files on, threads write them.
const MANY_FILES: usize = 32;
/// How many threads.
const THREADS: usize = 4;

struct Collector<'a> {
    run: &'a Run<'a>,
    places: &'a Places<'a>,
    inputs: &'a mut Inputs,
    umask: u32,
    needles: Needles<'a>,
    found: Vec<bool>,
    made: Made,
}

impl Collector<'_> {
    fn directory(&mut self, dir: &Path, prefix: &str) -> Result<(), Unknown> {
        let unreadable = |error: io::Error| unknown("unreadable-output", error);
        let mut entries: Vec<fs::DirEntry> =
            fs::read_dir(dir).and_then(Iterator::collect).map_err(unreadable)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let odd = || unknown("non-utf8-path", entry.path().display());
            let name = entry.file_name().into_string().map_err(|_| odd())?;
            let name = format!("{prefix}{name}");
            if !is_output_name(&name) {
                return Err(unknown("odd-output", entry.path().display()));
            }
            let meta = entry.path().symlink_metadata().map_err(unreadable)?;
            self.entry(&entry.path(), name.clone(), &meta)?;
            if self.made.outputs.len() > MAX_OUTPUTS {
                return Err(unknown("large-output", format!("more than {MAX_OUTPUTS} files")));
            }
            if meta.is_dir() {
                self.directory(&entry.path(), &format!("{name}/"))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: String, meta: &Metadata) -> Result<(), Unknown> {
        let kind = meta.file_type();
        if kind.is_file() && meta.permissions().mode() & 0o7000 != 0 {
            return Err(unknown("odd-output", format!("{} has set-id bits", path.display())));
        }
        let mode = meta.permissions().mode() & PERMISSIONS;
        let (executable, content) = if kind.is_symlink() {
            let leads = fs::read_link(path).map_err(|error| unknown("unreadable-output", error))?;
            let leads =
                leads.to_str().and_then(|leads| self.run.engine.roots.template_of_places(leads));
            let leads = leads.ok_or_else(|| unknown("odd-output", path.display()))?;
            (false, Content::Link(leads))
        } else if kind.is_dir() {
            (true, Content::Directory)
        } else if kind.is_file() {
            (mode & 0o111 != 0, self.file(path)?)
        } else {
            let what = if kind.is_fifo() { "a pipe" } else { "a socket or device" };
            return Err(unknown("special-file", format!("{}: {what}", path.display())));
        };
        let usual = if executable { EXECUTABLE_MODE } else { FILE_MODE } & !self.umask;
        let mode = (!kind.is_symlink() && mode != usual).then_some(mode);
        self.made.outputs.push(Output { name, executable, mode, content });
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<Content, Unknown> {
        let unreadable =
            |error: io::Error| unknown("unreadable-output", format!("{}: {error}", path.display()));
        let hashed = publish::hash(&self.run.engine, path, &self.needles);
        let Scanned { digest, size, found, begin } = hashed.map_err(unreadable)?;
        let packed = PACKED.iter().any(|magic| begin.starts_with(magic));
        self.found.iter_mut().zip(found).for_each(|(known, found)| *known |= found || packed);
        // A small text is looked through for places above the roots, too.
        let is_whole = begin.len() as u64 == size;
        let text = is_whole.then(|| std::str::from_utf8(&begin).ok()).flatten();
        let template = text.and_then(|text| self.run.engine.roots.template_of_places(text));
        if let Some(template) = template {
            super::pin_named_above(self.places, &template, self.inputs);
        }
        let path = path.to_str().ok_or_else(|| unknown("non-utf8-path", path.display()))?;
        self.made.offers.push(Offer { digest, path: path.to_owned() });
        Ok(Content::Blob { digest, size })
    }
}

/// A directory under a temporary name, removed unless it got its place.
struct Pending(PathBuf);

impl Drop for Pending {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes outputs, sorted by name, below a directory. Many of a disk store are written by a few threads: one
/// file after another, the hundreds of a C library would hold up all that waits for them.
fn write_all(
    outputs: &[&Output],
    dir: &Path,
    roots: &Roots,
    source: &mut Source<'_>,
) -> Result<Restored, RestoreError> {
    let (dirs, files): (Vec<&Output>, Vec<&Output>) =
        outputs.iter().partition(|output| matches!(output.content, Content::Directory));
    // A directory's name sorts before those of what is in it.
    let mut restored = write_some(&dirs, dir, roots, source)?;
    let store = match source {
        Source::Store(store) if files.len() >= MANY_FILES => *store,
        _ => {
            restored.add(write_some(&files, dir, roots, source)?);
            return Ok(restored);
        }
    };
    let parts: Vec<Result<Restored, RestoreError>> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for part in files.chunks(files.len().div_ceil(THREADS)) {
            let write = move || write_some(part, dir, roots, &mut Source::Store(store));
            // Where there is no thread to be had, this one does it.
            threads.push(Builder::new().spawn_scoped(scope, write).map_err(|_| write()));
        }
        let died = || RestoreError::Target(dir.to_owned(), io::Error::other("a thread died"));
        let join = |thread: Result<ScopedJoinHandle<'_, _>, _>| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(died())),
            Err(part) => part,
        };
        threads.into_iter().map(join).collect()
    });
    for part in parts {
        restored.add(part?);
    }
    Ok(restored)
}

/// Writes outputs below a directory, one after another.
fn write_some(
    outputs: &[&Output],
    dir: &Path,
    roots: &Roots,
    source: &mut Source<'_>,
) -> Result<Restored, RestoreError> {
    let mut restored = Restored::default();
    for output in outputs {
        let (meta, bytes) = outputs::write(output, &dir.join(&output.name), roots, source)?;
        restored.bytes += bytes;
        if let (Content::Blob { digest, .. }, None) = (&output.content, output.mode) {
            restored.files.push((meta, *digest));
        }
    }
    Ok(restored)
}

/// Puts OUT_DIR back as a record has it: made beside it, then renamed.
///
/// # Errors
/// The first failure; OUT_DIR is then as it was.
pub fn restore(
    record: &Record,
    out: &Path,
    roots: &Roots,
    source: &mut Source<'_>,
) -> Result<Restored, RestoreError> {
    let target = |error| RestoreError::Target(out.to_owned(), error);
    let odd = || target(io::Error::other("has no name"));
    let name = out.file_name().and_then(|name| name.to_str()).ok_or_else(odd)?;
    let beside = |what: &str| out.with_file_name(format!(".{name}.{what}{}", std::process::id()));
    let pending = Pending(beside("kiln"));
    // Left by a process of the same number that was killed.
    let _ = fs::remove_dir_all(&pending.0);
    fs::create_dir_all(&pending.0).map_err(target)?;
    let mut outputs: Vec<&Output> = record.outputs.iter().collect();
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    let restored = write_all(&outputs, &pending.0, roots, source)?;
    // The deepest first: a directory may be closed to its owner.
    for output in outputs.iter().rev() {
        if let Some(mode) = output.mode {
            let path = pending.0.join(&output.name);
            fs::set_permissions(path, Permissions::from_mode(mode & PERMISSIONS))
                .map_err(target)?;
        }
    }
    if fs::rename(&pending.0, out).is_ok() {
        return Ok(restored);
    }
    let old = Pending(beside("old"));
    let _ = fs::remove_dir_all(&old.0);
    fs::rename(out, &old.0).map_err(target)?;
    fs::rename(&pending.0, out).map_err(|error| {
        let _ = fs::rename(&old.0, out);
        target(error)
    })?;
    Ok(restored)
}
