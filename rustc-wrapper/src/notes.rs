//! [`Notes`]: what a run of Kiln read on behalf of the build script that started it.
//!
//! While a build script runs under observation, the compilers that it calls through Kiln are observed
//! by logs of their own, and a hit reads what a record names without any compiler. So each run tells in
//! a line what it depended on, in a file that the outer Kiln makes before the script is started
//! ([`Notes::begin`]), that the inner ones find by the script's `OUT_DIR` ([`Notes::within`]), and that is
//! gone when the outer one is done. Whoever leaves no line was killed, or had no room to write.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_storage::Digest;
use kiln_storage::record::{Member, TokenPath};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::limits::MAX_NOTES_BYTES;
use crate::members::find_program;
use crate::roots::Roots;

/// Hexadecimal characters of the file's name.
const NAME_CHARS: usize = 32;

/// What one run of Kiln depended on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its process number.
    pub pid: u32,
    /// What it read, with absolute paths in place of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Why that is not known, or what came of it is not kept: a reason, and more for people.
    #[serde(default)]
    pub refused: Option<String>,
    /// Whether it became the tool, or started it as it was called: then the tool itself was observed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub became: bool,
}

impl Note {
    fn new() -> Self {
        Self { pid: std::process::id(), ..Self::default() }
    }

    /// A run that depended on these members.
    pub fn read(members: Vec<Member>) -> Self {
        Self { members, ..Self::new() }
    }

    /// A run of which it is not known what it depended on, or that left nothing to be had again.
    pub fn refused(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::new() }
    }

    /// A run that handed over to the tool.
    pub fn became() -> Self {
        Self { became: true, ..Self::new() }
    }
}

/// The file of the notes of one run of a build script.
#[derive(Debug)]
pub struct Notes {
    path: PathBuf,
    /// Whether it is this process's to remove.
    own: bool,
}

fn place(dir: &Path, out_dir: &OsStr) -> PathBuf {
    let mut name = Digest::of(out_dir.as_encoded_bytes()).to_string();
    name.truncate(NAME_CHARS);
    dir.join("scripts").join(format!("{name}.notes"))
}

impl Notes {
    /// Where a run of Kiln leaves its note; none when no build script is observed around it.
    pub fn within(env: &Env, dir: &Path) -> Option<Self> {
        let path = place(dir, env.get("OUT_DIR")?);
        path.is_file().then_some(Self { path, own: false })
    }

    /// Leaves a note where [`Self::within`] says; without it nothing of the script is kept.
    pub fn leave(env: &Env, dir: &Path, note: &Note) {
        let _ = Self::within(env, dir).map(|notes| notes.append(note));
    }

    /// Makes the file for the run of a build script, empty; it goes when this value does.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(dir: &Path, out_dir: &Path) -> io::Result<Self> {
        let path = place(dir, out_dir.as_os_str());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Left by a run that was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, own: true })
    }

    /// Adds a note: one write, so that those of concurrent runs do not mix.
    ///
    /// # Errors
    /// When it cannot be written; then the reader misses the note of this process, or finds half of it.
    pub fn append(&self, note: &Note) -> io::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().append(true).custom_flags(flags).open(&self.path)?;
        match file.write(&line)? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// All notes so far.
    ///
    /// # Errors
    /// When the file cannot be read, is over its bound, or holds something else.
    pub fn read(&self) -> io::Result<Vec<Note>> {
        let mut text = String::new();
        let most = MAX_NOTES_BYTES + 1;
        let size = File::open(&self.path)?.take(most).read_to_string(&mut text)?;
        if size as u64 >= most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        if self.own {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Members as somebody with other roots can evaluate them: with absolute paths. None when a root is
/// missing.
pub fn absolute(members: &[Member], roots: &Roots, env: &Env) -> Option<Vec<Member>> {
    let mut out = Vec::with_capacity(members.len());
    let path = |token: &TokenPath| -> Option<TokenPath> {
        Some(TokenPath(roots.resolve(&token.0)?.into_os_string().into_string().ok()?))
    };
    for member in members {
        let member = match member {
            Member::File(token) => Member::File(path(token)?),
            Member::Listing(token) => Member::Listing(path(token)?),
            Member::Tree(token, filter) => Member::Tree(path(token)?, *filter),
            Member::Mode(token) => Member::Mode(path(token)?),
            Member::Upward(token, names) => Member::Upward(path(token)?, names.clone()),
            Member::Link(token) => Member::Link(path(token)?),
            Member::Place(token) => Member::Place(path(token)?),
            Member::Resolved(token) => Member::Resolved(path(token)?),
            Member::Root(name) => Member::Place(TokenPath(roots.place(name)?.to_owned())),
            Member::DiagnosticWidth => continue,
            Member::Program(name) => {
                // The script may have changed `PATH` for this run.
                let found =
                    find_program(env, name).and_then(|path| path.to_str().map(str::to_owned));
                out.extend(found.map(|found| Member::File(TokenPath(found))));
                member.clone()
            }
            Member::Env(..) | Member::Environment(_) | Member::Processor => member.clone(),
        };
        out.push(member);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_storage::record::{EnvForm, TreeFilter, Variables};
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &str) -> Member {
        Member::File(TokenPath(path.into()))
    }

    #[test]
    fn notes_of_many_are_read_whole_and_go_with_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::of_pairs([("OUT_DIR", "/t/out")]);
        assert!(Notes::within(&env, dir.path()).is_none());
        let outer = Notes::begin(dir.path(), Path::new("/t/out")).unwrap();
        let mode = std::fs::metadata(&outer.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Notes::within(&Env::default(), dir.path()).is_none());
        let above = Env::of_pairs([("OUT_DIR", "/t")]);
        assert!(Notes::within(&above, dir.path()).is_none());
        let members: Vec<Member> = (0..500).map(|n| file(&format!("/ws/{n}"))).collect();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let inner = Notes::within(&env, dir.path()).unwrap();
                    for _ in 0..20 {
                        inner.append(&Note::read(members.clone())).unwrap();
                    }
                });
            }
        });
        let inner = Notes::within(&env, dir.path()).unwrap();
        inner.append(&Note::refused("compile-failed: x")).unwrap();
        inner.append(&Note::became()).unwrap();
        drop(inner);
        let notes = outer.read().unwrap();
        assert_eq!(notes.len(), 8 * 20 + 2);
        assert!(notes[..160].iter().all(|note| note.members == members));
        assert_eq!(notes[160].refused.as_deref(), Some("compile-failed: x"));
        assert!(notes[161].became && notes[161].pid == std::process::id());
        let path = outer.path.clone();
        drop(outer);
        assert!(!path.exists());
        assert!(Notes::within(&env, dir.path()).is_none());
    }

    #[test]
    fn what_is_half_written_or_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::begin(dir.path(), Path::new("/o")).unwrap();
        assert_eq!(notes.read().unwrap(), []);
        for (text, want) in [
            ("{\"pid\":1}\n{\"pid\":", io::ErrorKind::UnexpectedEof),
            ("{\"pid\":1}\nx\n", io::ErrorKind::InvalidData),
        ] {
            std::fs::write(&notes.path, text).unwrap();
            assert_eq!(notes.read().unwrap_err().kind(), want);
        }
        File::create(&notes.path).unwrap().set_len(MAX_NOTES_BYTES + 1).unwrap();
        assert_eq!(notes.read().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // One that was left there is begun anew.
        let again = Notes::begin(dir.path(), Path::new("/o")).unwrap();
        assert_eq!(again.read().unwrap(), []);
    }

    #[test]
    fn members_are_written_out() {
        let roots = Roots::from_pairs([("workspace", PathBuf::from("/a/ws"))]);
        let token = |path: &str| TokenPath(path.into());
        let env = Env::of_pairs([("PATH", "/usr/bin:/bin")]);
        let members = [
            file("<workspace>/x"),
            file("/usr/x"),
            Member::Tree(token("<workspace>"), TreeFilter::All),
            Member::Root("workspace".into()),
            Member::DiagnosticWidth,
            Member::Env("X".into(), EnvForm::Raw),
            Member::Environment(Variables::All),
            Member::Program("sh".into()),
            Member::Program("there-is-no-such-program".into()),
        ];
        let sh = find_program(&env, "sh").unwrap();
        let want = [
            file("/a/ws/x"),
            file("/usr/x"),
            Member::Tree(token("/a/ws"), TreeFilter::All),
            Member::Place(token("/a/ws")),
            Member::Env("X".into(), EnvForm::Raw),
            Member::Environment(Variables::All),
            file(sh.to_str().unwrap()),
            Member::Program("sh".into()),
            Member::Program("there-is-no-such-program".into()),
        ];
        assert_eq!(absolute(&members, &roots, &env).unwrap(), want);
        assert_eq!(absolute(&[file("<cargo>/x")], &roots, &env), None);
    }
}
