//! [`parse`]: from expanded arguments to [`Parsed`], by the rows of the table. Pure.

use std::path::{Path, PathBuf};

use super::table::{self, Role, Takes};
use super::{Bypass, Extern, Search};

/// rustc's arguments, understood.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// `--crate-name`, or the stem of the input with `_` for `-`.
    pub crate_name: String,
    /// `--crate-type` values, in order.
    pub crate_types: Vec<String>,
    /// Kinds of `--emit`, sorted.
    pub emit: Vec<String>,
    /// The crate root; `-` for standard input.
    pub input: PathBuf,
    /// `--out-dir`.
    pub out_dir: Option<PathBuf>,
    /// `-o`.
    pub output: Option<PathBuf>,
    /// `-C extra-filename`.
    pub extra_filename: String,
    /// `--test`.
    pub test: bool,
    /// `--target`.
    pub target: Option<String>,
    /// `--sysroot`.
    pub sysroot: Option<PathBuf>,
    /// `--extern`, sorted.
    pub externs: Vec<Extern>,
    /// `-L`, in order.
    pub search: Vec<Search>,
    /// `-l`, in order.
    pub libs: Vec<String>,
    /// `-C` options, in order, as name and value, `-` in names.
    pub codegen: Vec<(String, Option<String>)>,
    /// `-Z` options, in order.
    pub unstable: Vec<String>,
    /// `--cfg`.
    pub cfgs: Vec<String>,
    /// `--check-cfg`.
    pub check_cfgs: Vec<String>,
    /// All other flags that are identity, in order, as flag and value.
    pub other: Vec<(String, Option<String>)>,
    /// `--error-format`; `human` when not given.
    pub error_format: String,
    /// `--json` words but `diagnostic-rendered-ansi`, sorted.
    pub json: Vec<String>,
    /// Whether `diagnostic-rendered-ansi` was among them.
    pub json_ansi: bool,
    /// `--color`.
    pub color: Option<String>,
    /// `--diagnostic-width`.
    pub width: Option<String>,
    /// Files named by arguments whose content is an input.
    pub files: Vec<PathBuf>,
    /// `-C linker`.
    pub linker: Option<String>,
}

/// Flags of which one value is kept, and which rustc refuses to have twice: no unit is known by one of two.
const ONCE: &[&str] = &[
    "--crate-name",
    "--out-dir",
    "-o",
    "--test",
    "--target",
    "--sysroot",
    "--error-format",
    "--color",
    "--diagnostic-width",
];

/// The crate root that is standard input.
const STDIN: &str = "-";

impl Parsed {
    /// Whether the source comes from standard input.
    pub fn is_stdin(&self) -> bool {
        self.input.as_os_str() == STDIN
    }

    /// Whether diagnostics are JSON.
    pub fn is_json(&self) -> bool {
        self.error_format == "json"
    }

    /// Whether the run calls a linker: an executable or shared object is emitted.
    pub fn links(&self) -> bool {
        let linked =
            |kind: &String| matches!(kind.as_str(), "bin" | "dylib" | "cdylib" | "proc-macro");
        self.emit.iter().any(|e| e == "link") && (self.test || self.crate_types.iter().any(linked))
    }

    /// Whether object code of other crates goes into an output: by a linker or into a staticlib.
    pub fn takes_objects(&self) -> bool {
        let bundle = self.crate_types.iter().any(|kind| kind == "staticlib");
        self.links() || (bundle && self.emit.iter().any(|e| e == "link"))
    }

    /// The last value of a `-C` option.
    pub fn codegen_value(&self, name: &str) -> Option<&str> {
        let found = self.codegen.iter().rev().find(|(option, _)| option == name);
        found.map(|(_, value)| value.as_deref().unwrap_or(""))
    }

    /// The words of `-C link-arg` and `-C link-args`, in order.
    pub fn link_args(&self) -> Vec<&str> {
        let mut words = Vec::new();
        for (name, value) in &self.codegen {
            match (name.as_str(), value) {
                ("link-arg", Some(value)) => words.push(value.as_str()),
                ("link-args", Some(value)) => words.extend(value.split_whitespace()),
                _ => {}
            }
        }
        words
    }
}

/// A flag and its value, however they were written.
fn next_flag<'a>(
    word: &'a str,
    rest: &mut std::slice::Iter<'a, String>,
) -> Result<(&'a str, Option<&'a str>), Bypass> {
    let missing = || Bypass::new("malformed-arguments", format!("{word} without a value"));
    let exact = |rest: &mut std::slice::Iter<'a, String>, takes| match takes {
        Takes::Nothing => Ok(None),
        Takes::Value => rest.next().map(|v| Some(v.as_str())).ok_or_else(missing),
    };
    if let Some(row) = table::flag(word) {
        return Ok((row.name, exact(rest, row.takes)?));
    }
    if let Some((name, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
        return Ok((name, Some(value)));
    }
    if word.starts_with('-') && !word.starts_with("--") && word.is_char_boundary(2) {
        let (name, value) = word.split_at(2);
        if let Some(row) = table::flag(name).filter(|row| row.takes == Takes::Value) {
            return Ok((row.name, Some(value)));
        }
    }
    Ok((word, None))
}

/// Understands arguments after response files were expanded.
///
/// # Errors
/// A bypass for whatever Kiln does not cache.
pub fn parse(args: &[String]) -> Result<Parsed, Bypass> {
    let mut parsed = Parsed { error_format: "human".into(), ..Parsed::default() };
    let (mut inputs, mut once) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if !word.starts_with('-') || word == STDIN {
            inputs.push(word.clone());
            continue;
        }
        let (flag, value) = next_flag(word, &mut rest)?;
        if once.contains(&flag) {
            return Err(Bypass::new("malformed-arguments", format!("{flag} more than once")));
        }
        once.extend(ONCE.contains(&flag).then_some(flag));
        match value {
            Some(value) => take_value(&mut parsed, flag, value)?,
            None => take_flag(&mut parsed, flag)?,
        }
    }
    match <[String; 1]>::try_from(inputs) {
        Ok([input]) => parsed.input = input.into(),
        Err(_) => {
            return Err(Bypass::new("malformed-arguments", "not exactly one crate root"));
        }
    }
    finish(parsed)
}

fn take_flag(parsed: &mut Parsed, flag: &str) -> Result<(), Bypass> {
    match flag {
        "--test" => parsed.test = true,
        "-g" => parsed.codegen.push(("debuginfo".into(), Some("2".into()))),
        "-O" => parsed.codegen.push(("opt-level".into(), Some("3".into()))),
        _ => match table::flag(flag).map(|row| row.role) {
            Some(Role::Unsupported) => return Err(Bypass::new("unsupported-flag", flag)),
            Some(_) => parsed.other.push((flag.to_owned(), None)),
            None if flag.contains(['/', '\\']) => return Err(Bypass::new("unknown-flag", flag)),
            None => parsed.other.push((flag.to_owned(), None)),
        },
    }
    Ok(())
}

fn take_value(parsed: &mut Parsed, flag: &str, value: &str) -> Result<(), Bypass> {
    let text = || value.to_owned();
    match flag {
        "--crate-name" => parsed.crate_name = text(),
        "--crate-type" => parsed.crate_types.extend(value.split(',').map(str::to_owned)),
        "--emit" => return emit(parsed, value),
        "--extern" => parsed.externs.push(external(value)),
        "-L" => {
            let (kind, path) = match value.split_once('=') {
                Some((kind @ ("dependency" | "crate" | "native" | "framework" | "all"), path)) => {
                    (kind, path)
                }
                _ => ("all", value),
            };
            parsed.search.push(Search { kind: kind.into(), path: path.into() });
        }
        "-l" => parsed.libs.push(text()),
        "-C" | "--codegen" => return codegen(parsed, value),
        "-Z" => return unstable(parsed, value),
        "--cfg" => parsed.cfgs.push(text()),
        "--check-cfg" => parsed.check_cfgs.push(text()),
        "--out-dir" => parsed.out_dir = Some(value.into()),
        "-o" => parsed.output = Some(value.into()),
        "--target" => {
            if value.ends_with(".json") {
                parsed.files.push(value.into());
            }
            parsed.target = Some(text());
        }
        "--sysroot" => parsed.sysroot = Some(value.into()),
        "--error-format" => parsed.error_format = text(),
        "--json" => {
            for word in value.split(',') {
                match word {
                    "diagnostic-rendered-ansi" => parsed.json_ansi = true,
                    _ => parsed.json.push(word.to_owned()),
                }
            }
        }
        "--color" => parsed.color = Some(text()),
        "--diagnostic-width" => parsed.width = Some(text()),
        "--print" => return Err(Bypass::new("print", value)),
        _ => {
            let long = |short: &str| parsed_lint(short).unwrap_or(flag).to_owned();
            if table::flag(flag).is_none() && Path::new(value).components().count() > 1 {
                return Err(Bypass::new("unknown-flag", format!("{flag}={value}")));
            }
            parsed.other.push((long(flag), Some(text())));
        }
    }
    Ok(())
}

/// The short form of a lint flag, so that both spellings are one.
fn parsed_lint(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "--allow" => "-A",
        "--warn" => "-W",
        "--deny" => "-D",
        "--forbid" => "-F",
        _ => return None,
    })
}

fn emit(parsed: &mut Parsed, value: &str) -> Result<(), Bypass> {
    for kind in value.split(',') {
        if kind.contains('=') {
            return Err(Bypass::new("emit-to-file", kind));
        }
        parsed.emit.push(kind.to_owned());
    }
    Ok(())
}

fn external(value: &str) -> Extern {
    let (name, path) = match value.split_once('=') {
        Some((name, path)) => (name, Some(PathBuf::from(path))),
        None => (value, None),
    };
    let (options, name) = name.rsplit_once(':').unwrap_or(("", name));
    Extern { options: options.into(), name: name.into(), path }
}

fn codegen(parsed: &mut Parsed, value: &str) -> Result<(), Bypass> {
    let (name, value) = match value.split_once('=') {
        Some((name, value)) => (name.replace('_', "-"), Some(value.to_owned())),
        None => (value.replace('_', "-"), None),
    };
    match table::codegen(&name).map(|row| row.role) {
        Some(Role::Unsupported) if name == "incremental" => {
            return Err(Bypass::new("incremental", "set CARGO_INCREMENTAL=0"));
        }
        Some(Role::Unsupported)
            if name == "save-temps"
                && matches!(value.as_deref(), Some("n" | "no" | "off" | "false")) => {}
        Some(Role::Unsupported) if name == "save-temps" => {
            return Err(Bypass::new("save-temps", "-C save-temps"));
        }
        // An LLVM argument that names no file only changes what is generated.
        Some(Role::Unsupported)
            if name == "llvm-args" && value.as_deref().is_some_and(|v| !may_name_a_file(v)) => {}
        Some(Role::Unsupported) => {
            return Err(Bypass::new("unsupported-flag", format!("-C {name}")));
        }
        Some(Role::Neutral) => return Ok(()),
        Some(Role::PathRead) if name == "linker" => parsed.linker = value.clone(),
        Some(Role::PathRead) => parsed.files.extend(value.as_ref().map(PathBuf::from)),
        _ => {}
    }
    if name == "extra-filename" {
        parsed.extra_filename = value.clone().unwrap_or_default();
    }
    parsed.codegen.push((name, value));
    Ok(())
}

/// `-info-output-file=stats` writes a file into the working directory.
fn may_name_a_file(llvm_args: &str) -> bool {
    llvm_args.contains(['/', '\\', '.']) || llvm_args.contains("file")
}

fn unstable(parsed: &mut Parsed, value: &str) -> Result<(), Bypass> {
    let (name, setting) = value.split_once('=').unwrap_or((value, ""));
    let name = name.replace('_', "-");
    match table::unstable(&name).map(|row| row.role) {
        Some(Role::Unsupported) => {
            return Err(Bypass::new("unsupported-flag", format!("-Z {name}")));
        }
        Some(Role::Neutral) => {}
        Some(Role::PathRead) => {
            parsed.files.push(setting.into());
            parsed.unstable.push(format!("{name}={setting}"));
        }
        Some(_) => parsed.unstable.push(format!("{name}={setting}")),
        None if setting.contains(['/', '\\']) => {
            return Err(Bypass::new("unknown-flag", format!("-Z {value}")));
        }
        None => parsed.unstable.push(format!("{name}={setting}")),
    }
    Ok(())
}

fn finish(mut parsed: Parsed) -> Result<Parsed, Bypass> {
    if parsed.crate_types.is_empty() {
        parsed.crate_types.push("bin".into());
    }
    if parsed.emit.is_empty() {
        parsed.emit.push("link".into());
    }
    parsed.emit.sort_unstable();
    parsed.emit.dedup();
    parsed.json.sort_unstable();
    parsed.externs.sort_unstable();
    if parsed.crate_name.is_empty() && parsed.is_stdin() {
        parsed.crate_name = "rust_out".into();
    }
    if parsed.crate_name.is_empty() {
        let stem = parsed.input.file_stem().map(|s| s.to_string_lossy().replace('-', "_"));
        parsed.crate_name = stem.unwrap_or_default();
    }
    let kind = |k: &String| {
        matches!(
            k.as_str(),
            "bin" | "lib" | "rlib" | "dylib" | "cdylib" | "staticlib" | "proc-macro"
        )
    };
    if let Some(unknown) = parsed.crate_types.iter().find(|k| !kind(k)) {
        return Err(Bypass::new("unknown-crate-type", unknown.clone()));
    }
    let emitted = |k: &String| {
        matches!(
            k.as_str(),
            "asm" | "llvm-bc" | "dep-info" | "link" | "llvm-ir" | "metadata" | "mir" | "obj"
        )
    };
    if let Some(unknown) = parsed.emit.iter().find(|k| !emitted(k)) {
        return Err(Bypass::new("unknown-emit", unknown.clone()));
    }
    if let Some(output) = &parsed.output {
        let one = parsed.emit == ["link"] || parsed.emit == ["metadata"];
        if output.as_os_str() == "-" || !one {
            return Err(Bypass::new("output-file", output.to_string_lossy()));
        }
        if parsed.crate_types.len() > 1 {
            return Err(Bypass::new("output-file", "several crate types"));
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[&str]) -> Result<Parsed, Bypass> {
        parse(&line.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    fn reason(line: &[&str]) -> &'static str {
        check(line).unwrap_err().reason
    }

    #[test]
    fn cargo_line() {
        let p = check(&[
            "--crate-name",
            "p",
            "--edition=2024",
            "src/lib.rs",
            "--error-format=json",
            "--json=diagnostic-rendered-ansi,artifacts,future-incompat",
            "--crate-type",
            "lib",
            "--emit=dep-info,metadata,link",
            "-C",
            "embed-bitcode=no",
            "-Cdebuginfo=2",
            "--check-cfg",
            "cfg(docsrs,test)",
            "-C",
            "extra-filename=-71",
            "--out-dir",
            "/t/deps",
            "-L",
            "dependency=/t/deps",
            "--extern",
            "priv:b=/t/deps/libb.rmeta",
            "--extern",
            "proc_macro",
        ])
        .unwrap();
        assert_eq!(p.crate_name, "p");
        assert_eq!(p.emit, ["dep-info", "link", "metadata"]);
        assert!(p.json_ansi && p.is_json() && !p.links());
        assert_eq!(p.json, ["artifacts", "future-incompat"]);
        assert_eq!(p.extra_filename, "-71");
        assert_eq!((p.externs[0].options.as_str(), p.externs[0].name.as_str()), ("", "proc_macro"));
        assert_eq!((p.externs[1].options.as_str(), p.externs[1].name.as_str()), ("priv", "b"));
        assert_eq!(p.search[0].kind, "dependency");
    }

    #[test]
    fn spellings_of_one_flag_are_one() {
        let a = check(&["a.rs", "-Copt_level=3", "-C", "debuginfo=2", "--allow", "x"]).unwrap();
        let b = check(&["a.rs", "-O", "-g", "-Ax"]).unwrap();
        assert_eq!(a.codegen, b.codegen);
        assert_eq!(a.other, b.other);
    }

    #[test]
    fn bypasses_have_reasons() {
        assert_eq!(reason(&["a.rs", "-Cincremental=/x"]), "incremental");
        assert_eq!(reason(&["a.rs", "-Csave-temps"]), "save-temps");
        assert_eq!(reason(&["a.rs", "-o", "-"]), "output-file");
        assert_eq!(reason(&["a.rs", "--emit=link=/x"]), "emit-to-file");
        assert_eq!(reason(&["a.rs", "--brand-new=/a/file"]), "unknown-flag");
        assert_eq!(reason(&["a.rs", "-Zself-profile=/x"]), "unsupported-flag");
        assert_eq!(reason(&["a.rs", "-Zbrand-new=/x"]), "unknown-flag");
        assert_eq!(reason(&["a.rs", "--crate-type", "magic"]), "unknown-crate-type");
        assert_eq!(reason(&["a.rs", "b.rs"]), "malformed-arguments");
        assert_eq!(reason(&["a.rs", "--cfg"]), "malformed-arguments");
        assert_eq!(reason(&["a.rs", "--print=native-static-libs"]), "print");
    }

    #[test]
    fn a_source_on_standard_input_is_a_crate_root() {
        let p = check(&["--crate-type=rlib", "--emit=metadata", "-o", "/out/probe", "-"]).unwrap();
        assert!(p.is_stdin());
        assert_eq!(p.crate_name, "rust_out");
        assert_eq!(check(&["-", "--crate-name", "x"]).unwrap().crate_name, "x");
        assert!(!check(&["./-"]).unwrap().is_stdin());
        assert_eq!(reason(&["-", "a.rs"]), "malformed-arguments");
        assert_eq!(reason(&["-", "-o", "x", "--emit=metadata,link"]), "output-file");
    }

    /// rustc refuses such a line; the unit of the last value would have been a hit.
    #[test]
    fn a_flag_that_rustc_wants_once_is_not_taken_twice() {
        for flag in ONCE {
            let given: &[&str] = if *flag == "--test" { &[flag] } else { &[flag, "human"] };
            let once = [&["a.rs", "--emit=metadata"], given].concat();
            assert!(check(&once).is_ok(), "{flag}");
            assert_eq!(reason(&[&once[..], given].concat()), "malformed-arguments", "{flag}");
        }
    }

    #[test]
    fn unknown_flag_without_a_file_is_identity() {
        let p = check(&["a.rs", "--brand-new", "--also=3"]).unwrap();
        assert_eq!(p.other.len(), 2);
    }
}
