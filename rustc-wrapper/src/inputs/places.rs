//! Sources that a crate names by their whole paths. A later compile elsewhere would name them by the same
//! paths: the result holds only where their roots are. Called by [`super::find`].

use std::path::Path;

use kiln_storage::record::Member;

use super::{Inputs, Run, token};
use crate::depinfo::DepInfo;

/// Pins the roots of sources that dep-info names by whole paths, where neither the compiler's arguments
/// nor a variable that dep-info tells of led there: then the path is written in some source.
pub(super) fn named(run: &Run<'_>, info: &DepInfo, inputs: &mut Inputs) {
    // All sources of a crate outside of the workspace are named so.
    if Path::new(&run.parsed.input).is_absolute() {
        return;
    }
    let told = |place: &str| {
        let values = info.variables.iter().filter_map(|name| run.env.get(name)?.to_str());
        values.into_iter().any(|value| value.contains(place))
    };
    for file in info.files.iter().filter(|file| file.starts_with('/')) {
        let token = token(run, file);
        let root = token.0.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let Some((root, place)) = root.and_then(|(root, _)| Some((root, run.roots.place(root)?)))
        else {
            continue;
        };
        if !told(place) && inputs.members.insert(Member::Root(root.to_owned())) {
            inputs.pinned.push(format!("<{root}>"));
        }
    }
}
