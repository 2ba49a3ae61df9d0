//! The value of a [`Member`] here and now: what the file holds, what the variable says.
//!
//! Values are digests; what went into each is labelled, so that "absent", "a directory" and an
//! empty file are three values. Called on lookup, for every member of a candidate's input set, and
//! after a compile, for the set that was found.

mod walk;

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_storage::Digest;
use kiln_storage::encode::Encoder;
use kiln_storage::record::{EnvForm, Member, TreeFilter, Variables};

use crate::env::{Env, HIDDEN};
use crate::memo::Memo;
use crate::quick::QuickMap;
use crate::real_paths::RealPaths;
use crate::roots::Roots;
use crate::stamp::changed_ns;
use crate::variables;

/// The bits of a mode that say what a file is, and what they are for a directory (POSIX); not all systems have modes of
/// as many bits.
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// Evaluates members, each at most once.
#[derive(Debug)]
pub struct Evaluator<'a> {
    /// The environment of the unit.
    pub env: &'a Env,
    /// Its roots.
    pub roots: &'a Roots,
    /// The shared memo.
    pub memo: &'a Memo,
    /// The width that diagnostics are wrapped at, as given.
    pub width: Option<String>,
    known: QuickMap<Member, Option<Digest>>,
    /// The modes of what was looked at for its content, and when it was changed.
    looked: QuickMap<PathBuf, (u32, i128)>,
    real_paths: RealPaths,
    newest_ns: i128,
}

impl<'a> Evaluator<'a> {
    /// An evaluator that knows nothing yet.
    pub fn new(env: &'a Env, roots: &'a Roots, memo: &'a Memo, width: Option<String>) -> Self {
        let (known, looked) = (QuickMap::default(), QuickMap::default());
        let real_paths = RealPaths::default();
        Self { env, roots, memo, width, known, looked, real_paths, newest_ns: 0 }
    }

    /// The same evaluator, which knows some values.
    pub fn knowing(mut self, known: impl Iterator<Item = (Member, Digest)>) -> Self {
        self.known.extend(known.map(|(member, value)| (member, Some(value))));
        self
    }

    /// When the newest of all files read so far was changed, nanoseconds since 1970.
    pub fn newest_ns(&self) -> i128 {
        self.newest_ns
    }

    /// The value of a member; none when it has none here (a missing root, an unreadable file, a
    /// tree over its bound): then nothing can be said, and that is a miss.
    pub fn value(&mut self, member: &Member) -> Option<Digest> {
        if let Some(known) = self.known.get(member) {
            return *known;
        }
        let value = self.evaluate(member);
        self.known.insert(member.clone(), value);
        value
    }

    /// Notes when something was changed, not what is in it: a directory changes with all of that.
    fn touch_itself(&mut self, mode: u32, changed_ns: i128) {
        if mode & KIND != DIRECTORY {
            self.newest_ns = self.newest_ns.max(changed_ns);
        }
    }

    /// What a path is and who may do what with it, as it was when its content was looked at in this pass.
    fn mode(&mut self, path: &Path) -> Option<u32> {
        let looked = self.looked.get(path).copied().or_else(|| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.mode(), changed_ns(&meta)))
        });
        let (mode, changed_ns) = looked?;
        self.touch_itself(mode, changed_ns);
        Some(mode)
    }

    fn evaluate(&mut self, member: &Member) -> Option<Digest> {
        let mut encoder = Encoder::new("kiln member value v1");
        match member {
            Member::File(path) => {
                let path = self.roots.resolve(&path.0)?;
                let meta = std::fs::metadata(&path);
                if let Ok(meta) = &meta {
                    self.looked.insert(path.clone(), (meta.mode(), changed_ns(meta)));
                }
                self.content(&mut encoder, &path, meta)?;
            }
            Member::Listing(path) => {
                let path = self.roots.resolve(&path.0)?;
                self.touch(std::fs::metadata(&path));
                encoder.set("names", &names(&path)?);
            }
            Member::Tree(path, filter) => {
                let path = self.roots.resolve(&path.0)?;
                self.tree(&mut encoder, &path, *filter)?;
            }
            Member::Env(name, form) => self.variable(&mut encoder, name, *form),
            Member::Mode(path) => {
                let mode = self.mode(&self.roots.resolve(&path.0)?);
                let mode = mode.map(u32::to_le_bytes);
                encoder.optional("mode", mode.as_ref().map(<[u8; 4]>::as_slice));
            }
            Member::Program(name) => {
                let found = find_program(self.env, name);
                let text = found.as_ref().and_then(|p| p.to_str()).map(|p| self.roots.tokenise(p));
                encoder.optional("place", text.as_ref().map(String::as_bytes));
                if let Some(path) = found {
                    self.file(&mut encoder, &path)?;
                }
            }
            Member::Upward(path, names) => {
                let path = self.roots.resolve(&path.0)?;
                self.upward(&mut encoder, &path, names)?;
            }
            Member::Root(name) => {
                let place = self.roots.place(name);
                let real = place.and_then(|p| std::fs::canonicalize(p).ok());
                let real = real.as_ref().map(|p| p.as_os_str().as_encoded_bytes());
                encoder.optional("root", place.map(str::as_bytes)).optional("real", real);
            }
            Member::DiagnosticWidth => {
                encoder.optional("width", self.width.as_ref().map(String::as_bytes));
            }
            Member::Processor => {
                encoder.text("processor", &crate::host::processor().ok()?);
            }
            Member::Link(path) => {
                let path = self.roots.resolve(&path.0)?;
                let meta = std::fs::symlink_metadata(&path).ok();
                let is_link = meta.as_ref().is_some_and(Metadata::is_symlink);
                meta.iter().for_each(|meta| self.touch_itself(meta.mode(), changed_ns(meta)));
                let leads = is_link.then(|| std::fs::read_link(path).ok()).flatten();
                encoder.optional("leads", leads.as_ref().map(|p| p.as_os_str().as_bytes()));
            }
            Member::Place(path) => {
                let place = self.real_paths.of(&self.roots.resolve(&path.0)?);
                encoder.optional("place", place.as_ref().map(|p| p.as_os_str().as_bytes()));
            }
            Member::Resolved(path) => {
                let place = self.real_paths.of(&self.roots.resolve(&path.0)?);
                let place = place.as_ref().and_then(|place| place.to_str());
                let token = place.map(|place| self.roots.tokenise(place));
                encoder.optional("resolved", token.as_ref().map(String::as_bytes));
            }
            Member::Environment(which) => self.environment(&mut encoder, *which),
        }
        Some(encoder.finish())
    }

    /// Notes when a file or directory was changed, where it is there.
    fn touch(&mut self, meta: std::io::Result<Metadata>) {
        let changed = meta.map_or(0, |meta| changed_ns(&meta));
        self.newest_ns = self.newest_ns.max(changed);
    }

    /// Many variables at a time, with their names.
    fn environment(&self, encoder: &mut Encoder, which: Variables) {
        for (name, value) in variables::covered(self.env, which) {
            encoder.bytes("name", name.as_bytes());
            match value.to_str().filter(|_| which == Variables::Lasting) {
                Some(text) => encoder.text("tokens", &self.roots.tokenise_text(text)),
                None => encoder.bytes("value", value.as_bytes()),
            };
        }
    }

    fn variable(&self, encoder: &mut Encoder, name: &str, form: EnvForm) {
        // What tools do not see is no input, whoever asks for it.
        let value = self.env.get(name).filter(|_| !HIDDEN.contains(&name));
        match (form, value.and_then(|v| v.to_str())) {
            // A text that looks like a token stands for itself.
            (EnvForm::Tokens, Some(text)) if !self.roots.names_token(text) => {
                encoder.optional("tokens", Some(self.roots.tokenise_text(text).as_bytes()))
            }
            _ => encoder.optional("raw", value.map(OsStrExt::as_bytes)),
        };
    }

    /// Encodes the content of a file; its metadata, when it is one.
    fn file(&mut self, encoder: &mut Encoder, path: &Path) -> Option<Option<Metadata>> {
        self.content(encoder, path, std::fs::metadata(path))
    }

    /// The same for what was looked at right now.
    fn content(
        &mut self,
        encoder: &mut Encoder,
        path: &Path,
        meta: std::io::Result<Metadata>,
    ) -> Option<Option<Metadata>> {
        match meta.and_then(|meta| self.memo.digest_of(path, meta)) {
            Ok((digest, meta)) => {
                self.newest_ns = self.newest_ns.max(changed_ns(&meta));
                encoder.digest("content", &digest);
                return Some(Some(meta));
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                    encoder.text("absent", "");
                }
                std::io::ErrorKind::IsADirectory => {
                    encoder.text("directory", "");
                }
                // A pipe, socket or device is never opened: it is what it is.
                std::io::ErrorKind::InvalidInput => {
                    encoder.text("special", "");
                }
                // A link that leads in a circle.
                _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                    encoder.text("loop", "");
                }
                _ => return None,
            },
        }
        Some(None)
    }

    /// The nearest directory from here upwards that has a file of one of the names: all of them.
    fn upward(&mut self, encoder: &mut Encoder, path: &Path, names: &[String]) -> Option<()> {
        let has = |dir: &&Path| names.iter().any(|name| dir.join(name).is_file());
        let Some(found) = path.ancestors().find(has) else {
            encoder.text("none", "");
            return Some(());
        };
        let text = found.to_str().map(|p| self.roots.tokenise(p));
        encoder.optional("place", text.as_ref().map(String::as_bytes));
        for name in names {
            encoder.text("name", name);
            self.file(encoder, &found.join(name))?;
        }
        Some(())
    }

    fn tree(&mut self, encoder: &mut Encoder, dir: &Path, filter: TreeFilter) -> Option<()> {
        let target = self.roots.place("target").map(Path::new);
        if std::fs::metadata(dir).is_err() {
            encoder.text("absent", "");
            return Some(());
        }
        let found = walk::files(dir, filter, target)?;
        encoder.number("entries", found.len() as u64);
        for (name, kind) in found {
            encoder.text("name", &name);
            let path = dir.join(&name);
            if kind == walk::Kind::Link {
                let link = std::fs::read_link(&path).ok();
                let link = link.as_ref().and_then(|l| l.to_str()).map(|l| self.roots.tokenise(l));
                encoder.optional("link", link.as_ref().map(String::as_bytes));
            }
            if kind != walk::Kind::Directory {
                let meta = self.file(encoder, &path)?;
                let executable = meta.is_some_and(|m| m.permissions().mode() & 0o111 != 0);
                encoder.number("executable", executable.into());
            }
        }
        Some(())
    }
}

/// The names in a directory, each with the kind of what it names, which a listing tells too; an
/// absent directory has none.
fn names(dir: &Path) -> Option<Vec<Vec<u8>>> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Some(vec![b"<absent>".to_vec()]);
    };
    let one = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        let letter = match (kind.is_dir(), kind.is_symlink(), kind.is_file()) {
            (true, _, _) => b'd',
            (_, true, _) => b'l',
            (_, _, true) => b'f',
            _ => b'o',
        };
        let mut name = entry.file_name().into_encoded_bytes();
        name.extend([0, letter]);
        Some(name)
    };
    entries.map(one).collect()
}

/// The file that a bare program name finds through `PATH`.
pub fn find_program(env: &Env, name: &str) -> Option<PathBuf> {
    let path = env.get("PATH")?.to_str()?;
    let runnable = |candidate: &PathBuf| {
        std::fs::metadata(candidate)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    // An empty one is the working directory.
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(runnable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::record::TokenPath;

    fn value(env: &[(&str, &str)], root: &Path, member: &Member) -> Option<Digest> {
        let env = Env::of_pairs(env.iter().copied());
        let roots = Roots::from_pairs([("workspace", root.to_owned())]);
        Evaluator::new(&env, &roots, &Memo::default(), None).value(member)
    }

    fn file(name: &str) -> Member {
        Member::File(TokenPath(format!("<workspace>/{name}")))
    }

    #[test]
    fn absent_empty_and_directory_are_three_values() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let all = ["absent", "empty", "dir"].map(|n| value(&[], dir.path(), &file(n)).unwrap());
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert_eq!(value(&[], dir.path(), &Member::File(TokenPath("<cargo>/x".into()))), None);
    }

    #[test]
    fn unset_empty_and_set_are_three_values() {
        let member = Member::Env("X".into(), EnvForm::Raw);
        let root = Path::new("/a/b");
        let all = [&[][..], &[("X", "")], &[("X", "1")]].map(|e| value(e, root, &member).unwrap());
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }

    #[test]
    fn what_tools_do_not_see_is_no_input() {
        let member = Member::Env("KILN_TOKEN".into(), EnvForm::Raw);
        let at = |env: &[(&str, &str)]| value(env, Path::new("/a/b"), &member).unwrap();
        assert_eq!(at(&[("KILN_TOKEN", "secret")]), at(&[]));
    }

    #[test]
    fn a_variable_with_tokens_is_the_same_elsewhere() {
        let at = |root: &str, form| {
            let member = Member::Env("OUT_DIR".into(), form);
            value(&[("OUT_DIR", &format!("{root}/out"))], Path::new(root), &member)
        };
        assert_eq!(at("/a/one", EnvForm::Tokens), at("/b/two", EnvForm::Tokens));
        assert_ne!(at("/a/one", EnvForm::Raw), at("/b/two", EnvForm::Raw));
    }

    #[test]
    fn environments_are_all_of_it_or_what_lasts() {
        let root = Path::new("/a/one");
        let of =
            |which, env: &[(&str, &str)]| value(env, root, &Member::Environment(which)).unwrap();
        for which in [Variables::All, Variables::Lasting] {
            let look = |env: &[(&str, &str)]| of(which, env);
            assert_ne!(look(&[]), look(&[("X", "")]));
            assert_ne!(look(&[("X", "")]), look(&[("X", "1")]));
            assert_ne!(look(&[("X", "1")]), look(&[("Y", "1")]));
            let ours = [("KILN_JOB", "1"), ("KILN_MATRIX", "{}"), ("MAKEFLAGS", "-j2")];
            assert_eq!(look(&ours), look(&[]));
        }
        let session: &[(&str, &str)] =
            &[("GITHUB_RUN_ID", "7"), ("SHLVL", "2"), ("AWS_SESSION_TOKEN", "x")];
        assert_ne!(of(Variables::All, session), of(Variables::All, &[]));
        assert_eq!(of(Variables::Lasting, session), of(Variables::Lasting, &[]));
    }

    #[test]
    fn trees_see_names_contents_and_appearing_files() {
        let dir = tempfile::tempdir().unwrap();
        let member = Member::Tree(TokenPath("<workspace>/t".into()), TreeFilter::Libraries);
        let look = || value(&[], dir.path(), &member).unwrap();
        let absent = look();
        std::fs::create_dir(dir.path().join("t")).unwrap();
        let empty = look();
        std::fs::write(dir.path().join("t/note.txt"), "x").unwrap();
        assert_eq!(look(), empty, "not a library");
        std::fs::write(dir.path().join("t/libx.a"), "1").unwrap();
        let one = look();
        std::fs::write(dir.path().join("t/libx.a"), "2").unwrap();
        let two = look();
        assert!(absent != empty && empty != one && one != two);
    }

    #[test]
    fn listings_tell_names_and_kinds_and_modes_tell_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let look = |member: &Member| value(&[], dir.path(), member).unwrap();
        let path = |name: &str| TokenPath(format!("<workspace>/{name}"));
        let (listing, mode) = (Member::Listing(path("t")), Member::Mode(path("t/f")));
        let mut seen = vec![look(&listing)];
        let at = dir.path().join("t/f");
        std::fs::create_dir_all(&at).unwrap();
        seen.push(look(&listing));
        std::fs::remove_dir(&at).unwrap();
        let absent = look(&mode);
        std::fs::write(&at, "x").unwrap();
        seen.push(look(&listing));
        let plain = look(&mode);
        std::fs::set_permissions(&at, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(look(&listing), seen[2]);
        assert!(look(&mode) != plain && plain != absent);
        assert!(seen[0] != seen[1] && seen[1] != seen[2]);
    }

    #[test]
    fn package_trees_see_empty_directories_links_and_executable_bits() {
        let dir = tempfile::tempdir().unwrap();
        let member = Member::Tree(TokenPath("<workspace>/t".into()), TreeFilter::Package);
        let look = || value(&[], dir.path(), &member).unwrap();
        let (tree, outside) = (dir.path().join("t"), dir.path().join("outside"));
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(tree.join("f"), "x").unwrap();
        let mut seen = vec![look()];
        std::fs::create_dir(tree.join("empty")).unwrap();
        seen.push(look());
        std::fs::set_permissions(tree.join("f"), PermissionsExt::from_mode(0o755)).unwrap();
        seen.push(look());
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        seen.push(look());
        std::fs::write(outside.join("deep"), "1").unwrap();
        seen.push(look());
        std::os::unix::fs::symlink("..", tree.join("empty/circle")).unwrap();
        seen.push(look());
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
