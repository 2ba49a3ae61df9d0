//! Rules that change while a server runs: the file is looked at every second, as that of tokens is. A new file that
//! cannot be used, or none, keeps the rules that hold, and the log says so. Called by [`crate::serve`].

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::check;
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

/// Goes by the rules of the file whenever it changes from a state, until the task is dropped.
pub(crate) async fn run(service: Service, mut before: Stamp) {
    if service.config.trust.is_none() {
        return;
    }
    loop {
        tokio::time::sleep(TOKENS_LOOKED_AFTER).await;
        let now = stamp(&service.config);
        if now == before {
            continue;
        }
        before = now;
        let of = service.clone();
        // Files may be slow.
        let read = tokio::task::spawn_blocking(move || check::rules(&of.config)).await;
        match read.map_err(|error| error.to_string()).and_then(|read| read) {
            Ok(Some(rules)) => {
                let ended = service.policy.trust().go_by(rules);
                service.log.info(format_args!("audit: new rules hold, {ended} sessions ended"));
            }
            Ok(None) => {}
            Err(why) => {
                service.log.error(format_args!("audit: {why}; the rules from before hold on"));
            }
        }
    }
}
