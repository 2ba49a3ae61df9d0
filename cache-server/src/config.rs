//! Configuration: settings as text, then resolved once into a [`ServeConfig`].
//!
//! Pure: whoever calls reads flags, files and the environment. An unknown or malformed value is
//! an error that names the setting and what it accepts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_storage::Scope;

use crate::limits;
use crate::log::Level;
use crate::remote::url::{Access, RemoteUrl};
use crate::socket_path::socket_path;
use crate::tls::{self, TlsFiles};

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
        if let Some(text) = &settings.listen {
            self.listen = parse_listen(text)?;
        }
        if let Some(text) = &settings.storage {
            match parse_storage(text)? {
                Place::Here(storage) => self.storage = storage,
                // What is far away is kept here, too.
                Place::Afar(url) => self.remote.url = Some((STORAGE, url)),
            }
        }
        if let Some(text) = &settings.upstream {
            self.remote.url = match self.remote.url {
                None => Some((UPSTREAM, RemoteUrl::parse(UPSTREAM, text)?)),
                Some(_) => return Err(ConfigError::TwoRemotes),
            };
        }
        if let Some(text) = &settings.drain {
            self.remote.drain = parse_drain(text)?;
        }
        if let Some(text) = &settings.trust {
            self.trust = Some(parse_trust(text)?);
        }
        self.tls = parse_tls(settings)?.or(self.tls);
        self.allow_anyone |= settings.allow_anyone;
        self.remote.sends &= !settings.reads_only;
        self.remote.access = settings.access.clone();
        if let Some(text) = &settings.cache_size {
            self.cache_size = Some(parse_cache_size(text)?);
        }
        if let Some(text) = &settings.idle {
            self.idle = Some(parse_idle(text)?);
        }
        if let Some(text) = &settings.log {
            self.log = parse_log(text)?;
        }
        Ok(self)
    }
}

/// Settings as somebody wrote them; none: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--listen`.
    pub listen: Option<String>,
    /// `KILN_STORAGE`, `--storage`.
    pub storage: Option<String>,
    /// `KILN_CACHE_SIZE`, `--cache-size`.
    pub cache_size: Option<String>,
    /// `KILN_IDLE`, `--idle`.
    pub idle: Option<String>,
    /// `KILN_LOG`, `--log`.
    pub log: Option<String>,
    /// `KILN_UPSTREAM`, `--upstream`.
    pub upstream: Option<String>,
    /// `KILN_DRAIN`, `--drain`.
    pub drain: Option<String>,
    /// `KILN_TRUST`, `--trust`.
    pub trust: Option<String>,
    /// `KILN_TLS_CERT`, `--tls-cert`.
    pub tls_cert: Option<String>,
    /// `KILN_TLS_KEY`, `--tls-key`.
    pub tls_key: Option<String>,
    /// `--allow-anyone`.
    pub allow_anyone: bool,
    /// `KILN_MODE=read`: nothing is sent to what is behind the server.
    pub reads_only: bool,
    /// What it takes to get in there.
    pub access: Access,
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
            Self::TwoRemotes | Self::HalfTls { .. } => None,
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

/// `KILN_CACHE_SIZE`, bytes.
///
/// # Errors
/// No number, no such unit, or zero.
pub fn parse_cache_size(text: &str) -> Result<u64, ConfigError> {
    parse_size("KILN_CACHE_SIZE", text, "a size over zero such as 10GiB, 500MB or 1000000000")
}

/// A size, bytes.
pub(crate) fn parse_size(
    setting: &'static str,
    text: &str,
    accepts: &'static str,
) -> Result<u64, ConfigError> {
    let error = || malformed(setting, text, accepts);
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(error()),
    };
    number
        .checked_mul(factor)
        .filter(|&bytes| bytes > 0 && bytes <= i64::MAX as u64)
        .ok_or_else(error)
}

/// `KILN_IDLE`, seconds.
///
/// # Errors
/// No whole number from 1 to a year.
pub fn parse_idle(text: &str) -> Result<Duration, ConfigError> {
    match text.trim().parse::<u64>() {
        Ok(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(malformed("KILN_IDLE", text, "whole seconds, 1 to 31536000, e.g. 600")),
    }
}

/// `KILN_DRAIN`, seconds.
///
/// # Errors
/// No whole number up to a day.
pub fn parse_drain(text: &str) -> Result<Duration, ConfigError> {
    match text.trim().parse::<u64>() {
        Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(malformed("KILN_DRAIN", text, "whole seconds, 0 to 86400, e.g. 120")),
    }
}

/// `KILN_TRUST`.
///
/// # Errors
/// No absolute path.
pub fn parse_trust(text: &str) -> Result<PathBuf, ConfigError> {
    parse_file("KILN_TRUST", text)
}

fn parse_file(setting: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(PathBuf::from(text)),
        false => Err(malformed(setting, text, "the absolute path of a file")),
    }
}

/// `KILN_TLS_CERT` and `KILN_TLS_KEY`.
fn parse_tls(settings: &Settings) -> Result<Option<TlsFiles>, ConfigError> {
    match (&settings.tls_cert, &settings.tls_key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            let (cert, key) = (parse_file(tls::CERT, cert)?, parse_file(tls::KEY, key)?);
            Ok(Some(TlsFiles { cert, key }))
        }
        (Some(_), None) => Err(ConfigError::HalfTls { set: tls::CERT, missing: tls::KEY }),
        (None, Some(_)) => Err(ConfigError::HalfTls { set: tls::KEY, missing: tls::CERT }),
    }
}

/// `KILN_LOG`.
///
/// # Errors
/// No level.
pub fn parse_log(text: &str) -> Result<Level, ConfigError> {
    [Level::Error, Level::Warn, Level::Info, Level::Debug]
        .into_iter()
        .find(|level| level.word() == text.trim())
        .ok_or_else(|| malformed("KILN_LOG", text, "error, warn, info or debug"))
}

/// `--listen`.
///
/// # Errors
/// Neither an address nor the URL of a socket.
pub fn parse_listen(text: &str) -> Result<Listen, ConfigError> {
    let error = || malformed("listen", text, "address:port or unix:///path");
    if let Some(path) = text.strip_prefix("unix://") {
        if !path.starts_with('/') || path.len() > limits::MAX_SOCKET_PATH_BYTES {
            return Err(error());
        }
        return Ok(Listen { socket: Some(PathBuf::from(path)), tcp: None });
    }
    Ok(Listen { socket: None, tcp: Some(text.trim().parse().map_err(|_| error())?) })
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
            let text = |text: Option<&str>| text.map(str::to_owned);
            let settings = Settings {
                storage: text(storage),
                upstream: text(upstream),
                ..Settings::default()
            };
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
    fn sizes() {
        let check = |text, bytes| assert_eq!(parse_cache_size(text), Ok(bytes), "{text}");
        check("10GiB", 10 << 30);
        check("500MB", 500_000_000);
        check("5 gb", 5_000_000_000);
        check("1024", 1024);
        check("2K", 2048);
        for bad in ["", "0", "-1", "1.5GB", "GiB", "10XB", "99999999999999999999", "9999999TiB"] {
            let error = parse_cache_size(bad).unwrap_err().to_string();
            assert!(error.contains("KILN_CACHE_SIZE") && error.contains("10GiB"), "{error}");
        }
    }

    #[test]
    fn times_levels_and_addresses() {
        assert_eq!(parse_idle("600"), Ok(Duration::from_secs(600)));
        for bad in ["0", "", "10m", "-1"] {
            assert!(parse_idle(bad).unwrap_err().to_string().contains("KILN_IDLE"));
        }
        assert_eq!(parse_drain("0"), Ok(Duration::ZERO));
        for bad in ["", "2m", "-1", "86401"] {
            assert!(parse_drain(bad).unwrap_err().to_string().contains("KILN_DRAIN"));
        }
        assert_eq!(parse_log("warn"), Ok(Level::Warn));
        assert!(parse_log("loud").unwrap_err().to_string().contains("KILN_LOG"));
        assert!(parse_listen(DEFAULT_LISTEN).unwrap().tcp.is_some());
        assert_eq!(parse_listen("unix:///run/k.sock").unwrap().socket, Some("/run/k.sock".into()));
        for bad in ["", "localhost", "unix://a", ":1"] {
            assert!(parse_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_replace_defaults() {
        let config = ServeConfig::local(Path::new("/k"), None, 1)
            .with(&Settings {
                idle: Some("5".into()),
                storage: Some("memory:".into()),
                ..Settings::default()
            })
            .unwrap();
        assert_eq!(config.idle, Some(Duration::from_secs(5)));
        assert_eq!(config.storage, StorageUrl::Memory);
        assert_eq!(config.cache_size, Some(limits::DEFAULT_CACHE_SIZE));
        let shared = ServeConfig::shared(Path::new("/k"));
        assert_eq!((shared.idle, shared.listen.socket), (None, None));
    }
}
