//! Whether a variable is used only to find files: every use of it in the sources stands inside of
//! `include!`, `include_str!` or `include_bytes!`.
//!
//! Then its value may differ in another checkout, since the files it leads to are inputs
//! themselves. A scan of tokens: comments, strings and nested macro calls are told apart. When in
//! doubt the answer is no. Pure.

/// What one source says about a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The name does not occur in a macro call.
    None,
    /// Every occurrence is inside of an `include…!`.
    IncludeOnly,
    /// Some occurrence is elsewhere.
    Elsewhere,
}

/// Whether in all sources together the variable is used, and only to include files.
pub fn include_only<'a>(name: &str, sources: impl IntoIterator<Item = &'a str>) -> bool {
    let mut used = false;
    for source in sources {
        match scan(name, source) {
            Use::None => {}
            Use::IncludeOnly => used = true,
            Use::Elsewhere => return false,
        }
    }
    used
}

/// How one source uses a variable.
pub fn scan(name: &str, source: &str) -> Use {
    if !source.contains(name) {
        return Use::None;
    }
    let mut scanner = Scanner { bytes: source.as_bytes(), at: 0, calls: Vec::new(), word: None };
    let mut found = Use::None;
    while let Some(literal) = scanner.next_literal() {
        if literal != name {
            continue;
        }
        match scanner.position() {
            Position::Code => {}
            Position::Include => found = Use::IncludeOnly,
            Position::Macro => return Use::Elsewhere,
        }
    }
    found
}

enum Position {
    Code,
    Include,
    Macro,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Open brackets: the macro called with it, if any.
    calls: Vec<Option<&'a [u8]>>,
    /// The last word, and whether `!` follows it.
    word: Option<(&'a [u8], bool)>,
}

impl<'a> Scanner<'a> {
    fn position(&self) -> Position {
        let mut macros = self.calls.iter().rev().flatten();
        match macros.next() {
            None => Position::Code,
            Some(&(b"env" | b"option_env")) => {
                let include = |m: &&[u8]| matches!(*m, b"include" | b"include_str" | b"include_bytes");
                match macros.any(include) {
                    true => Position::Include,
                    false => Position::Macro,
                }
            }
            Some(_) => Position::Macro,
        }
    }

    /// The next string literal's content; brackets and macro names are tracked on the way.
    fn next_literal(&mut self) -> Option<&'a str> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'/' if self.rest().starts_with(b"//") => self.skip_line(),
                b'/' if self.rest().starts_with(b"/*") => self.skip_comment(),
                b'"' => {
                    self.word = None;
                    return Some(self.string(0));
                }
                b'r' if self.raw_string_hashes().is_some() => {
                    let hashes = self.raw_string_hashes().unwrap_or(0);
                    self.at += 1 + hashes;
                    self.word = None;
                    return Some(self.raw_string(hashes));
                }
                b'\'' => self.skip_character(),
                b'(' | b'[' | b'{' => {
                    let call = self.word.take().filter(|(_, bang)| *bang).map(|(word, _)| word);
                    self.calls.push(call);
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    self.calls.pop();
                    self.word = None;
                    self.at += 1;
                }
                b'!' => {
                    self.word = self.word.map(|(word, _)| (word, true));
                    self.at += 1;
                }
                _ if is_word(byte) => {
                    let rest = self.rest();
                    let len = rest.iter().take_while(|b| is_word(**b)).count();
                    // `macro_rules! name {`: the call is still that of macro_rules.
                    if !matches!(self.word, Some((b"macro_rules", true))) {
                        self.word = Some((&rest[..len], false));
                    }
                    self.at += len;
                }
                _ => {
                    if !byte.is_ascii_whitespace() {
                        self.word = None;
                    }
                    self.at += 1;
                }
            }
        }
        None
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn skip_line(&mut self) {
        self.at += memchr::memchr(b'\n', self.rest()).unwrap_or(self.rest().len());
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            if self.rest().starts_with(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// A character literal or a lifetime.
    fn skip_character(&mut self) {
        let rest = self.rest();
        self.at += match rest.get(1) {
            Some(b'\\') => memchr::memchr(b'\'', &rest[3.min(rest.len())..]).map_or(2, |n| n + 4),
            Some(_) => {
                // One character, then a quote; otherwise a lifetime.
                let width = std::str::from_utf8(&rest[1..rest.len().min(5)])
                    .ok()
                    .or_else(|| std::str::from_utf8(&rest[1..rest.len().min(2)]).ok())
                    .and_then(|t| t.chars().next())
                    .map_or(1, char::len_utf8);
                if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
            }
            None => 1,
        };
    }

    fn raw_string_hashes(&self) -> Option<usize> {
        // Not the `r` at the end of a word.
        if self.at > 0 && is_word(self.bytes[self.at - 1]) && self.bytes[self.at - 1] != b'b' {
            return None;
        }
        let hashes = self.rest()[1..].iter().take_while(|b| **b == b'#').count();
        (self.rest().get(1 + hashes) == Some(&b'"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) -> &'a str {
        let start = self.at + 1;
        let mut end = vec![b'#'; hashes + 1];
        end[0] = b'"';
        let len = memchr::memmem::find(&self.bytes[start.min(self.bytes.len())..], &end);
        let len = len.unwrap_or(self.bytes.len().saturating_sub(start));
        self.at = (start + len + 1 + hashes).min(self.bytes.len());
        std::str::from_utf8(&self.bytes[start..start + len]).unwrap_or("")
    }

    fn string(&mut self, _hashes: usize) -> &'a str {
        let start = self.at + 1;
        let mut at = start;
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'\\' => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        }
        let end = at.min(self.bytes.len());
        self.at = (end + 1).min(self.bytes.len());
        std::str::from_utf8(&self.bytes[start.min(end)..end]).unwrap_or("")
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, want: Use) {
        assert_eq!(scan("OUT_DIR", source), want, "{source}");
    }

    #[test]
    fn uses() {
        check(r#"include!(concat!(env!("OUT_DIR"), "/gen.rs"));"#, Use::IncludeOnly);
        check(r#"const B: &[u8] = include_bytes!(concat!(env!( "OUT_DIR" ), "/b"));"#, Use::IncludeOnly);
        check(r#"const L: usize = env!("OUT_DIR").len();"#, Use::Elsewhere);
        check(r#"include!(concat!(env!("OUT_DIR"), "/g")); const L: &str = env!("OUT_DIR");"#, Use::Elsewhere);
        check(r#"// env!("OUT_DIR")"#, Use::None);
        check(r#"/* /* */ env!("OUT_DIR") */ fn f() {}"#, Use::None);
        check(r##"const S: &str = r#"env!("OUT_DIR")"#;"##, Use::None);
        check(r#"fn f() { std::env::var("OUT_DIR"); }"#, Use::None);
        check(r#"other!("OUT_DIR")"#, Use::Elsewhere);
        check(r#"macro_rules! m { () => { env!("OUT_DIR") } }"#, Use::Elsewhere);
        check(r#"include_str!(concat!(option_env!("OUT_DIR"), 'a', '\'', "/x"))"#, Use::IncludeOnly);
        check(r#"fn f<'a>(x: &'a str) { include!(concat!(env!("OUT_DIR"), "/x")) }"#, Use::IncludeOnly);
        check(r#"println!("{}", include_str!(concat!(env!("OUT_DIR"), "/x")))"#, Use::IncludeOnly);
    }

    #[test]
    fn unknown_uses_are_a_doubt() {
        assert!(!include_only("OUT_DIR", ["fn f() {}"]));
        assert!(include_only("OUT_DIR", ["fn f() {}", r#"include!(concat!(env!("OUT_DIR"), "/x"));"#]));
    }

    #[test]
    fn garbage_does_not_panic() {
        for text in ["\"", "'", "'\\", "r#\"OUT_DIR", "OUT_DIR/*", "OUT_DIR'é", "r", "OUT_DIR\\", "}OUT_DIR)\""] {
            scan("OUT_DIR", text);
        }
    }
}
