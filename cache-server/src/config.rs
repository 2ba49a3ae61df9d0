//! Configuration: settings as text, then resolved once into a [`ServeConfig`].
//!
//! Pure: whoever calls reads flags, files and the environment. An unknown or malformed value is
//! an error that names the setting and what it accepts.

mod file;
mod near;
mod parse;
mod settings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_storage::Scope;

use crate::limits;
use crate::log::Level;
use crate::remote::url::{Access, RemoteUrl};
use crate::socket_path::socket_path;
use crate::tls::TlsFiles;
use crate::trust::rules::Rules;

pub use self::file::{FILE, parse_config};
pub use self::near::distance;
pub(crate) use self::parse::parse_size;
pub use self::parse::{
    parse_cache_size, parse_drain, parse_idle, parse_listen, parse_log, parse_trust,
};
use self::parse::{parse_file, parse_switch, parse_tls};
pub use self::settings::{Key, Settings, Source};

/// The address of a shared server when none is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:5456";

/// Which part the server plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Started by the wrapper; unix socket; leaves when idle.
    Local,
    /// Started by somebody; stays.
    Shared,
}

impl Role {
    /// The word in settings and answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Shared => "shared",
        }
    }
}

/// Where blobs and records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageUrl {
    /// `file:///path`: a directory.
    File(PathBuf),
    /// `memory:`: gone with the server.
    Memory,
}

impl StorageUrl {
    /// The URL as text, without credentials.
    pub fn display(&self) -> String {
        match self {
            Self::File(path) => format!("file://{}", path.display()),
            Self::Memory => "memory:".to_owned(),
        }
    }
}

/// Where the server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Path of a unix socket.
    pub socket: Option<PathBuf>,
    /// Address for TCP.
    pub tcp: Option<SocketAddr>,
}

/// A resolved configuration: nothing in it is left to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// The part it plays.
    pub role: Role,
    /// Lock, index and log of the server.
    pub kiln_dir: PathBuf,
    /// Where it listens; at least one place.
    pub listen: Listen,
    /// Where blobs and records are kept.
    pub storage: StorageUrl,
    /// Size budget of the store, bytes; none: unbounded.
    pub cache_size: Option<u64>,
    /// Idle time after which it leaves; none: never.
    pub idle: Option<Duration>,
    /// How much it logs.
    pub log: Level,
    /// The scope of requests over TCP; none: that of the server's user.
    pub tcp_scope: Option<Scope>,
    /// What is behind the server.
    pub remote: RemoteConfig,
    /// The file with the rules for CI services and repositories.
    pub trust: Option<PathBuf>,
    /// The rules, where `kiln.toml` holds them itself.
    pub(crate) rules: Option<Rules>,
    /// Whether anybody who reaches it over TCP may use it, from other machines too.
    pub allow_anyone: bool,
    /// What it shows over TCP to speak TLS there, and nothing else.
    pub tls: Option<TlsFiles>,
}

/// What is behind a server, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// The place, with the setting that named it; none: nothing is behind the server.
    pub url: Option<(&'static str, RemoteUrl)>,
    /// What it takes to get in.
    pub access: Access,
    /// The scopes there that are read, in this order. Results are stored in the first.
    pub scopes: Vec<Scope>,
    /// Whether results are sent there.
    pub sends: bool,
    /// How long a server that leaves goes on sending.
    pub drain: Duration,
}

/// The scope afar where nothing else is configured.
pub(crate) fn default_scope() -> Scope {
    Scope::new("shared", "all")
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            url: None,
            access: Access::default(),
            scopes: vec![default_scope()],
            sends: true,
            drain: limits::DEFAULT_DRAIN,
        }
    }
}

impl ServeConfig {
    /// The server that the wrapper starts, with every default. `runtime_dir` as for
    /// [`socket_path`].
    pub fn local(kiln_dir: &Path, runtime_dir: Option<&Path>, uid: u32) -> Self {
        Self {
            role: Role::Local,
            kiln_dir: kiln_dir.to_owned(),
            listen: Listen { socket: Some(socket_path(kiln_dir, runtime_dir, uid)), tcp: None },
            storage: StorageUrl::File(kiln_dir.join("store")),
            cache_size: Some(limits::DEFAULT_CACHE_SIZE),
            idle: Some(limits::DEFAULT_IDLE),
            log: Level::default(),
            tcp_scope: None,
            remote: RemoteConfig::default(),
            trust: None,
            rules: None,
            allow_anyone: false,
            tls: None,
        }
    }

    /// The certificate that is shown, where something listens that shows it.
    pub(crate) fn tls_files(&self) -> Option<&TlsFiles> {
        self.tls.as_ref().filter(|_| self.listen.tcp.is_some())
    }

    /// A server that somebody starts, with every default.
    pub fn shared(kiln_dir: &Path) -> Self {
        Self {
            role: Role::Shared,
            listen: Listen { socket: None, tcp: Some(SocketAddr::from(([127, 0, 0, 1], 5456))) },
            idle: None,
            ..Self::local(kiln_dir, None, 0)
        }
    }

    /// Replaces what the settings say.
    ///
    /// # Errors
    /// The first setting that is malformed.
    pub fn with(mut self, settings: &Settings) -> Result<Self, ConfigError> {
        // The wrapper looks for its server where that always is.
        if self.role == Role::Shared || !settings.is_of_file(Key::Listen) {
            self.listen = settings.read(Key::Listen, parse_listen)?.unwrap_or(self.listen);
        }
        match settings.read(Key::Storage, parse_storage)? {
            Some(Place::Here(storage)) => self.storage = storage,
            // What is far away is kept here, too.
            Some(Place::Afar(url)) => self.remote.url = Some((STORAGE, url)),
            None => {}
        }
        if let Some(url) = settings.read(Key::Upstream, |text| RemoteUrl::parse(UPSTREAM, text))? {
            self.remote.url = match self.remote.url {
                None => Some((UPSTREAM, url)),
                Some(_) => return Err(ConfigError::TwoRemotes),
            };
        }
        self.remote.drain = settings.read(Key::Drain, parse_drain)?.unwrap_or(self.remote.drain);
        self.trust = settings.read(Key::Trust, parse_trust)?.or(self.trust);
        self.rules = settings.rules.clone().or(self.rules);
        self.tls = parse_tls(settings)?.or(self.tls);
        self.allow_anyone |= settings.read(Key::AllowAnyone, parse_switch)?.unwrap_or(false);
        self.remote.sends &= !settings.reads_only;
        self.remote.access = settings.access.clone();
        self.cache_size = settings.read(Key::CacheSize, parse_cache_size)?.or(self.cache_size);
        self.idle = settings.read(Key::Idle, parse_idle)?.or(self.idle);
        self.log = settings.read(Key::Log, parse_log)?.unwrap_or(self.log);
        Ok(self)
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not understood.
    #[error("{setting} is {value:?}; it accepts {accepts}")]
    Malformed {
        /// Name of the setting.
        setting: &'static str,
        /// What it was set to, shortened.
        value: String,
        /// What it accepts.
        accepts: &'static str,
    },
    /// Two settings name what is behind the server.
    #[error(
        "KILN_UPSTREAM is set, and KILN_STORAGE names a place far away, too; with KILN_UPSTREAM it \
         accepts file:///absolute/path or memory:"
    )]
    TwoRemotes,
    /// Something in a file of settings is wrong.
    #[error("{place}: {why}")]
    InFile {
        /// The file, and the line where there is one.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("{set} is set and {missing} is not; TLS takes both")]
    HalfTls {
        /// The setting that is set.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
}

impl ConfigError {
    /// The setting that is malformed, if it is one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { setting, .. } => Some(setting),
            Self::TwoRemotes | Self::InFile { .. } | Self::HalfTls { .. } => None,
        }
    }
}

const STORAGE: &str = "KILN_STORAGE";
const UPSTREAM: &str = "KILN_UPSTREAM";
const STORAGE_ACCEPTS: &str = "file:///absolute/path, memory:, s3://bucket[/prefix], \
                               gs://bucket[/prefix], az://container[/prefix] or gha://";

/// Where results are kept, as `KILN_STORAGE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Here(StorageUrl),
    /// Far away, with a store here before it.
    Afar(RemoteUrl),
}

pub(crate) fn malformed(setting: &'static str, value: &str, accepts: &'static str) -> ConfigError {
    ConfigError::Malformed { setting, value: value.chars().take(80).collect(), accepts }
}

/// `KILN_STORAGE`.
///
/// # Errors
/// A URL that is malformed, or of a kind that this version does not have. The error never holds
/// what might be a credential.
pub fn parse_storage(text: &str) -> Result<Place, ConfigError> {
    if text == "memory:" {
        return Ok(Place::Here(StorageUrl::Memory));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return if path.len() > 1 && path.starts_with('/') && !path.contains('\0') {
            Ok(Place::Here(StorageUrl::File(PathBuf::from(path))))
        } else {
            Err(malformed(STORAGE, text, STORAGE_ACCEPTS))
        };
    }
    match RemoteUrl::parse(STORAGE, text) {
        Ok(RemoteUrl::Kiln { .. }) => Err(malformed(STORAGE, "http", STORAGE_ACCEPTS)),
        Ok(url) => Ok(Place::Afar(url)),
        Err(ConfigError::Malformed { setting, value, .. }) => {
            Err(ConfigError::Malformed { setting, value, accepts: STORAGE_ACCEPTS })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_urls() {
        let here = |text| match parse_storage(text) {
            Ok(Place::Here(url)) => url,
            other => panic!("{other:?}"),
        };
        assert_eq!(here("memory:"), StorageUrl::Memory);
        assert_eq!(here("file:///a/b"), StorageUrl::File("/a/b".into()));
        for bad in ["", "file://", "file://a", "file:///", "/a", "ftp://x", "s3", "http://h:1"] {
            let error = parse_storage(bad).unwrap_err();
            assert!(matches!(error, ConfigError::Malformed { .. }), "{bad}");
            assert!(error.to_string().contains("KILN_STORAGE"), "{error}");
        }
        for far in ["s3://b/p", "gs://b", "az://c", "gha://"] {
            assert!(matches!(parse_storage(far), Ok(Place::Afar(_))), "{far}");
        }
        let secret = parse_storage("x://user:secret@host").unwrap_err();
        assert!(!secret.to_string().contains("secret"), "{secret}");
    }

    #[test]
    fn one_place_is_behind_a_server() {
        let resolve = |storage: Option<&str>, upstream: Option<&str>| {
            let mut settings = Settings::default();
            storage.into_iter().for_each(|text| settings.flag(Key::Storage, text));
            upstream.into_iter().for_each(|text| settings.flag(Key::Upstream, text));
            ServeConfig::local(Path::new("/k"), None, 1).with(&settings)
        };
        let edge = resolve(None, Some("http://cache:5456")).unwrap();
        assert_eq!(edge.storage, StorageUrl::File("/k/store".into()));
        assert_eq!(edge.remote.url.unwrap().1.display(), "http://cache:5456");
        let memory = resolve(Some("memory:"), Some("http://cache:5456")).unwrap();
        assert_eq!(memory.storage, StorageUrl::Memory);
        let two = resolve(Some("s3://b"), Some("http://cache:5456")).unwrap_err();
        assert_eq!(two, ConfigError::TwoRemotes);
        let bad = resolve(None, Some("cache")).unwrap_err().to_string();
        assert!(bad.contains("KILN_UPSTREAM"), "{bad}");
    }

    #[test]
    fn settings_replace_defaults() {
        let mut settings = Settings::default();
        settings.flag(Key::Idle, "5");
        settings.flag(Key::Storage, "memory:");
        let config = ServeConfig::local(Path::new("/k"), None, 1).with(&settings).unwrap();
        assert_eq!(config.idle, Some(Duration::from_secs(5)));
        assert_eq!(config.storage, StorageUrl::Memory);
        assert_eq!(config.cache_size, Some(limits::DEFAULT_CACHE_SIZE));
        let shared = ServeConfig::shared(Path::new("/k"));
        assert_eq!((shared.idle, shared.listen.socket), (None, None));
    }
}
