//! [`RemoteUrl`]: the place behind a server, as a setting names it; and [`Access`], what it takes to get in.
//!
//! Pure. Called by [`crate::config`]; `open` makes a connection of it. An error never holds what
//! might be a credential.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::ConfigError;

/// What a setting that names a place behind a server accepts.
pub(crate) const ACCEPTS: &str = "http(s)://host:port, s3://bucket[/prefix], gs://bucket[/prefix], az://container[/prefix] or gha://";

/// Longest name of a bucket or container, bytes.
const MAX_BUCKET_BYTES: usize = 255;

/// Longest prefix within it, bytes.
const MAX_PREFIX_BYTES: usize = 512;

/// Variables that tell how to get into a storage service begin with one of these.
const VARIABLES: [&str; 4] = ["AWS_", "GOOGLE_", "AZURE_", "ACTIONS_"];

/// A place far away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteUrl {
    /// Another Kiln server: `http(s)://host:port`.
    Kiln {
        /// Whether by TLS.
        tls: bool,
        /// `host:port`.
        host: String,
    },
    /// `s3://bucket/prefix`.
    S3(Bucket),
    /// `gs://bucket/prefix`: Google Cloud Storage.
    Gs(Bucket),
    /// `az://container/prefix`: Azure.
    Az(Bucket),
    /// `gha://`: the cache of GitHub Actions.
    Gha,
}

/// A bucket or container, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all names in it begin with; may be empty. Neither begins nor ends with `/`.
    pub prefix: String,
}

impl Bucket {
    fn parse(text: &str) -> Option<Self> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.chars().all(allowed);
        let fits = name.len() <= MAX_BUCKET_BYTES && prefix.len() <= MAX_PREFIX_BYTES;
        let well = segment(name) && (prefix.is_empty() || prefix.split('/').all(segment));
        (fits && well).then(|| Self { name: name.to_owned(), prefix: prefix.to_owned() })
    }

    fn display(&self) -> String {
        match self.prefix.as_str() {
            "" => self.name.clone(),
            prefix => format!("{}/{prefix}", self.name),
        }
    }
}

impl RemoteUrl {
    /// Reads the value of a setting.
    ///
    /// # Errors
    /// It is none of the forms that the setting accepts.
    pub fn parse(setting: &'static str, text: &str) -> Result<Self, ConfigError> {
        let scheme = text.split("//").next().unwrap_or_default();
        // All behind the scheme may be a credential.
        let error = || ConfigError::Malformed {
            setting,
            value: scheme.chars().take(20).collect(),
            accepts: ACCEPTS,
        };
        let rest = text.get(scheme.len()..).and_then(|rest| rest.strip_prefix("//"));
        let rest = rest.ok_or_else(error)?;
        let bucket = || Bucket::parse(rest).ok_or_else(error);
        Ok(match scheme {
            "http:" | "https:" => {
                let host = rest.strip_suffix('/').unwrap_or(rest);
                let tls = scheme == "https:";
                Self::Kiln { tls, host: host_and_port(host, tls).ok_or_else(error)? }
            }
            "s3:" => Self::S3(bucket()?),
            "gs:" => Self::Gs(bucket()?),
            "az:" => Self::Az(bucket()?),
            "gha:" if rest.is_empty() => Self::Gha,
            _ => return Err(error()),
        })
    }

    /// The URL for people.
    pub fn display(&self) -> String {
        match self {
            Self::Kiln { tls: true, host } => format!("https://{host}"),
            Self::Kiln { tls: false, host } => format!("http://{host}"),
            Self::S3(bucket) => format!("s3://{}", bucket.display()),
            Self::Gs(bucket) => format!("gs://{}", bucket.display()),
            Self::Az(bucket) => format!("az://{}", bucket.display()),
            Self::Gha => "gha://".to_owned(),
        }
    }
}

/// A host with its port; by TLS the port may be left out.
fn host_and_port(text: &str, tls: bool) -> Option<String> {
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    if text.is_empty() || !text.chars().all(allowed) {
        return None;
    }
    let is_address = text.ends_with(']');
    match text.rsplit_once(':').filter(|_| !is_address) {
        Some((host, port)) => {
            let whole = !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
            let port: u16 = port.parse().ok()?;
            (whole && port > 0).then(|| format!("{host}:{port}"))
        }
        None => tls.then(|| format!("{text}:443")),
    }
}

/// What it takes to get in: never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The variables of storage services, by name: those for which [`Access::wants`] says so.
    pub variables: BTreeMap<String, String>,
    /// `KILN_TOKEN`: the bearer token for another Kiln server.
    pub token: Option<String>,
}

impl Access {
    /// Whether a variable is one that tells how to get into a storage service.
    pub fn wants(name: &str) -> bool {
        VARIABLES.iter().any(|prefix| name.starts_with(prefix))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("Access")
            .field("variables", &names)
            .field("token", &self.token.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RemoteUrl, ConfigError> {
        RemoteUrl::parse("KILN_UPSTREAM", text)
    }

    #[test]
    fn places_are_read_and_shown() {
        for (text, shown) in [
            ("http://cache:5456", "http://cache:5456"),
            ("http://127.0.0.1:80/", "http://127.0.0.1:80"),
            ("https://cache.example", "https://cache.example:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[::1]", "https://[::1]:443"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://b/p", "gs://b/p"),
            ("az://c", "az://c"),
            ("gha://", "gha://"),
        ] {
            assert_eq!(parse(text).unwrap().display(), shown);
        }
    }

    #[test]
    fn what_is_none_is_refused_without_showing_it() {
        for bad in [
            "",
            "cache:5456",
            "http://cache",
            "http://cache:0",
            "http://cache:99999",
            "http://:80",
            "http://a:b:80",
            "http://user:secret@host:80",
            "http://host:80/secret",
            "https://host:80?secret",
            "s3://",
            "s3:///p",
            "s3://b//p",
            "s3://b/../p",
            "s3://b/p?secret=1",
            "s3://secret:secret@b",
            "gha://secret",
            "file:///secret",
            "memory:",
            "ftp://secret",
        ] {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.contains("KILN_UPSTREAM") && text.contains("s3://bucket"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let access = Access {
            variables: [("AWS_SECRET_ACCESS_KEY".to_owned(), "hidden".to_owned())].into(),
            token: Some("hidden".into()),
        };
        let shown = format!("{access:?}");
        assert!(!shown.contains("hidden") && shown.contains("AWS_SECRET_ACCESS_KEY"), "{shown}");
        assert!(Access::wants("ACTIONS_RESULTS_URL") && !Access::wants("KILN_TOKEN"));
    }
}
