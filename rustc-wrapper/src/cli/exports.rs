//! `kiln env`: the variables that turn Kiln on.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::env::Env;
use crate::say;

/// For whom the variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// `eval "$(kiln env)"`
    Sh,
    /// `kiln env --for fish | source`
    Fish,
    /// `kiln env --for github >> "$GITHUB_ENV"`
    Github,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn line(shell: Shell, name: &str, value: &str) -> String {
    match shell {
        Shell::Sh => format!("export {name}={}\n", quoted(value)),
        Shell::Fish => format!("set -gx {name} {}\n", quoted(value)),
        Shell::Github => format!("{name}={value}\n"),
    }
}

pub(super) fn run(env: &Env, shell: Shell) -> ExitCode {
    let Some(program) = env.program.as_ref().and_then(|p| p.to_str()) else {
        say::error("the path of this program is not known", &[]);
        return ExitCode::FAILURE;
    };
    let lines = [line(shell, "RUSTC_WRAPPER", program), line(shell, "CARGO_INCREMENTAL", "0")];
    say::exact(&lines.concat());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(line(Shell::Sh, "A", "/x y/it's"), "export A='/x y/it'\\''s'\n");
        assert_eq!(line(Shell::Github, "A", "/x y"), "A=/x y\n");
    }
}
