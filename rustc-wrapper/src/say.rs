//! Everything that Kiln itself says: to people on standard error, results on standard output. The
//! only module that prints.
//!
//! A message is a line of fact, then hints. A healthy build prints nothing. What is said may hold
//! names that others chose: control characters never reach a terminal as they are.

#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::Write;

pub(crate) use kiln_server::report::is_control;

/// Whether a service of CI that reads along would take what begins here for a command: `::word` at the beginning of
/// a line, `##[word]` and `##word[` anywhere.
fn is_command(text: &str, begins_line: bool) -> bool {
    if begins_line && text.starts_with("::") {
        return true;
    }
    let of = text.strip_prefix("##");
    of.is_some_and(|of| of.trim_start_matches(|c: char| c.is_ascii_alphabetic()).starts_with('['))
}

/// Text in which control characters, and what would be a command to a service of CI, are written as JSON writes
/// them, so that JSON stays JSON.
fn escaped(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins_line = true;
    for (at, c) in text.char_indices() {
        if is_control(c) && !keep(c) || is_command(&text[at..], begins_line) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
        begins_line = c == '\n' || begins_line && c.is_whitespace();
    }
    out
}

/// Text that stays on its line and shows as it is.
pub fn inline(text: &str) -> String {
    escaped(text, |_| false)
}

/// Text of several lines that shows as it is.
fn lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// A failure: a line of fact and hints.
pub fn error(fact: &str, hints: &[&str]) {
    eprintln!("kiln: error: {}", lines(fact));
    for hint in hints {
        eprintln!("  hint: {}", lines(hint));
    }
}

/// Something that people should know once.
pub fn warning(fact: &str, hints: &[&str]) {
    eprintln!("kiln: warning: {}", lines(fact));
    for hint in hints {
        eprintln!("  hint: {}", lines(hint));
    }
}

/// Progress of long work.
pub fn progress(text: &str) {
    eprintln!("{}", lines(text));
}

/// A result.
pub fn result(text: &str) {
    exact(&lines(text));
}

/// A result that a program reads to the byte.
pub fn exact(text: &str) {
    // Whoever reads may have gone.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// A part of what is shown while it changes.
///
/// # Errors
/// Nobody reads it any more.
pub fn live(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Bytes of a replayed standard error.
pub fn replay_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Bytes of a replayed standard output.
pub fn replay_stdout(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_left_alone() {
        assert_eq!(inline("a\u{1b}[31m\nb\u{9b}c\u{202e}"), "a\\u001b[31m\\u000ab\\u009bc\\u202e");
        assert_eq!(lines("a\tb\r\nc"), "a\tb\\u000d\nc");
        let json = serde_json::json!({ "name": "a\u{9b}\u{7f}b" });
        let shown = lines(&serde_json::to_string_pretty(&json).unwrap_or_default());
        assert!(!shown.contains('\u{9b}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
    }

    #[test]
    fn names_are_no_commands_of_ci() {
        assert_eq!(
            lines("::add-mask::7\n \t::error::x"),
            "\\u003a:add-mask::7\n \t\\u003a:error::x"
        );
        assert_eq!(lines("a ##[add-mask]7, ##vso[x]"), "a \\u0023#[add-mask]7, \\u0023#vso[x]");
        for well in ["## Kiln: 3 %\n| a::b |", "r##\"x\"##", "std::fmt", "#[derive]", "a: ::b"] {
            assert_eq!(lines(well), well);
        }
        let json = serde_json::json!({ "name": "##[group]x" });
        let shown = lines(&json.to_string());
        assert!(!shown.contains("##["));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
    }
}
