//! What a configuration would start, and what is wrong with it, without starting it: for `--check`, and for
//! [`crate::serve`] before it listens.

use std::{fs, io};

use crate::config::ServeConfig;
use crate::limits::MAX_RULES_BYTES;
use crate::remote::url::RemoteUrl;
use crate::tls;
use crate::trust::Trust;
use crate::trust::rules::Rules;
use crate::trust::tokens::TokenFile;

/// Who is let in by a configuration.
///
/// # Errors
/// The rules cannot be read; or anybody from other machines would be let in.
pub(crate) fn trust(config: &ServeConfig) -> Result<Trust, String> {
    let rules = rules(config).map_err(|error| error.to_string())?;
    let trust = Trust::new(&config.kiln_dir, rules);
    let afar = config.listen.tcp.filter(|address| !address.ip().is_loopback());
    match afar {
        Some(address) if !trust.is_required() && !config.allow_anyone => Err(format!(
            "{address} can be reached from other machines, and nobody has to be known to read and store results \
             there; make a token (kiln-server token create), name rules (KILN_TRUST), or say --allow-anyone"
        )),
        _ => Ok(trust),
    }
}

/// Why the rules that a configuration names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RulesError {
    /// They cannot be read: what is in them is not known.
    #[error("{0}")]
    Unread(String),
    /// What is in them is wrong.
    #[error("{0}")]
    Wrong(String),
}

/// The rules that a configuration names.
///
/// # Errors
/// They cannot be used.
pub(crate) fn rules(config: &ServeConfig) -> Result<Option<Rules>, RulesError> {
    let Some(path) = &config.trust else { return Ok(config.rules.clone()) };
    let failed = |why: String| format!("the rules in {} cannot be used: {why}", path.display());
    let unread = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => RulesError::Wrong(failed(error.to_string())),
        _ => RulesError::Unread(failed(error.to_string())),
    };
    let wrong = |why: String| RulesError::Wrong(failed(why));
    let meta = fs::metadata(path).map_err(unread)?;
    if meta.len() > MAX_RULES_BYTES {
        return Err(wrong(format!("they are over {MAX_RULES_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    Rules::parse(&text).map(Some).map_err(wrong)
}

/// What would be started, a line each; and what is wrong.
pub fn check(config: &ServeConfig) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    lines.push(format!("role: {}", config.role.word()));
    lines.push(format!("directory: {}", config.kiln_dir.display()));
    lines.push(format!("storage: {}", config.storage.display()));
    if let Some((setting, url)) = &config.remote.url {
        lines.push(format!("behind it: {} ({setting})", url.display()));
    }
    if let Some(socket) = &config.listen.socket {
        lines.push(format!("listens on: unix://{} (its own user only)", socket.display()));
    }
    let tokens = TokenFile::of(&config.kiln_dir).read();
    match &tokens {
        Ok(Some(tokens)) => lines.push(format!("tokens: {}", tokens.len())),
        Ok(None) => {}
        Err(error) => wrong.push(error.to_string()),
    }
    if let Ok(Some(rules)) = rules(config) {
        lines.push(format!("audience: {}", rules.audience));
        let issuers: Vec<&str> = rules.issuers.iter().map(|one| one.url.as_str()).collect();
        lines.push(format!("issuers: {}", issuers.join(" ")));
        lines.push(format!("repositories: {}", rules.repositories.len()));
        let public = rules.public();
        if !public.is_empty() {
            lines.push(format!(
                "read by anybody: the default branch of {} repositories",
                public.len()
            ));
        }
    }
    let trust = trust(config);
    if let Some(address) = config.listen.tcp {
        let who = match &trust {
            Ok(trust) if trust.is_required() => "who has a token",
            _ => "anybody",
        };
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        lines.push(format!("listens on: {scheme}://{address} ({who})"));
    }
    match (&config.tls, config.tls_files()) {
        (_, Some(files)) => match files.load() {
            Ok(key) => {
                let when = tls::when(&key).map(|when| format!(" ({})", when.words));
                lines.push(format!(
                    "certificate: {}{}",
                    files.cert.display(),
                    when.unwrap_or_default()
                ));
            }
            Err(error) => wrong.push(error.in_full()),
        },
        (Some(_), None) => lines.push("certificate: not used on a unix socket".to_owned()),
        (None, None) => {}
    }
    if let (Ok(trust), Some((_, url))) = (&trust, &config.remote.url)
        && trust.is_required()
    {
        let whose = match url {
            RemoteUrl::S3(_) | RemoteUrl::Gs(_) | RemoteUrl::Az(_) => {
                "who has a token gets and keeps there what is in its scopes"
            }
            RemoteUrl::Kiln { .. } | RemoteUrl::Gha => {
                "for its own user only, not for who has a token"
            }
        };
        lines.push(format!("behind it: {whose}"));
    }
    wrong.extend(trust.err());
    (lines, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cannot_be_read_are_not_wrong_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServeConfig::shared(dir.path());
        let mut fails = |path: &std::path::Path| {
            config.trust = Some(path.to_owned());
            rules(&config).unwrap_err()
        };
        for unread in [dir.path().to_owned(), dir.path().join("none")] {
            assert!(matches!(fails(&unread), RulesError::Unread(_)), "{}", unread.display());
        }
        let file = dir.path().join("rules");
        for wrong in [&b"{"[..], b"\xff"] {
            fs::write(&file, wrong).unwrap();
            assert!(matches!(fails(&file), RulesError::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn nobody_from_elsewhere_is_let_in_by_default() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServeConfig::shared(dir.path());
        assert!(trust(&config).is_ok(), "loopback");
        for afar in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            config.listen.tcp = afar.parse().ok();
            assert!(trust(&config).unwrap_err().contains("--allow-anyone"), "{afar}");
        }
        assert_eq!(check(&config).1.len(), 1);
        let known = ServeConfig { allow_anyone: true, ..config.clone() };
        assert!(trust(&known).is_ok());
        let path = dir.path().join("trust.json");
        fs::write(&path, r#"{"audience": "https://kiln.example"}"#).unwrap();
        let ruled = ServeConfig { trust: Some(path.clone()), ..config.clone() };
        assert!(trust(&ruled).unwrap().is_required());
        let (lines, wrong) = check(&ruled);
        assert!(wrong.is_empty() && lines.contains(&"audience: https://kiln.example".to_owned()));
        fs::write(&path, "{}").unwrap();
        assert!(trust(&ruled).unwrap_err().contains("audience"));
        fs::remove_file(&path).unwrap();
        assert!(trust(&ruled).unwrap_err().contains("trust.json"));
    }
}
