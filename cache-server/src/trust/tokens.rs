//! Tokens that an administrator made: a file beside the index with what each may do and the hash of it, and when
//! they were used last, in a file of its own, since a server writes that one.
//!
//! The file is the truth: a running server reads it again when it changes. Where there is one, nobody gets in over
//! TCP without a token; one that cannot be read lets nobody in.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;

use super::document::{self, Token};
use super::secret::Hash;
use super::spending::Allowance;
use crate::limits::{MAX_TOKENS, TOKENS_LOOKED_AFTER};
use crate::maker::By;
use crate::place::make_private_dir;
use crate::principal::{Kind, Principal, Rights};

/// Name of the file in the server's directory.
const FILE_NAME: &str = "tokens.json";

/// Name of the file with the last uses.
const USES_NAME: &str = "tokens-used.json";

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is none of tokens, or of a newer version.
    #[error("{} is no list of tokens that this version knows", .0.display())]
    Malformed(PathBuf),
    /// There is one of that name.
    #[error("there is a token {0:?} already; revoke it first, or choose another name")]
    Taken(String),
    /// There is none of that name.
    #[error("there is no token {0:?}")]
    Unknown(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens already; revoke some")]
    TooMany,
}

/// The tokens of a server's directory, for who changes them.
#[derive(Debug, Clone)]
pub(crate) struct TokenFile {
    dir: PathBuf,
}

impl TokenFile {
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// All tokens; none: there is no file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(&self) -> Result<Option<Vec<Token>>, TokensError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TokensError::File { path, source }),
        };
        document::parse(&text).map(Some).ok_or(TokensError::Malformed(path))
    }

    /// Changes the tokens, alone.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Token>) -> Result<(), TokensError>,
    ) -> Result<(), TokensError> {
        let path = self.path();
        let failed = |source| TokensError::File { path: path.clone(), source };
        make_private_dir(&self.dir).map_err(failed)?;
        let lock = private(&self.dir.join("tokens.lock")).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        let mut tokens = self.read()?.unwrap_or_default();
        change(&mut tokens)?;
        let text = document::text(tokens).map_err(io::Error::other).map_err(failed)?;
        write(&path, &text).map_err(failed)
    }

    /// Adds a token.
    ///
    /// # Errors
    /// [`TokensError::Taken`], [`TokensError::TooMany`]; the file cannot be changed.
    pub(crate) fn add(&self, token: Token) -> Result<(), TokensError> {
        self.change(|tokens| {
            if tokens.iter().any(|other| other.name == token.name) {
                return Err(TokensError::Taken(token.name));
            }
            if tokens.len() >= MAX_TOKENS {
                return Err(TokensError::TooMany);
            }
            tokens.push(token);
            Ok(())
        })
    }

    /// Takes a token out. The file stays: nobody gets in without a token for that.
    ///
    /// # Errors
    /// [`TokensError::Unknown`]; the file cannot be changed.
    pub(crate) fn revoke(&self, name: &str) -> Result<(), TokensError> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.name != name);
            match tokens.len() < before {
                true => Ok(()),
                false => Err(TokensError::Unknown(name.to_owned())),
            }
        })
    }

    /// When tokens were used last, by name, milliseconds since 1970.
    pub(crate) fn uses(&self) -> BTreeMap<String, u64> {
        let text = fs::read(self.dir.join(USES_NAME)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// What tells this state of the file from another.
    fn stamp(&self) -> io::Result<Option<Stamp>> {
        match fs::metadata(self.path()) {
            Ok(meta) => Ok(Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

type Stamp = (u64, i64, i64, u64);

/// Opens a file for its owner only: for root it is that of the directory, whose server has to read it.
fn private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    // Who owns the directory could have root write elsewhere.
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    if geteuid().is_root()
        && let Some(dir) = path.parent()
    {
        let owner = fs::metadata(dir)?;
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

/// Replaces a file whole, for its owner only.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = private(&temporary)?;
    file.set_len(0)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// The tokens as a running server knows them.
#[derive(Debug)]
pub(crate) struct Tokens {
    file: TokenFile,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Who has which token; none: there never was a file.
    known: Option<Arc<Vec<Known>>>,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
    /// Why the file cannot be read, until that was told.
    fault: Option<String>,
    uses: BTreeMap<String, u64>,
    /// Whether uses are not written yet.
    used: bool,
}

#[derive(Debug)]
struct Known {
    token: Token,
    principal: Principal,
}

impl Tokens {
    /// Those of a server's directory.
    pub(crate) fn of(dir: &Path) -> Self {
        let file = TokenFile::of(dir);
        let uses = file.uses();
        let state =
            State { known: None, stamp: None, looked: None, fault: None, uses, used: false };
        Self { file, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens, as the file had them a moment ago; none: nobody needs one.
    fn known(&self) -> Option<Arc<Vec<Known>>> {
        let mut state = self.state();
        if state.looked.is_none_or(|at| at.elapsed() > TOKENS_LOOKED_AFTER) {
            state.looked = Some(Instant::now());
            self.look(&mut state);
        }
        state.known.clone()
    }

    /// Reads the file now, where it has changed.
    pub(crate) fn look_now(&self) {
        let mut state = self.state();
        state.looked = Some(Instant::now());
        self.look(&mut state);
    }

    fn look(&self, state: &mut State) {
        let stamp = self.file.stamp().ok();
        if state.known.is_some() && stamp == Some(state.stamp) && state.stamp.is_some() {
            return;
        }
        match self.file.read() {
            Ok(Some(tokens)) => {
                state.stamp = stamp.flatten();
                state.known = Some(Arc::new(tokens.into_iter().map(Known::from).collect()));
            }
            // That it is gone opens nothing.
            Ok(None) => {
                state.stamp = None;
                state.known = state.known.take().map(|_| Arc::default());
            }
            Err(error) => {
                state.stamp = None;
                state.known = Some(Arc::default());
                state.fault = Some(error.to_string());
            }
        }
    }

    /// Whether nobody gets in without one.
    pub(crate) fn are_required(&self) -> bool {
        self.known().is_some()
    }

    /// Why the file cannot be read, where that was not told yet.
    pub(crate) fn take_fault(&self) -> Option<String> {
        self.state().fault.take()
    }

    /// Who has a token.
    pub(crate) fn who(&self, hash: &Hash, now_ms: u64) -> Option<Principal> {
        let known = self.known()?;
        // All are compared: how long it takes tells nothing.
        let matching = known.iter().filter(|known| known.token.hash.is(hash));
        let found = matching.collect::<Vec<_>>().into_iter().next()?;
        if found.token.expires_ms <= now_ms {
            return None;
        }
        let mut state = self.state();
        let used = state.uses.entry(found.token.name.clone()).or_default();
        if *used < now_ms {
            *used = now_ms;
            state.used = true;
        }
        Some(found.principal.clone())
    }

    /// Writes when tokens were used last, where that has changed; blocks.
    pub(crate) fn write_uses(&self) {
        let (known, mut state) = (self.known(), self.state());
        if !std::mem::take(&mut state.used) {
            return;
        }
        let names: Vec<&str> = known.iter().flat_map(|all| all.iter()).map(Known::name).collect();
        state.uses.retain(|name, _| names.contains(&name.as_str()));
        let uses = state.uses.clone();
        drop(state);
        // Losing them loses a date.
        let Ok(text) = serde_json::to_vec_pretty(&uses) else { return };
        let _ = write(&self.file.dir.join(USES_NAME), &text);
    }
}

impl Known {
    fn name(&self) -> &str {
        &self.token.name
    }
}

impl From<Token> for Known {
    fn from(token: Token) -> Self {
        let rights = Rights {
            kind: Kind::Named,
            name: format!("token {}", token.name),
            by: By::Token { name: token.name.clone() },
            allowance: Allowance { max_requests: token.max_requests, max_upload: token.max_upload },
            reads: token.reads.iter().cloned().map(Into::into).collect(),
            writes: token.writes.clone().map(Into::into),
        };
        Self { token, principal: rights.into() }
    }
}

#[cfg(test)]
mod tests {
    use kiln_storage::Scope;

    use super::super::secret::{Secret, TOKEN_PREFIX};
    use super::*;

    fn token(name: &str, secret: &Secret) -> Token {
        Token {
            name: name.to_owned(),
            hash: secret.hash(),
            reads: vec![Scope::new("r", "main")],
            writes: None,
            created_ms: 1,
            expires_ms: 10,
            max_requests: None,
            max_upload: None,
        }
    }

    /// A server's view that looks at the file each time.
    fn who(dir: &Path, secret: &Secret, now_ms: u64) -> Option<Principal> {
        Tokens::of(dir).who(&secret.hash(), now_ms)
    }

    #[test]
    fn a_token_is_known_by_its_hash_until_it_ends_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::of(dir.path());
        let [one, two] = [(); 2].map(|()| Secret::make(TOKEN_PREFIX).unwrap());
        assert!(!Tokens::of(dir.path()).are_required());
        file.add(token("one", &one)).unwrap();
        assert!(matches!(file.add(token("one", &two)), Err(TokensError::Taken(_))));
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert!(!text.contains(one.expose()) && !text.contains(&one.expose()[10..30]));
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);

        assert_eq!(who(dir.path(), &one, 9).unwrap().name, "token one");
        assert!(who(dir.path(), &one, 10).is_none());
        assert!(who(dir.path(), &two, 9).is_none());
        file.revoke("one").unwrap();
        assert!(matches!(file.revoke("one"), Err(TokensError::Unknown(_))));
        assert!(who(dir.path(), &one, 9).is_none());
        assert!(Tokens::of(dir.path()).are_required(), "that the last one is gone opens nothing");
    }

    /// Where the server is another user, and root makes the tokens; elsewhere that is the same one.
    #[test]
    fn the_file_belongs_to_whom_the_directory_belongs_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65532), Some(65532)).unwrap();
        }
        let secret = Secret::make(TOKEN_PREFIX).unwrap();
        TokenFile::of(dir.path()).add(token("one", &secret)).unwrap();
        let owner = fs::metadata(dir.path()).unwrap().uid();
        for name in [FILE_NAME, "tokens.lock"] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().uid(), owner, "{name}");
        }
        let (link, elsewhere) = (dir.path().join("link"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "x").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        assert!(private(&link).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::make(TOKEN_PREFIX).unwrap();
        TokenFile::of(dir.path()).add(token("one", &secret)).unwrap();
        for bad in
            ["", "{", "{\"version\":2,\"tokens\":[]}", "{\"version\":1,\"tokens\":[],\"x\":1}"]
        {
            fs::write(dir.path().join(FILE_NAME), bad).unwrap();
            let tokens = Tokens::of(dir.path());
            assert!(tokens.are_required() && tokens.who(&secret.hash(), 1).is_none(), "{bad}");
            assert!(tokens.take_fault().is_some_and(|why| why.contains(FILE_NAME)));
        }
    }

    #[test]
    fn last_uses_are_written_for_tokens_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::of(dir.path());
        let secret = Secret::make(TOKEN_PREFIX).unwrap();
        file.add(token("one", &secret)).unwrap();
        let tokens = Tokens::of(dir.path());
        tokens.who(&secret.hash(), 5).unwrap();
        tokens.who(&secret.hash(), 4).unwrap();
        tokens.write_uses();
        assert_eq!(file.uses(), [("one".to_owned(), 5)].into());
        fs::remove_file(dir.path().join(USES_NAME)).unwrap();
        tokens.write_uses();
        assert!(file.uses().is_empty(), "nothing has changed");
    }
}
