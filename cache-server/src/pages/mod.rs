//! The pages of the server: runs ([`list`]) and the report of one ([`run`]), for a browser. Pure.
//!
//! A page is made here whole: it reads without its script ([`SCRIPT`], which sorts and filters tables), and nothing
//! comes from elsewhere; [`POLICY`] says so to the browser. All markup is written by [`html`]. Called by the routes
//! of pages.

mod heat;
pub(crate) mod html;
pub(crate) mod list;
pub(crate) mod run;
mod shown;
mod timeline;

use html::Html;

/// What browsers let a page do: its own style, script and icon, nothing else.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for a page that is a file: its style is in it.
pub(crate) const FILE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// How pages look.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Sorting and filtering of tables.
pub(crate) const SCRIPT: &str = include_str!("script.js");

/// What a browser shows beside the title.
pub(crate) const ICON: &str = include_str!("icon.svg");

/// Where a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// From the server, with links to its other pages.
    Served,
    /// As a file of its own.
    File,
}

/// A page around its content.
pub(crate) fn page(form: Form, title: &str, content: impl FnOnce(&mut Html)) -> String {
    let mut html = Html::default();
    html.fixed("<!doctype html>\n");
    html.element("html", &[("lang", "en")], |html| {
        html.element("head", &[], |html| head(html, form, title));
        html.element("body", &[], |html| {
            html.element("header", &[], |html| match form {
                Form::Served => html.element("a", &[("href", "/")], |html| html.text("Kiln")),
                Form::File => html.line("span", &[], "Kiln"),
            });
            html.element("main", &[], content);
        });
    });
    html.finish()
}

fn head(html: &mut Html, form: Form, title: &str) {
    html.fixed("<meta charset=\"utf-8\">");
    html.fixed("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.fixed("<meta name=\"color-scheme\" content=\"light dark\">");
    html.line("title", &[], title);
    match form {
        Form::Served => html.fixed(
            "<link rel=\"icon\" href=\"/pages/icon.svg\"><link rel=\"stylesheet\" href=\"/pages/style.css\">\
             <script src=\"/pages/script.js\" defer></script>",
        ),
        Form::File => {
            html.start("meta", &[("http-equiv", "Content-Security-Policy"), ("content", FILE_POLICY)]);
            html.element("style", &[], |html| html.fixed(STYLE));
        }
    }
}

/// The page for what is not there.
pub(crate) fn not_found(run: &str) -> String {
    page(Form::Served, "No such run", |html| {
        html.line("h1", &[], "No such run");
        html.element("p", &[], |html| {
            html.text("Nothing is known of a run ");
            html.element("code", &[], |html| html.name(run));
            html.text(". It is too old, or of somebody else. ");
            html.line("a", &[("href", "/")], "All runs");
        });
    })
}

#[cfg(test)]
mod tests;
