//! Dep-info: any text is read or refused within bounds, and what rustc writes of names is read as those names.

use std::collections::BTreeSet;

use crate::wrapper::depinfo::{DepInfo, parse};

/// A name as rustc writes it: blanks alone are escaped.
fn file(name: &str) -> String {
    name.replace(' ', "\\ ")
}

/// The same of a variable.
fn variable(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

/// As rustc writes it: the rule of an output, a rule for each file, and the variables.
fn write(info: &DepInfo) -> String {
    let files: Vec<_> = info.files.iter().map(|name| file(name)).collect();
    let mut text = format!("/t/deps/x-1.d: {}\n\n", files.join(" "));
    files.iter().for_each(|name| text.push_str(&format!("{name}:\n")));
    info.variables
        .iter()
        .for_each(|one| text.push_str(&format!("\n# env-dep:{}=v", variable(one))));
    text
}

/// Whether rustc's form has no doubt about a name: it escapes neither line breaks nor a backslash at the end, and a name that
/// begins with `#` reads as a comment.
fn is_clear(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\n', '\r'])
        && !name.ends_with('\\')
        && !name.starts_with('#')
}

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(info) = parse(text) {
        let bytes: usize = info.files.iter().chain(&info.variables).map(String::len).sum();
        assert!(bytes <= text.len(), "more than there is in the text");
    }
    // The same text as names: files, one a line, and variables after a mark.
    let (files, variables) = text.split_once("\0").unwrap_or((text, ""));
    let files: BTreeSet<String> =
        files.split('\n').filter(|n| is_clear(n)).map(Into::into).collect();
    let clear = |name: &&str| !name.is_empty() && !name.contains('=');
    let variables = variables.split('\0').filter(clear).map(Into::into).collect();
    let info = DepInfo { files, variables };
    assert_eq!(parse(&write(&info)), Some(info));
}
