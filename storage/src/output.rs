//! [`Output`]: one thing that a unit left in its output directory, and which names it may have.
//!
//! A compile leaves files; a build script leaves a tree of files, directories and links. A name is a
//! path of plain components, and each directory on the way is an output of its own: nothing can be
//! written elsewhere, through a link either.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits;

/// One output of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Output {
    /// Its path in the output directory: plain components with `/` between them.
    pub name: String,
    /// Whether it gets the executable bits that the umask allows.
    pub executable: bool,
    /// Its permissions, where they are not what the umask leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// What it is.
    pub content: Content,
}

/// What an output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A file with the bytes of a blob.
    Blob {
        /// Its digest.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A file with text in which roots are tokens (dep-info), written out with the local places.
    Text(String),
    /// A directory.
    Directory,
    /// A symbolic link and where it leads, with roots as tokens.
    Link(String),
}

/// Whether a name is one normal path component within its bound: no separator, not `.` or `..`.
fn is_component(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::MAX_OUTPUT_NAME_BYTES
        && name != "."
        && name != ".."
        && !name.bytes().any(|c| c == b'/' || c == b'\\' || c == 0)
}

/// Whether a name is a path of normal components within its bounds.
pub fn is_output_name(name: &str) -> bool {
    name.len() <= limits::MAX_OUTPUT_PATH_BYTES && name.split('/').all(is_component)
}

/// The first output whose name is no name, is there twice, or is in something that is no directory
/// among the outputs.
pub(crate) fn misplaced(outputs: &[Output]) -> Option<&str> {
    let mut known: BTreeMap<&str, &Content> = BTreeMap::new();
    for output in outputs {
        let name = output.name.as_str();
        if !is_output_name(name) || known.insert(name, &output.content).is_some() {
            return Some(name);
        }
    }
    let lies_well = |name: &str| match name.rsplit_once('/') {
        None => true,
        Some((above, _)) => known.get(above) == Some(&&Content::Directory),
    };
    outputs.iter().map(|output| output.name.as_str()).find(|name| !lies_well(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, content: Content) -> Output {
        Output { name: name.into(), executable: false, mode: None, content }
    }

    fn text(name: &str) -> Output {
        output(name, Content::Text(String::new()))
    }

    #[test]
    fn names_that_leave_the_output_directory_are_refused() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(2100) + "x";
        for name in
            ["", ".", "..", "/a", "a\\b", "a\0", "a/", "a//b", "a/../b", "a/./b", &long, &deep]
        {
            assert_eq!(misplaced(&[text(name)]), Some(name));
        }
        assert_eq!(misplaced(&[text("a"), text("b"), text("a")]), Some("a"));
    }

    #[test]
    fn what_lies_below_something_lies_in_a_directory() {
        let dir = |name| output(name, Content::Directory);
        assert_eq!(misplaced(&[text("a/b/c"), dir("a/b"), dir("a"), text("d")]), None);
        assert_eq!(misplaced(&[text("a/b")]), Some("a/b"));
        assert_eq!(misplaced(&[text("a"), text("a/b")]), Some("a/b"));
        let link = output("a", Content::Link("/etc".into()));
        assert_eq!(misplaced(&[link, text("a/passwd")]), Some("a/passwd"));
    }
}
