//! `gc`: takes out of a bucket what is not used any more, as [`kiln_storage::remote::collect`] plans it.
//!
//! [`GcConfig::resolve`] reads the settings, [`gc`] does the work: pins, plans, says the whole plan, and only
//! then deletes, if that was asked for. Asks nobody anything and prints nothing itself. Called by the commands
//! of both programs; no server runs it.

mod report;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use kiln_storage::limits::COLLECTION_TIME;
use kiln_storage::object::ObjectError;
use kiln_storage::remote::collect::{self, Collected, Inventory, Policy};
use kiln_storage::{ObjectBackend, ResultKey, Scope, StoreError};

use crate::clock;
use crate::config::{self, ConfigError, Place, malformed};
use crate::remote::open::bucket_backend;
use crate::remote::url::{Access, RemoteUrl};

/// Settings as somebody wrote them; none: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcSettings {
    /// `KILN_STORAGE`, `--storage`.
    pub storage: Option<String>,
    /// What it takes to get in there.
    pub access: Access,
    /// `--dry-run`: only say what would go.
    pub dry_run: bool,
    /// `--unused`: results that were not used for longer go.
    pub unused: Option<String>,
    /// `--grace`: what is younger stays.
    pub grace: Option<String>,
    /// `--quota`: `SIZE` for every scope, or `SCOPE=SIZE`.
    pub quotas: Vec<String>,
    /// `--pin`: `[SCOPE:]RESULT` that is to stay.
    pub pins: Vec<String>,
    /// `--unpin`: one that need not stay any longer.
    pub unpins: Vec<String>,
    /// `--format`: text or json.
    pub format: Option<String>,
}

/// A result that is to stay, or need not any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    scope: Scope,
    result: ResultKey,
}

/// Resolved settings: nothing in them is left to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcConfig {
    url: RemoteUrl,
    access: Access,
    dry_run: bool,
    policy: Policy,
    pins: Vec<Pin>,
    unpins: Vec<Pin>,
    json: bool,
    /// Names of scopes that the settings name, by id.
    names: BTreeMap<String, String>,
}

/// Why a collection ended early.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The bucket failed. What was deleted by then was in the plan.
    #[error("{}", told(.place, .error))]
    Storage {
        /// The bucket.
        place: String,
        /// What it said.
        error: StoreError,
    },
    /// Ages cannot be told: nothing was deleted.
    #[error("{place}: {}; set it right, or ages are wrong and what is in use goes", skew(*.ahead_s))]
    Clock {
        /// The bucket.
        place: String,
        /// So many seconds the clock here is ahead.
        ahead_s: i64,
    },
    /// The system failed. When the plan could not be shown, nothing was deleted.
    #[error("standard output or the system: {0}")]
    System(#[from] io::Error),
}

/// How a clock that is ahead by so many seconds, or behind, is wrong.
fn skew(ahead_s: i64) -> String {
    let minutes = ahead_s.unsigned_abs() / 60;
    let word = if ahead_s > 0 { "ahead of" } else { "behind" };
    format!("the clock of this machine is {minutes} minutes {word} the one there")
}

/// Whether ages can be told with a clock that is ahead by so many seconds.
fn tells_time(ahead_s: i64) -> bool {
    ahead_s.unsigned_abs() <= COLLECTION_TIME.as_secs()
}

/// What a bucket said, with its name once.
fn told(place: &str, error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(why) | StoreError::ReadOnly(why) if why.starts_with(place) => {
            why.clone()
        }
        _ => format!("{place}: {error}"),
    }
}

/// What a collection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcEnd {
    /// All that was planned is done, or was only to be shown.
    Done,
    /// Some of it took too long and is left for the next collection.
    Left,
}

const STORAGE_ACCEPTS: &str = "s3://bucket[/prefix], gs://bucket[/prefix] or az://container[/prefix]; what is \
                               kept elsewhere needs no collection";
const TIME_ACCEPTS: &str = "a whole number with s, m, h or d, e.g. 30d";
const QUOTA_ACCEPTS: &str =
    "SIZE or SCOPE=SIZE, e.g. shared@all=20GiB; a scope is repository@ref or its id";
const PIN_ACCEPTS: &str = "RESULT or SCOPE:RESULT, a result key of 64 hexadecimal digits";

/// Characters of [`Scope::id`].
const SCOPE_ID_CHARS: usize = 32;

impl GcConfig {
    /// Reads settings.
    ///
    /// # Errors
    /// The first setting that is malformed.
    pub fn resolve(settings: &GcSettings) -> Result<Self, ConfigError> {
        let storage = settings.storage.as_deref().unwrap_or_default();
        let url = match config::parse_storage(storage) {
            Ok(Place::Afar(url @ (RemoteUrl::S3(_) | RemoteUrl::Gs(_) | RemoteUrl::Az(_)))) => url,
            // What is no URL of a bucket may hold a credential.
            _ => {
                let scheme = storage.split("//").next().unwrap_or_default();
                return Err(malformed("KILN_STORAGE", scheme, STORAGE_ACCEPTS));
            }
        };
        let mut names = BTreeMap::new();
        name(&mut names, &default_scope());
        let mut policy = Policy::new(u64::MAX);
        for quota in &settings.quotas {
            let (scope, size) = match quota.rsplit_once('=') {
                Some((scope, size)) => (Some(scope), size),
                None => (None, quota.as_str()),
            };
            let bytes = config::parse_size("quota", size, QUOTA_ACCEPTS)?;
            match scope {
                None => policy.quota_bytes = bytes,
                Some(id) if is_id(id) => drop(policy.quotas.insert(id.to_owned(), bytes)),
                Some(scope) => {
                    let scope = parse_scope(scope)
                        .ok_or_else(|| malformed("quota", quota, QUOTA_ACCEPTS))?;
                    name(&mut names, &scope);
                    policy = policy.with_quota(&scope, bytes);
                }
            }
        }
        let time = |setting, text: &Option<String>, default| match text {
            Some(text) => parse_time(setting, text),
            None => Ok(default),
        };
        policy.max_unused = time("unused", &settings.unused, policy.max_unused)?;
        policy.grace = time("grace", &settings.grace, policy.grace)?;
        let mut pins = |texts: &[String]| -> Result<Vec<Pin>, ConfigError> {
            let pins: Result<Vec<Pin>, _> = texts.iter().map(|text| parse_pin(text)).collect();
            pins.inspect(|pins| pins.iter().for_each(|pin| name(&mut names, &pin.scope)))
        };
        let (pins, unpins) = (pins(&settings.pins)?, pins(&settings.unpins)?);
        let json = match settings.format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(malformed("format", other, "text or json")),
        };
        let (access, dry_run) = (settings.access.clone(), settings.dry_run);
        Ok(Self { url, access, dry_run, policy, pins, unpins, json, names })
    }
}

/// Where servers store what they were told nothing else of.
fn default_scope() -> Scope {
    config::default_scope()
}

fn name(names: &mut BTreeMap<String, String>, scope: &Scope) {
    names.insert(scope.id(), format!("{}@{}", scope.repository(), scope.reference()));
}

fn is_id(text: &str) -> bool {
    text.len() == SCOPE_ID_CHARS && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

fn parse_scope(text: &str) -> Option<Scope> {
    let (repository, reference) = text.split_once('@')?;
    (!repository.is_empty() && !reference.is_empty()).then(|| Scope::new(repository, reference))
}

fn parse_pin(text: &str) -> Result<Pin, ConfigError> {
    let error = || malformed("pin", text, PIN_ACCEPTS);
    let (scope, result) = match text.rsplit_once(':') {
        Some((scope, result)) => (parse_scope(scope).ok_or_else(error)?, result),
        None => (default_scope(), text),
    };
    Ok(Pin { scope, result: result.parse().map_err(|_| error())? })
}

pub(crate) fn parse_time(setting: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let error = || malformed(setting, text, TIME_ACCEPTS);
    let unit = text.chars().last().ok_or_else(error)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(error()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| error())?;
    // Milliseconds of it still fit.
    let fits = |seconds: &u64| *seconds <= u64::MAX / 1000;
    number.checked_mul(seconds).filter(fits).map(Duration::from_secs).ok_or_else(error)
}

/// Collects: says on `out` what goes, and then lets it go. Blocks.
///
/// # Errors
/// [`GcError`].
pub fn gc(config: &GcConfig, out: &mut dyn Write) -> Result<GcEnd, GcError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let closed = |error: ObjectError| GcError::Storage {
            place: config.url.display(),
            error: StoreError::Unavailable(error.to_string()),
        };
        let bucket = bucket_backend(&config.url, &config.access).map_err(closed)?;
        collect_from(config, &bucket, out).await
    })
}

async fn collect_from(
    config: &GcConfig,
    bucket: &ObjectBackend,
    out: &mut dyn Write,
) -> Result<GcEnd, GcError> {
    let storage = |error| GcError::Storage { place: config.url.display(), error };
    if !config.dry_run {
        for pin in &config.pins {
            collect::pin(bucket, &pin.scope, &pin.result).await.map_err(storage)?;
        }
        for pin in &config.unpins {
            collect::unpin(bucket, &pin.scope, &pin.result).await.map_err(storage)?;
        }
    }
    let mut inventory = Inventory::read(bucket).await.map_err(storage)?;
    if let Some(ahead_s) = bucket.traffic().clock_ahead_s().filter(|s| !tells_time(*s)) {
        return Err(GcError::Clock { place: config.url.display(), ahead_s });
    }
    let unknown = config.apply_pins(&mut inventory);
    let plan = collect::plan(&inventory, &config.policy, clock::now_ms());
    report::planned(config, (&inventory, &plan), &unknown, out)?;
    // Whoever is to read it has it before anything goes.
    out.flush()?;
    if config.dry_run {
        return Ok(GcEnd::Done);
    }
    let collected = collect::act(bucket, &inventory, &plan).await.map_err(storage)?;
    report::done(config, &collected, out)?;
    out.flush()?;
    Ok(end(&collected))
}

fn end(collected: &Collected) -> GcEnd {
    if collected.left > 0 { GcEnd::Left } else { GcEnd::Done }
}

impl GcConfig {
    /// Marks what is pinned as if it were so in the bucket already, for a plan that changes nothing there.
    /// Returns the pins of results that are not there.
    fn apply_pins(&self, inventory: &mut Inventory) -> Vec<String> {
        let mut unknown = Vec::new();
        for (pins, pinned) in [(&self.pins, true), (&self.unpins, false)] {
            for pin in pins {
                let id = pin.scope.id();
                let mut found = false;
                for kept in &mut inventory.results {
                    if kept.scope_id == id && kept.result == pin.result {
                        (kept.pinned, found) = (pinned, true);
                    }
                }
                if !found {
                    unknown.push(pin.result.to_string());
                }
            }
        }
        unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(storage: &str) -> GcSettings {
        GcSettings { storage: Some(storage.to_owned()), ..GcSettings::default() }
    }

    #[test]
    fn defaults_are_those_of_a_collection() {
        let config = GcConfig::resolve(&settings("s3://bucket/p")).unwrap();
        assert_eq!(config.policy, Policy::new(u64::MAX));
        assert!(!config.dry_run && !config.json);
    }

    #[test]
    fn only_buckets_are_collected() {
        for bad in ["", "gha://", "file:///store", "memory:", "http://h:1", "x://user:secret@h"] {
            let text = GcConfig::resolve(&settings(bad)).unwrap_err().to_string();
            assert!(text.contains("KILN_STORAGE") && text.contains("s3://bucket"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn times_quotas_and_pins() {
        let result = "a".repeat(64);
        let some = GcSettings {
            unused: Some("10d".into()),
            grace: Some("90m".into()),
            quotas: vec![
                "5GiB".into(),
                "o/r@refs/heads/main=1GiB".into(),
                format!("{}=2", "0".repeat(32)),
            ],
            pins: vec![result.clone(), format!("o/r@refs/heads/main:{result}")],
            ..settings("gs://b")
        };
        let config = GcConfig::resolve(&some).unwrap();
        assert_eq!(config.policy.max_unused, Duration::from_secs(10 * 24 * 60 * 60));
        assert_eq!(config.policy.grace, Duration::from_secs(90 * 60));
        assert_eq!(config.policy.quota_bytes, 5 << 30);
        let main = Scope::new("o/r", "refs/heads/main");
        assert_eq!(config.policy.quotas[&main.id()], 1 << 30);
        assert_eq!(config.policy.quotas[&"0".repeat(32)], 2);
        assert_eq!(config.pins[0].scope, Scope::new("shared", "all"));
        assert_eq!(config.pins[1].scope, main);
    }

    #[test]
    fn what_is_malformed_is_named() {
        let with = |change: fn(&mut GcSettings), name: &str| {
            let mut some = settings("az://c");
            change(&mut some);
            let text = GcConfig::resolve(&some).unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        };
        for bad in
            ["", "30", "d", "-1d", "1w", "1é", "99999999999999999999d", "18446744073709551615s"]
        {
            let some = GcSettings { unused: Some(bad.into()), ..settings("s3://b") };
            let text = GcConfig::resolve(&some).unwrap_err().to_string();
            assert!(text.starts_with("unused") && text.contains("30d"), "{text}");
        }
        with(|some| some.grace = Some("soon".into()), "grace");
        with(|some| some.quotas = vec!["a=b".into()], "quota");
        with(|some| some.quotas = vec!["norepository=1GiB".into()], "quota");
        with(|some| some.pins = vec!["abc".into()], "pin");
        with(|some| some.unpins = vec!["@:".into()], "pin");
        with(|some| some.format = Some("xml".into()), "format");
    }
}
