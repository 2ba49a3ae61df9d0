//! `kiln gc`: takes out of a bucket what is not used any more. The work is [`kiln_server::gc`]'s.

use std::process::ExitCode;

use clap::Args;
use kiln_server::Key;
use kiln_server::gc::{GcConfig, GcEnd, GcSettings, gc};

use crate::config::Config;
use crate::say;

/// Ends with it when something is left for the next collection.
const LEFT: u8 = 3;

/// What to do where no bucket is named, or another kind of place.
const HINTS: [&str; 2] = [
    "name a bucket by --storage s3://bucket/prefix, KILN_STORAGE or KILN_UPSTREAM",
    "a store on this machine needs no collection: its server keeps it below KILN_CACHE_SIZE",
];

/// Arguments of `kiln gc`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 all done, 1 the bucket failed, 2 a mistake in the arguments, \
                        3 something is left for the next collection."
)]
pub(super) struct Arguments {
    /// The bucket; without it that of KILN_STORAGE or KILN_UPSTREAM
    #[arg(long, value_name = "URL")]
    storage: Option<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Let results go that nobody used for so long [default: 30d]
    #[arg(long, value_name = "TIME")]
    unused: Option<String>,
    /// Most bytes of each scope, or of one: repository@ref=20GiB [default: none]
    #[arg(long, value_name = "[SCOPE=]SIZE")]
    quota: Vec<String>,
    /// Keep a result for good
    #[arg(long, value_name = "[SCOPE:]RESULT")]
    pin: Vec<String>,
    /// Keep a result no longer than others
    #[arg(long, value_name = "[SCOPE:]RESULT")]
    unpin: Vec<String>,
    /// Keep what is younger; shorter only while no server writes into the bucket [default: 1h]
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = super::Format::Text)]
    format: super::Format,
}

pub(super) fn run(config: &Config, arguments: Arguments) -> ExitCode {
    let format = match arguments.format {
        super::Format::Text => "text",
        super::Format::Json => "json",
    };
    // Only one of the two names a place far away.
    let said = |key| config.serve.get(key).map(str::to_owned);
    let storage = arguments.storage.or_else(|| said(Key::Upstream)).or_else(|| said(Key::Storage));
    if storage.as_deref().unwrap_or_default().is_empty() {
        say::error("no bucket is named", &HINTS);
        return ExitCode::from(super::USAGE);
    }
    let settings = GcSettings {
        storage,
        access: config.serve.access.clone(),
        dry_run: arguments.dry_run,
        unused: arguments.unused,
        grace: arguments.grace,
        quotas: arguments.quota,
        pins: arguments.pin,
        unpins: arguments.unpin,
        format: Some(format.to_owned()),
    };
    let config = match GcConfig::resolve(&settings) {
        Ok(config) => config,
        Err(error) => {
            let hints = if error.setting() == Some("KILN_STORAGE") { &HINTS[..] } else { &[] };
            say::error(&error.to_string(), hints);
            return ExitCode::from(super::USAGE);
        }
    };
    match gc(&config, &mut std::io::stdout()) {
        Ok(GcEnd::Done) => ExitCode::SUCCESS,
        Ok(GcEnd::Left) => ExitCode::from(LEFT),
        Err(error) => {
            say::error(&error.to_string(), &[]);
            ExitCode::FAILURE
        }
    }
}
