//! What a tool prints, on its way to people: colour taken out where it was not asked for, virtual
//! places turned into real ones.
//!
//! JSON diagnostics are always made with ANSI colours and stripped for who wants none, so that one
//! stored result serves both. Pure.

/// Removes escape sequences from one line of JSON diagnostics, in which they are written
/// `\u001b[…m`.
pub fn strip_json_ansi(line: &str) -> String {
    const ESCAPE: &str = "\\u001b[";
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(ESCAPE) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        // `\\u001b` is a backslash and text, not an escape sequence.
        let backslashes = before.bytes().rev().take_while(|b| *b == b'\\').count();
        let body = &from[ESCAPE.len()..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        match end.filter(|end| backslashes % 2 == 0 && body[*end..].starts_with('m')) {
            Some(end) => rest = &body[end + 1..],
            None => {
                out.push_str(ESCAPE);
                rest = body;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether a line of standard error is an artifact notice of cargo's protocol.
pub fn is_artifact_notice(line: &str) -> bool {
    line.starts_with("{\"$message_type\":\"artifact\"")
}

/// Whether standard error holds a diagnostic.
pub fn has_diagnostics(stderr: &str) -> bool {
    stderr.lines().any(|line| !line.is_empty() && !is_artifact_notice(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_stripped_and_text_kept() {
        assert_eq!(strip_json_ansi(r"a\u001b[1m\u001b[38;5;11mb\u001b[0mc"), "abc");
        assert_eq!(strip_json_ansi(r"a\\u001b[1mb"), r"a\\u001b[1mb");
        assert_eq!(strip_json_ansi(r"a\u001b[2Kb"), r"a\u001b[2Kb");
        assert_eq!(strip_json_ansi("plain"), "plain");
    }

    #[test]
    fn notices_are_no_diagnostics() {
        let notice = "{\"$message_type\":\"artifact\",\"artifact\":\"/a\",\"emit\":\"link\"}\n";
        assert!(!has_diagnostics(notice));
        assert!(has_diagnostics(&format!("{notice}warning: x\n")));
    }
}
