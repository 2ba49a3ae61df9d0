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

/// Macros that put a file into the source.
const INCLUDES: &[&str] = &["include", "include_str", "include_bytes"];
/// Macros that read a variable.
const READERS: &[&str] = &["env", "option_env"];
/// Macros around an include that evaluate their arguments and nothing else. The definition of a
/// macro (serde's `crate_root`) only moves the include to where the macro is called.
const HARMLESS: &[&str] = &[
    "assert",
    "assert_eq",
    "assert_ne",
    "concat",
    "dbg",
    "eprint",
    "eprintln",
    "format",
    "format_args",
    "macro_rules",
    "matches",
    "panic",
    "print",
    "println",
    "vec",
    "write",
    "writeln",
];

/// How one source uses a variable.
///
/// A doubt, which counts as a use elsewhere, is also: a reader whose name is not a plain literal,
/// the name as a literal in any other macro, and an include macro that is defined or imported.
pub fn scan(name: &str, source: &str) -> Use {
    let mut tokens = Tokens { bytes: source.as_bytes(), at: 0 };
    // Open brackets, with the macro called by each.
    let mut calls: Vec<Option<&str>> = Vec::new();
    let (mut word, mut bang, mut wants_literal) = ("", false, false);
    let mut found = Use::None;
    while let Some(token) = tokens.next() {
        let defines = word == "macro_rules" && bang;
        if wants_literal && !matches!(token, Token::Literal(_)) {
            return Use::Elsewhere;
        }
        let named = INCLUDES.contains(&word) || word == "option_env";
        if named && !bang && !matches!(token, Token::Bang) {
            return Use::Elsewhere;
        }
        match token {
            Token::Word(defined) if defines => {
                if INCLUDES.contains(&defined) || READERS.contains(&defined) {
                    return Use::Elsewhere;
                }
            }
            Token::Word(next) => (word, bang) = (next, false),
            Token::Bang => bang = !word.is_empty(),
            Token::Open => {
                let call = Some(word).filter(|_| bang);
                wants_literal = call.is_some_and(|call| READERS.contains(&call));
                calls.push(call);
                (word, bang) = ("", false);
            }
            Token::Close => {
                calls.pop();
                (word, bang) = ("", false);
            }
            Token::Literal(literal) => {
                if wants_literal && literal.contains('\\') {
                    return Use::Elsewhere;
                }
                if literal == name && calls.iter().any(Option::is_some) {
                    if !(wants_literal && leads_to_a_file(&calls)) {
                        return Use::Elsewhere;
                    }
                    found = Use::IncludeOnly;
                }
                (wants_literal, word, bang) = (false, "", false);
            }
            Token::Other => (word, bang) = ("", false),
        }
    }
    found
}

/// Whether a reader called within these brackets only finds a file: there is an include around it,
/// and nothing else that could do something with the value.
fn leads_to_a_file(calls: &[Option<&str>]) -> bool {
    let around = || calls[..calls.len() - 1].iter().flatten();
    around().any(|call| INCLUDES.contains(call))
        && around().all(|call| INCLUDES.contains(call) || HARMLESS.contains(call))
}

/// A token, as far as it matters here.
enum Token<'a> {
    Word(&'a str),
    Bang,
    Open,
    Close,
    /// A string as it is written between its quotes.
    Literal(&'a str),
    Other,
}

struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            match byte {
                b'/' if self.rest().starts_with(b"//") => self.skip_line(),
                b'/' if self.rest().starts_with(b"/*") => self.skip_comment(),
                b'"' => return Some(Token::Literal(self.string())),
                b'r' if self.raw_string_hashes().is_some() => {
                    let hashes = self.raw_string_hashes().unwrap_or(0);
                    self.at += 1 + hashes;
                    return Some(Token::Literal(self.raw_string(hashes)));
                }
                b'\'' => {
                    self.skip_character();
                    return Some(Token::Other);
                }
                _ if is_word(byte) => {
                    let rest = self.rest();
                    let len = rest.iter().take_while(|b| is_word(**b)).count();
                    self.at += len;
                    return Some(Token::Word(std::str::from_utf8(&rest[..len]).unwrap_or("?")));
                }
                _ => {
                    self.at += 1;
                    match byte {
                        b'(' | b'[' | b'{' => return Some(Token::Open),
                        b')' | b']' | b'}' => return Some(Token::Close),
                        b'!' => return Some(Token::Bang),
                        _ if byte.is_ascii_whitespace() => {}
                        _ => return Some(Token::Other),
                    }
                }
            }
        }
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

    fn string(&mut self) -> &'a str {
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

    // As a literal in a macro it would be a doubt, and hold this crate at its place.
    const NAME: &str = "OUT_DIR";

    fn check(source: &str, want: Use) {
        assert_eq!(scan(NAME, source), want, "{source}");
    }

    #[test]
    fn uses() {
        check(r#"include!(concat!(env!("OUT_DIR"), "/gen.rs"));"#, Use::IncludeOnly);
        check(
            r#"const B: &[u8] = include_bytes!(concat!(env!( "OUT_DIR" ), "/b"));"#,
            Use::IncludeOnly,
        );
        check(r#"const L: usize = env!("OUT_DIR").len();"#, Use::Elsewhere);
        check(
            r#"include!(concat!(env!("OUT_DIR"), "/g")); const L: &str = env!("OUT_DIR");"#,
            Use::Elsewhere,
        );
        check(r#"// env!("OUT_DIR")"#, Use::None);
        check(r#"/* /* */ env!("OUT_DIR") */ fn f() {}"#, Use::None);
        check(r##"const S: &str = r#"env!("OUT_DIR")"#;"##, Use::None);
        check(r#"fn f() { std::env::var("OUT_DIR"); }"#, Use::None);
        check(r#"other!("OUT_DIR")"#, Use::Elsewhere);
        check(r#"macro_rules! m { () => { env!("OUT_DIR") } }"#, Use::Elsewhere);
        check(
            r#"macro_rules! m { () => { include!(concat!(env!("OUT_DIR"), "/x")); } }"#,
            Use::IncludeOnly,
        );
        check(
            r#"macro_rules! m { () => { f!(include!(concat!(env!("OUT_DIR"), "/x"))); } }"#,
            Use::Elsewhere,
        );
        check(
            r#"include_str!(concat!(option_env!("OUT_DIR"), 'a', '\'', "/x"))"#,
            Use::IncludeOnly,
        );
        check(
            r#"fn f<'a>(x: &'a str) { include!(concat!(env!("OUT_DIR"), "/x")) }"#,
            Use::IncludeOnly,
        );
        check(r#"const L: usize = env!(concat!("OUT", "_DIR")).len();"#, Use::Elsewhere);
        check(r#"const L: usize = env!("OUT_\u{44}IR").len();"#, Use::Elsewhere);
        check(r#"macro_rules! include_str { ($e:expr) => { $e.len() } }"#, Use::Elsewhere);
        check(r#"use other::include; include!(concat!(env!("OUT_DIR"), "/x"));"#, Use::Elsewhere);
        check(r#"w!(include_str!(env!("OUT_DIR")))"#, Use::Elsewhere);
        check(r#"const V: &str = env!("CARGO_PKG_VERSION");"#, Use::None);
        check(r#"println!("{}", include_str!(concat!(env!("OUT_DIR"), "/x")))"#, Use::IncludeOnly);
    }

    #[test]
    fn unknown_uses_are_a_doubt() {
        assert!(!include_only(NAME, ["fn f() {}"]));
        assert!(include_only(NAME, ["fn f() {}", r#"include!(concat!(env!("OUT_DIR"), "/x"));"#]));
    }

    #[test]
    fn garbage_does_not_panic() {
        for text in [
            "\"",
            "'",
            "'\\",
            "r#\"OUT_DIR",
            "OUT_DIR/*",
            "OUT_DIR'é",
            "r",
            "OUT_DIR\\",
            "}OUT_DIR)\"",
        ] {
            scan(NAME, text);
        }
    }
}
