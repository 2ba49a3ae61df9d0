//! [`OutputNames`]: what the outputs of a unit are called, told from its arguments. Pure.
//!
//! Another unit may write into the same directory at the same time, so names are exact wherever
//! rustc's are known; only kinds whose names hold hashes are told by beginning and ending.

use crate::args::Parsed;

/// What the outputs of a unit are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputNames {
    exact: Vec<String>,
    /// Names that have to be there.
    pub required: Vec<String>,
    /// `NAME` of `NAME.*.dwo` and the like.
    stems: Vec<String>,
    /// Endings of files named by stem.
    endings: Vec<&'static str>,
}

/// Endings of debug information beside the linked file.
const SPLIT_DEBUG: &[&str] = &[".dwo", ".dwp"];

impl OutputNames {
    /// The names for some arguments.
    pub fn new(parsed: &Parsed) -> Self {
        if let Some(output) = &parsed.output {
            let name =
                output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let exact = vec![name.clone()];
            // rustc takes endings off before it names further files.
            let mut stems = vec![name];
            while let Some((stem, _)) =
                stems[stems.len() - 1].rsplit_once('.').filter(|(s, _)| !s.is_empty())
            {
                stems.push(stem.to_owned());
            }
            return Self { required: exact.clone(), exact, stems, endings: SPLIT_DEBUG.to_vec() };
        }
        let stem = format!("{}{}", parsed.crate_name, parsed.extra_filename);
        let mut names = Self { stems: vec![stem.clone()], ..Self::default() };
        for kind in &parsed.emit {
            match kind.as_str() {
                "dep-info" => names.required.push(format!("{stem}.d")),
                "metadata" if parsed.test => names.exact.push(format!("lib{stem}.rmeta")),
                "metadata" => names.required.push(format!("lib{stem}.rmeta")),
                "link" => names.link(parsed, &stem),
                "asm" => names.endings.push(".s"),
                "llvm-ir" => names.endings.push(".ll"),
                "llvm-bc" => names.endings.push(".bc"),
                "mir" => names.endings.push(".mir"),
                "obj" => names.endings.push(".o"),
                _ => {}
            }
        }
        names
    }

    fn link(&mut self, parsed: &Parsed, stem: &str) {
        self.endings.extend(SPLIT_DEBUG);
        let libraries = format!("lib{stem}");
        let program: &[&str] = &["", ".exe", ".wasm", ".js", ".html"];
        let shared: &[&str] = &[".so", ".dylib", ".wasm", ".dll"];
        if parsed.test {
            self.exact.extend(program.iter().map(|end| format!("{stem}{end}")));
            return;
        }
        for kind in &parsed.crate_types {
            match kind.as_str() {
                "lib" | "rlib" => self.required.push(format!("{libraries}.rlib")),
                "staticlib" => {
                    self.exact.extend([format!("{libraries}.a"), format!("{stem}.lib")]);
                }
                "bin" => self.exact.extend(program.iter().map(|end| format!("{stem}{end}"))),
                _ => {
                    let names = shared
                        .iter()
                        .flat_map(|end| [format!("{libraries}{end}"), format!("{stem}{end}")]);
                    self.exact.extend(names);
                    self.stems.push(libraries.clone());
                }
            }
        }
    }

    /// Whether a file in the output directory is an output of the unit.
    pub fn owns(&self, file: &str) -> bool {
        let derived = |stem: &String| {
            file.strip_prefix(stem.as_str()).is_some_and(|rest| {
                rest.starts_with('.')
                    && (self.endings.iter().any(|end| rest.ends_with(end))
                        || rest.starts_with(".long-type-"))
            })
        };
        self.required.iter().chain(&self.exact).any(|name| name == file)
            || self.stems.iter().any(derived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn names(line: &[&str]) -> OutputNames {
        OutputNames::new(&parse(&line.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).unwrap())
    }

    fn check(line: &[&str], own: &[&str], other: &[&str]) {
        let names = names(line);
        own.iter().for_each(|name| assert!(names.owns(name), "{name}"));
        other.iter().for_each(|name| assert!(!names.owns(name), "{name}"));
    }

    #[test]
    fn a_library() {
        let line = [
            "a.rs",
            "--crate-name=x",
            "--crate-type=lib",
            "--emit=dep-info,metadata,link",
            "-Cextra-filename=-1",
        ];
        check(
            &line,
            &["libx-1.rlib", "libx-1.rmeta", "x-1.d", "x-1.abc.dwo", "x-1.long-type-12.txt"],
            &["libx-12.rlib", "x.d", "x-1", "libx.rlib", "y-1.d", "x-1.s"],
        );
        assert_eq!(names(&line).required, ["x-1.d", "libx-1.rlib", "libx-1.rmeta"]);
    }

    /// A program and a library of one name, without cargo's suffix, in one directory.
    #[test]
    fn a_program_does_not_own_the_library_beside_it() {
        check(
            &["app.rs", "--emit=link,dep-info"],
            &["app", "app.d", "app.dwp"],
            &["libapp.rlib", "libapp.rmeta", "libapp.so"],
        );
        check(&["app.rs", "--crate-type=lib"], &["libapp.rlib"], &["app", "app.d"]);
        check(
            &["app.rs", "--crate-type=cdylib"],
            &["libapp.so", "libapp.so.dwp"],
            &["app", "libapp.rlib"],
        );
        check(&["app.rs", "--test"], &["app"], &["libapp.rlib"]);
        check(&["app.rs", "-o", "out/prog"], &["prog", "prog.dwp"], &["app", "prog.d"]);
    }

    #[test]
    fn other_kinds() {
        check(
            &["x.rs", "--emit=asm,llvm-ir", "--crate-type=lib"],
            &["x.s", "x.x.1-cgu.0.s", "x.ll"],
            &["x.o", "libx.rlib"],
        );
        check(&["x.rs", "--crate-type=staticlib"], &["libx.a"], &["libx.rlib"]);
    }
}
