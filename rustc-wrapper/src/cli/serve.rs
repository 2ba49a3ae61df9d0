//! `kiln serve`: a server in the foreground; with `--local` the one that the wrapper starts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use kiln_server::config::parse_config;
use kiln_server::{Key, ServeConfig, ServeError, Settings};

use crate::config::Config;
use crate::env::Env;
use crate::say;

/// Arguments of `kiln serve`; each has a setting of the same name.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Be the local server of KILN_DIR: unix socket, leaves when idle
    #[arg(long)]
    local: bool,
    /// Where to listen: host:port or unix:///path [default: 127.0.0.1:5456]
    #[arg(long)]
    listen: Option<String>,
    /// Where blobs and results are kept, as KILN_STORAGE
    #[arg(long)]
    storage: Option<String>,
    /// What is behind the server, as KILN_UPSTREAM
    #[arg(long)]
    upstream: Option<String>,
    /// Seconds that a server that leaves goes on sending, as KILN_DRAIN
    #[arg(long)]
    drain: Option<String>,
    /// Size budget of the disk store, as KILN_CACHE_SIZE
    #[arg(long)]
    cache_size: Option<String>,
    /// Seconds until an idle server goes, as KILN_IDLE
    #[arg(long)]
    idle: Option<String>,
    /// Log filter, as KILN_LOG
    #[arg(long)]
    log: Option<String>,
    /// The file with the rules for CI services and repositories, as KILN_TRUST
    #[arg(long)]
    trust: Option<String>,
    /// The certificate chain (PEM) to speak TLS with over TCP, as KILN_TLS_CERT
    #[arg(long)]
    tls_cert: Option<String>,
    /// The key of the certificate (PEM), as KILN_TLS_KEY
    #[arg(long)]
    tls_key: Option<String>,
    /// Let anybody in who reaches it, from other machines too
    #[arg(long)]
    allow_anyone: bool,
    /// The file with settings, as KILN_CONFIG [default: kiln.toml in KILN_DIR, if it is there]
    #[arg(long, value_parser = path)]
    config: Option<PathBuf>,
    /// Say what would be started and what is wrong, and start nothing
    #[arg(long)]
    check: bool,
}

fn path(text: &str) -> Result<PathBuf, String> {
    parse_config(text).map_err(|error| error.to_string())
}

/// What flags and variables say.
fn said(arguments: &Arguments, config: &Config) -> Settings {
    let mut settings = config.serve.clone();
    for (key, flag) in [
        (Key::Listen, &arguments.listen),
        (Key::Storage, &arguments.storage),
        (Key::Upstream, &arguments.upstream),
        (Key::Drain, &arguments.drain),
        (Key::CacheSize, &arguments.cache_size),
        (Key::Idle, &arguments.idle),
        (Key::Log, &arguments.log),
        (Key::Trust, &arguments.trust),
        (Key::TlsCert, &arguments.tls_cert),
        (Key::TlsKey, &arguments.tls_key),
    ] {
        flag.iter().for_each(|value| settings.flag(key, value));
    }
    if arguments.allow_anyone {
        settings.flag(Key::AllowAnyone, "true");
    }
    settings
}

pub(super) fn run(env: &Env, config: &Config, arguments: &Arguments) -> ExitCode {
    let Some(dir) = &config.dir else {
        say::error("there is no directory for local state", &["set KILN_DIR or HOME"]);
        return ExitCode::FAILURE;
    };
    let settings = match said(arguments, config)
        .with_file(arguments.config.as_deref().or(config.file.as_deref()), dir)
    {
        Ok(settings) => settings,
        Err(error) => {
            say::error(&error.to_string(), &[]);
            return ExitCode::from(super::USAGE);
        }
    };
    let runtime = env.absolute("XDG_RUNTIME_DIR");
    let uid = rustix::process::getuid().as_raw();
    let base = match arguments.local {
        true => ServeConfig::local(dir, runtime.as_deref(), uid),
        false => ServeConfig::shared(dir),
    };
    let config = match base.with(&settings) {
        Ok(config) => config,
        Err(error) => {
            say::error(&error.to_string(), &[]);
            return ExitCode::from(super::USAGE);
        }
    };
    if arguments.check {
        let (lines, wrong) = kiln_server::check(&config);
        lines.iter().chain(&settings.told()).for_each(|line| say::result(line));
        wrong.iter().for_each(|line| say::error(line, &[]));
        return if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match kiln_server::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::AlreadyRunning) if arguments.local => ExitCode::SUCCESS,
        Err(ServeError::Tls(error)) => {
            say::error(&error.to_string(), &[error.hint()]);
            ExitCode::from(super::USAGE)
        }
        Err(error) => {
            say::error(&error.to_string(), &["kiln doctor checks the directory and the server"]);
            ExitCode::FAILURE
        }
    }
}
