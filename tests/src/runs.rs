//! What the stand-in compilers noted: which runs there really were.

use std::path::Path;

use serde_json::Value;

/// One run of a real compiler.
#[derive(Debug, Clone)]
pub struct Run {
    /// `rustc` or `clippy-driver`.
    pub program: String,
    /// Its process number.
    pub pid: u32,
    /// Its working directory.
    pub cwd: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whether a build script started it, not cargo.
    pub of_build_script: bool,
}

impl Run {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).expect("a record of the stand-in");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let texts =
            |v: &Value| v.as_array().map(|a| a.iter().map(text).collect()).unwrap_or_default();
        Self {
            program: text(&value["program"]),
            pid: value["pid"].as_u64().and_then(|p| p.try_into().ok()).unwrap_or(0),
            cwd: text(&value["cwd"]),
            args: texts(&value["args"]),
            of_build_script: value["of_build_script"].as_bool().unwrap_or(false),
        }
    }

    /// The value of an argument given as two words or with `=`.
    pub fn value(&self, flag: &str) -> Option<&str> {
        let with = format!("{flag}=");
        let at = self.args.iter().position(|a| a == flag || a.starts_with(&with))?;
        self.args[at].strip_prefix(&with).or_else(|| self.args.get(at + 1).map(String::as_str))
    }

    /// Whether it was to compile: no question about the compiler.
    pub fn is_compile(&self) -> bool {
        let asks = |a: &String| {
            matches!(a.as_str(), "-vV" | "-V" | "-Vv" | "--version" | "--help" | "--print")
                || (a.starts_with("--print=") && !a.contains("native-static-libs"))
        };
        !self.args.is_empty()
            && !self.args.iter().any(asks)
            && self.value("--crate-name") != Some("___")
    }

    /// Crate and kind, e.g. `app bin`, `dep lib (check)`.
    pub fn name(&self) -> String {
        let name = self.value("--crate-name").unwrap_or("?");
        let kind = match self.args.iter().any(|a| a == "--test") {
            true => "test",
            false => self.value("--crate-type").unwrap_or("bin"),
        };
        let links = self.value("--emit").is_none_or(|e| e.contains("link"));
        format!("{name} {kind}{}", if links { "" } else { " (check)" })
    }
}

/// A log of runs, from a position on.
#[derive(Debug, Clone)]
pub struct Log<'a> {
    path: &'a Path,
}

impl<'a> Log<'a> {
    /// The log at a path; one that is not there is empty.
    pub fn new(path: &'a Path) -> Self {
        Self { path }
    }

    /// Where it ends now, bytes.
    pub fn end(&self) -> u64 {
        std::fs::metadata(self.path).map_or(0, |m| m.len())
    }

    /// The runs noted from a position on.
    pub fn since(&self, position: u64) -> Vec<Run> {
        let bytes = std::fs::read(self.path).unwrap_or_default();
        let new = &bytes[usize::try_from(position).expect("a small log").min(bytes.len())..];
        std::str::from_utf8(new).expect("JSON is UTF-8").lines().map(Run::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Run {
        let words = |w: &[&str]| w.iter().map(ToString::to_string).collect();
        Run {
            program: "rustc".into(),
            pid: 1,
            cwd: "/".into(),
            args: words(args),
            of_build_script: false,
        }
    }

    #[test]
    fn probes_are_told_from_compiles() {
        assert!(!run(&["-vV"]).is_compile());
        assert!(!run(&["-", "--crate-name", "___", "--print=file-names"]).is_compile());
        assert!(run(&["--crate-name", "x", "x.rs"]).is_compile());
    }

    #[test]
    fn units_are_named() {
        let args = ["--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata"];
        assert_eq!(run(&args).name(), "x lib (check)");
        assert_eq!(run(&["--crate-name", "x", "--test", "--emit=link"]).name(), "x test");
    }
}
