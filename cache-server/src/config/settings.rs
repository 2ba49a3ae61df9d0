//! [`Settings`]: what flags, variables and `kiln.toml` say of a server, as text, each with where it was said; and
//! [`Key`], the one list of what can be said. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ConfigError;
use crate::remote::url::Access;
use crate::trust::rules::Rules;

/// One setting of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Where it listens.
    Listen,
    /// Where blobs and results are kept.
    Storage,
    /// The size budget of the disk store.
    CacheSize,
    /// What is behind the server.
    Upstream,
    /// How long a server that leaves goes on sending.
    Drain,
    /// When an idle server goes.
    Idle,
    /// How much it logs.
    Log,
    /// The file of rules.
    Trust,
    /// The certificate.
    TlsCert,
    /// Its key.
    TlsKey,
    /// Whether anybody is let in.
    AllowAnyone,
}

/// What a value in `kiln.toml` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A number, or a text with a unit.
    Number,
    Switch,
}

impl Key {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Listen,
        Self::Storage,
        Self::CacheSize,
        Self::Upstream,
        Self::Drain,
        Self::Idle,
        Self::Log,
        Self::Trust,
        Self::TlsCert,
        Self::TlsKey,
        Self::AllowAnyone,
    ];

    /// Its name in `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Storage => "storage",
            Self::CacheSize => "cache_size",
            Self::Upstream => "upstream",
            Self::Drain => "drain",
            Self::Idle => "idle",
            Self::Log => "log",
            Self::Trust => "trust",
            Self::TlsCert => "tls_cert",
            Self::TlsKey => "tls_key",
            Self::AllowAnyone => "allow_anyone",
        }
    }

    /// The key of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }

    /// The variable that says the same. Who reaches a server is said where it is started, so two have none.
    pub fn variable(self) -> Option<String> {
        let has_none = matches!(self, Self::Listen | Self::AllowAnyone);
        (!has_none).then(|| format!("KILN_{}", self.name().to_ascii_uppercase()))
    }

    /// The flag that says the same.
    pub fn flag(self) -> String {
        format!("--{}", self.name().replace('_', "-"))
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::CacheSize | Self::Drain | Self::Idle => Kind::Number,
            Self::AllowAnyone => Kind::Switch,
            _ => Kind::Text,
        }
    }
}

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// By a flag.
    Flag,
    /// By a variable.
    Variable,
    /// In a line of a file.
    File(Arc<Path>, usize),
}

/// A value and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    value: String,
    source: Source,
}

/// Settings as somebody wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    said: BTreeMap<Key, Said>,
    /// The table `[trust]` of a file.
    pub(super) rules: Option<Rules>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    /// `KILN_MODE=read`: nothing is sent to what is behind the server.
    pub reads_only: bool,
    /// What it takes to get in there.
    pub access: Access,
}

impl Settings {
    /// What variables say.
    pub fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut this = Self::default();
        for key in Key::ALL {
            if let Some(value) = key.variable().and_then(|name| variable(&name)) {
                this.say(*key, value, Source::Variable);
            }
        }
        this.reads_only = matches!(variable("KILN_MODE").as_deref(), Some("read" | "off"));
        this
    }

    /// What a flag says wins over everything.
    pub fn flag(&mut self, key: Key, value: impl Into<String>) {
        self.said.insert(key, Said { value: value.into(), source: Source::Flag });
    }

    /// Says what nobody has said so far.
    pub(super) fn say(&mut self, key: Key, value: String, source: Source) {
        self.said.entry(key).or_insert(Said { value, source });
    }

    /// What was said.
    pub fn get(&self, key: Key) -> Option<&str> {
        self.said.get(&key).map(|said| said.value.as_str())
    }

    /// The file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether a file said it.
    pub(super) fn is_of_file(&self, key: Key) -> bool {
        self.said.get(&key).is_some_and(|said| matches!(said.source, Source::File(..)))
    }

    /// What was said, understood.
    pub(super) fn read<T>(
        &self,
        key: Key,
        parse: impl Fn(&str) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(said) = self.said.get(&key) else { return Ok(None) };
        parse(&said.value).map(Some).map_err(|error| match (error, &said.source) {
            (ConfigError::Malformed { value, accepts, .. }, Source::File(path, line)) => {
                ConfigError::InFile {
                    place: format!("{}, line {line}", path.display()),
                    why: format!("{} is {value:?}; it accepts {accepts}", key.name()),
                }
            }
            (error, _) => error,
        })
    }

    /// What was said, a line each with where. For settings that are understood: those hold no secrets.
    pub fn told(&self) -> Vec<String> {
        let file = self.file.as_ref().map(|file| format!("settings of: {}", file.display()));
        let one = |(key, said): (&Key, &Said)| {
            let source = match &said.source {
                Source::Flag => key.flag(),
                Source::Variable => key.variable().unwrap_or_default(),
                Source::File(path, line) => format!("{}, line {line}", path.display()),
            };
            format!("said: {}={} ({source})", key.name(), said.value)
        };
        file.into_iter().chain(self.said.iter().map(one)).collect()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_names() {
        for key in Key::ALL {
            assert_eq!(Key::of(key.name()), Some(*key));
        }
        assert_eq!(Key::CacheSize.variable().as_deref(), Some("KILN_CACHE_SIZE"));
        assert_eq!((Key::AllowAnyone.variable(), Key::Listen.variable()), (None, None));
        assert_eq!(Key::TlsCert.flag(), "--tls-cert");
    }

    #[test]
    fn flags_win_over_variables_and_those_over_files() {
        let variables = |name: &str| (name == "KILN_IDLE").then(|| "2".to_owned());
        let mut settings = Settings::of_variables(variables);
        let file: Arc<Path> = Path::new("/k.toml").into();
        settings.say(Key::Idle, "3".into(), Source::File(file.clone(), 1));
        settings.say(Key::Drain, "4".into(), Source::File(file, 2));
        settings.flag(Key::Listen, "[::1]:1");
        let told = [
            "said: listen=[::1]:1 (--listen)",
            "said: drain=4 (/k.toml, line 2)",
            "said: idle=2 (KILN_IDLE)",
        ];
        assert_eq!(settings.told(), told);
    }
}
