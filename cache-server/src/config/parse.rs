//! The grammars of single settings. Pure; each error names the setting and what it accepts.

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Key, Listen, Settings, malformed};
use crate::limits;
use crate::log::Level;
use crate::tls::{self, TlsFiles};

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

pub(super) fn parse_file(setting: &'static str, text: &str) -> Result<PathBuf, ConfigError> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(PathBuf::from(text)),
        false => Err(malformed(setting, text, "the absolute path of a file")),
    }
}

/// `KILN_TLS_CERT` and `KILN_TLS_KEY`.
pub(super) fn parse_tls(settings: &Settings) -> Result<Option<TlsFiles>, ConfigError> {
    let cert = settings.read(Key::TlsCert, |text| parse_file(tls::CERT, text))?;
    let key = settings.read(Key::TlsKey, |text| parse_file(tls::KEY, text))?;
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (Some(_), None) => Err(ConfigError::HalfTls { set: tls::CERT, missing: tls::KEY }),
        (None, Some(_)) => Err(ConfigError::HalfTls { set: tls::KEY, missing: tls::CERT }),
    }
}

/// `allow_anyone`.
pub(super) fn parse_switch(text: &str) -> Result<bool, ConfigError> {
    text.parse().map_err(|_| malformed("allow_anyone", text, "true or false"))
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
    use crate::config::DEFAULT_LISTEN;

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
}
