//! [`Html`]: the one way to write markup. Tags, names of attributes and fixed markup are literals of this program;
//! all else goes through [`escape`], so that no name from elsewhere can be markup. Pure.

use crate::report::{is_invisible, needs_quotes};

/// Attributes: names of this program, values of any kind.
pub(crate) type Attributes<'a> = &'a [(&'static str, &'a str)];

/// Markup in the making.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// The markup.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    /// Markup of this program.
    pub(crate) fn fixed(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// A text.
    pub(crate) fn text(&mut self, text: &str) {
        escape(&mut self.0, text);
    }

    /// Words with names from elsewhere in them.
    pub(crate) fn words(&mut self, words: &str) {
        self.line("bdi", &[], words);
    }

    /// A name from elsewhere: its direction of writing is its own.
    pub(crate) fn name(&mut self, name: &str) {
        match needs_quotes(name) {
            true => self.line("bdi", &[], &format!("\u{201c}{name}\u{201d}")),
            false => self.line("bdi", &[], name),
        }
    }

    /// An element.
    pub(crate) fn element(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        inner: impl FnOnce(&mut Self),
    ) {
        self.start(tag, attributes);
        inner(self);
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
    }

    /// An element that holds a text.
    pub(crate) fn line(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.element(tag, attributes, |html| html.text(text));
    }

    /// An element that holds nothing and has no end.
    pub(crate) fn start(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.0.push('<');
        self.0.push_str(tag);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            escape(&mut self.0, value);
            self.0.push('"');
        }
        self.0.push('>');
    }
}

/// Writes a text so that it is one, in an element as in an attribute: no markup, no control character, nothing that
/// turns the direction of what follows.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if is_invisible(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

/// A name as one segment of a path; none: no address leads to it, since clients take the name for a step.
pub(crate) fn segment(name: &str) -> Option<String> {
    if matches!(name, "" | "." | "..") {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_hold_texts() {
        let mut html = Html::default();
        html.element("p", &[("title", "a\"b'<")], |html| {
            html.fixed("<br>");
            html.name("<script>&\u{202e}\u{1b}[2J\n");
        });
        assert_eq!(
            html.finish(),
            "<p title=\"a&quot;b&#39;&lt;\"><br><bdi>\u{201c}&lt;script&gt;&amp;\u{fffd}\u{fffd}[2J\u{fffd}\u{201d}</bdi></p>"
        );
    }

    #[test]
    fn names_that_are_not_seen_as_they_are_have_quotes() {
        let shown = ["", "a ", "a"].map(|name| {
            let mut html = Html::default();
            html.name(name);
            html.finish()
        });
        let bdi = |text: &str| format!("<bdi>{text}</bdi>");
        assert_eq!(shown, [bdi("\u{201c}\u{201d}"), bdi("\u{201c}a \u{201d}"), bdi("a")]);
    }

    #[test]
    fn names_are_segments() {
        assert_eq!(segment("github-17.1_a~"), Some("github-17.1_a~".into()));
        assert_eq!(segment("a/b?#%é\n"), Some("a%2Fb%3F%23%25%C3%A9%0A".into()));
        assert_eq!(["", ".", ".."].map(segment), [None, None, None]);
        assert_eq!(segment("..."), Some("...".into()));
    }

    proptest! {
        #[test]
        fn no_text_is_markup(text in any::<String>()) {
            let mut html = Html::default();
            html.line("b", &[("title", &text)], &text);
            let out = html.finish();
            prop_assert_eq!(out.matches(['<', '>']).count(), 4);
            prop_assert_eq!(out.matches('"').count(), 2);
            prop_assert!(!out.chars().any(char::is_control));
        }
    }
}
