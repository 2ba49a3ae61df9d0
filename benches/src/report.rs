//! All that the package prints: tables of measured ratios, notes, and what a replayed compiler said.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::Write as _;

use crate::statistics::Series;

/// What the values of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// So many times as much as something else of the same run.
    Ratio,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// MiB.
    Mebibytes,
    /// MiB in a second.
    MebibytesPerSecond,
    /// Something in a second.
    PerSecond,
    /// A number of things.
    Count,
}

impl Unit {
    fn sign(self) -> &'static str {
        match self {
            Self::Ratio => "×",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Mebibytes => "MiB",
            Self::MebibytesPerSecond => "MiB/s",
            Self::PerSecond => "/s",
            Self::Count => "",
        }
    }
}

/// Rows of figures under a title.
#[derive(Debug, Clone, Default)]
pub struct Table {
    title: String,
    rows: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a row: median, least and greatest of a series.
    pub fn row(&mut self, what: &str, unit: Unit, series: &Series) {
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let sign = unit.sign();
        let cells = [series.median(), series.min(), series.max()].map(figure);
        let [median, min, max] = &cells;
        let median = format!("{median} {sign}");
        let median = median.trim_end();
        self.rows.push(format!(
            "| {what:<54} | {median:>12} | {min:>8} | {max:>8} | {:>4} |",
            series.len()
        ));
    }

    /// Adds a row of one value.
    pub fn value(&mut self, what: &str, unit: Unit, value: f64) {
        self.row(what, unit, &Series::new([value]));
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The table as text, which is Markdown too.
    fn text(&self) -> String {
        let mut text = format!("\n### {}\n\n", self.title);
        if !self.rows.is_empty() {
            text.push_str(&format!(
                "| {:<54} | {:>12} | {:>8} | {:>8} | {:>4} |\n",
                "", "median", "min", "max", "n"
            ));
            text.push_str(&format!(
                "| {:-<54} | {:->11}: | {:->7}: | {:->7}: | {:->3}: |\n",
                "", "", "", "", ""
            ));
        }
        for row in &self.rows {
            text.push_str(row);
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    /// Prints the table.
    pub fn print(&self) {
        print!("{}", self.text());
        // Whoever reads may have gone.
        let _ = std::io::stdout().flush();
    }
}

/// A number with three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size > 0.0 => format!("{value:.4}"),
        _ => "0".to_owned(),
    }
}

/// Says what is being done.
pub fn progress(text: &str) {
    eprintln!("{text}");
}

/// Says what went wrong.
pub fn complaint(text: &str) {
    eprintln!("error: {text}");
}

/// Writes what a compiler printed to the same places.
pub fn pass_on(stdout: &[u8], stderr: &[u8]) {
    // Whoever reads may have gone.
    let _ = std::io::stdout().write_all(stdout);
    let _ = std::io::stderr().write_all(stderr);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [1234.5, 99.96, 1.234, 0.12, 0.0312, 0.0].map(number);
        assert_eq!(shown, ["1234", "100.0", "1.23", "0.12", "0.0312", "0"]);
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Warm");
        table.row("kiln / copy", Unit::Ratio, &Series::new([1.5, 1.0, 2.0]));
        table.note("A note.");
        let lines: Vec<String> = table.text().lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "### Warm");
        assert!(lines[5].contains("1.50 ×") && lines[5].contains("2.00"), "{}", lines[5]);
        assert!(
            lines.iter().skip(3).take(3).all(|l| l.chars().count() == lines[3].chars().count())
        );
        assert_eq!(lines[7], "A note.");
    }
}
