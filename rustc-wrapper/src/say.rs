//! Everything that Kiln itself says: to people on standard error, results on standard output. The
//! only module that prints.
//!
//! A message is a line of fact, then hints. A healthy build prints nothing.

#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::Write;

/// A failure: a line of fact and hints.
pub fn error(fact: &str, hints: &[&str]) {
    eprintln!("kiln: error: {fact}");
    for hint in hints {
        eprintln!("  hint: {hint}");
    }
}

/// Something that people should know once.
pub fn warning(fact: &str, hints: &[&str]) {
    eprintln!("kiln: warning: {fact}");
    for hint in hints {
        eprintln!("  hint: {hint}");
    }
}

/// Progress of long work.
pub fn progress(text: &str) {
    eprintln!("{text}");
}

/// A result.
pub fn result(text: &str) {
    // Whoever reads may have gone.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Bytes of a replayed standard error.
pub fn replay_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Bytes of a replayed standard output.
pub fn replay_stdout(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
