//! [`Unit`]: one run that Kiln may answer, and its key.
//!
//! Pure: everything known here comes from arguments, roots and the tool's identity. What the key is
//! made of is in [`parts`].

pub mod parts;

use std::path::{Path, PathBuf};

use kiln_storage::record::{UnitName, UnitPart};
use kiln_storage::{Digest, UnitKey};

use crate::args::{Bypass, Parsed};
use crate::env::Env;
use crate::names::OutputNames;
use crate::roots::Roots;
use crate::tool::Tool;

/// What one run that Kiln may answer is called.
#[derive(Debug, Clone)]
pub struct Named {
    /// By people.
    pub name: UnitName,
    /// By its key.
    pub key: UnitKey,
    /// What the key is made of.
    pub parts: Vec<UnitPart>,
}

/// One run of rustc that Kiln may answer.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Where its outputs go.
    pub out_dir: PathBuf,
    /// What its outputs are called.
    pub outputs: OutputNames,
    /// Whether roots are remapped.
    pub remapped: bool,
    /// Whether clippy-driver is the tool.
    pub clippy: bool,
}

/// Where outputs go: `--out-dir`, the directory of `-o`, else the working directory.
pub fn out_dir(parsed: &Parsed, cwd: &Path) -> PathBuf {
    match (&parsed.output, &parsed.out_dir) {
        (Some(output), _) => cwd.join(output.parent().unwrap_or(Path::new(""))),
        (None, Some(dir)) => cwd.join(dir),
        (None, None) => cwd.to_owned(),
    }
}

/// What kind of unit it is, for people.
fn kind(parsed: &Parsed) -> String {
    let kind = match parsed.test {
        true => "test".to_owned(),
        false if parsed.crate_name == "build_script_build" => "build-script".to_owned(),
        false => parsed.crate_types.join("+"),
    };
    match parsed.emit.iter().any(|e| e == "link") {
        true => kind,
        false => format!("{kind} (check)"),
    }
}

/// What people call the unit; known even for one that is not cached.
pub fn name(env: &Env, parsed: &Parsed) -> UnitName {
    UnitName {
        crate_name: match parsed.crate_name.as_str() {
            "build_script_build" => {
                env.text("CARGO_PKG_NAME").unwrap_or("build_script_build").into()
            }
            name => name.to_owned(),
        },
        version: env.text("CARGO_PKG_VERSION").unwrap_or("").to_owned(),
        kind: kind(parsed),
        target: parsed.target.clone().unwrap_or_else(|| "host".into()),
    }
}

/// What the names of a unit's outputs begin with, without `lib`; none for `-o`.
pub fn stem(parsed: &Parsed) -> Option<String> {
    let named = parsed.output.is_none() && !parsed.crate_name.is_empty();
    named.then(|| format!("{}{}", parsed.crate_name, parsed.extra_filename))
}

/// The arguments of a unit, with whom it runs.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The arguments.
    pub parsed: &'a Parsed,
    /// The compiler.
    pub tool: &'a Tool,
    /// The roots.
    pub roots: &'a Roots,
    /// The environment.
    pub env: &'a Env,
    /// Whether clippy-driver is the tool.
    pub clippy: bool,
    /// Whether roots may be remapped (`KILN_PATHS=portable`).
    pub portable: bool,
    /// The colour of human-readable diagnostics, resolved: `always` or `never`.
    pub color: &'a str,
    /// What this machine's processor is, for units compiled for it (`target-cpu=native`).
    pub processor: Option<&'a str>,
    /// The source, where it comes from standard input.
    pub source: Option<Digest>,
}

/// Whether code is generated for the processor of this machine.
pub fn wants_native(parsed: &Parsed) -> bool {
    let native = |name: &str| matches!(name, "target-cpu" | "tune-cpu");
    parsed.codegen.iter().any(|(name, value)| native(name) && value.as_deref() == Some("native"))
        || parsed.unstable.iter().any(|option| option == "tune-cpu=native")
}

impl Unit {
    /// The unit of an invocation, and what it is called.
    ///
    /// # Errors
    /// A bypass when its paths are not UTF-8.
    pub fn new(identity: &Identity<'_>, cwd: &Path) -> Result<(Self, Named), Bypass> {
        let parsed = identity.parsed;
        let out_dir = out_dir(parsed, cwd);
        let odd = |path: &Path| Bypass::new("non-utf8-path", path.to_string_lossy());
        for path in [&out_dir, cwd] {
            path.to_str().ok_or_else(|| odd(path))?;
        }
        // Coverage maps name sources by path, which tools look for; an rpath leads from the output
        // to the libraries.
        let placed = |name: &str| matches!(name, "instrument-coverage" | "rpath");
        let remapped = identity.portable && !parsed.codegen.iter().any(|(name, _)| placed(name));
        let parts = parts::list(identity, cwd, remapped);
        let unit =
            Self { out_dir, outputs: OutputNames::new(parsed), remapped, clippy: identity.clippy };
        let name = name(identity.env, parsed);
        Ok((unit, Named { name, key: parts::key(&parts), parts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn unit(line: &[&str], root: &str) -> Named {
        unit_of(line, root, None)
    }

    fn unit_of(line: &[&str], root: &str, source: Option<&str>) -> Named {
        let words: Vec<String> = line.iter().map(|w| w.replace('@', root)).collect();
        let parsed = parse(&words).unwrap();
        let tool = Tool::of_digest(Digest::of(b"t"), "/s/r".into());
        let roots = Roots::from_pairs([("workspace", PathBuf::from(root))]);
        let identity = Identity {
            parsed: &parsed,
            tool: &tool,
            roots: &roots,
            env: &Env::default(),
            clippy: false,
            portable: true,
            color: "never",
            processor: None,
            source: source.map(|text| Digest::of(text.as_bytes())),
        };
        Unit::new(&identity, Path::new(root)).unwrap().1
    }

    const LINE: &[&str] = &[
        "--crate-name",
        "x",
        "src/lib.rs",
        "--crate-type=lib",
        "--emit=dep-info,metadata,link",
        "--extern",
        "a=@/t/liba.rmeta",
        "--extern",
        "b=@/t/libb.rmeta",
        "-Cextra-filename=-1",
        "--out-dir",
        "@/t",
        "--cfg",
        "p",
        "--cfg",
        "q",
    ];

    fn with(extra: &[&str]) -> UnitKey {
        unit(&[LINE, extra].concat(), "/a/one").key
    }

    #[test]
    fn another_place_has_the_same_key() {
        assert_eq!(unit(LINE, "/a/one").key, unit(LINE, "/b/c/two").key);
    }

    #[test]
    fn a_source_on_standard_input_is_in_the_key() {
        let key = |source| unit_of(&["-", "--crate-name=x"], "/a/one", Some(source)).key;
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
        assert_ne!(key(""), unit(&["-", "--crate-name=x"], "/a/one").key);
    }

    #[test]
    fn what_cannot_matter_is_not_in_the_key() {
        let base = with(&[]);
        assert_eq!(with(&["--diagnostic-width=80"]), base);
        assert_eq!(with(&["--cfg", "p"]), base, "a set");
        let json = with(&["--error-format=json"]);
        assert_eq!(with(&["--error-format=json", "--json=diagnostic-rendered-ansi"]), json);
    }

    #[test]
    fn what_matters_is_in_the_key() {
        let mut keys = vec![with(&[])];
        for extra in [
            &["--cfg", "r"][..],
            &["-Copt-level=3"],
            &["--edition=2021"],
            &["-l", "z"],
            &["-L", "native=/x"],
            &["--target", "t"],
            &["--test"],
            &["--cap-lints", "allow"],
            &["--extern", "c"],
            &["--extern", "priv:c"],
            &["-Zx"],
            &["--check-cfg", "cfg(a)"],
            &["--error-format=json"],
            &["--remap-path-prefix=a=b"],
        ] {
            keys.push(with(extra));
        }
        let swapped: Vec<&str> = LINE
            .iter()
            .map(|w| match *w {
                "a=@/t/liba.rmeta" => "a=@/t/libb.rmeta",
                "b=@/t/libb.rmeta" => "b=@/t/liba.rmeta",
                w => w,
            })
            .collect();
        keys.push(unit(&swapped, "/a/one").key);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
