//! The command line: one module a command.

mod doctor;
mod explain;
mod exports;
mod gc;
mod habits;
mod report;
mod serve;
mod server;
mod stats;
mod trial;
mod verify;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use kiln_server::report::{bytes, needs_quotes, time};
use kiln_server::{Key, Settings};

use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::env::{Env, SETTINGS};
use crate::{USAGE, local, say};

/// Widest column of names, characters.
const MAX_NAME_WIDTH: usize = 48;

#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    about = "A compiler cache for Rust: each crate is compiled once",
    long_about = "A compiler cache for Rust: each crate is compiled once.\n\n\
                  Set RUSTC_WRAPPER=kiln and CARGO_INCREMENTAL=0, then build with cargo as always. \
                  Nothing else has to be set up: a local server starts by itself and leaves when idle.",
    after_help = "To see it work on a project: kiln try [PATH]\n\
                  Called as `kiln RUSTC ARGS...` (what cargo does with RUSTC_WRAPPER=kiln) it is the wrapper.",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a cargo project twice through a throw-away cache and show what happened
    Try {
        /// The project [default: the current directory]
        path: Option<PathBuf>,
        /// Build with optimisations
        #[arg(long)]
        release: bool,
    },
    /// Compile hits of a cargo project again, beside the cache, and compare
    Verify(verify::Arguments),
    /// Show what hit, missed and was saved
    Stats {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Start counting anew
        #[arg(long)]
        zero: bool,
    },
    /// Say why units of the last build were compiled, and where that began
    Explain {
        /// One crate of the build [default: all that was compiled]
        #[arg(value_name = "CRATE")]
        name: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Another build than the last one, as --format json names it
        #[arg(long)]
        build: Option<String>,
    },
    /// Show the report of a run: all its jobs, what did not hit and why, what would help
    Report(report::Arguments),
    /// Show a run while it goes on: its jobs, hits and misses, what is being compiled
    Watch(watch::Arguments),
    /// Check settings, server, store and toolchain, and say what to change
    Doctor,
    /// Print the variables that turn Kiln on
    Env {
        /// For whom
        #[arg(long = "for", value_enum, default_value_t = exports::Shell::Sh)]
        shell: exports::Shell,
    },
    /// Start, stop or look at the local server
    Server {
        #[command(subcommand)]
        action: server::Action,
    },
    /// Run a server in the foreground
    Serve(serve::Arguments),
    /// Delete from a bucket what nobody uses any more
    Gc(gc::Arguments),
    /// Print a generated page of the documentation
    // For who changes Kiln: CONTRIBUTING.md says when.
    #[command(hide = true)]
    Doc {
        /// Which
        #[arg(value_enum)]
        page: Page,
    },
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    Flags,
    Settings,
    Reasons,
    Inputs,
}

/// Whether Kiln is called as a wrapper: the first argument is a path or the name of a compiler.
pub fn is_wrapper_call(arguments: &[OsString]) -> bool {
    let Some(first) = arguments.first() else {
        return false;
    };
    let text = first.to_string_lossy();
    text.contains('/') || text.starts_with("rustc") || text == "clippy-driver"
}

/// Compilers of C that other wrappers are put before. Kiln has nothing to say to them, and is not in their way.
const OTHER_COMPILERS: &[&str] = &["cc", "gcc", "c++", "g++", "clang", "clang++"];

/// Whether Kiln is put before a compiler of another language, as `CC="kiln cc"` does: by its name, with or without a
/// place, a target before it and a version behind it.
pub fn is_other_compiler(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|first| Path::new(first).file_name()?.to_str());
    let is_version = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let name = name.map(|name| name.trim_end_matches(is_version));
    let last = name.and_then(|name| name.rsplit('-').next());
    last.is_some_and(|last| OTHER_COMPILERS.contains(&last))
}

/// Runs a command.
pub fn main(env: &Env, arguments: &[OsString]) -> ExitCode {
    if let Some(habit) = habits::read(arguments) {
        return match crate::settings(env) {
            Ok(config) => habits::run(env, &config, habit),
            Err(code) => code,
        };
    }
    let words = std::iter::once(OsString::from("kiln")).chain(arguments.iter().cloned());
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            match help {
                true => say::result(&error.render().to_string()),
                false => say::progress(error.render().to_string().trim_end()),
            }
            return if help { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    if let Command::Doc { page } = cli.command {
        say::result(&page_text(page));
        return ExitCode::SUCCESS;
    }
    let config = match crate::settings(env) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match cli.command {
        Command::Try { path, release } => trial::run(env, path, release),
        Command::Verify(arguments) => verify::run(env, &config, &arguments),
        Command::Stats { format, zero } => stats::run(env, &config, format, zero),
        Command::Explain { name, format, build } => {
            explain::run(env, &config, format, (name.as_deref(), build.as_deref()))
        }
        Command::Report(arguments) => report::run(env, &config, &arguments),
        Command::Watch(arguments) => watch::run(env, &config, &arguments),
        Command::Doctor => doctor::run(env, &config),
        Command::Env { shell } => exports::run(env, shell),
        Command::Server { action } => server::run(env, &config, &action),
        Command::Gc(arguments) => gc::run(&config, arguments),
        Command::Serve(arguments) => serve::run(env, &config, &arguments),
        Command::Doc { .. } => ExitCode::SUCCESS,
    }
}

/// What a local server that is started now would be told: by variables, and by the file that it reads.
fn serve_settings(config: &Config) -> Result<Settings, kiln_server::ConfigError> {
    match &config.dir {
        Some(dir) => config.serve.clone().with_file(config.file.as_deref(), dir),
        None => Ok(config.serve.clone()),
    }
}

/// Connects to the server for a command, without starting one.
fn connect(env: &Env, config: &Config) -> Result<Client, ClientError> {
    let none = || ClientError::Absent(std::io::Error::other("no directory for local state"));
    Client::connect(&local::address(env, config).ok_or_else(none)?)
}

fn page_text(page: Page) -> String {
    match page {
        Page::Flags => crate::args::table::page(),
        Page::Reasons => crate::reasons::page(),
        Page::Inputs => crate::observe::rules::page(),
        Page::Settings => {
            let mut page = String::from(
                "# Settings\n\nGenerated from `rustc-wrapper/src/env.rs`; `kiln doc settings` prints it.\n\n\
                 An unset or empty variable means the default. A malformed value stops a build at once, with \
                 exit status 2: the one thing in Kiln that does.\n\n\
                 What has a name in the third column can be in `kiln.toml` too, the file with settings of a \
                 server ([operations.md](operations.md#settings)). So can `listen` and `allow_anyone`, which have \
                 no variable, and the rules of `KILN_TRUST` as a table `[trust]`.\n\n\
                 | variable | accepts | in a file | default | what it does |\n\
                 | --- | --- | --- | --- | --- |\n",
            );
            for s in SETTINGS {
                let is_it = |key: &&Key| key.variable().as_deref() == Some(s.name);
                let key = Key::ALL.iter().find(is_it).map(|key| format!("`{key}`"));
                page.push_str(&format!(
                    "| `{}` | {} | {} | {} | {} |\n",
                    s.name,
                    s.accepts,
                    key.unwrap_or_default(),
                    s.default,
                    s.about
                ));
            }
            page
        }
    }
}

/// A number of results for people.
fn results(n: u64) -> String {
    if n == 1 { "1 result".to_owned() } else { format!("{n} results") }
}

/// What belongs to that number.
fn were(n: u64) -> &'static str {
    if n == 1 { "was" } else { "were" }
}

/// A number of things for people.
fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A share for people.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"))
}

/// A name from elsewhere within a column.
fn shortened(name: &str) -> String {
    let name = match needs_quotes(name) {
        true => format!("\"{}\"", say::inline(name)),
        false => say::inline(name),
    };
    match name.char_indices().nth(MAX_NAME_WIDTH) {
        Some((at, _)) => format!("{}\u{2026}", &name[..at]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrapper_calls_are_told_from_commands() {
        for call in ["/x/rustc", "rustc", "./rustc", "clippy-driver", "rustc-1.95"] {
            assert!(is_wrapper_call(&[call.into()]), "{call}");
        }
        for command in ["try", "stats", "--version", "--help"] {
            assert!(!is_wrapper_call(&[command.into()]), "{command}");
        }
        assert!(!is_wrapper_call(&[]));
    }

    #[test]
    fn compilers_of_c_are_known_by_name() {
        for call in
            ["cc", "/usr/bin/gcc", "g++-12", "x86_64-linux-gnu-gcc", "clang++", "clang-19.1"]
        {
            assert!(is_other_compiler(&[call.into(), "-c".into()]), "{call}");
        }
        for other in ["", "rustc", "/x/rustc", "gc", "stats", "clippy-driver", "12", "cc/x"] {
            assert!(!is_other_compiler(&[other.into()]), "{other}");
        }
        assert!(!is_other_compiler(&[]));
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(time(999), "999 ms");
        assert_eq!(time(61_000), "1 min 1 s");
    }
}
