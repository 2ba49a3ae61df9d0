//! `kiln.toml`: settings of a server in a file, under the names that variables have without `KILN_`, in lower case; and
//! the rules of [`crate::trust`] as its table `[trust]`. Each mistake is an error that names file, line and what is
//! accepted.
//!
//! Secrets are not among the keys: such a file is shown and kept with others.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::near::distance;
use super::settings::{Kind, Source};
use super::{ConfigError, Key, Settings};
use crate::limits::MAX_CONFIG_BYTES;
use crate::trust::rules::Rules;
use crate::whole;

/// The name of the file in the directory of a server.
pub const FILE: &str = "kiln.toml";

/// Why two names that people may look for are none.
const ELSEWHERE: &[(&str, &str)] = &[
    ("token", "a token is a secret: it is said by KILN_TOKEN alone"),
    ("dir", "the directory is where the file is looked for: it is said by KILN_DIR or --dir"),
    ("server", "KILN_SERVER is for the wrapper, which does not read this file"),
    (
        "mode",
        "KILN_MODE is for the wrapper as well, which does not read this file: it stays a variable",
    ),
];

impl Settings {
    /// Reads the file that was named, or the one in a directory, where it is there, and takes what nobody has said so far.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn with_file(mut self, named: Option<&Path>, kiln_dir: &Path) -> Result<Self, ConfigError> {
        let path = named.map_or_else(|| kiln_dir.join(FILE), Path::to_owned);
        if named.is_none() && !path.exists() {
            return Ok(self);
        }
        let failed = |why: String| ConfigError::InFile { place: path.display().to_string(), why };
        let text = read(&path).map_err(|why| failed(format!("cannot be read: {why}")))?;
        self.take(&path, &text)?;
        Ok(self)
    }

    fn take(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file: Arc<Path> = path.into();
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let wrong = |at: Option<usize>, why: String| {
            let line = at.map(|at| format!(", line {}", line(at))).unwrap_or_default();
            ConfigError::InFile { place: format!("{}{line}", path.display()), why }
        };
        let of_toml = |error: toml::de::Error| {
            wrong(error.span().map(|span| span.start), error.message().replace('\n', "; "))
        };
        let table = DeTable::parse(text).map_err(of_toml)?.into_inner();
        for (name, value) in table {
            let (at, name) = (name.span().start, name.into_inner());
            let Some(key) = Key::of(&name) else { return Err(wrong(Some(at), unknown(&name))) };
            if key == Key::Trust && value.get_ref().is_table() {
                let rules = Rules::deserialize(ValueDeserializer::from(value)).map_err(of_toml)?;
                let rules = rules.checked().map_err(|why| wrong(Some(at), why))?;
                // Rules that a flag or a variable names win.
                self.rules = self.get(Key::Trust).is_none().then_some(rules);
                continue;
            }
            match text_of(key, &value) {
                Some(value) => self.say(key, value, Source::File(file.clone(), line(at))),
                None => return Err(wrong(Some(at), format!("{name} {}", wants(key)))),
            }
        }
        self.file = Some(path.to_owned());
        Ok(())
    }
}

/// A value as a flag would say it; none for one of a wrong kind.
fn text_of(key: Key, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match (key.kind(), value.get_ref()) {
        (Kind::Text | Kind::Number, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => {
            Some(number.as_str().to_owned())
        }
        (Kind::Switch, DeValue::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}

fn wants(key: Key) -> &'static str {
    match (key, key.kind()) {
        (Key::Trust, _) => "accepts the absolute path of a file in quotes, or is a table [trust]",
        (_, Kind::Text) => "accepts a text in quotes",
        (_, Kind::Number) => "accepts a whole number, or a text in quotes",
        (_, Kind::Switch) => "accepts true or false",
    }
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(40).collect();
    if let Some((_, why)) = ELSEWHERE.iter().find(|(one, _)| *one == name) {
        return format!("{name} is no key of this file: {why}");
    }
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let plain = plain.strip_prefix("kiln_").unwrap_or(&plain);
    let near = Key::ALL.iter().map(|key| (distance(key.name(), plain), key.name())).min();
    match near.filter(|(distance, _)| *distance <= 2) {
        Some((_, near)) => format!("there is no key {name:?}; is {near} meant?"),
        None => {
            let all: Vec<&str> = Key::ALL.iter().map(|key| key.name()).collect();
            format!("there is no key {name:?}; there are {}", all.join(", "))
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = whole::read(path, MAX_CONFIG_BYTES)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("stream did not contain valid UTF-8"))
}

/// `KILN_CONFIG` or `--config`.
///
/// # Errors
/// No absolute path.
pub fn parse_config(text: &str) -> Result<PathBuf, ConfigError> {
    super::parse_file("KILN_CONFIG", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeConfig;

    fn config(text: &str) -> Result<ServeConfig, ConfigError> {
        let mut settings = Settings::default();
        settings.take(Path::new("/etc/kiln.toml"), text)?;
        ServeConfig::shared(Path::new("/k")).with(&settings)
    }

    #[test]
    fn a_file_says_what_variables_say() {
        let config = config(
            "listen = \"0.0.0.0:1\"\nallow_anyone = true\ncache_size = '40GiB'\nidle = 1_000\ndrain = 0\n\
             storage = 'memory:'\ntls_cert = '/c'\ntls_key = '/k'\n[trust]\naudience = 'https://kiln.example'\n\
             [[trust.repositories]]\nid = '1'\ndefault_branch = 'main'\nself_hosted = 'refuse'\n",
        );
        let config = config.unwrap();
        assert_eq!(config.cache_size, Some(40 << 30));
        assert_eq!(config.idle.unwrap().as_secs(), 1000);
        assert!(config.allow_anyone && config.tls.is_some() && config.remote.drain.is_zero());
        let of_json = r#"{"audience": "https://kiln.example",
            "repositories": [{"id": "1", "default_branch": "main", "self_hosted": "refuse"}]}"#;
        assert_eq!(config.rules, Some(Rules::parse(of_json).unwrap()));
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let check = |text: &str, line: usize, why: &str| {
            let error = config(text).unwrap_err().to_string();
            let place = format!("/etc/kiln.toml, line {line}: ");
            assert!(error.starts_with(&place) && error.contains(why), "{error}");
        };
        check("\ncache-size = 1\n", 2, "there is no key \"cache-size\"; is cache_size meant?");
        check("KILN_DRAIN = 1\n", 1, "is drain meant?");
        check("upstraem = 'x'\n", 1, "is upstream meant?");
        check("colour = 'x'\n", 1, "there are listen, storage");
        check("token = 'hunter2'\n", 1, "said by KILN_TOKEN alone");
        check("dir = '/x'\n", 1, "KILN_DIR");
        check("drain = 1\nidle = [1]\n", 2, "idle accepts a whole number");
        check("idle = 0x10\n", 1, "accepts a whole number");
        check("log = 1\n", 1, "log accepts a text in quotes");
        check("allow_anyone = 'yes'\n", 1, "accepts true or false");
        check(
            "\n\ncache_size = '10 parsecs'\n",
            3,
            "cache_size is \"10 parsecs\"; it accepts a size",
        );
        check("idle = 1\nidle = 2\n", 2, "duplicate key");
        check("idle = \n", 1, "");
        check("trust = 'rules.json'\n", 1, "trust is \"rules.json\"; it accepts the absolute path");
        check("trust = 1\n", 1, "or is a table [trust]");
        check(
            "[trust]\naudience = 'https://k'\nrepositroies = []\n",
            3,
            "unknown field `repositroies`",
        );
        check("[trust]\n", 1, "missing field `audience`");
        check("[trust]\naudience = ''\n", 1, "audience has to be the address");
        let two = config("storage = 's3://b'\nupstream = 's3://c'\n").unwrap_err();
        assert_eq!(two, ConfigError::TwoRemotes);
        assert!(!config("token = 'hunter2'\n").unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn a_file_is_read_when_it_is_there_or_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let with = |named: Option<&Path>| Settings::default().with_file(named, dir.path());
        assert_eq!(with(None).unwrap(), Settings::default());
        let other = dir.path().join("other.toml");
        assert!(with(Some(&other)).unwrap_err().to_string().contains("other.toml: cannot be read"));
        std::fs::write(dir.path().join(FILE), "idle = 1").unwrap();
        std::fs::write(&other, "idle = 2").unwrap();
        assert_eq!(with(None).unwrap().get(Key::Idle), Some("1"));
        assert_eq!(with(Some(&other)).unwrap().get(Key::Idle), Some("2"));
        assert!(with(Some(dir.path())).unwrap_err().to_string().contains("it is no file"));
    }
}
