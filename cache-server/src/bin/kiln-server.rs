//! `kiln-server`: the server for containers that want no wrapper.
//!
//! `kiln-server [--role local|shared] [--dir PATH] [--listen ADDRESS] [--storage URL]
//! [--upstream URL] [--drain SECONDS] [--cache-size SIZE] [--idle SECONDS] [--log LEVEL] [--trust FILE]
//! [--tls-cert FILE --tls-key FILE] [--allow-anyone] [--config FILE] [--check]`; `kiln-server health`, which asks whether
//! the server answers; `kiln-server token …`, which makes and revokes tokens; `kiln-server revoke …`, which removes results
//! by who made them; `kiln-server gc …`, which takes out of a bucket what is not used; or `kiln-server openapi`,
//! which prints docs/openapi.json.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use kiln_server::config::parse_config;
use kiln_server::gc::{GcConfig, GcEnd, GcSettings, gc};
use kiln_server::{
    Access, ConfigError, Key, RevokeEnd, RevokeError, ServeConfig, ServeError, Settings,
};

const USAGE: &str =
    "usage: kiln-server [--role local|shared] [--dir PATH] [--listen ADDRESS:PORT|unix:///PATH]
                   [--storage URL] [--upstream URL] [--drain SECONDS] [--cache-size SIZE]
                   [--idle SECONDS] [--log LEVEL] [--trust FILE] [--tls-cert FILE --tls-key FILE]
                   [--allow-anyone] [--config FILE] [--check]
       kiln-server health [--role local|shared] [--dir PATH] [--listen ADDRESS:PORT|unix:///PATH]
                   [--tls-cert FILE --tls-key FILE] [--config FILE]
       kiln-server token create|list|revoke ... [--dir PATH]
       kiln-server revoke [--run RUN] [--job JOB] [--principal WHO] [--toolchain DIGEST]
                   [--scope REPOSITORY@REF] [--since TIME] [--here] [--yes] [--format text|json] [--dir PATH]
       kiln-server gc --storage URL [--dry-run] [--unused TIME] [--quota [SCOPE=]SIZE]...
                   [--pin [SCOPE:]RESULT]... [--unpin [SCOPE:]RESULT]... [--grace TIME]
                   [--format text|json]
       kiln-server openapi
Without a flag the variable of its name applies, --cache-size as KILN_CACHE_SIZE, and without that the file that
--config or KILN_CONFIG names, else kiln.toml in KILN_DIR.";

/// What the environment says.
#[derive(Default)]
struct Environment {
    settings: Settings,
    config: Option<String>,
    kiln_dir: Option<PathBuf>,
    cache_home: Option<PathBuf>,
    home: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this program reads the environment"
)]
fn environment() -> Environment {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = |name: &str| text(name).map(PathBuf::from);
    let access = Access {
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| Access::wants(name))
            .collect(),
        token: text("KILN_TOKEN"),
    };
    let mut settings = Settings::of_variables(text);
    settings.access = access;
    Environment {
        settings,
        config: text("KILN_CONFIG"),
        kiln_dir: path("KILN_DIR"),
        cache_home: path("XDG_CACHE_HOME"),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
    }
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let say = |text: &str| {
        let _ = writeln!(std::io::stderr(), "kiln-server: {text}");
    };
    if args.first().is_some_and(|arg| arg == "openapi") {
        return match kiln_server::openapi_text() {
            Ok(text) if std::io::stdout().write_all(text.as_bytes()).is_ok() => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
    }
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return print(match args.first().map(String::as_str) {
            Some("token") => kiln_server::TOKEN_USAGE,
            Some("revoke") => kiln_server::REVOKE_USAGE,
            _ => USAGE,
        });
    }
    if args.first().is_some_and(|arg| arg == "--version" || arg == "-V") {
        return print(concat!("kiln-server ", env!("CARGO_PKG_VERSION")));
    }
    if args.first().is_some_and(|arg| arg == "gc") {
        return collect(args.split_off(1), environment().settings, say);
    }
    if args.first().is_some_and(|arg| arg == "revoke") {
        return revoke(args.split_off(1), environment(), say);
    }
    if args.first().is_some_and(|arg| arg == "token") {
        return tokens(args.split_off(1), environment(), say);
    }
    if args.first().is_some_and(|arg| arg == "health") {
        return health(args.split_off(1), environment(), say);
    }
    if args.first().is_some_and(|arg| arg == "serve") {
        args.remove(0);
    }
    let checks = args.iter().any(|arg| arg == "--check");
    args.retain(|arg| arg != "--check");
    let resolved = match resolve(args, environment()) {
        Ok(resolved) => resolved,
        Err(text) => {
            say(&text);
            return ExitCode::from(2);
        }
    };
    if checks {
        return check(&resolved, say);
    }
    match kiln_server::serve(resolved.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::AlreadyRunning) => ExitCode::from(3),
        Err(ServeError::Tls(error)) => {
            say(&error.in_full());
            ExitCode::from(2)
        }
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// `--check`. Ends with 0 when the server would start, with 1 when it would not.
fn check(resolved: &Resolved, say: impl Fn(&str)) -> ExitCode {
    let (lines, wrong) = kiln_server::check(&resolved.config);
    for line in lines.into_iter().chain(resolved.settings.told()) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    for line in &wrong {
        say(line);
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `kiln-server health`. Ends with 0 when the server answers that listens where it would, else with 1.
fn health(args: Vec<String>, environment: Environment, say: impl Fn(&str)) -> ExitCode {
    match resolve(args, environment).and_then(|resolved| kiln_server::health(&resolved.config)) {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            say(&text);
            ExitCode::FAILURE
        }
    }
}

/// `kiln-server token`. Ends with 0 when it is done, with 2 when not.
fn tokens(mut args: Vec<String>, environment: Environment, say: impl Fn(&str)) -> ExitCode {
    let mut flags = Vec::new();
    if let Some(at) = args.iter().position(|arg| arg == "--dir") {
        flags = args.drain(at..args.len().min(at + 2)).collect();
    }
    let done = resolve(flags, environment)
        .and_then(|of| kiln_server::token(&args, &of.config.kiln_dir, &mut std::io::stdout()));
    match done {
        Ok(doubt) => {
            doubt.iter().for_each(|doubt| say(doubt));
            ExitCode::SUCCESS
        }
        Err(text) => {
            say(&text);
            ExitCode::from(2)
        }
    }
}

/// `kiln-server revoke`. Ends with 0 when all is gone or shown, with 1 when it failed, with 2 for a mistake in the
/// arguments, and with 3 when something may be there still.
fn revoke(args: Vec<String>, environment: Environment, say: impl Fn(&str)) -> ExitCode {
    const OF_SERVER: [&str; 7] =
        ["--dir", "--role", "--listen", "--storage", "--upstream", "--log", "--config"];
    let (mut server, mut asked) = (Vec::new(), Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let of = if OF_SERVER.contains(&arg.as_str()) { &mut server } else { &mut asked };
        let takes_value = !["--yes", "--here"].contains(&arg.as_str());
        of.push(arg);
        if takes_value {
            of.extend(args.next());
        }
    }
    let done = resolve(server.clone(), environment)
        .map_err(RevokeError::Usage)
        .and_then(|of| kiln_server::revoke(&asked, (of.config, &server), &mut std::io::stdout()));
    match done {
        Ok(RevokeEnd::Done) => ExitCode::SUCCESS,
        Ok(RevokeEnd::Left) => ExitCode::from(3),
        Err(RevokeError::Failed(text)) => {
            say(&text);
            ExitCode::FAILURE
        }
        Err(RevokeError::Usage(text)) => {
            say(&text);
            ExitCode::from(2)
        }
    }
}

/// `kiln-server gc`. Ends with 0 when all is done, with 1 when the bucket failed, with 2 for a mistake in the
/// arguments, and with 3 when something is left for the next collection.
fn collect(args: Vec<String>, settings: Settings, say: impl Fn(&str)) -> ExitCode {
    let config = gc_settings(args, settings)
        .and_then(|settings| GcConfig::resolve(&settings).map_err(|error| error.to_string()));
    let config = match config {
        Ok(config) => config,
        Err(text) => {
            say(&text);
            return ExitCode::from(2);
        }
    };
    match gc(&config, &mut std::io::stdout()) {
        Ok(GcEnd::Done) => ExitCode::SUCCESS,
        Ok(GcEnd::Left) => ExitCode::from(3),
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn gc_settings(args: Vec<String>, settings: Settings) -> Result<GcSettings, String> {
    let storage = settings.get(Key::Storage).map(str::to_owned);
    let mut gc = GcSettings { storage, access: settings.access, ..GcSettings::default() };
    let mut args = args.into_iter();
    while let Some(flag) = args.next() {
        if flag == "--dry-run" {
            gc.dry_run = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} has no value\n{USAGE}"))?;
        match flag.as_str() {
            "--storage" => gc.storage = Some(value),
            "--unused" => gc.unused = Some(value),
            "--grace" => gc.grace = Some(value),
            "--quota" => gc.quotas.push(value),
            "--pin" => gc.pins.push(value),
            "--unpin" => gc.unpins.push(value),
            "--format" => gc.format = Some(value),
            _ => return Err(format!("unknown flag {flag:?}\n{USAGE}")),
        }
    }
    Ok(gc)
}

/// What is to be started, and what was said of it.
struct Resolved {
    config: ServeConfig,
    settings: Settings,
}

/// Flags win over the environment, that over the file, and that over the defaults.
fn resolve(args: Vec<String>, environment: Environment) -> Result<Resolved, String> {
    let Environment { mut settings, config, mut kiln_dir, cache_home, home, runtime_dir } =
        environment;
    let (mut local, mut file) = (false, config);
    let mut args = args.into_iter();
    while let Some(flag) = args.next() {
        if flag == Key::AllowAnyone.flag() {
            settings.flag(Key::AllowAnyone, "true");
            continue;
        }
        let key = Key::ALL.iter().find(|key| key.flag() == flag);
        if key.is_none() && !["--role", "--dir", "--config"].contains(&flag.as_str()) {
            let what = if flag.starts_with('-') { "flag" } else { "command" };
            return Err(format!("unknown {what} {flag:?}\n{USAGE}"));
        }
        let value = args.next().ok_or_else(|| format!("{flag} has no value\n{USAGE}"))?;
        match flag.as_str() {
            "--role" if value == "local" => local = true,
            "--role" if value == "shared" => local = false,
            "--role" => return Err(format!("role is {value:?}; it accepts local or shared")),
            "--dir" => kiln_dir = Some(PathBuf::from(value)),
            "--config" => file = Some(value),
            _ => key.iter().for_each(|key| settings.flag(**key, value.clone())),
        }
    }
    let kiln_dir = kiln_dir
        .or_else(|| cache_home.map(|dir| dir.join("kiln")))
        .or_else(|| home.map(|dir| dir.join(".cache/kiln")))
        .ok_or("KILN_DIR is not set and there is no HOME; it accepts an absolute path")?;
    if !kiln_dir.is_absolute() {
        let shown = kiln_dir.display();
        return Err(format!(
            "the directory (--dir, KILN_DIR) is {shown:?}; it accepts an absolute path"
        ));
    }
    let uid = rustix::process::geteuid().as_raw();
    let config = if local {
        ServeConfig::local(&kiln_dir, runtime_dir.as_deref(), uid)
    } else {
        ServeConfig::shared(&kiln_dir)
    };
    let said = |error: ConfigError| error.to_string();
    let file = file.map(|text| parse_config(&text)).transpose().map_err(said)?;
    let settings = settings.with_file(file.as_deref(), &kiln_dir).map_err(said)?;
    let config = config.with(&settings).map_err(said)?;
    Ok(Resolved { config, settings })
}
