//! [`Config`]: the wrapper's settings, resolved once from the environment.
//!
//! A malformed setting is the one thing in Kiln that stops a build: at once, with exit status 2,
//! naming the setting and what it accepts.

mod matrix;

use std::path::{Path, PathBuf};

use kiln_server::config::parse_config;
use kiln_server::{ServeConfig, Settings};

use crate::env::{Env, SETTINGS};
use crate::limits::MAX_SHOWN_CHARS;

pub use matrix::Matrix;

/// Where answers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    /// The local server of [`Config::dir`], started on first use.
    Local,
    /// A server on a unix socket that somebody else started.
    Unix(PathBuf),
    /// A server reached by TCP, as `host:port`.
    Tcp(String),
    /// The same by TLS.
    Tls(String),
}

/// What the wrapper may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Look up and store.
    ReadWrite,
    /// Look up only.
    Read,
    /// Run the compiler, nothing else.
    Off,
    /// Compile and replace what is stored.
    Refresh,
}

/// How paths are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// Roots are remapped: results hold in other places.
    Portable,
    /// Nothing is remapped: results hold at one place, byte for byte what plain rustc makes.
    Exact,
}

/// How a unit's inputs are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observe {
    /// By what the compiler and its children really ask for, where that can be seen.
    On,
    /// The conservative way only.
    Off,
}

/// Whether jobs wait for each other's compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// They do.
    On,
    /// Each compiles what it misses.
    Off,
}

/// What is done about runs of build scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildScripts {
    /// They are looked up and stored, as compiles are.
    On,
    /// They are only run.
    Off,
}

/// A share of something, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// Nothing of it.
    pub const NONE: Self = Self(0);

    /// The number before the percent sign.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl std::str::FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').ok_or("the percent sign is missing")?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse().ok().filter(|n| digits && *n <= 100);
        number.map(Self).ok_or("not a whole number from 0 to 100")
    }
}

/// The wrapper's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// All local state; none when there is no home to put it in.
    pub dir: Option<PathBuf>,
    /// Where answers come from.
    pub server: ServerPlace,
    /// What the wrapper may do.
    pub mode: Mode,
    /// How paths are treated.
    pub paths: Paths,
    /// How inputs are found.
    pub observe: Observe,
    /// What is done about runs of build scripts.
    pub build_scripts: BuildScripts,
    /// Whether to wait for what another job compiles.
    pub leases: Leases,
    /// The share of hits that is compiled again and compared.
    pub verify: Percent,
    /// The file that the event of each unit is appended to.
    pub report: Option<PathBuf>,
    /// Identity of the run, when it was told.
    pub run: Option<String>,
    /// Identity of the job, when it was told.
    pub job: Option<String>,
    /// The values that tell the job from others of its name, when they were told.
    pub matrix: Option<Matrix>,
    /// Settings of a local server, as variables have them; checked.
    pub serve: Settings,
    /// The file that has others for a server, where one is named.
    pub file: Option<PathBuf>,
}

/// A setting has a value that it does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A setting of the wrapper.
    #[error("{name} is {value:?}: {why}; it accepts {accepts}")]
    Wrapper {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What it accepts.
        accepts: &'static str,
    },
    /// A setting of the server that the wrapper would start.
    #[error(transparent)]
    Server(#[from] kiln_server::ConfigError),
}

fn error(name: &'static str, value: &str, why: impl Into<String>) -> ConfigError {
    let accepts = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.accepts);
    let mut shown: String = value.chars().take(MAX_SHOWN_CHARS).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    ConfigError::Wrapper { name, value: shown, why: why.into(), accepts }
}

/// The value of a setting that is one of a few words; empty counts as unset.
fn word<T: Copy>(env: &Env, name: &'static str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let Some(value) = env.get(name).filter(|v| !v.is_empty()) else {
        return Ok(words[0].1);
    };
    let value = value.to_string_lossy();
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| error(name, &value, "not one of its words"))
}

/// The value of a setting with a grammar of its own; empty counts as unset.
fn parsed<T>(env: &Env, name: &'static str) -> Result<Option<T>, ConfigError>
where
    T: std::str::FromStr<Err = &'static str>,
{
    let Some(value) = env.get(name).filter(|v| !v.is_empty()) else { return Ok(None) };
    let value = value.to_string_lossy();
    value.parse().map(Some).map_err(|why: &str| error(name, &value, why))
}

fn server(env: &Env) -> Result<ServerPlace, ConfigError> {
    let Some(value) = env.get("KILN_SERVER").filter(|v| !v.is_empty()) else {
        return Ok(ServerPlace::Local);
    };
    let value = value.to_string_lossy();
    let fail = |why: &str| Err(error("KILN_SERVER", &value, why));
    if let Some(path) = value.strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Ok(ServerPlace::Unix(path.into())),
            false => fail("the path is not absolute"),
        };
    }
    if let Some((_, host)) = value.rsplit_once('@') {
        // What stands before it may be a password.
        return Err(error(
            "KILN_SERVER",
            &format!("…@{host}"),
            "a server takes no name and password",
        ));
    }
    let (rest, tls) = match (value.strip_prefix("http://"), value.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return fail("not a server address"),
    };
    let host = rest.trim_end_matches('/');
    match host.rsplit_once(':').map(|(name, port)| (name.is_empty(), port.parse::<u16>())) {
        Some((false, Ok(1..))) if !host.contains('/') => Ok(match tls {
            true => ServerPlace::Tls(host.to_owned()),
            false => ServerPlace::Tcp(host.to_owned()),
        }),
        _ => fail("host and port are needed"),
    }
}

impl Config {
    /// Resolves every setting.
    ///
    /// # Errors
    /// The first setting with a value that it does not accept.
    pub fn resolve(env: &Env) -> Result<Self, ConfigError> {
        let dir = match env.get("KILN_DIR").filter(|v| !v.is_empty()) {
            Some(value) => match env.absolute("KILN_DIR") {
                Some(path) => Some(path),
                None => {
                    return Err(error(
                        "KILN_DIR",
                        &value.to_string_lossy(),
                        "not an absolute path",
                    ));
                }
            },
            None => env
                .absolute("XDG_CACHE_HOME")
                .or_else(|| env.absolute("HOME").map(|home| home.join(".cache")))
                .map(|cache| cache.join("kiln")),
        };
        let mut serve = Settings::of_variables(|name| env.text(name).map(str::to_owned));
        serve.access = env.access();
        match ServeConfig::local(Path::new("/"), None, 0).with(&serve) {
            // The other half may be in the file, which only a server reads.
            Ok(_) | Err(kiln_server::ConfigError::HalfTls { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let file = env.text("KILN_CONFIG").map(parse_config).transpose()?;
        Ok(Self {
            dir,
            server: server(env)?,
            mode: word(
                env,
                "KILN_MODE",
                &[
                    ("read-write", Mode::ReadWrite),
                    ("read", Mode::Read),
                    ("off", Mode::Off),
                    ("refresh", Mode::Refresh),
                ],
            )?,
            paths: word(
                env,
                "KILN_PATHS",
                &[("portable", Paths::Portable), ("exact", Paths::Exact)],
            )?,
            observe: word(env, "KILN_OBSERVE", &[("on", Observe::On), ("off", Observe::Off)])?,
            build_scripts: word(
                env,
                "KILN_BUILD_SCRIPTS",
                &[("on", BuildScripts::On), ("off", BuildScripts::Off)],
            )?,
            leases: word(env, "KILN_LEASES", &[("on", Leases::On), ("off", Leases::Off)])?,
            verify: parsed(env, "KILN_VERIFY")?.unwrap_or(Percent::NONE),
            report: match env.get("KILN_REPORT_FILE").filter(|v| !v.is_empty()) {
                None => None,
                Some(value) => Some(env.absolute("KILN_REPORT_FILE").ok_or_else(|| {
                    error("KILN_REPORT_FILE", &value.to_string_lossy(), "not an absolute path")
                })?),
            },
            run: env.text("KILN_RUN").map(str::to_owned),
            job: env.text("KILN_JOB").map(str::to_owned),
            matrix: parsed(env, "KILN_MATRIX")?,
            serve,
            file,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::resolve(&Env::of_pairs(pairs.iter().copied()))
    }

    #[test]
    fn defaults_need_nothing_but_a_home() {
        let config = resolve(&[("HOME", "/home/ann")]).unwrap();
        assert_eq!(config.dir, Some("/home/ann/.cache/kiln".into()));
        assert_eq!(config.server, ServerPlace::Local);
        assert_eq!(config.mode, Mode::ReadWrite);
        assert_eq!(resolve(&[]).unwrap().dir, None);
        let scripts = |text| resolve(&[("KILN_BUILD_SCRIPTS", text)]).unwrap().build_scripts;
        assert_eq!(
            ["", "on", "off"].map(scripts),
            [BuildScripts::On, BuildScripts::On, BuildScripts::Off]
        );
        assert_eq!((config.verify, config.report), (Percent::NONE, None));
        let share = |text| resolve(&[("KILN_VERIFY", text)]).unwrap().verify.get();
        assert_eq!([share("0%"), share("7%"), share("100%"), share("")], [0, 7, 100, 0]);
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        for value in ["http://ann:secret@host:1", "https://secret@host"] {
            let text = resolve(&[("KILN_SERVER", value)]).unwrap_err().to_string();
            assert!(text.contains("KILN_SERVER") && text.contains("@host"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
        let server = |url| resolve(&[("KILN_SERVER", url)]).unwrap().server;
        assert_eq!(server("https://cache:5456/"), ServerPlace::Tls("cache:5456".into()));
        assert_eq!(server("http://[::1]:1"), ServerPlace::Tcp("[::1]:1".into()));
        let socket = resolve(&[("KILN_SERVER", "unix:///run/a@b")]).unwrap();
        assert_eq!(socket.server, ServerPlace::Unix("/run/a@b".into()));
    }

    #[test]
    fn malformed_values_name_the_setting() {
        for (name, value) in [
            ("KILN_DIR", "relative"),
            ("KILN_SERVER", "localhost:1"),
            ("KILN_SERVER", "http://host"),
            ("KILN_SERVER", "http://host:0"),
            ("KILN_SERVER", "https://host"),
            ("KILN_TLS_CERT", "cert.pem"),
            ("KILN_TLS_KEY", "key.pem"),
            ("KILN_CONFIG", "kiln.toml"),
            ("KILN_SERVER", "unix://x"),
            ("KILN_MODE", "write"),
            ("KILN_PATHS", "short"),
            ("KILN_BUILD_SCRIPTS", "yes"),
            ("KILN_LEASES", "1"),
            ("KILN_VERIFY", "10"),
            ("KILN_VERIFY", "101%"),
            ("KILN_VERIFY", "-1%"),
            ("KILN_VERIFY", "+1%"),
            ("KILN_VERIFY", "1.5%"),
            ("KILN_VERIFY", "%"),
            ("KILN_VERIFY", "all"),
            ("KILN_REPORT_FILE", "relative"),
            ("KILN_MATRIX", "linux"),
            ("KILN_MATRIX", "[1]"),
            ("KILN_MATRIX", "{"),
            ("KILN_IDLE", "0"),
            ("KILN_IDLE", "soon"),
            ("KILN_CACHE_SIZE", "10 parsecs"),
            ("KILN_CACHE_SIZE", "0"),
            ("KILN_STORAGE", "ftp://x"),
            ("KILN_STORAGE", "s3://"),
            ("KILN_UPSTREAM", "cache:5456"),
            ("KILN_UPSTREAM", "file:///a"),
            ("KILN_DRAIN", "soon"),
            ("KILN_LOG", "loud"),
        ] {
            let error = resolve(&[(name, value)]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("it accepts "), "{text}");
        }
    }
}
