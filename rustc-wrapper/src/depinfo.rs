//! rustc's dep-info files: which sources and variables a compile read.
//!
//! The format is a makefile with blanks escaped by a backslash, and comments
//! `# env-dep:NAME[=VALUE]` with `\\`, `\n`, `\r` escaped. Pure.

use std::collections::BTreeSet;

/// What a dep-info file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DepInfo {
    /// Files that were read, as rustc names them (relative to its working directory).
    pub files: BTreeSet<String>,
    /// Variables that were read with `env!` or `option_env!`.
    pub variables: BTreeSet<String>,
}

/// Reads a dep-info text. None when it is not one.
pub fn parse(text: &str) -> Option<DepInfo> {
    let mut info = DepInfo::default();
    let mut rules = 0;
    for line in text.lines() {
        if let Some(variable) = line.strip_prefix("# env-dep:") {
            let name = variable.split_once('=').map_or(variable, |(name, _)| name);
            info.variables.insert(unescape(name));
        } else if line.starts_with('#') || line.is_empty() {
            // `# checksum:` lines and the like.
        } else {
            let (_, files) = split_rule(line)?;
            rules += 1;
            info.files.extend(words(files));
        }
    }
    (rules > 0).then_some(info)
}

/// Target and prerequisites: the first colon that ends a word.
fn split_rule(line: &str) -> Option<(&str, &str)> {
    if let Some(at) = line.find(": ") {
        return Some((&line[..at], &line[at + 2..]));
    }
    line.strip_suffix(':').map(|target| (target, ""))
}

/// Words separated by blanks, where `\ ` is a blank inside of a word.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut continues = false;
    for part in text.split(' ') {
        if !continues && part.is_empty() {
            continue;
        }
        let (body, more) = match part.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (part, false),
        };
        match words.last_mut().filter(|_| continues) {
            Some(last) => last.push_str(body),
            None => words.push(body.to_owned()),
        }
        continues = more;
        if let (true, Some(last)) = (more, words.last_mut()) {
            last.push(' ');
        }
    }
    words
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables() {
        let info = parse(
            "/t/deps/a-1.d: src/lib.rs /x/my\\ dir/a.rs\n\n/t/deps/liba.rmeta: src/lib.rs\n\n\
             src/lib.rs:\n/x/my\\ dir/a.rs:\n\n# env-dep:UNSET\n# env-dep:SET=a\\\\b\n",
        )
        .unwrap();
        assert_eq!(info.files, ["/x/my dir/a.rs", "src/lib.rs"].map(str::to_owned).into());
        assert_eq!(info.variables, ["SET", "UNSET"].map(str::to_owned).into());
    }

    #[test]
    fn backslashes_before_blanks() {
        let info = parse("t.d: a\\\\ b\\c/x.rs two\\ \\ blanks\n").unwrap();
        assert_eq!(info.files, ["a\\ b\\c/x.rs", "two  blanks"].map(str::to_owned).into());
    }

    #[test]
    fn something_else_is_refused() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("garbage"), None);
    }
}
