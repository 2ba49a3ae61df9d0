//! Native inputs: libraries that are looked for by name, and what a linker read.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_storage::record::{Member, TreeFilter};

use super::{Inputs, Run, Sources, Unknown, absolute, file_member, token, unknown};
use crate::{linker, silent, sources};

/// Directories in which libraries are looked for by name: all libraries in them, so that one that
/// appears earlier is seen; of the system's directories those that were asked for.
pub(super) fn searched(
    run: &Run<'_>,
    sources: &Sources,
    inputs: &mut Inputs,
) -> Result<(), Unknown> {
    let mut dirs: Vec<(String, bool)> = Vec::new();
    for search in &run.parsed.search {
        let path = absolute(run, &search.path)?;
        match search.kind.as_str() {
            "dependency" => {}
            "native" | "framework" => dirs.push((path, false)),
            _ => dirs.push((path, true)),
        }
    }
    if run.link.is_some() {
        for dir in linker::search_dirs(&run.parsed.link_args()) {
            dirs.push((absolute(run, Path::new(&dir))?, false));
        }
        for word in run.parsed.link_args() {
            arguments_files(run, word, inputs)?;
        }
        for dir in silent::LIBRARY_LISTS
            .iter()
            .flat_map(|name| run.env.text(name).unwrap_or("").split(':'))
        {
            let dir = absolute(run, Path::new(dir))?;
            // cargo puts its own directories there; what is taken from those is listed.
            let place = run.roots.tokenise(&dir);
            let known = place.starts_with("<target>") || place.starts_with("<sysroot>");
            if !known && Path::new(&dir) != run.cwd {
                dirs.push((dir, false));
            }
        }
    }
    // A library may be named without prefix and ending, and a linker script may include another.
    let any_name = run.parsed.libs.iter().any(|lib| lib.contains("verbatim"))
        || sources.iter().any(|(_, text)| text.contains("verbatim"))
        || run.parsed.link_args().iter().any(|word| {
            ["-T", "script"].iter().any(|part| word.contains(part))
                || [".x", ".ld", ".lds"].iter().any(|end| word.ends_with(end))
        });
    let filter = if any_name { TreeFilter::Files } else { TreeFilter::Libraries };
    for (dir, crates) in dirs {
        if silent::is_system_dir(&dir) {
            inputs.members.extend(named_libraries(run, sources, &dir));
            continue;
        }
        if crates {
            inputs.members.insert(Member::Tree(token(run, &dir), TreeFilter::Crates));
        }
        inputs.members.insert(Member::Tree(token(run, &dir), filter));
    }
    Ok(())
}

/// The libraries of a system directory that are named by `-l` or `#[link]`.
fn named_libraries(run: &Run<'_>, sources: &Sources, dir: &str) -> Vec<Member> {
    let mut members = Vec::new();
    let given = run.parsed.libs.iter().map(|lib| {
        let name = lib.rsplit_once('=').map_or(lib.as_str(), |(_, name)| name);
        name.split(':').next().unwrap_or(name)
    });
    let linked = sources.iter().flat_map(|(_, text)| sources::link_names(text));
    for name in given.chain(linked).collect::<BTreeSet<&str>>() {
        members.push(file_member(run, &format!("{dir}/{name}")));
        for end in ["a", "so"] {
            members.push(file_member(run, &format!("{dir}/lib{name}.{end}")));
        }
    }
    members
}

/// Files that a linker argument names, e.g. a linker script; present ones only: a word may be
/// anything.
fn arguments_files(run: &Run<'_>, word: &str, inputs: &mut Inputs) -> Result<(), Unknown> {
    for part in word.split([',', '=']) {
        let part = part.strip_prefix("-T").or_else(|| part.strip_prefix('@')).unwrap_or(part);
        if !part.is_empty() && run.cwd.join(part).is_file() {
            inputs.members.insert(file_member(run, &absolute(run, Path::new(part))?));
        }
    }
    Ok(())
}

/// What the linker listed. Objects that the run made itself are gone or are outputs.
pub(super) fn linked(run: &Run<'_>, list: &str, inputs: &mut Inputs) -> Result<(), Unknown> {
    let files = linker::parse_list(list).ok_or_else(|| unknown("no-linker-list", "unreadable"))?;
    let sysroot = run.tool.sysroot.join("lib");
    // It may be named by another way than the linker was told.
    let real = std::fs::canonicalize(run.out_dir).unwrap_or_default();
    let is_out_dir = |dir: Option<&Path>| dir.is_some_and(|dir| dir == run.out_dir || dir == real);
    for file in files {
        let path = run.cwd.join(&file);
        let own = |p: &Path| {
            is_out_dir(p.parent())
                && p.file_name().is_some_and(|n| run.outputs.iter().any(|o| n == o.as_str()))
        };
        if path.starts_with(&sysroot) || own(&path) {
            continue;
        }
        if !path.exists() {
            if is_temporary(&path, is_out_dir(path.parent())) {
                continue;
            }
            return Err(unknown("input-vanished", path.display()));
        }
        inputs.members.insert(file_member(run, &absolute(run, &file)?));
        // Included linker scripts are looked for in the working directory first.
        let script = path.extension().is_some_and(|e| e == "x" || e == "ld" || e == "lds");
        if let (true, Some(name)) = (script, path.file_name()) {
            inputs.members.insert(file_member(run, &absolute(run, Path::new(name))?));
        }
    }
    Ok(())
}

/// Whether a vanished file is one that rustc made for the linker: an object of the crate, or
/// something in its own temporary directory (`rustcXXXXXX`).
fn is_temporary(path: &Path, in_out_dir: bool) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let object = name.ends_with(".o") && in_out_dir;
    let private = |dir: &Path| {
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        name.strip_prefix("rustc").is_some_and(|rest| rest.len() == 6 && !rest.contains('.'))
    };
    object || path.ancestors().skip(1).take(3).any(private)
}
