//! `kiln serve`: a server in the foreground; with `--local` the one that the wrapper starts.

use std::process::ExitCode;

use clap::Args;
use kiln_server::{ServeConfig, ServeError, Settings};

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
    /// Say what would be started and what is wrong, and start nothing
    #[arg(long)]
    check: bool,
}

pub(super) fn run(env: &Env, config: &Config, arguments: &Arguments) -> ExitCode {
    let Some(dir) = &config.dir else {
        say::error("there is no directory for local state", &["set KILN_DIR or HOME"]);
        return ExitCode::FAILURE;
    };
    let flag = |flag: &Option<String>, setting: &Option<String>| flag.clone().or(setting.clone());
    let settings = Settings {
        listen: arguments.listen.clone(),
        storage: flag(&arguments.storage, &config.serve.storage),
        cache_size: flag(&arguments.cache_size, &config.serve.cache_size),
        idle: flag(&arguments.idle, &config.serve.idle),
        log: flag(&arguments.log, &config.serve.log),
        upstream: flag(&arguments.upstream, &config.serve.upstream),
        drain: flag(&arguments.drain, &config.serve.drain),
        trust: flag(&arguments.trust, &config.serve.trust),
        tls_cert: flag(&arguments.tls_cert, &config.serve.tls_cert),
        tls_key: flag(&arguments.tls_key, &config.serve.tls_key),
        allow_anyone: arguments.allow_anyone,
        reads_only: config.serve.reads_only,
        access: config.serve.access.clone(),
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
        lines.iter().for_each(|line| say::result(line));
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
