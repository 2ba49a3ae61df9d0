//! Figures and names as pages show them. Pure.

use kiln_storage::api::Outcome;
use kiln_storage::record::UnitName;

use super::html::Html;
use crate::history::chunk::cut;
use crate::limits::MAX_TITLE_BYTES;
pub(super) use crate::report::markdown::{count, percent};
pub(super) use crate::report::verdict::time;

/// Days and minutes in UTC.
pub(super) fn when(html: &mut Html, ms: u64) {
    let iso = crate::clock::iso(ms);
    let text = iso.get(..16).unwrap_or(&iso).replace('T', " ");
    html.line("time", &[("datetime", &iso)], &text);
}

/// The class of an outcome, and what it is called.
pub(super) fn outcome(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::HitLocal => ("hit", "hit"),
        Outcome::HitRemote => ("hit", "hit from afar"),
        Outcome::Joined => ("hit", "hit that was waited for"),
        Outcome::Miss => ("miss", "compiled"),
        Outcome::Bypass => ("bypass", "not cached"),
        Outcome::Error => ("error", "compiled after an error"),
    }
}

/// A unit: its crate, with version and kind beside it.
pub(super) fn unit(html: &mut Html, unit: &UnitName) {
    let name = if unit.crate_name.is_empty() { "a crate without a name" } else { &unit.crate_name };
    html.name(name);
    let more = [unit.version.as_str(), unit.kind.as_str()].join(" ");
    if !more.trim().is_empty() {
        html.text(" ");
        html.element("small", &[], |html| html.name(more.trim()));
    }
}

/// What may be wider than the page: it scrolls by itself, with the keyboard, too.
pub(super) fn wide(html: &mut Html, label: &str, inner: impl FnOnce(&mut Html)) {
    let attributes =
        [("class", "wide"), ("tabindex", "0"), ("role", "region"), ("aria-label", label)];
    html.element("div", &attributes, inner);
}

/// The first cells of a table: a label, and whether it is of numbers.
pub(super) fn head(html: &mut Html, columns: &[(&str, bool)]) {
    html.element("thead", &[], |html| {
        html.element("tr", &[], |html| {
            for (label, number) in columns {
                let class: &[(&'static str, &str)] = if *number { &[("class", "n")] } else { &[] };
                html.line("th", &[&[("scope", "col")], class].concat(), label);
            }
        });
    });
}

/// A cell with a number, sorted by `value`.
pub(super) fn number(html: &mut Html, value: impl ToString, text: &str) {
    html.line("td", &[("class", "n"), ("data-v", &value.to_string())], text);
}

/// A share as a number with a bar.
pub(super) fn share(html: &mut Html, share: Option<f64>) {
    let value = share.map_or_else(|| "-1".to_owned(), |share| format!("{share:.1}"));
    html.element("td", &[("class", "n rate"), ("data-v", &value)], |html| {
        html.text(&percent(share));
        if share.is_some() {
            let attributes = [
                ("class", "meter"),
                ("viewBox", "0 0 100 4"),
                ("preserveAspectRatio", "none"),
                ("aria-hidden", "true"),
            ];
            html.element("svg", &attributes, |html| {
                html.element(
                    "rect",
                    &[("class", "rest"), ("width", "100"), ("height", "4")],
                    |_| {},
                );
                html.element(
                    "rect",
                    &[("class", "hit"), ("width", &value), ("height", "4")],
                    |_| {},
                );
            });
        }
    });
}

/// Shares over time, oldest first: a bar each.
pub(super) fn trend(
    html: &mut Html,
    (class, least): (&str, usize),
    label: &str,
    bars: &[(Option<f64>, String)],
) {
    // Few bars are no broader than many.
    let width = (bars.len().max(least) * 10).to_string();
    let view = format!("0 0 {width} 100");
    let attributes = [
        ("class", class),
        ("viewBox", &*view),
        ("preserveAspectRatio", "none"),
        ("role", "img"),
        ("aria-label", label),
    ];
    html.element("svg", &attributes, |html| {
        for (at, (share, title)) in bars.iter().enumerate() {
            let height = share.unwrap_or(0.0).clamp(1.5, 100.0);
            let (x, y) = ((at * 10 + 1).to_string(), format!("{:.1}", 100.0 - height));
            let class = if share.is_some() { "hit" } else { "bypass" };
            let height = format!("{height:.1}");
            let attributes =
                [("class", class), ("x", &*x), ("y", &*y), ("width", "8"), ("height", &*height)];
            html.element("rect", &attributes, |html| html.line("title", &[], title));
        }
    });
}

/// A name where it is said over and over.
pub(super) fn short(name: &str) -> String {
    cut(name, MAX_TITLE_BYTES)
}

/// A word of a command line, as a shell takes it.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        let mut html = Html::default();
        when(&mut html, 951_782_400_123);
        assert_eq!(
            html.finish(),
            "<time datetime=\"2000-02-29T00:00:00.123Z\">2000-02-29 00:00</time>"
        );
    }

    #[test]
    fn words_of_a_command_line_stay_words() {
        assert_eq!(shell_word("serde_json"), "serde_json");
        assert_eq!(shell_word("a b; $(c)'d"), "'a b; $(c)'\\''d'");
        assert_eq!((shell_word(""), shell_word("-x")), ("''".into(), "'-x'".into()));
    }
}
