//! Rules that change while a server runs: the file is looked at every second, as that of tokens is. A new file that
//! cannot be used, or none, keeps the rules that hold, and the log says so. Called by [`crate::serve`].

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::check::{self, RulesError};
use crate::config::ServeConfig;
use crate::limits::TOKENS_LOOKED_AFTER;
use crate::service::Service;

/// What tells one state of the file from another.
pub(crate) type Stamp = Option<(u64, i64, i64, u64)>;

/// The state that the file is in.
pub(crate) fn stamp(config: &ServeConfig) -> Stamp {
    let meta = fs::metadata(config.trust.as_ref()?).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// What was made of the file.
#[derive(Debug, Default)]
struct Seen {
    /// The state of which it is known what is in it.
    stamp: Stamp,
    /// Why a later one cannot be read, as it was told.
    told: Option<String>,
}

impl Seen {
    /// Notes what a state came to. What to tell of it: that it cannot be read once for each reason, since it is tried
    /// again until it can.
    fn came(&mut self, now: Stamp, error: Option<&RulesError>) -> Option<String> {
        match error {
            Some(RulesError::Unread(why)) => {
                let new = self.told.as_ref() != Some(why);
                self.told = Some(why.clone());
                new.then(|| why.clone())
            }
            other => {
                *self = Self { stamp: now, told: None };
                other.map(ToString::to_string)
            }
        }
    }
}

/// Goes by the rules of the file whenever it changes from a state, until the task is dropped.
pub(crate) async fn run(service: Service, before: Stamp) {
    if service.config.trust.is_none() {
        return;
    }
    let mut seen = Seen { stamp: before, told: None };
    loop {
        tokio::time::sleep(TOKENS_LOOKED_AFTER).await;
        let now = stamp(&service.config);
        if now == seen.stamp {
            seen.told = None;
            continue;
        }
        let of = service.clone();
        // Files may be slow.
        let read = tokio::task::spawn_blocking(move || check::rules(&of.config)).await;
        let read = read.unwrap_or_else(|error| Err(RulesError::Unread(error.to_string())));
        if let Some(why) = seen.came(now, read.as_ref().err()) {
            service.log.error(format_args!("audit: {why}; the rules from before hold on"));
        }
        if let Ok(Some(rules)) = read {
            let ended = service.policy.trust().go_by(rules);
            service.log.info(format_args!("audit: new rules hold, {ended} sessions ended"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_not_be_read_is_read_again_and_told_of_once() {
        let [old, new] = [1, 2].map(|inode| Some((inode, 0, 0, 0)));
        let mut seen = Seen { stamp: old, told: None };
        let unread = |why: &str| RulesError::Unread(why.to_owned());
        assert_eq!(seen.came(new, Some(&unread("too many files"))), Some("too many files".into()));
        assert_eq!(seen.stamp, old, "the new state is still to be read");
        assert_eq!(seen.came(new, Some(&unread("too many files"))), None);
        assert_eq!(seen.came(new, Some(&unread("stale"))), Some("stale".into()));
        assert_eq!(seen.came(new, None), None);
        assert_eq!((seen.stamp, &seen.told), (new, &None));
        // What is wrong in it is wrong until it changes.
        let wrong = RulesError::Wrong("no rules".into());
        assert_eq!(seen.came(old, Some(&wrong)), Some("no rules".into()));
        assert_eq!(seen.stamp, old);
    }
}
