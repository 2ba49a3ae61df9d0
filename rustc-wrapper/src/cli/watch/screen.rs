//! [`Screen`]: what is shown in place on a terminal, or that there is none.
//!
//! A frame is written at once and ends below itself, where the next one goes up from. The cursor stays visible, lines
//! never wrap, nothing is set that would have to be put back: who interrupts finds the prompt below the last frame.

use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;

use crate::env::Env;
use crate::say;

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Columns.
    pub(super) columns: usize,
    /// Rows.
    pub(super) rows: usize,
}

/// Where a terminal does not say.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    /// Lines of the last frame, and the columns that there were then.
    drawn: Option<(usize, usize)>,
}

impl Screen {
    /// Standard output as it is.
    pub(super) fn find(env: &Env) -> Self {
        let is_plain = env.text("TERM").is_none_or(|term| term == "dumb");
        Self { is_terminal: io::stdout().is_terminal() && !is_plain, drawn: None }
    }

    /// Whether frames can be drawn over each other.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Its size; none where there is no terminal.
    pub(super) fn size(&self) -> Option<Size> {
        let told = || match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => USUAL,
        };
        self.is_terminal.then(told)
    }

    /// Draws a frame in the place of the last one, or below it when it is about something else.
    ///
    /// # Errors
    /// Nobody reads it.
    pub(super) fn draw(&mut self, frame: &[String], size: Size, is_other: bool) -> io::Result<()> {
        say::live(&self.drawing(frame, size, is_other))
    }

    fn drawing(&mut self, frame: &[String], size: Size, is_other: bool) -> String {
        // One column less: a line that fills the last one wraps on some terminals.
        let width = size.columns.saturating_sub(1).max(1);
        let mut out = String::new();
        match self.drawn {
            None | Some((0, _)) => {}
            Some((lines, columns)) if columns == size.columns && !is_other => {
                out.push_str(&format!("\u{1b}[{lines}A\r"));
            }
            // After a change of its width nobody knows how many rows the last frame takes.
            Some(_) => out.push('\n'),
        }
        let shown = &frame[..frame.len().min(size.rows.saturating_sub(1).max(1))];
        for line in shown {
            out.push_str(&format!("{}\u{1b}[K\n", cut(line, width)));
        }
        out.push_str("\u{1b}[J");
        self.drawn = Some((shown.len(), size.columns));
        out
    }
}

/// How many columns a text takes at most.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// How many columns a character takes at most: many beyond the first blocks of Unicode take two.
fn width(c: char) -> usize {
    match c {
        ..'\u{1100}' | '\u{2000}'..'\u{231a}' => 1,
        _ => 2,
    }
}

/// What of a text fits.
pub(super) fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(width('\u{2026}'));
    let fits = |c: &char| {
        let fits = width(*c) <= left;
        left = if fits { left - width(*c) } else { 0 };
        fits
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('\u{2026}');
    out
}

/// A text in so many columns.
pub(super) fn padded(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(columns(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 11, rows: 4 };

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_frame_takes_the_place_of_the_last_one() {
        let mut screen = Screen { is_terminal: true, drawn: None };
        assert_eq!(
            screen.drawing(&lines(&["a", "b"]), SIZE, true),
            "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J"
        );
        let again = "\u{1b}[2A\rc\u{1b}[K\n\u{1b}[J";
        assert_eq!(screen.drawing(&lines(&["c"]), SIZE, false), again);
        // Another run, and another width, begin anew below.
        let below = "\nd\u{1b}[K\n\u{1b}[J";
        assert_eq!(screen.drawing(&lines(&["d"]), SIZE, true), below);
        let wider = Size { columns: 12, ..SIZE };
        assert_eq!(screen.drawing(&lines(&["d"]), wider, false), below);
        assert_eq!(screen.drawing(&[], wider, false), "\u{1b}[1A\r\u{1b}[J");
        assert_eq!(screen.drawing(&[], wider, false), "\u{1b}[J");
    }

    #[test]
    fn a_frame_fits_on_the_screen() {
        let mut screen = Screen { is_terminal: true, drawn: None };
        let drawn = screen.drawing(&lines(&["0123456789", "01234567890", "c", "d"]), SIZE, true);
        assert_eq!(drawn.matches('\n').count(), 3);
        assert!(
            drawn.contains("0123456789\u{1b}") && drawn.contains("012345678\u{2026}"),
            "{drawn:?}"
        );
        let tiny = Size { columns: 1, rows: 1 };
        assert!(screen.drawing(&lines(&["abc"]), tiny, true).contains('\u{2026}'));
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!((columns("a\u{e9}"), columns("\u{65e5}\u{1f980}")), (2, 4));
        assert_eq!(cut("\u{65e5}\u{65e5}\u{65e5}", 6), "\u{65e5}\u{65e5}\u{65e5}");
        assert_eq!(cut("\u{65e5}\u{65e5}\u{65e5}", 5), "\u{65e5}\u{65e5}\u{2026}");
        assert_eq!(cut("\u{65e5}\u{65e5}\u{65e5}", 4), "\u{65e5}\u{2026}");
        assert_eq!(padded("\u{65e5}", 4), "\u{65e5}  ");
        assert_eq!(padded("abc", 2), "abc");
    }
}
